//! Where a device has stopped that served a split ring by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{Parts, SplitQueue};
use crate::device::{BaseCheck, RingSetup, SetupError};
use crate::memory::GuestMemory;
use crate::ring::{ENTRIES_OFFSET, FLAGS_OFFSET, INDEX_OFFSET, QueueSize};

impl SplitQueue {
    /// Whether a device that starts at index 0 in both rings fits: it does where the ring is to
    /// start there and the used ring is at 0 as well.
    pub(in crate::device) fn is_new(memory: &GuestMemory, setup: &RingSetup) -> bool {
        let resolved =
            QueueSize::new(setup.size).and_then(|size| Parts::resolve(memory, setup, size).ok());
        let Some(parts) = resolved else { return false };
        setup.base == 0 && parts.used_index() == 0
    }

    /// Looks whether a device that uses chains in order can go on at the base in `setup`. Where it
    /// leaves nothing in flight, that is where the used ring ends.
    ///
    /// Where a back-end was killed nobody could ask it. QEMU looks into the used ring then; DPDK
    /// starts every ring at 0 again.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(in crate::device) fn check_base(
        memory: &GuestMemory,
        setup: &RingSetup,
    ) -> Result<BaseCheck, SetupError> {
        let size = QueueSize::new(setup.size).ok_or(SetupError::Size(setup.size))?;
        let told = u16::try_from(setup.base)
            .map_err(|_| SetupError::Base { base: setup.base, size: setup.size })?;
        let parts = Parts::resolve(memory, setup, size)?;
        let used = parts.used_index();
        let outstanding = parts.avail_index().wrapping_sub(used);
        // Rings that do not fit together are broken, wherever one begins.
        if told == used || outstanding > size.get() {
            return Ok(BaseCheck::Fits);
        }
        Ok(BaseCheck::Found(used.into()))
    }

    /// The base of a ring that a device has served by itself until it was reset: the first entry of
    /// the available ring that is to be given to a device again, and the number of chains that
    /// were given back to the guest unused.
    ///
    /// A device that uses chains in order has stopped where the used index is. Where it does not,
    /// chains that it has not used, older than one that it has used, go back to the guest empty,
    /// so that none is used twice and none is lost. That takes the available ring to have their
    /// entries still, and is certain only as long as no head has come up again meanwhile: the
    /// rings do not tell in which order things have happened in both.
    ///
    /// # Errors
    /// When the ring does not lie in `memory`.
    pub fn recover(memory: Arc<GuestMemory>, setup: RingSetup) -> Result<(u32, u16), SetupError> {
        let size = QueueSize::new(setup.size).ok_or(SetupError::Size(setup.size))?;
        let parts = Parts::resolve(&memory, &setup, size)?;
        let mut queue = Self::begin(memory, setup, size, parts);
        let outstanding = queue.outstanding();
        // Those that no younger one is used of are the youngest of the ring.
        let avail = queue.load16(queue.parts.avail, INDEX_OFFSET, Ordering::Acquire);
        let mut base = avail;
        let mut older = outstanding.as_slice();
        while let Some((last, rest)) = older.split_last()
            && *last == base.wrapping_sub(1)
        {
            (base, older) = (*last, rest);
        }
        for index in older {
            let head = queue.parts.head(size, *index);
            queue.parts.set_used(size, queue.next_used, head, 0);
            queue.next_used = queue.next_used.wrapping_add(1);
        }
        if !older.is_empty() {
            let next = queue.next_used;
            queue.store16(queue.parts.used, INDEX_OFFSET, next, Ordering::Release);
        }
        // The guest is to notify whoever comes next.
        queue.store16(queue.parts.used, FLAGS_OFFSET, 0, Ordering::Relaxed);
        let given_back = u16::try_from(older.len()).unwrap_or(u16::MAX);
        Ok((queue.next_used.into(), given_back))
    }

    /// Entries of the available ring, oldest first, whose chains are not in the used ring; nothing
    /// where the two rings do not fit together.
    ///
    /// A chain that is available again was used before. So in the last `size` entries of the
    /// available ring a chain is once more than among the used ones of that time, at its last
    /// place, if it is outstanding.
    fn outstanding(&self) -> Vec<u16> {
        let avail = self.load16(self.parts.avail, INDEX_OFFSET, Ordering::Acquire);
        let left = avail.wrapping_sub(self.next_used);
        let size = self.size.get();
        if left == 0 || left > size {
            return Vec::new();
        }
        let mut surplus = vec![0_i32; size.into()];
        let from = avail.wrapping_sub(size);
        let mut count = |id: u32, by: i32| {
            let place = usize::try_from(id).ok().and_then(|id| surplus.get_mut(id));
            if let Some(place) = place {
                *place += by;
            }
        };
        for step in 0..size {
            let index = from.wrapping_add(step);
            count(self.parts.head(self.size, index).into(), 1);
            if step < size.saturating_sub(left) {
                count(self.parts.used_id(self.size, index), -1);
            }
        }
        let mut found = Vec::new();
        for index in (0..size).rev().map(|step| from.wrapping_add(step)) {
            let head = usize::from(self.parts.head(self.size, index));
            if let Some(place) = surplus.get_mut(head).filter(|place| **place > 0) {
                *place = 0;
                found.push(index);
            }
        }
        found.reverse();
        if found.len() == usize::from(left) { found } else { self.in_order(avail, left) }
    }

    /// What is outstanding if all chains were used in order.
    fn in_order(&self, avail: u16, left: u16) -> Vec<u16> {
        (0..left).rev().map(|back| avail.wrapping_sub(back).wrapping_sub(1)).collect()
    }
}

impl Parts {
    /// The index of the used ring.
    fn used_index(self) -> u16 {
        // SAFETY: the used ring has its index at this offset, and is aligned to 4.
        let index = unsafe { AtomicU16::from_ptr(self.used.add(INDEX_OFFSET).cast().as_ptr()) };
        index.load(Ordering::Relaxed)
    }

    /// The index of the available ring.
    fn avail_index(self) -> u16 {
        // SAFETY: the available ring has its index at this offset, and is aligned to 2.
        let index = unsafe { AtomicU16::from_ptr(self.avail.add(INDEX_OFFSET).cast().as_ptr()) };
        index.load(Ordering::Relaxed)
    }

    /// The id in the element of the used ring at free-running index `index`.
    fn used_id(self, size: QueueSize, index: u16) -> u32 {
        let offset = ENTRIES_OFFSET + 8 * size.position(index);
        // SAFETY: `position` is less than the ring's size, so the element lies in the used ring.
        unsafe { self.used.add(offset).cast::<u32>().read_volatile() }
    }
}
