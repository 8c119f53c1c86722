//! What happens when a peer takes mapped memory away.
//!
//! Whoever shares a file with us may truncate it; touching the missing pages then raises
//! SIGBUS, which would kill the whole process and every other guest's port with it. The handler
//! here looks the address up among the registered mappings, replaces a small part of that one by
//! private zeroes, and marks it as poisoned; the access is then repeated and goes on. A SIGBUS
//! at any other address takes its former course.
//!
//! A part, since replacing takes as long as there are pages in the way, and the pages of the whole
//! file are freed with the last mapping of it: a thread that serves other guests has no time for
//! that. And a part fits where the process may not have much more memory of its own. So whoever
//! goes on with poisoned memory has zeroes where it was missing, and should soon stop.
//!
//! The registry is read in a signal handler, so it has no lock: slots in a list of chunks that
//! only ever grows, each slot guarded by a sequence number.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};

use libc::{c_int, c_void, siginfo_t};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::huge::HUGE_PAGE;

const SLOTS_PER_CHUNK: usize = 128;

/// Lengths of a part that is replaced, in bytes: the first that the kernel can cut out, which has to
/// be whole huge pages where there are any.
const PARTS: [usize; 2] = [64 << 10, HUGE_PAGE];

/// Parts of all mappings before whole ones are replaced: each is two mappings more, of 65,530 that a
/// process has as a rule (`vm.max_map_count`).
const MAX_PARTS: usize = 16_384;

/// Parts that have been replaced in mappings that there still are.
static REPLACED: AtomicUsize = AtomicUsize::new(0);

/// How often any mapping has been found to be poisoned. Nobody writes to what lies beside it.
static POISONINGS: Alone = Alone(AtomicUsize::new(0));

#[repr(align(128))]
struct Alone(AtomicUsize);

/// Changes whenever a mapping of this process is poisoned, so that those who use some look at
/// theirs only then.
#[must_use]
#[inline]
pub fn poisonings() -> usize {
    POISONINGS.0.load(Acquire)
}

/// One mapping, or none.
#[derive(Debug)]
struct Slot {
    taken: AtomicBool,
    poisoned: AtomicBool,
    /// Odd while the range is being changed; never twice the same.
    sequence: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    /// Parts that have been replaced.
    parts: AtomicUsize,
}

struct Chunk {
    slots: [Slot; SLOTS_PER_CHUNK],
    next: AtomicPtr<Chunk>,
}

static FIRST: Chunk = Chunk::new();
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

impl Slot {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            sequence: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            parts: AtomicUsize::new(0),
        }
    }

    /// For whoever has `taken` the slot.
    fn set(&self, start: usize, len: usize) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        self.start.store(start, Relaxed);
        self.len.store(len, Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    /// The range, if the slot was not being changed meanwhile. A changing slot is not the one a
    /// faulting thread looks for: that thread still uses its mapping.
    fn range(&self) -> Option<(usize, usize)> {
        let before = self.sequence.load(Acquire);
        let range = (self.start.load(Relaxed), self.len.load(Relaxed));
        fence(Acquire);
        let stable = before.is_multiple_of(2) && self.sequence.load(Relaxed) == before;
        stable.then_some(range)
    }
}

impl Chunk {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; SLOTS_PER_CHUNK], next: AtomicPtr::new(null_mut()) }
    }

    fn next(&'static self) -> Option<&'static Self> {
        // SAFETY: the pointer is null or comes from `Box::leak` in `add`, and is never changed
        // afterwards; the acquire load sees the chunk's contents.
        unsafe { self.next.load(Acquire).as_ref() }
    }

    /// The chunk after the last one, `self`: a new one, or the one that another thread added.
    fn add(&'static self) -> &'static Self {
        let new: *mut Self = Box::leak(Box::new(Self::new()));
        match self.next.compare_exchange(null_mut(), new, AcqRel, Acquire) {
            // SAFETY: `new` was leaked just now.
            Ok(_) => unsafe { &*new },
            Err(other) => {
                // SAFETY: `new` was made by `Box` above and nobody else has seen it; `other` is
                // not null, so it is a leaked chunk.
                unsafe {
                    drop(Box::from_raw(new));
                    &*other
                }
            }
        }
    }
}

fn chunks() -> impl Iterator<Item = &'static Chunk> {
    std::iter::successors(Some(&FIRST), |chunk| chunk.next())
}

/// A mapping's entry in the registry.
#[derive(Debug)]
pub(crate) struct Registration(&'static Slot);

impl Registration {
    /// Guards the `len` bytes at address `start`, which must be of one mapping: on SIGBUS some of
    /// them are mapped over, or all.
    pub(crate) fn new(start: usize, len: usize) -> Self {
        let mut chunk = &FIRST;
        loop {
            let free = chunk.slots.iter().find(|slot| !slot.taken.swap(true, Acquire));
            if let Some(slot) = free {
                slot.poisoned.store(false, Relaxed);
                slot.set(start, len);
                return Self(slot);
            }
            chunk = chunk.next().unwrap_or_else(|| chunk.add());
        }
    }

    pub(crate) fn poisoned(&self) -> bool {
        self.0.poisoned.load(Acquire)
    }

    /// Ends the guard, before the range is unmapped. Idempotent: the slot itself is given back
    /// when the registration drops.
    pub(crate) fn end(&self) {
        self.0.set(0, 0);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.end();
        REPLACED.fetch_sub(self.0.parts.swap(0, Relaxed), Relaxed);
        self.0.taken.store(false, Release);
    }
}

/// Installs the handler, once per process. Every mapping of this crate does so by itself; an
/// application calls it only to be ahead of another library's handler.
///
/// # Errors
///
/// When the kernel refuses the handler, which it has no reason to.
pub fn install() -> io::Result<()> {
    // `None` is success: OnceLock has no fallible initialisation in stable Rust, so the error
    // travels in the value.
    static RESULT: OnceLock<Option<i32>> = OnceLock::new();
    // Miri raises no signals.
    if cfg!(miri) {
        return Ok(());
    }
    match RESULT.get_or_init(|| install_now().err().map(|e| e.raw_os_error().unwrap_or(0))) {
        None => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(*errno)),
    }
}

fn install_now() -> io::Result<()> {
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: sigaction is a plain C struct for which all zeroes are valid; the kernel fills
    // `previous` when it reports success.
    unsafe {
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), previous.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        // Known before the handler can run.
        let _ = PREVIOUS.set(previous.assume_init());
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        // On the alternate stack, since the standard library's handler, to which we pass on,
        // reports stack overflows.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        if libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The handler: atomics and direct system calls only, nothing that takes a lock or sets errno.
extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo; for a SIGBUS raised by the
    // kernel (a positive code) its address field is set.
    let address = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) };
    if let Some(address) = address
        && poison(address)
    {
        return;
    }
    pass_on(signal, info, context);
}

/// Replaces what is around `address` by zeroes. Returns whether it is in a mapping.
fn poison(address: usize) -> bool {
    for slot in chunks().flat_map(|chunk| &chunk.slots) {
        let Some((start, len)) = slot.range() else { continue };
        let whole = start..start.wrapping_add(len);
        if !whole.contains(&address) {
            continue;
        }
        let done = replace_some(slot, address, &whole);
        if done {
            slot.poisoned.store(true, Release);
            POISONINGS.0.fetch_add(1, Release);
        }
        return done;
    }
    false
}

/// Replaces a part of the mapping `whole` with `address` in it, or all of it.
fn replace_some(slot: &Slot, address: usize, whole: &Range<usize>) -> bool {
    let part = |len: usize| {
        let start = address & !(len - 1);
        start.max(whole.start)..start.saturating_add(len).min(whole.end)
    };
    let [small, large] = PARTS.map(part);
    slot.parts.fetch_add(1, Relaxed);
    let few = REPLACED.fetch_add(1, Relaxed) < MAX_PARTS;
    let whole = whole.clone();
    let tries = if few { [small, large, whole] } else { [whole, small, large] };
    tries.into_iter().any(replace)
}

/// Maps zeroes over a range of a mapping.
fn replace(range: Range<usize>) -> bool {
    let Some(start) = NonNull::new(std::ptr::with_exposed_provenance_mut::<c_void>(range.start))
    else {
        return false;
    };
    let len = range.end.saturating_sub(range.start);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the range is a part of one mapping of this crate (`poison`), which stays registered
    // while its owner lives, and the faulting thread is using it, so it does. Its memory is only
    // ever accessed by raw pointer as memory that changes at any time, so contents that turn
    // to zeroes break no promise.
    let Ok(zeroes) = (unsafe { rustix::mm::mmap_anonymous(start.as_ptr(), len, prot, flags) })
    else {
        return false;
    };
    // A huge page for each byte that is written would be a waste; a kernel without them refuses.
    // SAFETY: it changes nothing of what is mapped.
    let _ = unsafe { rustix::mm::madvise(zeroes, len, Advice::LinuxNoHugepage) };
    true
}

/// Does what would have been done without us: a fault goes to the handler that was there before
/// (the standard library has one, for stack overflows), a signal that somebody sent kills.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get();
    let handler = previous.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    let flags = previous.map_or(0, |action| action.sa_flags);
    // SAFETY: the kernel passes a valid siginfo. The address is that of the handler which was
    // installed for this signal, of the kind that its flags tell; otherwise we restore the
    // default action, and the access or the signal is repeated once this handler returns.
    unsafe {
        let sent = (*info).si_code <= 0;
        if sent || handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            libc::signal(signal, libc::SIG_DFL);
            if sent {
                libc::raise(signal);
            }
        } else if flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                std::mem::transmute(handler);
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
            handler(signal);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use rustix::fs::MemfdFlags;

    use super::*;
    use crate::Mapping;

    fn memfd(len: u64) -> std::os::fd::OwnedFd {
        let fd = rustix::fs::memfd_create("victim", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, len).unwrap();
        fd
    }

    #[test]
    fn a_truncated_peer_costs_its_own_mapping_only() {
        let (victim, bystander) = (memfd(4 * 4096), memfd(4096));
        let mapping = Mapping::map(victim.as_fd(), 0, 4 * 4096).unwrap();
        let other = Mapping::map(bystander.as_fd(), 0, 4096).unwrap();
        // SAFETY: every address is inside its mapping.
        unsafe {
            mapping.ptr().write_volatile(1);
            other.ptr().write_volatile(2);
            rustix::fs::ftruncate(&victim, 4096).unwrap();
            assert_eq!((mapping.ptr().read_volatile(), mapping.poisoned()), (1, false));
            assert_eq!(mapping.ptr().add(3 * 4096).read_volatile(), 0);
            assert!(mapping.poisoned());
            // Writes go on too, and to nobody else.
            mapping.ptr().add(2 * 4096).write_volatile(9);
            assert_eq!(mapping.ptr().add(2 * 4096).read_volatile(), 9);
            assert_eq!((other.ptr().read_volatile(), other.poisoned()), (2, false));
        }
        drop(mapping);
        // The slot's next tenant starts healthy.
        assert!(!Mapping::map(bystander.as_fd(), 0, 4096).unwrap().poisoned());
    }

    #[test]
    fn threads_that_fault_at_once_all_go_on() {
        let victim = memfd(64 * 4096);
        let mapping = Mapping::map(victim.as_fd(), 0, 64 * 4096).unwrap();
        rustix::fs::ftruncate(&victim, 0).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mapping = &mapping;
                scope.spawn(move || {
                    for page in 0..64 {
                        // SAFETY: 64 pages are mapped.
                        let byte = unsafe {
                            mapping.ptr().add((page + thread) % 64 * 4096).read_volatile()
                        };
                        assert_eq!(byte, 0);
                    }
                });
            }
        });
        assert!(mapping.poisoned());
    }

    #[test]
    fn a_fault_replaces_little_and_never_the_last_of_the_file() {
        const LEN: usize = 1 << 20;
        let file = rustix::fs::memfd_create("replaced", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, LEN as u64).unwrap();
        let before = poisonings();
        let mapping = Mapping::map(file.as_fd(), 0, LEN as u64).unwrap();
        let byte = |at: usize| {
            // SAFETY: inside the mapping.
            unsafe { mapping.ptr().add(at).read_volatile() }
        };
        // SAFETY: inside the mapping.
        unsafe { mapping.ptr().add(LEN / 2).write_volatile(7) };
        let tail = (LEN - 4096) as u64;
        rustix::fs::ftruncate(&file, tail).unwrap();
        assert_eq!((byte(LEN - 1), byte(LEN / 2)), (0, 7));
        assert!(mapping.poisoned() && poisonings() != before);
        rustix::fs::ftruncate(&file, 0).unwrap();
        assert!((0..LEN).step_by(4096).all(|at| byte(at) == 0));
        // Whoever unmaps it lets go of the file, and not whoever touches it.
        drop(file);
        let maps = || std::fs::read_to_string("/proc/self/maps").unwrap();
        let end = format!("{:x}-", mapping.ptr().addr().get() + LEN);
        let behind = |line: &str| line.starts_with(&end) && line.contains("memfd:replaced");
        assert!(maps().lines().any(behind), "{}", maps());
        drop(mapping);
        assert!(!maps().lines().any(behind));
    }

    #[test]
    fn huge_pages_are_replaced_too() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let Ok(file) = rustix::fs::memfd_create("victim", flags) else { return };
        rustix::fs::ftruncate(&file, 2 * HUGE_PAGE as u64).unwrap();
        // There may be none free.
        let Ok(mapping) = Mapping::map(file.as_fd(), 0, 2 * HUGE_PAGE as u64) else { return };
        rustix::fs::ftruncate(&file, HUGE_PAGE as u64).unwrap();
        // SAFETY: inside the mapping.
        assert_eq!(unsafe { mapping.ptr().add(2 * HUGE_PAGE - 1).read_volatile() }, 0);
        assert!(mapping.poisoned());
    }

    #[test]
    fn a_process_that_may_have_little_memory_goes_on() {
        let status = status_of("sigbus::tests::replaces_in_little_memory");
        assert!(status.success(), "{status}");
    }

    #[test]
    #[ignore = "limits the memory of the process; run by a_process_that_may_have_little_memory_goes_on"]
    fn replaces_in_little_memory() {
        const LEN: usize = 1 << 30;
        let file = memfd(LEN as u64);
        let mapping = Mapping::map(file.as_fd(), 0, LEN as u64).unwrap();
        rustix::fs::ftruncate(&file, 0).unwrap();
        // As where the system commits no more memory than it has (`vm.overcommit_memory=2`).
        let limit = libc::rlimit { rlim_cur: 256 << 20, rlim_max: 256 << 20 };
        // SAFETY: the structure is read, and lives for the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) }, 0);
        for at in (0..LEN).step_by(LEN / 16) {
            // SAFETY: inside the mapping.
            unsafe { mapping.ptr().add(at).write_volatile(1) };
        }
        assert!(mapping.poisoned());
    }

    #[test]
    fn the_registry_grows_and_is_reused() {
        let file = memfd(4096);
        for _ in 0..3 {
            let mappings: Vec<Mapping> = (0..2 * SLOTS_PER_CHUNK + 5)
                .map(|_| Mapping::map(file.as_fd(), 0, 4096).unwrap())
                .collect();
            assert!(mappings.iter().all(|mapping| !mapping.poisoned()));
        }
        assert!(chunks().count() <= 5, "slots are not given back");
        let victim = memfd(4096);
        let filling: Vec<Mapping> =
            (0..SLOTS_PER_CHUNK).map(|_| Mapping::map(file.as_fd(), 0, 4096).unwrap()).collect();
        let mapping = Mapping::map(victim.as_fd(), 0, 4096).unwrap();
        rustix::fs::ftruncate(&victim, 0).unwrap();
        // SAFETY: one page is mapped.
        assert_eq!(unsafe { mapping.ptr().read_volatile() }, 0);
        assert!(mapping.poisoned() && filling.iter().all(|mapping| !mapping.poisoned()));
    }

    /// Runs this test binary again, for one test that is expected to die.
    fn status_of(test: &str) -> std::process::ExitStatus {
        Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--ignored", "--nocapture"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
    }

    #[test]
    fn an_address_that_is_not_ours_still_kills() {
        let status = status_of("sigbus::tests::dies_by_a_fault_elsewhere");
        assert_eq!(status.signal(), Some(libc::SIGBUS));
    }

    #[test]
    fn a_signal_that_was_sent_still_kills() {
        let status = status_of("sigbus::tests::dies_by_a_signal");
        assert_eq!(status.signal(), Some(libc::SIGBUS));
    }

    #[test]
    #[ignore = "dies; run by an_address_that_is_not_ours_still_kills"]
    fn dies_by_a_fault_elsewhere() {
        install().unwrap();
        let file = memfd(4096);
        let flags = MapFlags::SHARED;
        // SAFETY: a new mapping; reading its missing page is what this test is about.
        unsafe {
            let page =
                rustix::mm::mmap(null_mut(), 4096, ProtFlags::READ, flags, &file, 0).unwrap();
            rustix::fs::ftruncate(&file, 0).unwrap();
            page.cast::<u8>().read_volatile();
        }
    }

    #[test]
    #[ignore = "dies; run by a_signal_that_was_sent_still_kills"]
    fn dies_by_a_signal() {
        install().unwrap();
        let pid = rustix::process::getpid();
        rustix::process::kill_process(pid, rustix::process::Signal::BUS).unwrap();
        // Long enough for the signal; then this test ends well, and the one that runs it fails.
        std::thread::park_timeout(std::time::Duration::from_secs(20));
    }
}
