//! What a packet was each time that it was looked up: so that rules that come later can be told from
//! those that are not for it, without its way being found out anew.
//!
//! Packets that take one path have one trace. What is not the same of all of them is not known.

use crate::key::{Key, WORDS};

/// The most steps that are kept.
const MAX_STEPS: usize = 1024;

/// From one look-up on, a word is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    word: u8,
    /// The look-up, by how many tables the packet had passed.
    at: u32,
    value: u64,
}

/// What is known of a word at a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is that of the packet as it came in.
    Own,
    /// It is this, of all packets.
    Is(u64),
    /// Nothing.
    Nothing,
}

/// What packets of one path were at each look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// In order.
    steps: Box<[Step]>,
    /// Words of which nothing is known, a bit for each.
    unknown: u64,
}

impl Trace {
    /// What is known of a word when so many tables had been passed.
    #[inline]
    pub(crate) fn at(&self, at: usize, word: u8) -> Known {
        if self.unknown & bit(word) != 0 {
            return Known::Nothing;
        }
        let is_before = |step: &&Step| step.word == word && step.at as usize <= at;
        let last = self.steps.iter().take_while(|step| step.word <= word).filter(is_before).last();
        last.map_or(Known::Own, |step| Known::Is(step.value))
    }

    /// Whether it is known what a word was.
    pub(crate) fn knows(&self, word: u8) -> bool {
        self.unknown & bit(word) == 0
    }

    /// What a word was on the way, beside what it was when the packet came in.
    pub(crate) fn values_of(&self, word: u8) -> impl Iterator<Item = u64> {
        self.of(word).map(|step| step.value)
    }

    /// Whether it is known of all words what they were, and they changed so often at most.
    pub(crate) const fn is_of_one(&self, most: usize) -> bool {
        self.unknown == 0 && self.steps.len() <= most
    }

    /// Hands out which words were something else from look-ups on that are not before `from`, nor behind `to`, in
    /// order for each word. Returns whether there are none.
    pub(crate) fn steps_of(&self, from: usize, to: usize, mut take: impl FnMut(u8, u64)) -> bool {
        let mut is_none = true;
        for step in &self.steps {
            if (from..=to).contains(&(step.at as usize)) {
                take(step.word, step.value);
                is_none = false;
            }
        }
        is_none
    }

    /// Other packets take the path, of which this is known.
    pub(crate) fn join(&mut self, other: &Self) {
        if self.steps != other.steps {
            let all = 0..u8::try_from(WORDS).unwrap_or(u8::MAX);
            let differ = all.filter(|word| !self.of(*word).eq(other.of(*word)));
            self.unknown |= differ.fold(0, |words, word| words | bit(word));
        }
        self.unknown |= other.unknown;
    }

    fn of(&self, word: u8) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.word == word)
    }

    /// How much memory it takes.
    pub(crate) const fn weight(&self) -> usize {
        size_of_val(&*self.steps)
    }
}

/// There are fewer words than bits.
fn bit(word: u8) -> u64 {
    1_u64.checked_shl(word.into()).unwrap_or_default()
}

/// Notes what a packet is while it is on its way.
#[derive(Debug)]
pub(super) struct Tracer {
    last: Key,
    steps: Vec<Step>,
}

impl Tracer {
    /// Of a packet that came in as this.
    pub(super) const fn new(key: &Key) -> Self {
        Self { last: *key, steps: Vec::new() }
    }

    /// It is looked up when it has passed so many tables.
    #[cold]
    pub(super) fn see(&mut self, at: usize, key: &Key) {
        if self.last == *key || self.steps.len() > MAX_STEPS {
            return;
        }
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        for (word, (last, now)) in (0_u8..).zip(self.last.words().iter().zip(key.words())) {
            if last != now {
                self.steps.push(Step { word, at, value: *now });
            }
        }
        self.last = *key;
    }

    /// All of it; `None` if it is too much.
    pub(super) fn finish(self) -> Option<Trace> {
        let mut steps = self.steps;
        if steps.len() > MAX_STEPS {
            return None;
        }
        steps.sort_unstable();
        Some(Trace { steps: steps.into(), unknown: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::slot;

    fn trace(steps: &[(usize, u128, u128)]) -> Trace {
        let mut key = Key::default();
        key.set(slot::IPV4_DST, 9);
        let mut tracer = Tracer::new(&key);
        for (at, metadata, tag) in steps {
            key.set(slot::METADATA, *metadata);
            key.set(slot::reg(0), *tag);
            tracer.see(*at, &key);
        }
        tracer.finish().unwrap()
    }

    fn word(slot: crate::key::Slot) -> u8 {
        u8::try_from(slot.word()).unwrap()
    }

    #[test]
    fn a_word_is_what_it_was_then() {
        let trace = trace(&[(0, 0, 0), (1, 5, 0), (2, 5, 0), (4, 6, 0), (5, 0, 0)]);
        let seen: Vec<_> = (0..7).map(|at| trace.at(at, word(slot::METADATA))).collect();
        let is = Known::Is;
        assert_eq!(seen, [Known::Own, is(5), is(5), is(5), is(6), is(0), is(0)]);
        assert_eq!(trace.at(9, word(slot::IPV4_DST)), Known::Own);
    }

    #[test]
    fn what_differs_between_packets_is_not_known() {
        let mut both = trace(&[(1, 5, 1), (2, 6, 1)]);
        both.join(&trace(&[(1, 5, 2), (2, 6, 2)]));
        let (metadata, register) = (word(slot::METADATA), word(slot::reg(0)));
        assert_eq!((both.at(0, register), both.at(1, register)), (Known::Nothing, Known::Nothing));
        assert_eq!((both.at(1, metadata), both.at(2, metadata)), (Known::Is(5), Known::Is(6)));
        both.join(&trace(&[(2, 5, 1), (3, 6, 1)]));
        assert_eq!((both.at(1, metadata), both.at(1, 4)), (Known::Nothing, Known::Own));
        let mut other = trace(&[]);
        other.join(&both);
        assert_eq!(other.at(1, metadata), Known::Nothing);
    }
}
