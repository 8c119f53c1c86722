//! Which member of a bond has which part of the traffic.

use datapath::bond::way::{BUCKETS, NOBODY};

/// A difference of loads below which nothing is moved, in bytes, and as a share of the larger one.
const SMALL: u64 = 100_000;
const SHARE: u64 = 32;

/// The member of each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares([u16; BUCKETS]);

impl Default for Shares {
    fn default() -> Self {
        Self([NOBODY; BUCKETS])
    }
}

impl Shares {
    pub(crate) const fn table(&self) -> [u16; BUCKETS] {
        self.0
    }

    /// How many parts a member has.
    pub(crate) fn count(&self, member: u16) -> usize {
        self.0.iter().filter(|of| **of == member).count()
    }

    /// One member has all of it.
    pub(crate) const fn give_all(&mut self, member: u16) {
        self.0 = [member; BUCKETS];
    }

    /// A member has this part; returns whether it was another one's.
    pub(crate) fn give(&mut self, part: usize, member: u16) -> bool {
        self.0.get_mut(part).is_some_and(|of| std::mem::replace(of, member) != member)
    }

    /// Divides all parts among `members`, as evenly as that goes; those that have the right ones
    /// keep them.
    pub(crate) fn divide(&mut self, members: &[u16]) {
        let Some(most) = BUCKETS
            .checked_add(members.len())
            .and_then(|all| all.saturating_sub(1).checked_div(members.len()))
        else {
            return self.give_all(NOBODY);
        };
        // What is with others, or beyond anybody's share, is free.
        for &member in members {
            let mut left = most;
            for place in self.0.iter_mut().filter(|of| **of == member) {
                match left.checked_sub(1) {
                    Some(less) => left = less,
                    None => *place = NOBODY,
                }
            }
        }
        for place in 0..BUCKETS {
            let is_kept = self.0.get(place).is_some_and(|of| members.contains(of));
            let least = members.iter().min_by_key(|member| self.count(**member)).copied();
            if let (false, Some(least), Some(place)) = (is_kept, least, self.0.get_mut(place)) {
                *place = least;
            }
        }
    }

    /// Moves parts from the member with the most load to that with the least, as long as that makes
    /// them more alike; returns how many were moved.
    pub(crate) fn rebalance(&mut self, members: &[u16], loads: &[u64; BUCKETS]) -> usize {
        let mut moved = 0_usize;
        while moved < BUCKETS {
            let all = members.iter().map(|member| (self.load(*member, loads), *member));
            let (Some((most, from)), Some((least, to))) = (all.clone().max(), all.min()) else {
                break;
            };
            let excess = most.saturating_sub(least);
            if excess < SMALL || excess < most / SHARE {
                break;
            }
            // The part that comes closest to half of the difference, and makes it smaller.
            let parts = self.0.iter().enumerate().filter(|(_, of)| **of == from);
            let parts = parts.filter_map(|(place, _)| Some((place, *loads.get(place)?)));
            let fitting = parts.filter(|(_, load)| *load > 0 && *load < excess);
            let best = fitting.min_by_key(|(_, load)| load.abs_diff(excess / 2));
            let Some(place) = best.and_then(|(place, _)| self.0.get_mut(place)) else { break };
            *place = to;
            moved = moved.saturating_add(1);
        }
        moved
    }

    /// The load of a member.
    pub(crate) fn load(&self, member: u16, loads: &[u64; BUCKETS]) -> u64 {
        let parts = self.0.iter().zip(loads).filter(|(of, _)| **of == member);
        parts.fold(0, |all, (_, load)| all.saturating_add(*load))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_divided_evenly_and_stay_where_they_are() {
        let mut shares = Shares::default();
        shares.divide(&[3, 5]);
        assert_eq!([3, 5].map(|member| shares.count(member)), [128, 128]);
        let before = shares;
        shares.divide(&[3, 5, 7]);
        assert!([3, 5, 7].iter().all(|member| (84..=86).contains(&shares.count(*member))));
        let moved = before.0.iter().zip(&shares.0).filter(|(old, new)| old != new).count();
        assert_eq!(moved, 84, "no more than the new one has");
        shares.divide(&[5, 7]);
        assert_eq!([3, 5, 7].map(|member| shares.count(member)), [0, 128, 128]);
        shares.divide(&[]);
        assert_eq!(shares, Shares::default());
    }

    #[test]
    fn load_is_moved_until_it_is_alike() {
        let mut shares = Shares::default();
        shares.divide(&[1, 2]);
        let mut loads = [0; BUCKETS];
        let of_one: Vec<usize> = (0..BUCKETS).filter(|place| shares.0[*place] == 1).collect();
        for (place, load) in of_one.iter().zip([8_000_000, 4_000_000, 2_000_000, 2_000_000]) {
            loads[*place] = load;
        }
        assert_eq!(shares.rebalance(&[1, 2], &loads), 1);
        assert_eq!([1, 2].map(|member| shares.load(member, &loads)), [8_000_000, 8_000_000]);
        assert_eq!(shares.rebalance(&[1, 2], &loads), 0);
        // One flow alone is better where it is.
        let mut loads = [0; BUCKETS];
        loads[of_one[0]] = 50_000_000;
        assert_eq!(shares.rebalance(&[1, 2], &loads), 0);
        assert_eq!(shares.rebalance(&[], &loads), 0);
    }

    proptest! {
        #[test]
        fn rebalancing_ends_and_never_makes_it_worse(
            loads in proptest::collection::vec(0_u64..10_000_000, BUCKETS), count in 1_u16..9
        ) {
            let members: Vec<u16> = (0..count).collect();
            let mut shares = Shares::default();
            shares.divide(&members);
            let loads: [u64; BUCKETS] = loads.try_into().unwrap();
            let most = |shares: &Shares| {
                members.iter().map(|member| shares.load(*member, &loads)).max().unwrap()
            };
            let before = most(&shares);
            prop_assert!(shares.rebalance(&members, &loads) < BUCKETS);
            prop_assert!(most(&shares) <= before);
            prop_assert!(members.iter().map(|member| shares.count(*member)).sum::<usize>() == BUCKETS);
        }
    }
}
