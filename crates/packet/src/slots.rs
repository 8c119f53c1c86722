//! Memory for the frames that a driver receives by copying: one slot per frame of a burst.

use std::ptr::NonNull;

use crate::frame::{BURST, FrameBatch};
use crate::offload::{BadOffload, Capabilities, OffloadRequest};

/// The largest frame that fits into a slot: what the length of a frame's head can say.
pub const MAX_SLOT_LEN: usize = u16::MAX as usize;

/// Added to the distance of slots, so that their first bytes are in different sets of the cache.
const SKEW: usize = 192;

/// A burst of frames in private memory, filled slot by slot.
///
/// The memory is reserved when the value is made and becomes resident only where frames are
/// written: a page per slot for small frames.
#[derive(Debug)]
pub struct SlotBatch {
    /// Dropped first: its frames point into `memory`.
    batch: FrameBatch,
    memory: NonNull<[u8]>,
    slot_len: usize,
}

// SAFETY: `memory` belongs to this value alone, as a Box would.
unsafe impl Send for SlotBatch {}

impl SlotBatch {
    /// A batch of frames of up to `slot_len` bytes, [`MAX_SLOT_LEN`] at most.
    pub fn new(slot_len: usize) -> Self {
        let slot_len = slot_len.min(MAX_SLOT_LEN);
        // One byte more than a frame may have, so that a device's overlong frame is noticed.
        let memory = vec![0_u8; BURST * Self::stride(slot_len)].into_boxed_slice();
        Self {
            batch: FrameBatch::with_segments(0),
            memory: NonNull::from(Box::leak(memory)),
            slot_len,
        }
    }

    const fn stride(slot_len: usize) -> usize {
        (slot_len + 1).next_multiple_of(64) + SKEW
    }

    /// The memory of the next frame: one byte longer than the longest frame, so that whoever
    /// fills it can tell a frame that did not fit. `None` when the batch is full.
    #[inline]
    pub fn next_slot(&mut self) -> Option<&mut [u8]> {
        let index = self.batch.frames().len();
        if index >= BURST {
            return None;
        }
        // SAFETY: `memory` has BURST slots of this stride and `index` is less than BURST, so
        // the slot lies inside it. Frames that exist lie in slots below `index`.
        Some(unsafe {
            let slot = self.memory.cast::<u8>().add(index * Self::stride(self.slot_len));
            std::slice::from_raw_parts_mut(slot.as_ptr(), self.slot_len + 1)
        })
    }

    /// Makes a frame of the first `len` bytes of [`next_slot`](Self::next_slot), and returns
    /// whether it could: not when they are more than fit, or when the batch is full.
    #[inline]
    pub fn commit(&mut self, len: usize) -> bool {
        let Some(slot) = self.next_slot().filter(|slot| len < slot.len()) else { return false };
        let ptr = NonNull::from(slot).cast();
        let Ok(len) = u16::try_from(len) else { return false };
        // SAFETY: the bytes are this value's own and live as long as the batch; `next_slot`
        // touches none that a frame has, until `clear`.
        unsafe { self.batch.push_private(ptr, len) }
    }

    /// As [`FrameBatch::set_offload`].
    pub fn set_offload(
        &mut self,
        request: &OffloadRequest,
        allowed: Capabilities,
    ) -> Result<(), BadOffload> {
        self.batch.set_offload(request, allowed)
    }

    /// The frames that there are.
    #[inline]
    #[must_use]
    pub const fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    /// For heads to be rewritten.
    #[inline]
    pub const fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    /// Takes the frames away: their slots are free again.
    #[inline]
    pub fn clear(&mut self) {
        self.batch.clear();
    }
}

impl Drop for SlotBatch {
    fn drop(&mut self) {
        self.batch.clear();
        // SAFETY: it comes from `Box::leak` in `new` and is freed only here; no frame is left.
        drop(unsafe { Box::from_raw(self.memory.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_was_written_to_the_slots() {
        let mut slots = SlotBatch::new(100);
        for round in 0..3_u8 {
            for index in 0..BURST {
                let byte = u8::try_from(index).unwrap() + round;
                slots.next_slot().unwrap().fill(byte);
                assert!(slots.commit(index + 1));
            }
            assert!(slots.next_slot().is_none());
            assert!(!slots.commit(1));
            for (index, frame) in slots.batch().frames().iter().enumerate() {
                let byte = u8::try_from(index).unwrap() + round;
                assert_eq!(frame.to_vec(), vec![byte; index + 1]);
            }
            slots.batch_mut().head_mut(3).unwrap()[0] = 0xAA;
            assert_eq!(slots.batch().frames()[3].head()[0], 0xAA);
            slots.clear();
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_is_refused() {
        let mut slots = SlotBatch::new(usize::MAX);
        let len = slots.next_slot().unwrap().len();
        assert_eq!(len, MAX_SLOT_LEN + 1);
        assert!(!slots.commit(len));
        assert!(slots.commit(MAX_SLOT_LEN));
        assert_eq!(slots.batch().frames()[0].len(), MAX_SLOT_LEN);
    }
}
