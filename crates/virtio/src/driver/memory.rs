//! Memory that a driver shares with its device.

use std::ptr::NonNull;

/// A piece of memory that a driver and its device both reach, each at an address of its own: the
/// driver at a pointer, the device at a number that means something to it alone (a DMA address, or
/// a guest-physical address of the vhost-user memory table).
///
/// The device may write it at any time, so its bytes are copied out or accessed one volatile word
/// at a time, never borrowed.
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory {
    host: NonNull<u8>,
    len: usize,
    device: u64,
}

// SAFETY: it is an address with a length; whoever made it vouched for the memory without regard
// to threads, and using the pointer is unsafe wherever it is done.
unsafe impl Send for DmaMemory {}
// SAFETY: as above; there is no interior state.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// Describes `len` bytes at `host`, which the device finds at `device`. `None` when the
    /// device's addresses would overflow.
    ///
    /// # Safety
    ///
    /// The bytes must stay mapped, readable and writable for as long as this value, a part of it, or
    /// a queue made of it is used, or the device may reach them. Nobody may hold a Rust reference
    /// to them meanwhile.
    #[must_use]
    pub const unsafe fn new(host: NonNull<u8>, len: usize, device: u64) -> Option<Self> {
        if device.checked_add(len as u64).is_none() {
            return None;
        }
        Some(Self { host, len, device })
    }

    /// `len` bytes from `offset` on; `None` when they are not all inside.
    #[must_use]
    #[inline]
    pub const fn slice(&self, offset: usize, len: usize) -> Option<Self> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        // SAFETY: `offset` is at most the length, so the pointer stays inside or just behind.
        let host = unsafe { self.host.add(offset) };
        Some(Self { host, len, device: self.device + offset as u64 })
    }

    /// The driver's address.
    #[must_use]
    #[inline]
    pub const fn host(&self) -> NonNull<u8> {
        self.host
    }

    /// The device's address.
    #[must_use]
    #[inline]
    pub const fn device(&self) -> u64 {
        self.device
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a place, not a collection")]
    pub const fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_inside_and_keep_both_addresses() {
        let mut bytes = [0_u8; 100];
        let host = NonNull::from(&mut bytes).cast::<u8>();
        // SAFETY: `bytes` outlives the value, and only addresses are looked at.
        let memory = unsafe { DmaMemory::new(host, 100, 0x1000) }.unwrap();
        let part = memory.slice(90, 10).unwrap();
        assert_eq!((part.device(), part.len()), (0x1000 + 90, 10));
        assert_eq!(part.host().addr().get() - host.addr().get(), 90);
        assert!(memory.slice(100, 0).is_some());
        assert!(memory.slice(91, 10).is_none());
        assert!(memory.slice(101, 0).is_none());
        assert!(memory.slice(1, usize::MAX).is_none());
        // SAFETY: as above.
        assert!(unsafe { DmaMemory::new(host, 100, u64::MAX - 99) }.is_none());
    }
}
