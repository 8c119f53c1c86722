//! What a packet was each time that it was looked up: so that rules that come later can be told from
//! those that are not for it, without its way being found out anew.
//!
//! Packets that take one path have one trace. What is not the same of all of them is not known.
//!
//! - `apart`: what a packet is beside what it was on another way

mod apart;

use std::cmp::Ordering;

use packet::prefetch::prefetch_read;

use crate::key::{Key, WORDS};
use apart::Apart;

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

    /// What a word was before a look-up, where that is not what it came in as, and the number of the step by which it was
    /// something else at that; `None` if it was something else once more behind it.
    pub(crate) fn around(&self, word: u8, at: usize) -> Option<(Option<u64>, Option<usize>)> {
        let (mut before, mut found) = (None, None);
        for (number, step) in self.steps.iter().enumerate().filter(|(_, step)| step.word == word) {
            match (step.at as usize).cmp(&at) {
                Ordering::Less => before = Some(step.value),
                Ordering::Equal => found = Some(number),
                Ordering::Greater => return None,
            }
        }
        Some((before, found))
    }

    /// What a word was from a step on.
    pub(crate) fn value(&self, number: usize) -> Option<u64> {
        self.steps.get(number).map(|step| step.value)
    }

    /// What a packet was at a look-up that came in as `key`, as far as that is known.
    pub(crate) fn key_at(&self, at: usize, key: &Key) -> Key {
        let mut key = *key;
        let steps = self.steps.iter().filter(|step| step.at as usize <= at);
        // They are in order, word by word.
        steps.for_each(|step| {
            if let Some(word) = key.0.get_mut(usize::from(step.word)) {
                *word = step.value;
            }
        });
        key
    }

    /// It is something else from there on.
    pub(crate) fn set_value(&mut self, number: usize, value: u64) {
        if let Some(step) = self.steps.get_mut(number) {
            step.value = value;
        }
    }

    /// The words that were something else on the way, or of which that is not known: a bit for each.
    pub(crate) fn words(&self) -> u64 {
        self.steps.iter().fold(self.unknown, |words, step| words | bit(step.word))
    }

    /// Whether it is known of all words what they were, and they changed so often at most.
    pub(crate) const fn is_of_one(&self, most: usize) -> bool {
        self.unknown == 0 && self.steps.len() <= most
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

    /// It is going to be looked at.
    pub(crate) fn fetch(&self) {
        prefetch_read(self.steps.as_ptr().cast());
    }

    /// How often words were something else.
    pub(crate) const fn len(&self) -> usize {
        self.steps.len()
    }

    /// How much memory it takes.
    pub(crate) const fn weight(&self) -> usize {
        size_of_val(&*self.steps)
    }
}

/// The bit of a word. There are fewer words than bits.
#[inline]
pub(crate) const fn bit(word: u8) -> u64 {
    if word < 64 { 1 << word } else { 0 }
}

/// Notes what a packet is while it is on its way.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    last: Key,
    steps: Vec<Step>,
    /// What it is beside what it was on the way before, if there was one.
    pub(super) apart: Apart,
}

/// Words that are compared at once.
const GROUP: usize = 4;

/// The first word behind whole groups.
#[expect(clippy::cast_possible_truncation, reason = "a key has fewer words")]
const REST: u8 = (WORDS / GROUP * GROUP) as u8;

/// Notes the words, by their numbers, that are not what they were last.
fn note<'a>(
    steps: &mut Vec<Step>,
    at: u32,
    words: impl Iterator<Item = (u8, (&'a mut u64, &'a u64))>,
) {
    for (word, (last, now)) in words {
        if last != now {
            *last = *now;
            steps.push(Step { word, at, value: *now });
        }
    }
}

impl Tracer {
    /// Begins anew, with a packet that came in as this.
    pub(super) fn begin(&mut self, key: &Key) {
        self.last = *key;
        self.steps.clear();
        self.apart.clear();
    }

    /// It is looked up when it has passed so many tables.
    #[inline(never)]
    pub(super) fn see(&mut self, at: usize, key: &Key) {
        if self.is_too_much() {
            return;
        }
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        let (groups, rest) = self.last.0.as_chunks_mut::<GROUP>();
        let (now, now_rest) = key.0.as_chunks::<GROUP>();
        let groups = groups.iter_mut().map(<[_; GROUP]>::as_mut_slice).zip(now);
        for (first, (last, now)) in (0_u8..).step_by(GROUP).zip(groups) {
            if last != now {
                note(&mut self.steps, at, (first..).zip(last.iter_mut().zip(now)));
            }
        }
        // The number of words is no multiple of that of a group.
        if rest != now_rest {
            note(&mut self.steps, at, (REST..).zip(rest.iter_mut().zip(now_rest)));
        }
    }

    /// How many steps there are.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are so many that no more are noted.
    const fn is_too_much(&self) -> bool {
        self.steps.len() > MAX_STEPS
    }

    /// Compares the packet, of which steps from number `first` on are new, with what it was by a trace at look-ups
    /// from `from` to `to`, if it came in as `own`. Returns the next look-up at which it was something else.
    pub(super) fn compare(
        &mut self,
        own: &Key,
        first: usize,
        trace: &Trace,
        (from, to): (usize, usize),
    ) -> usize {
        let (is_too_much, Self { steps, apart, .. }) = (self.is_too_much(), self);
        let mut next = usize::MAX;
        for step in &trace.steps {
            let at = step.at as usize;
            if (from..=to).contains(&at) {
                apart.was(own, step.word, step.value);
            } else if at > to {
                next = next.min(at);
            }
        }
        for step in steps.get(first..).unwrap_or_default() {
            apart.is(own, step.word, step.value);
        }
        apart.compare(is_too_much);
        next
    }

    /// All of it; `None` if it is too much.
    pub(crate) fn finish(&mut self) -> Option<Trace> {
        let steps = self.all()?.into();
        Some(Trace { steps, unknown: 0 })
    }

    /// Whether a trace is that.
    pub(crate) fn is(&mut self, trace: Option<&Trace>) -> bool {
        match (self.all(), trace) {
            (Some(steps), Some(trace)) => *steps == *trace.steps && trace.unknown == 0,
            (own, trace) => own.is_none() && trace.is_none(),
        }
    }

    /// Has a trace be that.
    pub(crate) fn put(&mut self, trace: &mut Option<Trace>) {
        match (self.all(), trace) {
            (Some(steps), Some(trace)) if steps.len() == trace.steps.len() => {
                trace.steps.copy_from_slice(steps);
                trace.unknown = 0;
            }
            (_, trace) => *trace = self.finish(),
        }
    }

    /// All steps, in order.
    fn all(&mut self) -> Option<&[Step]> {
        if self.is_too_much() {
            return None;
        }
        self.steps.sort_unstable();
        Some(&self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::slot;

    fn trace(steps: &[(usize, u128, u128)]) -> Trace {
        let mut key = Key::default();
        key.set(slot::IPV4_DST, 9);
        let mut tracer = Tracer::default();
        tracer.begin(&key);
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
