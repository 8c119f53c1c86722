//! The memory layout of a split ring (virtio 1.3 section 2.7), for both sides.
//!
//! A ring of `n` entries has three parts:
//!
//! | part | alignment | bytes |
//! |---|---|---|
//! | descriptor table | 16 | `16 n` |
//! | available ring: flags, index, `n` heads, `used_event` | 2 | `6 + 2 n` |
//! | used ring: flags, index, `n` elements, `avail_event` | 4 | `6 + 8 n` |

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Largest number of entries (virtio 1.3 section 2.7).
pub const MAX_SIZE: u16 = 32_768;

/// `Desc::flags`: the chain goes on at `next`.
pub const DESC_NEXT: u16 = 1;
/// `Desc::flags`: the device writes this buffer; otherwise it reads it.
pub const DESC_WRITE: u16 = 2;
/// `Desc::flags`: the buffer is a table of descriptors.
pub const DESC_INDIRECT: u16 = 4;

/// Flag of the available ring: the driver wants no interrupts.
pub const AVAIL_NO_INTERRUPT: u16 = 1;
/// Flag of the used ring: the device wants no notifications.
pub const USED_NO_NOTIFY: u16 = 1;

/// Offset of the flags in the available and the used ring.
pub const FLAGS_OFFSET: usize = 0;
/// Offset of the index in the available and the used ring.
pub const INDEX_OFFSET: usize = 2;
/// Offset of the first entry in the available and the used ring.
pub const ENTRIES_OFFSET: usize = 4;

/// A descriptor as it lies in memory (little endian).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Desc {
    /// Address of the buffer, as the device sees it.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// `DESC_*`.
    pub flags: u16,
    /// The next descriptor of the chain, where `flags` has [`DESC_NEXT`].
    pub next: u16,
}

/// An entry of the used ring as it lies in memory (little endian).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct UsedElem {
    /// Head of the chain that was used.
    pub id: u32,
    /// Bytes that the device wrote into it.
    pub len: u32,
}

const _: () = assert!(size_of::<Desc>() == 16 && size_of::<UsedElem>() == 8);
#[cfg(target_endian = "big")]
compile_error!("Ringway reads rings in place and supports little-endian machines only");

/// The number of entries of a split ring: a power of two, 32,768 at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSize(u16);

impl QueueSize {
    /// Checks a size; `None` unless it is a power of two from 1 to [`MAX_SIZE`].
    #[must_use]
    pub const fn new(size: u16) -> Option<Self> {
        if size.is_power_of_two() && size <= MAX_SIZE { Some(Self(size)) } else { None }
    }

    /// The number of entries.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The position of free-running index `index` in the ring.
    #[must_use]
    #[inline]
    pub const fn position(self, index: u16) -> usize {
        // A size is never 0.
        (index & self.0.wrapping_sub(1)) as usize
    }

    /// Bytes of the descriptor table.
    #[must_use]
    pub const fn desc_bytes(self) -> usize {
        16 * self.0 as usize
    }

    /// Bytes of the available ring, `used_event` included.
    #[must_use]
    pub const fn avail_bytes(self) -> usize {
        6 + 2 * self.0 as usize
    }

    /// Bytes of the used ring, `avail_event` included.
    #[must_use]
    pub const fn used_bytes(self) -> usize {
        6 + 8 * self.0 as usize
    }

    /// Offset of `used_event` in the available ring.
    #[must_use]
    pub const fn used_event_offset(self) -> usize {
        ENTRIES_OFFSET + 2 * self.0 as usize
    }

    /// Offset of `avail_event` in the used ring.
    #[must_use]
    pub const fn avail_event_offset(self) -> usize {
        ENTRIES_OFFSET + 8 * self.0 as usize
    }
}

/// Whether a peer that asked to hear of index `event` must hear of the step from `old` to `new`
/// (virtio 1.3 section 2.7.10, `vring_need_event`).
#[must_use]
#[inline]
pub const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Reads a descriptor once. The guest may write it at the same moment; then its parts may
/// not belong together, which the checks that follow have to stand anyway.
///
/// # Safety
///
/// `ptr` must be valid for reads of 16 bytes and aligned to 8.
#[inline]
pub(crate) unsafe fn read_desc(ptr: NonNull<u8>) -> Desc {
    // SAFETY: the caller vouches for all of it.
    let (addr, len, rest) = unsafe {
        let addr = AtomicU64::from_ptr(ptr.cast().as_ptr()).load(Ordering::Relaxed);
        let len = AtomicU32::from_ptr(ptr.add(8).cast().as_ptr()).load(Ordering::Relaxed);
        let rest = AtomicU32::from_ptr(ptr.add(12).cast().as_ptr()).load(Ordering::Relaxed);
        (addr, len, rest)
    };
    #[allow(clippy::cast_possible_truncation, reason = "takes the fields of a word apart")]
    Desc { addr, len, flags: rest as u16, next: (rest >> 16) as u16 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_powers_of_two() {
        assert_eq!(QueueSize::new(0), None);
        assert_eq!(QueueSize::new(255), None);
        assert_eq!(QueueSize::new(65_535), None);
        assert_eq!(QueueSize::new(32_768).map(QueueSize::get), Some(32_768));
    }

    #[test]
    fn every_event_index_is_passed_by_the_steps_over_it_alone() {
        for old in [0, 1, 0x7fff, 0xfffe, u16::MAX] {
            for step in [0, 1, 2, 256, 32_768, u16::MAX] {
                for event in 0..=u16::MAX {
                    let passed = event.wrapping_sub(old) < step;
                    assert_eq!(need_event(event, old.wrapping_add(step), old), passed);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn an_event_is_needed_exactly_when_its_index_was_passed(
            old in any::<u16>(), step in 0_u16..1000, event in any::<u16>(),
        ) {
            let passed = (0..step).any(|index| old.wrapping_add(index) == event);
            prop_assert_eq!(need_event(event, old.wrapping_add(step), old), passed);
        }
    }
}
