//! Memory shared with the kernel: frames, and rings that the kernel has made.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// Mapped pages, unmapped when dropped. The kernel may write to them at any time, so there is no
/// way to get a reference to their bytes from here.
#[derive(Debug)]
pub(crate) struct Pages {
    first: NonNull<u8>,
    len: usize,
}

// SAFETY: it is an address range that this value alone unmaps; whoever takes addresses from it
// vouches for how they are used.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Zeroed memory of this process, in huge pages where the kernel has some at hand.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes, which replaces none.
        let first = unsafe { mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE)? };
        let pages = Self::new(first.cast(), len)?;
        // A matter of speed only.
        // SAFETY: the range was just mapped, and nothing is in it.
        let _ = unsafe { madvise(first, len, Advice::LinuxHugepage) };
        Ok(pages)
    }

    /// Memory of the kernel's behind `fd`.
    pub(crate) fn of(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: as above.
        let first = unsafe { mmap(ptr::null_mut(), len, access, flags, fd, offset)? };
        Self::new(first.cast(), len)
    }

    fn new(first: *mut u8, len: usize) -> io::Result<Self> {
        let first = NonNull::new(first).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { first, len })
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes from `offset` on; `None` if there are not that many.
    #[inline]
    pub(crate) fn at(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // SAFETY: `offset` is at most the length of the mapping.
        (end <= self.len).then(|| unsafe { self.first.add(offset) })
    }

    /// As [`at`](Self::at), for `count` values of type `T`; `None` too where they would not be
    /// aligned.
    pub(crate) fn array<T>(&self, offset: usize, count: usize) -> Option<NonNull<T>> {
        let first = self.at(offset, count.checked_mul(size_of::<T>())?)?.cast::<T>();
        first.is_aligned().then_some(first)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `new`, and whoever took addresses from it keeps this
        // value for as long as it uses them.
        let unmapped = unsafe { munmap(self.first.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_inside_has_an_address() {
        let pages = Pages::anonymous(8192).unwrap();
        assert_eq!(pages.len(), 8192);
        assert!(pages.at(0, 8192).is_some() && pages.at(8192, 0).is_some());
        assert!(pages.at(1, 8192).is_none() && pages.at(usize::MAX, 2).is_none());
        assert!(pages.array::<u64>(8, 1023).is_some());
        assert!(pages.array::<u64>(8, 1024).is_none());
        assert!(pages.array::<u64>(4, 1).is_none(), "not aligned");
        assert!(pages.array::<u64>(0, usize::MAX).is_none());
    }
}
