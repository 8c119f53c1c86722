//! Memory of our own that a peer may map: rings and packet buffers.

pub(crate) mod file;
#[cfg(miri)]
pub(crate) mod interpreted;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::Advice;
use thiserror::Error;

use crate::huge::HUGE_PAGE;
use crate::sigbus;

/// Why memory could not be allocated or mapped.
#[derive(Debug, Error)]
pub enum MemError {
    /// No memory at all was asked for, or more than an address space holds.
    #[error("memory \"{name}\": {bytes} bytes asked for, expected 1 to {}", isize::MAX)]
    Size {
        /// Name of the memory.
        name: String,
        /// Bytes asked for.
        bytes: usize,
    },
    /// The name does not do for a memfd.
    #[error("memory name {name:?}: expected 1 to 200 bytes without NUL")]
    Name {
        /// The name given.
        name: String,
    },
    /// Huge pages were insisted on, and there are not enough.
    #[error(
        "memory \"{name}\": no {bytes} bytes of free 2 MiB huge pages ({source}); reserve some \
         with `sysctl vm.nr_hugepages=N`, or allow ordinary pages"
    )]
    NoHugePages {
        /// Name of the memory.
        name: String,
        /// Bytes asked for, rounded up to huge pages.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused one step.
    #[error("memory \"{name}\" of {bytes} bytes: {step} failed: {source}")]
    System {
        /// Name of the memory.
        name: String,
        /// Bytes asked for.
        bytes: usize,
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file descriptor received is of a kind that an access may have to wait for.
    #[error(
        "shared memory fd is '{found}', expected a memfd, or a file on tmpfs (/dev/shm) or \
         hugetlbfs: an access to any other may wait for whoever serves the file (QEMU: `-object \
         memory-backend-memfd,share=on`; a port with the option memory=any takes other files, too)"
    )]
    NotMemory {
        /// What the kernel calls it.
        found: String,
    },
    /// The file descriptor received is nothing that can be shared.
    #[error(
        "shared memory fd is {found}, expected a regular file: a memfd, or a file on tmpfs or \
         hugetlbfs (QEMU: `-object memory-backend-memfd,share=on`)"
    )]
    NotAFile {
        /// What it is instead.
        found: &'static str,
    },
    /// The region announced does not fit into the file, or into an address space.
    #[error(
        "shared memory region at offset {offset:#x}, {len:#x} bytes long, does not fit its file \
         of {file_len:#x} bytes"
    )]
    Range {
        /// Offset of the region in the file.
        offset: u64,
        /// Length of the region.
        len: u64,
        /// Length of the file.
        file_len: u64,
    },
    /// The kernel refused to map the peer's file.
    #[error(
        "shared memory region at offset {offset:#x}, {len:#x} bytes long: {step} failed: \
         {source}; the fd must be open for reading and writing and not sealed against writes"
    )]
    Map {
        /// Offset of the region in the file.
        offset: u64,
        /// Length of the region.
        len: u64,
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no address space for it.
    #[error(
        "shared memory region of {len:#x} bytes: the regions of all peers would be more than {} \
         TiB, or more than {MAX_PEER_MAPPINGS}; end guests, or share them out among several \
         processes",
        MAX_PEER_MEMORY >> 40
    )]
    TooMuch {
        /// Length of the region.
        len: u64,
    },
    /// The process has no guard against SIGBUS.
    #[error("cannot install the SIGBUS handler that guards shared memory: {0}")]
    Guard(io::Error),
}

/// Which pages to allocate from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages when enough are free and the size would at most double by rounding up,
    /// otherwise ordinary ones.
    #[default]
    Auto,
    /// Ordinary pages of 4 KiB, as a rule; neither huge nor transparent huge ones.
    Plain,
    /// Huge pages or an error.
    Huge,
}

/// What the memory turned out to be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Reserved 2 MiB pages, all present.
    Huge,
    /// Ordinary pages that the kernel was advised, and is configured, to make huge ones of.
    Transparent,
    /// Ordinary pages.
    Plain,
}

/// Zeroed memory with a file descriptor, so that another process can map it too.
///
/// Its size is sealed: no peer can truncate it, except where the process may not call
/// memfd_create(2), and the memory is a file in `/dev/shm`. Should it become unreadable (a peer
/// truncated that, or punched a hole into huge pages), the process goes on with zeroes and
/// [`poisoned`](Self::poisoned) tells. Dropping it unmaps it.
#[derive(Debug)]
pub struct SharedMemory {
    map: Map,
    fd: OwnedFd,
    page_size: usize,
    backing: Backing,
}

impl SharedMemory {
    /// Allocates at least `bytes` bytes, rounded up to whole pages, from the best pages there
    /// are. Needs no privilege and no set-up.
    ///
    /// `name` shows up in `/proc/PID/maps` and in errors.
    ///
    /// # Errors
    ///
    /// When the size or name is out of range, or the kernel refuses.
    pub fn allocate(name: &str, bytes: usize) -> Result<Self, MemError> {
        Self::allocate_from(name, bytes, Pages::Auto)
    }

    /// As [`allocate`](Self::allocate), from the given kind of pages.
    ///
    /// # Errors
    ///
    /// As there, and when huge pages were insisted on but are not there.
    pub fn allocate_from(name: &str, bytes: usize, pages: Pages) -> Result<Self, MemError> {
        let size_error = || MemError::Size { name: name.to_owned(), bytes };
        let limit = isize::MAX.unsigned_abs() - HUGE_PAGE;
        if bytes == 0 || bytes > limit {
            return Err(size_error());
        }
        let path = CString::new(name)
            .ok()
            .filter(|_| (1..=200).contains(&name.len()))
            .ok_or_else(|| MemError::Name { name: name.to_owned() })?;
        sigbus::install().map_err(MemError::Guard)?;

        let wanted = match pages {
            // Miri has none.
            _ if cfg!(miri) => false,
            Pages::Auto => bytes >= HUGE_PAGE / 2,
            Pages::Plain => false,
            Pages::Huge => true,
        };
        if wanted {
            let huge = bytes.next_multiple_of(HUGE_PAGE);
            match Self::huge(&path, huge) {
                Ok(memory) => return Ok(memory),
                Err(errno) if pages == Pages::Huge => {
                    let (name, source) = (name.to_owned(), errno.into());
                    return Err(MemError::NoHugePages { name, bytes: huge, source });
                }
                Err(_) => {}
            }
        }
        Self::ordinary(&path, bytes, pages).map_err(|(step, errno)| MemError::System {
            name: name.to_owned(),
            bytes,
            step,
            source: errno.into(),
        })
    }

    fn huge(name: &CString, bytes: usize) -> Result<Self, Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd =
            rustix::fs::memfd_create(name, flags | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)?;
        rustix::fs::ftruncate(&fd, bytes as u64)?;
        // Mapping reserves the pages, or fails.
        let map = Map::new(fd.as_fd(), 0, bytes)?;
        // A reservation can still turn out void (a control group's limit, a memory policy), and
        // then an access would be a SIGBUS. Kernels before 5.14 do not know the advice.
        match map.advise(Advice::LinuxPopulateWrite) {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
        file::seal(&fd)?;
        Ok(Self { map, fd, page_size: HUGE_PAGE, backing: Backing::Huge })
    }

    fn ordinary(name: &CString, bytes: usize, pages: Pages) -> Result<Self, (&'static str, Errno)> {
        let page_size = rustix::param::page_size();
        let bytes = bytes.next_multiple_of(page_size);
        let fd = file::create(name, bytes as u64)?;
        let map = Map::new(fd.as_fd(), 0, bytes).map_err(|e| ("mmap", e))?;
        let advised = pages != Pages::Plain
            && map.advise(Advice::LinuxHugepage).is_ok()
            && transparent_shared_pages();
        let backing = if advised { Backing::Transparent } else { Backing::Plain };
        Ok(Self { map, fd, page_size, backing })
    }

    /// The first byte; aligned to a page.
    #[must_use]
    #[inline]
    pub const fn as_ptr(&self) -> NonNull<u8> {
        self.map.ptr
    }

    /// Size in bytes: a multiple of [`page_size`](Self::page_size), at least what was asked for.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        self.map.len
    }

    /// The file descriptor to hand to a peer, which maps it from offset 0.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Size of one page in bytes: the unit of mapping, and of DMA contiguity.
    #[must_use]
    pub const fn page_size(&self) -> usize {
        self.page_size
    }

    /// What the memory is made of.
    #[must_use]
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// Whether the memory became unreadable and was replaced by private zeroes.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        self.map.poisoned()
    }
}

/// A file of `bytes` zeroes in memory for a peer to keep, which has no name in any folder. Nobody
/// can change its size, as with [`SharedMemory`].
///
/// `name` shows up in `/proc/PID/maps`.
///
/// # Errors
/// What the kernel said.
pub fn memory_file(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    file::create(name, bytes).map_err(|(_, errno)| errno.into())
}

/// Whether the kernel heeds `MADV_HUGEPAGE` on shared memory.
fn transparent_shared_pages() -> bool {
    std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
        .is_ok_and(|modes| !modes.contains("[never]") && !modes.contains("[deny]"))
}

/// A shared read-write mapping, known to the SIGBUS guard for as long as it lives.
#[derive(Debug)]
pub(crate) struct Map {
    ptr: NonNull<u8>,
    len: usize,
    /// Bytes behind that which nobody touches. They keep the file when all else has been replaced:
    /// its memory is freed by whoever unmaps it, and not in a page fault.
    tail: usize,
    guard: sigbus::Registration,
    /// Of the address space for peers' memory, until it is unmapped.
    share: Option<Share>,
}

/// Most bytes of peers' memory that a process maps: half of the address space that it has on most
/// machines, so that the rest is left for everything else.
pub const MAX_PEER_MEMORY: u64 = 64 << 40;

/// Most mappings of peers' memory: a quarter of those that Linux allows a process as a rule
/// (`vm.max_map_count`). Without any left, no thread could start and no memory be had.
pub const MAX_PEER_MAPPINGS: u64 = 16_384;

/// Bytes of it that are taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Mappings that there are.
static MAPPINGS: AtomicU64 = AtomicU64::new(0);

/// Adds to what is taken of something, if there is as much left.
fn take(taken: &AtomicU64, more: u64, most: u64) -> Option<()> {
    let more = |taken: u64| taken.checked_add(more).filter(|sum| *sum <= most);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(drop)
}

/// A mapping's part of the address space for peers' memory.
#[derive(Debug)]
struct Share(u64);

impl Share {
    /// Takes `bytes`, if there are as many left.
    fn take(bytes: u64) -> Option<Self> {
        take(&TAKEN, bytes, MAX_PEER_MEMORY)?;
        let one = take(&MAPPINGS, 1, MAX_PEER_MAPPINGS);
        if one.is_none() {
            TAKEN.fetch_sub(bytes, Ordering::Relaxed);
        }
        one.map(|()| Self(bytes))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
        MAPPINGS.fetch_sub(1, Ordering::Relaxed);
    }
}

// SAFETY: a mapping belongs to the process, not to a thread; this type only hands out its
// address.
unsafe impl Send for Map {}
// SAFETY: as above, and no method writes to the memory.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of `fd` from `offset`, both multiples of the file's page size.
    /// [`sigbus::install`] must have succeeded.
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self, Errno> {
        Self::with_tail(fd, offset, len, 0)
    }

    /// As [`new`](Self::new), of a peer's file with pages of `page` bytes; `None` where too much is
    /// mapped already.
    pub(crate) fn of_peer(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        page: u64,
    ) -> Result<Option<Self>, Errno> {
        let Some(share) = Share::take(len as u64) else { return Ok(None) };
        // Mapping a huge page behind the end of a file would make it longer.
        let ordinary = rustix::param::page_size();
        let tail = if page == ordinary as u64 { ordinary } else { 0 };
        let mut map = Self::with_tail(fd, offset, len, tail)?;
        map.share = Some(share);
        Ok(Some(map))
    }

    /// Maps `tail` bytes more than are used.
    fn with_tail(fd: BorrowedFd<'_>, offset: u64, len: usize, tail: usize) -> Result<Self, Errno> {
        let all = len.checked_add(tail).ok_or(Errno::OVERFLOW)?;
        let ptr = map_shared(fd, offset, all)?;
        let guard = sigbus::Registration::new(ptr.as_ptr().expose_provenance(), len);
        Ok(Self { ptr, len, tail, guard, share: None })
    }

    pub(crate) const fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    pub(crate) fn poisoned(&self) -> bool {
        self.guard.poisoned()
    }

    pub(crate) fn advise(&self, advice: Advice) -> Result<(), Errno> {
        if cfg!(miri) {
            return Ok(());
        }
        // SAFETY: the range is this mapping, and the callers' advices (huge pages, no dump,
        // populate) change none of its contents.
        unsafe { rustix::mm::madvise(self.ptr.as_ptr().cast(), self.len, advice) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // First make the guard forget the range: its addresses may be somebody else's next.
        self.guard.end();
        // SAFETY: the range is exactly what `with_tail` mapped, and whoever was given its address
        // promised not to use it for longer than this value lives.
        unsafe { unmap(self.ptr, self.len + self.tail) };
    }
}

/// A new mapping of `len` bytes of `fd` from `offset`.
#[cfg(not(miri))]
fn map_shared(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<NonNull<u8>, Errno> {
    use rustix::mm::{MapFlags, ProtFlags};

    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let ptr =
        unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, fd, offset)? };
    // The kernel never maps page 0 unless it is told to (MAP_FIXED).
    NonNull::new(ptr.cast::<u8>()).ok_or(Errno::FAULT)
}

/// Undoes [`map_shared`].
///
/// # Safety
///
/// The range must be what it has mapped, and nobody may use it any more.
#[cfg(not(miri))]
unsafe fn unmap(ptr: NonNull<u8>, len: usize) {
    // SAFETY: as the caller says.
    let _ = unsafe { rustix::mm::munmap(ptr.as_ptr().cast(), len) };
}

#[cfg(miri)]
use interpreted::{map_shared, unmap};

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn bytes(memory: &SharedMemory) -> &[u8] {
        // SAFETY: nobody writes to it while the slice lives.
        unsafe { std::slice::from_raw_parts(memory.as_ptr().as_ptr(), memory.len()) }
    }

    #[test]
    fn no_more_is_taken_than_there_is() {
        let taken = AtomicU64::new(0);
        assert_eq!(
            [3, 5, 2, 1].map(|more| take(&taken, more, 6).is_some()),
            [true, false, true, true]
        );
        assert!(take(&taken, 1, 6).is_none() && take(&taken, u64::MAX, 6).is_none());
        assert_eq!(taken.into_inner(), 6);
    }

    #[test]
    fn memory_is_zeroed_rounded_up_and_writable() {
        let memory = SharedMemory::allocate("test", 5_000).unwrap();
        assert!(memory.len() >= 5_000 && memory.len().is_multiple_of(memory.page_size()));
        assert!(bytes(&memory).iter().all(|byte| *byte == 0));
        // SAFETY: the last byte is inside, and no slice is alive.
        unsafe { memory.as_ptr().add(memory.len() - 1).write(7) };
        assert_eq!(bytes(&memory).last(), Some(&7));
        assert!(!memory.poisoned());
    }

    #[test]
    fn a_second_mapping_sees_the_same_bytes_and_nobody_can_truncate_it() {
        let memory = SharedMemory::allocate_from("test", 8_192, Pages::Plain).unwrap();
        assert_eq!(memory.backing(), Backing::Plain);
        let other = crate::Mapping::map(memory.fd(), 0, 8_192).unwrap();
        // SAFETY: both addresses are inside their mappings.
        unsafe {
            memory.as_ptr().add(100).write_volatile(42);
            assert_eq!(other.ptr().add(100).read_volatile(), 42);
        }
        assert_eq!(rustix::fs::ftruncate(memory.fd(), 0), Err(Errno::PERM));
    }

    #[test]
    fn huge_pages_are_used_when_there_are_any_and_missed_clearly_when_not() {
        match SharedMemory::allocate_from("test", 1, Pages::Huge) {
            Ok(memory) => {
                assert_eq!((memory.backing(), memory.len()), (Backing::Huge, HUGE_PAGE));
                assert!(bytes(&memory).iter().all(|byte| *byte == 0));
            }
            Err(error) => assert!(error.to_string().contains("vm.nr_hugepages"), "{error}"),
        }
        let memory = SharedMemory::allocate("test", HUGE_PAGE).unwrap();
        assert_eq!(memory.len(), HUGE_PAGE);
    }

    #[test]
    fn bad_arguments_are_named() {
        for bytes in [0, usize::MAX, isize::MAX.unsigned_abs()] {
            let error = SharedMemory::allocate("rings", bytes).unwrap_err().to_string();
            assert!(error.contains("rings") && error.contains(&bytes.to_string()), "{error}");
        }
        assert!(matches!(SharedMemory::allocate("a\0b", 1), Err(MemError::Name { .. })));
        assert!(matches!(SharedMemory::allocate("", 1), Err(MemError::Name { .. })));
        // More than there is: the kernel's answer, no abort.
        let _ = SharedMemory::allocate("huge", 1 << 46).map(|memory| memory.len());
    }
}
