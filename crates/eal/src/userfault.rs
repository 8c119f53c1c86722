//! Memory whose missing pages another process provides (userfaultfd(2)).
//!
//! Whoever touches such a page waits until somebody who has the file fills it in. And whoever has
//! the file may do the same to any other part of the address space that it was made in: register
//! it, fill in pages of it, protect it. So a file that goes to a peer is made in a process that has
//! nothing but what is the peer's anyway.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::ioctl::{Updater, opcode};
use rustix::mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags};

use crate::foreign::{page_size, surrounding_pages};

/// `UFFD_USER_MODE_ONLY`: faults of the kernel, in a system call, are not served but are errors.
/// Then no privilege is needed (since Linux 5.11).
const USER_MODE_ONLY: UserfaultfdFlags = UserfaultfdFlags::from_bits_retain(1);

/// `UFFD_API`, the only version of the interface.
const API: u64 = 0xaa;

/// `struct uffdio_api`.
#[repr(C)]
struct Handshake {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `UFFDIO_REGISTER`.
pub(crate) const REGISTER: rustix::ioctl::Opcode = opcode::read_write::<Register>(0xaa, 0);

/// `UFFDIO_REGISTER_MODE_MISSING`.
const MODE_MISSING: u64 = 1;

/// A userfaultfd: whoever reads it hears of touched pages that are missing.
#[derive(Debug)]
pub struct Userfault {
    fd: OwnedFd,
}

impl Userfault {
    /// A new one, of this process's address space. It serves faults of user mode only, which needs
    /// no privilege.
    ///
    /// # Errors
    ///
    /// When the kernel has none, or, before Linux 5.11, does not allow it
    /// (`vm.unprivileged_userfaultfd`).
    pub fn new() -> io::Result<Self> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: it is a file like any other as long as no memory is registered with it.
        let fd = match unsafe { rustix::mm::userfaultfd(flags | USER_MODE_ONLY) } {
            // SAFETY: as above.
            Err(Errno::INVAL) => unsafe { rustix::mm::userfaultfd(flags) }?,
            other => other?,
        };
        let mut handshake = Handshake { api: API, features: 0, ioctls: 0 };
        // SAFETY: UFFDIO_API reads and writes a `struct uffdio_api`.
        unsafe {
            const CODE: rustix::ioctl::Opcode = opcode::read_write::<Handshake>(0xaa, 0x3f);
            rustix::ioctl::ioctl(&fd, Updater::<CODE, _>::new(&mut handshake))?;
        }
        Ok(Self { fd })
    }

    /// Maps `len` bytes from `offset` of the file behind `file`, which is memory, for reading, so
    /// that the first of them has address `at`, and registers the pages. At `at` must be nothing
    /// else, and it must be as far behind a page's start as `offset` is; with huge pages, behind
    /// that of a huge page.
    ///
    /// # Errors
    ///
    /// When the region is empty or does not fit the file, the addresses are taken or do not fit,
    /// or the file is none that the kernel can do this with.
    pub fn map(
        &self,
        file: BorrowedFd<'_>,
        at: u64,
        offset: u64,
        len: u64,
    ) -> io::Result<FaultMap> {
        let file_len = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
        let pages = surrounding_pages(offset, len, file_len, page_size(file)?);
        let (start, skip, map_len) = pages.ok_or(Errno::INVAL)?;
        let first = usize::try_from(at).ok().and_then(|at| at.checked_sub(skip));
        let first = first.ok_or(Errno::INVAL)?;
        let flags = MapFlags::SHARED | MapFlags::FIXED_NOREPLACE;
        let hint = std::ptr::without_provenance_mut(first);
        // SAFETY: nothing that is mapped already is replaced.
        let ptr = unsafe { rustix::mm::mmap(hint, map_len, ProtFlags::READ, flags, file, start) }?;
        let map = FaultMap { ptr: NonNull::new(ptr.cast()).ok_or(Errno::FAULT)?, len: map_len };
        if map.ptr.addr().get() != first {
            return Err(Errno::EXIST.into()); // Kernels before 4.17 take it for a hint.
        }
        // A huge page that the kernel makes of small ones would count as present as a whole.
        // SAFETY: it changes nothing of what is mapped. (A kernel without such pages refuses.)
        let _ = unsafe { rustix::mm::madvise(ptr, map_len, Advice::LinuxNoHugepage) };
        self.register(&map)?;
        Ok(map)
    }

    fn register(&self, map: &FaultMap) -> io::Result<()> {
        let (start, len) = (map.ptr.addr().get() as u64, map.len as u64);
        let mut register = Register { start, len, mode: MODE_MISSING, ioctls: 0 };
        // SAFETY: UFFDIO_REGISTER reads and writes a `struct uffdio_register`. What it does to
        // the range is that a touched page may come late.
        unsafe {
            rustix::ioctl::ioctl(&self.fd, Updater::<REGISTER, _>::new(&mut register))?;
        }
        Ok(())
    }
}

impl AsFd for Userfault {
    /// The file, for whoever is to serve the faults; see the module for what else that allows.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Memory that is registered with a [`Userfault`]. Dropping it unmaps it.
#[derive(Debug)]
pub struct FaultMap {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for FaultMap {}
// SAFETY: as above; it is only read, and what was read is not looked at.
unsafe impl Sync for FaultMap {}

impl FaultMap {
    /// Touches the page at address `at`: returns once it is there, which is up to whoever serves
    /// the faults. `false` where the address is outside.
    ///
    /// A page that the file does not have any more (it was truncated) is a SIGBUS.
    #[must_use]
    pub fn touch(&self, at: u64) -> bool {
        let offset = usize::try_from(at).ok().and_then(|at| at.checked_sub(self.ptr.addr().get()));
        let Some(offset) = offset.filter(|offset| *offset < self.len) else { return false };
        // SAFETY: `offset` is inside the mapping.
        let _ = unsafe { self.ptr.add(offset).read_volatile() };
        true
    }
}

impl Drop for FaultMap {
    fn drop(&mut self) {
        // SAFETY: the range is exactly what was mapped, and only `touch` goes there.
        let _ = unsafe { rustix::mm::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::MemfdFlags;

    use super::*;

    const AT: u64 = 0x2000_0000_0000;
    const PAGE: u64 = 4096;

    /// Three pages, of which the first is there.
    fn memory() -> File {
        let file = rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 3 * PAGE).unwrap();
        let file = File::from(file);
        file.write_all_at(&[1], 0).unwrap();
        file
    }

    /// The page of the next fault.
    fn next_fault(userfault: &Userfault) -> u64 {
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut set = [PollFd::new(userfault, PollFlags::IN)];
        assert_eq!(poll(&mut set, Some(&limit)).unwrap(), 1, "no fault");
        let mut message = [0; 32];
        assert_eq!(rustix::io::read(userfault, &mut message).unwrap(), 32);
        assert_eq!(message[0], 0x12, "UFFD_EVENT_PAGEFAULT");
        u64::from_ne_bytes(message[16..24].try_into().unwrap()) & !(PAGE - 1)
    }

    #[test]
    fn a_missing_page_is_waited_for_and_others_are_not() {
        let file = memory();
        let userfault = Userfault::new().unwrap();
        let map = Arc::new(userfault.map(file.as_fd(), AT + 16, 16, 3 * PAGE - 16).unwrap());
        assert!(map.touch(AT + 16), "it is there");
        let (sender, touched) = channel();
        let toucher = Arc::clone(&map);
        let thread = std::thread::spawn(move || sender.send(toucher.touch(AT + PAGE + 5)).unwrap());
        assert_eq!(next_fault(&userfault), AT + PAGE);
        assert!(touched.try_recv().is_err());
        // The owner of the memory puts the page there by its own way, and says so.
        file.write_all_at(&[7], PAGE + 5).unwrap();
        let mut range = [AT + PAGE, PAGE];
        // SAFETY: UFFDIO_WAKE reads a `struct uffdio_range`.
        unsafe {
            const CODE: rustix::ioctl::Opcode = opcode::read::<[u64; 2]>(0xaa, 2);
            rustix::ioctl::ioctl(&userfault.fd, Updater::<CODE, _>::new(&mut range)).unwrap();
        }
        assert!(touched.recv_timeout(Duration::from_secs(60)).unwrap());
        thread.join().unwrap();
    }

    #[test]
    fn nothing_outside_is_touched_and_nothing_replaced() {
        let file = memory();
        let userfault = Userfault::new().unwrap();
        let at = AT + (1 << 30);
        let map = userfault.map(file.as_fd(), at, 0, PAGE).unwrap();
        for outside in [0, at - 1, at + PAGE, u64::MAX] {
            assert!(!map.touch(outside), "{outside:#x}");
        }
        let again = userfault.map(file.as_fd(), at, 0, PAGE).unwrap_err();
        assert_eq!(Errno::from_io_error(&again), Some(Errno::EXIST));
        for (at, offset, len) in [(at, 0, 0), (at, 0, 4 * PAGE), (at, u64::MAX, 1), (0, 5, 5)] {
            let error = userfault.map(file.as_fd(), at, offset, len).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::INVAL));
        }
        drop(map);
        let _ = userfault.map(file.as_fd(), at, 0, PAGE).unwrap();
    }

    #[test]
    fn a_file_that_is_no_memory_is_refused() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        io::Write::write_all(&mut file, &[0; 4096]).unwrap();
        let userfault = Userfault::new().unwrap();
        let kind = rustix::fs::fcntl_get_seals(&file);
        let mapped = userfault.map(file.as_fd(), AT + (2 << 30), 0, PAGE);
        assert_eq!(mapped.is_ok(), kind.is_ok());
    }
}
