//! Where a piece of memory is, for a driver and for its device.

use std::ptr::NonNull;

/// Where a driver and its device find a piece of memory, each at an address of its own: the driver
/// at a pointer, the device at a number that means something to it alone (a DMA address, or a
/// guest-physical address of the vhost-user memory table).
///
/// It is a note, and promises nothing: the memory may be gone. Whoever uses the pointer keeps the
/// memory; a [`DmaPart`](super::DmaPart) does.
#[derive(Clone, Copy, Debug)]
pub struct DmaMemory {
    host: NonNull<u8>,
    len: usize,
    device: u64,
}

// SAFETY: it is two addresses with a length; to use the pointer is unsafe wherever it is done.
unsafe impl Send for DmaMemory {}
// SAFETY: as above; there is no interior state.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// Notes `len` bytes at `host`, which the device finds at `device`. `None` when the device's
    /// addresses would overflow.
    #[must_use]
    pub const fn new(host: NonNull<u8>, len: usize, device: u64) -> Option<Self> {
        if device.checked_add(len as u64).is_none() {
            return None;
        }
        Some(Self { host, len, device })
    }

    /// `len` bytes from `offset` on; `None` when they are not all inside.
    #[must_use]
    #[inline]
    pub fn slice(&self, offset: usize, len: usize) -> Option<Self> {
        if offset > self.len || len > self.len - offset {
            return None;
        }
        // Nobody vouches for the pointer, so this is arithmetic and no more.
        let host = self.host.map_addr(|addr| addr.saturating_add(offset));
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
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_inside_and_keep_both_addresses() {
        let mut bytes = [0_u8; 100];
        let host = NonNull::from(&mut bytes).cast::<u8>();
        let memory = DmaMemory::new(host, 100, 0x1000).unwrap();
        let piece = memory.slice(90, 10).unwrap();
        assert_eq!((piece.device(), piece.len()), (0x1000 + 90, 10));
        assert_eq!(piece.host().addr().get() - host.addr().get(), 90);
        assert!(memory.slice(100, 0).is_some());
        assert!(memory.slice(91, 10).is_none());
        assert!(memory.slice(101, 0).is_none());
        assert!(memory.slice(1, usize::MAX).is_none());
        assert!(DmaMemory::new(host, 100, u64::MAX - 99).is_none());
    }
}
