//! A device's registers in memory.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};

use crate::sigbus;

/// Whoever a mapping is of: it lives for as long as that.
pub(super) trait Owner: Send + Sync {
    /// The mapping that begins at `base` is about to end.
    fn unmaps(&self, base: usize) {
        let _ = base;
    }
}

/// A mapped base address register: registers of a device.
///
/// Every access is one volatile load or store of its own width. An offset outside of the mapping
/// reads as all ones, as from a device that is gone, and is not written: offsets are constants of
/// drivers or were checked against [`len`](Self::len), so this is a net and no check to rely on.
///
/// Should the kernel take the registers away (the device was pulled out), they turn into zeroes
/// that nobody hears of, and [`is_gone`](Self::is_gone) tells.
pub struct Bar {
    ptr: NonNull<u8>,
    len: usize,
    /// Undoes the mapping.
    unmap: Option<fn(NonNull<u8>, usize)>,
    /// Catches the signal that comes when the kernel has taken the registers away.
    guard: Option<sigbus::Registration>,
    /// What must not be closed before the mapping is gone.
    owner: Option<Arc<dyn Owner>>,
}

// SAFETY: a mapping belongs to the process, and device registers are accessed by volatile loads
// and stores only, which any thread may do.
unsafe impl Send for Bar {}
// SAFETY: as above.
unsafe impl Sync for Bar {}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads the register at byte `offset`.
        #[must_use]
        #[inline]
        pub fn $read(&self, offset: usize) -> $type {
            match self.at::<$type>(offset) {
                // SAFETY: `at` made sure that the register lies inside the mapping and is aligned.
                Some(register) => unsafe { register.read_volatile() },
                None => <$type>::MAX,
            }
        }

        /// Writes the register at byte `offset`.
        #[inline]
        pub fn $write(&self, offset: usize, value: $type) {
            if let Some(register) = self.at::<$type>(offset) {
                // SAFETY: as for reads.
                unsafe { register.write_volatile(value) };
            }
        }
    };
}

impl Bar {
    /// `len` bytes of registers at `ptr`; `unmap` is called with both when it is dropped.
    ///
    /// # Safety
    ///
    /// The bytes must be mapped until then, for reading and writing, and nobody may have Rust
    /// references to them. `ptr` must be aligned to 8 bytes.
    #[must_use]
    pub const unsafe fn new(
        ptr: NonNull<u8>,
        len: usize,
        unmap: Option<fn(NonNull<u8>, usize)>,
    ) -> Self {
        Self { ptr, len, unmap, guard: None, owner: None }
    }

    /// `words` of 8 bytes of memory that is all zero and does nothing, as registers: for models of
    /// devices.
    #[must_use]
    pub fn memory(words: usize) -> Self {
        let memory = Box::leak(vec![0_u64; words].into_boxed_slice());
        let free: fn(NonNull<u8>, usize) = |ptr, len| {
            let memory = NonNull::slice_from_raw_parts(ptr.cast::<u64>(), len / 8);
            // SAFETY: it is what was leaked above, and the value that had it ends.
            drop(unsafe { Box::from_raw(memory.as_ptr()) });
        };
        let len = size_of_val(memory);
        // SAFETY: the words are aligned and nobody else's, until `free` has them back.
        unsafe { Self::new(NonNull::from(memory).cast(), len, Some(free)) }
    }

    /// Maps `areas` (offset and length in bytes, multiples of a page) of the `len` bytes that
    /// `fd` has from `offset` on, a multiple of a page. What lies between them is memory that
    /// nobody hears of. `skip` bytes before the first register belong to others. Keeps `owner`
    /// until it is unmapped.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        skip: usize,
        len: usize,
        areas: &[(usize, usize)],
        owner: Option<Arc<dyn Owner>>,
    ) -> io::Result<Self> {
        sigbus::install()?;
        let page = rustix::param::page_size();
        let whole = skip
            .checked_add(len)
            .and_then(|bytes| bytes.checked_next_multiple_of(page))
            .filter(|whole| *whole > 0 && *whole <= isize::MAX.unsigned_abs() && skip < page)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), whole, prot, flags)?.cast::<u8>()
        };
        // From here on whatever fails unmaps it all.
        let ptr = NonNull::new(base.wrapping_add(skip)).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut bar = Self { ptr, len, unmap: Some(unmap), guard: None, owner };
        for (start, bytes) in areas {
            let end = start.checked_add(*bytes).filter(|end| *end <= whole);
            if end.is_none() || *bytes == 0 || !start.is_multiple_of(page) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let from = offset.checked_add(*start as u64).ok_or(io::ErrorKind::InvalidInput)?;
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: the area was just checked to be inside the mapping made above, which nobody
            // else knows of yet.
            unsafe {
                let at = base.wrapping_add(*start).cast();
                rustix::mm::mmap(at, *bytes, prot, flags, fd, from)?;
            }
        }
        bar.guard = Some(sigbus::Registration::new(base.expose_provenance(), whole));
        Ok(bar)
    }

    /// Maps the page of registers that `fd` has at `offset`, a multiple of a page: a doorbell that
    /// somebody else hands out.
    ///
    /// # Errors
    /// When the file cannot be mapped there for reading and writing.
    pub fn map_page(fd: BorrowedFd<'_>, offset: u64) -> io::Result<Self> {
        let page = rustix::param::page_size();
        Self::map(fd, offset, 0, page, &[(0, page)], None)
    }

    /// Whether the kernel has taken the registers away: they are zeroes now.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.guard.as_ref().is_some_and(sigbus::Registration::poisoned)
    }

    /// All pages of the mapping: the address of their first byte, and their length in bytes.
    pub(super) fn range(&self) -> (usize, usize) {
        let page = rustix::param::page_size();
        let skip = self.ptr.addr().get() % page;
        let base = self.ptr.expose_provenance().get().wrapping_sub(skip);
        (base, self.len.saturating_add(skip).next_multiple_of(page))
    }

    /// Size in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
    access!(read64, write64, u64);

    #[inline]
    fn at<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len || !offset.is_multiple_of(size_of::<T>()) {
            return None;
        }
        // SAFETY: `offset` is inside the mapping.
        Some(unsafe { self.ptr.add(offset) }.cast())
    }
}

/// Unmaps what [`Bar::map`] mapped: all pages that have a byte of it.
fn unmap(ptr: NonNull<u8>, len: usize) {
    let skip = ptr.addr().get() % rustix::param::page_size();
    // SAFETY: the range is exactly what `map` mapped, and the bar that had it ends.
    let _ = unsafe { rustix::mm::munmap(ptr.as_ptr().wrapping_sub(skip).cast(), skip + len) };
}

impl Drop for Bar {
    fn drop(&mut self) {
        // First make the guard forget the range: its addresses may be somebody else's next.
        if let Some(guard) = &self.guard {
            guard.end();
        }
        if let Some(owner) = &self.owner {
            owner.unmaps(self.range().0);
        }
        if let Some(unmap) = self.unmap {
            unmap(self.ptr, self.len);
        }
    }
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bar").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    impl Owner for () {}

    #[test]
    fn areas_are_mapped_and_what_is_between_them_is_nobodys() {
        let page = rustix::param::page_size();
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (1..=4).flat_map(|n| vec![n; page]).collect();
        file.write_all(&bytes).unwrap();
        let keep: Arc<dyn Owner> = Arc::new(());
        let areas = [(0, page), (2 * page, page)];
        let len = 3 * page - 16;
        let from = page as u64;
        let bar = Bar::map(file.as_fd(), from, 16, len, &areas, Some(Arc::clone(&keep))).unwrap();
        assert_eq!((bar.read8(0), bar.read8(page - 16), bar.read8(2 * page - 16)), (2, 0, 4));
        bar.write8(1, 9);
        assert!(!bar.is_gone());
        // The file shrinks as if the device had gone.
        file.set_len(0).unwrap();
        assert_eq!((bar.read8(2 * page), bar.is_gone()), (0, true));
        assert_eq!(Arc::strong_count(&keep), 2);
        drop(bar);
        assert_eq!(Arc::strong_count(&keep), 1);
        for (skip, len, areas) in [
            (page, 16, vec![]),
            (0, 0, vec![]),
            (0, page, vec![(0, 2 * page)]),
            (0, page, vec![(8, 8)]),
        ] {
            assert!(Bar::map(file.as_fd(), 0, skip, len, &areas, None).is_err());
        }
    }

    #[test]
    fn registers_outside_of_the_mapping_are_absent() {
        let bar = Bar::memory(2);
        assert_eq!(bar.len(), 16);
        bar.write32(12, 0x0102_0304);
        bar.write32(16, 5);
        bar.write32(13, 5);
        assert_eq!((bar.read32(12), bar.read8(15), bar.read16(12)), (0x0102_0304, 1, 0x0304));
        assert_eq!(
            (bar.read32(16), bar.read8(usize::MAX), bar.read64(4)),
            (u32::MAX, 255, u64::MAX)
        );
        assert_eq!(bar.read64(8), 0x0102_0304 << 32);
    }
}
