//! Which addresses devices use for which memory.
//!
//! An address that a device sends (IOVA) need not be the process's own: IOMMUs of 39 bits exist,
//! which 47-bit pointers do not fit into, and the addresses at which interrupts are signalled lie
//! in between. So addresses are given out here, from the lowest on, which also suits devices that
//! send 32 bits only.

use std::collections::BTreeMap;

use ordered::Order as _;

/// The lowest addresses are never used: a device that was not told an address, and sends 0 or
/// little more, meets nothing.
const FIRST: u64 = 2 << 20;

/// Ranges of addresses and what is used of them.
#[derive(Clone, Debug, Default)]
pub struct IovaSpace {
    /// First and last address of each, in order, none overlapping another.
    ranges: Vec<(u64, u64)>,
    /// Length by first address.
    used: BTreeMap<u64, u64>,
}

impl IovaSpace {
    /// From now on only addresses in `ranges` (first and last of each) are given out; those that
    /// are used stay used.
    pub fn set_ranges(&mut self, mut ranges: Vec<(u64, u64)>) {
        ranges.retain(|(first, last)| first <= last);
        ranges.order();
        self.ranges = ranges;
    }

    /// The lowest free `len` bytes at a multiple of `align`, a power of two; `None` when there
    /// are none.
    pub fn allocate(&mut self, len: u64, align: u64) -> Option<u64> {
        if len == 0 || !align.is_power_of_two() {
            return None;
        }
        let at = self.ranges.iter().find_map(|range| self.free_in(*range, len, align))?;
        self.used.insert(at, len);
        Some(at)
    }

    /// Takes the `len` bytes from `at` on, which may also be those that are never given out;
    /// `false` when one of them is outside of the ranges, or used.
    pub fn reserve(&mut self, at: u64, len: u64) -> bool {
        let Some(end) = len.checked_sub(1).and_then(|more| at.checked_add(more)) else {
            return false;
        };
        // Ranges may follow each other without a gap.
        let mut from = Some(at);
        for (first, last) in &self.ranges {
            if from.is_some_and(|from| (*first..=*last).contains(&from)) {
                from = last.checked_add(1).filter(|next| *next <= end);
            }
        }
        let before = self.used.range(..=end).next_back();
        let is_free = before.is_none_or(|(used, used_len)| used.saturating_add(*used_len) <= at);
        if from.is_some() || !is_free {
            return false;
        }
        self.used.insert(at, len);
        true
    }

    /// Gives the bytes from `at` on back.
    pub fn free(&mut self, at: u64) {
        self.used.remove(&at);
    }

    fn free_in(&self, (first, last): (u64, u64), len: u64, align: u64) -> Option<u64> {
        let mut at = first.max(FIRST).checked_next_multiple_of(align)?;
        // What begins before the range may reach into it.
        for (used, used_len) in &self.used {
            let end = at.checked_add(len - 1)?;
            if end > last || *used > end {
                break;
            }
            if let Some(after) = used.checked_add(*used_len)
                && after > at
            {
                at = after.checked_next_multiple_of(align)?;
            }
        }
        at.checked_add(len - 1).filter(|end| *end <= last).map(|_| at)
    }
}

/// The ranges assumed where the kernel does not tell: 39 bits, without the window in which x86
/// signals interrupts.
pub fn assumed_ranges() -> Vec<(u64, u64)> {
    vec![(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)]
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn addresses_are_low_aligned_and_inside_the_ranges() {
        let mut space = IovaSpace::default();
        assert_eq!(space.allocate(4096, 4096), None);
        space.set_ranges(assumed_ranges());
        assert_eq!(space.allocate(4096, 4096), Some(2 * MIB));
        assert_eq!(space.allocate(2 * MIB, 2 * MIB), Some(4 * MIB));
        assert_eq!(space.allocate(8192, 4096), Some(2 * MIB + 4096));
        // Too large for what is below the interrupts.
        assert_eq!(space.allocate(4096 * MIB, 2 * MIB), Some(0xff00_0000));
        assert_eq!(space.allocate(1 << 39, 4096), None);
        assert_eq!(space.allocate(u64::MAX, 1 << 63), None);
        assert_eq!(space.allocate(0, 4096), None);
        space.free(2 * MIB);
        assert_eq!(space.allocate(4096, 4096), Some(2 * MIB));
    }

    #[test]
    fn addresses_of_somebody_elses_choice_are_inside_the_ranges_and_free() {
        let mut space = IovaSpace::default();
        assert!(!space.reserve(0, 4096));
        space.set_ranges(vec![(0, MIB - 1), (MIB, 8 * MIB - 1), (9 * MIB, 64 * MIB)]);
        // The lowest addresses, over two ranges that touch.
        assert!(space.reserve(0, 2 * MIB));
        assert!(!space.reserve(MIB, MIB) && !space.reserve(0, 64));
        assert!(!space.reserve(7 * MIB, 2 * MIB) && !space.reserve(8 * MIB, MIB));
        assert!(!space.reserve(4 * MIB, 0) && !space.reserve(u64::MAX, 2));
        assert!(!space.reserve(60 * MIB, 5 * MIB));
        assert_eq!(space.allocate(MIB, MIB), Some(2 * MIB));
        assert!(!space.reserve(MIB + 4096, 3 * MIB) && space.reserve(3 * MIB, 4096));
        assert_eq!(space.allocate(MIB, MIB), Some(4 * MIB));
        space.free(0);
        assert!(space.reserve(MIB, MIB));
    }

    #[test]
    fn narrower_ranges_hold_for_what_comes() {
        let mut space = IovaSpace::default();
        space.set_ranges(vec![(0, u64::MAX)]);
        let low = space.allocate(64 * MIB, MIB).unwrap();
        space.set_ranges(vec![(32 * MIB, 100 * MIB - 1), (9, 3)]);
        assert_eq!(low, 2 * MIB);
        assert_eq!(space.allocate(34 * MIB, MIB), Some(66 * MIB));
        assert_eq!(space.allocate(MIB, MIB), None);
    }

    proptest! {
        #[test]
        fn nothing_overlaps(steps in prop::collection::vec((1_u32..40, 0_u32..4, any::<bool>()), 1..60)) {
            let mut space = IovaSpace::default();
            let ranges = vec![(3 * MIB + 5, 20 * MIB), (24 * MIB, 40 * MIB - 1)];
            space.set_ranges(ranges.clone());
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (pages, shift, free) in steps {
                if free && !held.is_empty() {
                    let (at, _) = held.swap_remove(pages as usize % held.len());
                    space.free(at);
                }
                let (len, align) = (u64::from(pages) * 65_536, 4096_u64 << (3 * shift));
                if let Some(at) = space.allocate(len, align) {
                    prop_assert!(at.is_multiple_of(align));
                    prop_assert!(ranges.iter().any(|(a, b)| *a <= at && at + len - 1 <= *b));
                    prop_assert!(held.iter().all(|(b, l)| at + len <= *b || b + l <= at));
                    held.push((at, len));
                }
            }
        }
    }
}
