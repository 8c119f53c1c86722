//! Which path found a rule, of the paths of an era: so that a rule that is gone is about the one that found it, and
//! nothing is asked of any other.
//!
//! A rule is in one bucket, which is a line of memory, by its hash. Where more than one path found a rule, only
//! that is remembered; likewise of rules for which their bucket has no room. Numbers of paths are given once, so that
//! one that is gone is nobody's.

use packet::prefetch::prefetch_read;

use crate::pattern::{finish, mix};

/// The buckets, as a power of two.
const BUCKET_BITS: u32 = 12;

/// Rules of a bucket.
const WAYS: usize = 8;

/// Numbers that no path has: of nobody, of several paths, and of all rules for which there was no room.
const NOBODY: u32 = u32::MAX;
const SEVERAL: u32 = u32::MAX - 1;
const OTHERS: u32 = u32::MAX - 2;

/// Who found a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finder {
    /// No path.
    Nobody,
    /// The path of this number alone, if it is still there.
    One(u32),
    /// More than one, or it is not known.
    Several,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    path: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket([Slot; WAYS]);

const EMPTY: Bucket = Bucket([Slot { tag: 0, path: NOBODY }; WAYS]);

/// The paths that found rules.
#[derive(Debug)]
pub(super) struct Finders {
    /// None before the first era in which that is noted.
    buckets: Vec<Bucket>,
    seed: u64,
}

impl Finders {
    /// Without memory yet.
    pub(super) const fn new(seed: u64) -> Self {
        Self { buckets: Vec::new(), seed }
    }

    /// Forgets all, and begins to note.
    pub(super) fn restart(&mut self) {
        self.buckets.clear();
        self.buckets.resize(1 << BUCKET_BITS, EMPTY);
    }

    /// The bucket of a rule, and what tells it apart there.
    fn place(&self, rule: u64) -> (usize, u32) {
        let hash = finish(mix(self.seed, rule));
        let bits = |hash: u64| usize::try_from(hash & ((1 << BUCKET_BITS) - 1)).unwrap_or_default();
        (bits(hash), u32::try_from(hash >> 32).unwrap_or_default())
    }

    /// It is going to be asked who found a rule.
    #[inline]
    pub(super) fn fetch(&self, rule: u64) {
        if let Some(bucket) = self.buckets.get(self.place(rule).0) {
            prefetch_read(std::ptr::from_ref(bucket).cast());
        }
    }

    /// A path found a rule, which is told by the address of what it counts in.
    pub(super) fn note(&mut self, rule: u64, id: u32, is_there: &impl Fn(u32) -> bool) {
        let (at, tag) = self.place(rule);
        let Some(Bucket(slots)) = self.buckets.get_mut(at) else { return };
        let is_live = |slot: &Slot| slot.path >= OTHERS || is_there(slot.path);
        if let Some(own) = slots.iter_mut().find(|slot| slot.tag == tag && slot.path < OTHERS) {
            if own.path != id {
                own.path = if is_there(own.path) { SEVERAL } else { id };
            }
            return;
        }
        let is_known = |slot: &Slot| slot.path == OTHERS || slot.path == SEVERAL && slot.tag == tag;
        if slots.iter().any(is_known) {
            return;
        }
        let is_free = |slot: &&mut Slot| slot.path == NOBODY || !is_live(slot);
        match slots.iter_mut().find(is_free) {
            Some(free) => *free = Slot { tag, path: id },
            // What is not found here is anybody's from now on.
            None => slots.iter_mut().take(1).for_each(|slot| slot.path = OTHERS),
        }
    }

    /// Who found a rule.
    pub(super) fn of(&self, rule: u64) -> Finder {
        let (at, tag) = self.place(rule);
        let Some(Bucket(slots)) = self.buckets.get(at) else { return Finder::Several };
        let own =
            slots.iter().find(|slot| slot.tag == tag && !matches!(slot.path, OTHERS | NOBODY));
        match own.map(|slot| slot.path) {
            Some(SEVERAL) => Finder::Several,
            Some(path) => Finder::One(path),
            None if slots.iter().any(|slot| slot.path == OTHERS) => Finder::Several,
            None => Finder::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn before_anything_is_noted_nobody_is_known() {
        assert_eq!(Finders::new(1).of(7), Finder::Several);
    }

    proptest! {
        /// Compared with sets of the paths that found each rule, where paths may be gone in between.
        #[test]
        fn whoever_found_a_rule_is_told(
            steps in prop::collection::vec((0..40_u64, 0..12_u32, 0..8_u8), 0..200),
        ) {
            let mut finders = Finders::new(1);
            finders.restart();
            let (mut model, mut gone) = (HashMap::<u64, HashSet<u32>>::new(), HashSet::new());
            for (rule, path, kind) in steps {
                if kind == 0 {
                    gone.insert(path);
                } else if !gone.contains(&path) {
                    finders.note(rule, path, &|id| !gone.contains(&id));
                    model.entry(rule).or_default().insert(path);
                }
            }
            for rule in 0..40 {
                let all = model.get(&rule).into_iter().flatten().filter(|id| !gone.contains(id));
                let all: Vec<u32> = all.copied().collect();
                match finders.of(rule) {
                    Finder::Nobody => prop_assert!(all.is_empty()),
                    Finder::One(id) => prop_assert!(all.iter().all(|own| *own == id)),
                    Finder::Several => prop_assert!(model.contains_key(&rule)),
                }
            }
        }
    }

    #[test]
    fn of_more_rules_than_there_is_room_for_none_is_said_to_be_nobodys() {
        let mut finders = Finders::new(1);
        finders.restart();
        let rules = (2 * WAYS as u64) << BUCKET_BITS;
        (0..rules).for_each(|rule| finders.note(rule, 3, &|_| true));
        assert!((0..rules).all(|rule| finders.of(rule) != Finder::Nobody));
        finders.restart();
        assert!((0..rules).all(|rule| finders.of(rule) == Finder::Nobody));
        // Those of which the paths are gone make room.
        for id in 0..64 {
            let rules = (0..1 << (BUCKET_BITS - 2)).map(|rule| rule << 8 | u64::from(id));
            rules.clone().for_each(|rule| finders.note(rule, id, &|own| own == id));
            assert!(rules.clone().all(|rule| finders.of(rule) == Finder::One(id)), "{id}");
        }
    }
}
