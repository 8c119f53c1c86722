//! Numbers of what goes on with packets that have left the datapath, or come again there (`recirc_id`): the same
//! for the same, and what comes again can be asked for by its number.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use flow::Frozen;
use litemap::LiteMap;
use odp::action::Onward;

/// The most that are known: then they begin anew.
const MAX_NUMBERS: usize = 65_536;

/// The most of which it is known what they go on with; of more, that is forgotten.
const MAX_ROUNDS: usize = 1_024;

/// Those of the process.
static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

#[derive(Debug, Default)]
struct Known {
    hasher: RandomState,
    /// How often all numbers were given anew.
    era: u32,
    /// By a hash of what goes on.
    numbers: HashMap<u64, u32>,
    rounds: LiteMap<u32, Arc<Onward>>,
}

impl Known {
    fn number(&mut self, what: impl Hash) -> u32 {
        let hash = self.hasher.hash_one((self.era, what));
        if self.numbers.len() >= MAX_NUMBERS {
            self.numbers.clear();
            self.rounds.clear();
        }
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX).saturating_add(1);
        *self.numbers.entry(hash).or_insert(next)
    }

    fn round(&mut self, number: u32, onward: impl FnOnce() -> Onward) {
        if self.rounds.get(&number).is_some() {
            return;
        }
        if self.rounds.len() >= MAX_ROUNDS {
            self.rounds.clear();
        }
        self.rounds.insert(number, Arc::new(onward()));
    }
}

/// Has everything get another number from now on.
pub(super) fn renumber() {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(Known::default);
    known.era = known.era.wrapping_add(1);
}

/// The number of what goes on with a packet.
pub(super) fn number_of(what: impl Hash) -> u32 {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_with(Known::default).number(what)
}

/// The number of packets that come again in a bridge with this.
pub(super) fn round(bridge: &str, frozen: &Arc<Frozen>, onward: impl FnOnce() -> Onward) -> u32 {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(Known::default);
    let number = known.number((bridge, frozen));
    known.round(number, onward);
    number
}

/// Where packets go on that come again by this number.
pub(super) fn onward(number: u32) -> Option<Arc<Onward>> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.as_ref()?.rounds.get(&number).cloned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flow::Key;

    use super::*;

    fn onward(bridge: &str) -> Onward {
        let frozen = Frozen {
            key: Box::new(Key::default()),
            stack: Vec::new(),
            set: Vec::new(),
            table: Some(7),
            rest: Vec::new(),
            zone: None,
        };
        Onward {
            bridge: bridge.to_owned(),
            frozen: Arc::new(frozen),
            hash: None,
            copied: BTreeSet::new(),
        }
    }

    #[test]
    fn what_comes_again_is_known_by_its_number_until_there_is_too_much() {
        let mut known = Known::default();
        assert_eq!([known.number("a"), known.number("b"), known.number("a")], [1, 2, 1]);
        known.era += 1;
        assert_eq!([known.number("a"), known.number("b")], [3, 4]);
        known.round(1, || onward("br0"));
        known.round(1, || panic!("it is known"));
        assert_eq!(known.rounds.get(&1).map(|onward| &*onward.bridge), Some("br0"));
        for number in 2..=1 + u32::try_from(MAX_ROUNDS).unwrap() {
            known.round(number, || onward("br1"));
        }
        assert!(known.rounds.get(&1).is_none() && known.rounds.len() <= MAX_ROUNDS);
        for number in 0..MAX_NUMBERS {
            known.number(number);
        }
        assert!(known.numbers.len() <= MAX_NUMBERS && known.rounds.is_empty());
    }
}
