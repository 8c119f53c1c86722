//! A device's registers in memory.

use std::fmt;
use std::ptr::NonNull;

/// A mapped base address register: registers of a device.
///
/// Every access is one volatile load or store of its own width. An offset outside of the mapping
/// reads as all ones, as from a device that is gone, and is not written: offsets are constants of
/// drivers or were checked against [`len`](Self::len), so this is a net and no check to rely on.
pub struct Bar {
    ptr: NonNull<u8>,
    len: usize,
    /// Undoes the mapping.
    unmap: Option<fn(NonNull<u8>, usize)>,
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
        Self { ptr, len, unmap }
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

impl Drop for Bar {
    fn drop(&mut self) {
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
mod tests {
    use super::*;

    #[test]
    fn registers_outside_of_the_mapping_are_absent() {
        let mut memory = [0_u64; 2];
        let ptr = NonNull::from(&mut memory).cast();
        // SAFETY: `memory` outlives the value and is only used through it until the end.
        let bar = unsafe { Bar::new(ptr, 16, None) };
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
