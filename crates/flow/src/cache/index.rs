//! Entries, each found by those words of a packet's key that its way depends on.

use super::PathId;
use crate::key::Key;
use crate::pattern::{finish, mix};

/// Entries that are found together.
const WAYS: usize = 8;

/// Entries of one that is new.
const FIRST: usize = 1 << 10;

/// The most entries.
pub(super) const MAX_ENTRIES: usize = 1 << 20;

/// The most bytes that their keys may have.
pub(super) const MAX_BYTES: usize = 64 << 20;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// 0 where there is no entry.
    tags: [u16; WAYS],
    paths: [u32; WAYS],
}

const EMPTY: Bucket = Bucket { tags: [0; WAYS], paths: [0; WAYS] };

/// Entries by some of the first `N` words of a key.
#[derive(Debug)]
pub(super) struct Index<const N: usize> {
    /// The words that count, each with its bits.
    words: Box<[(u8, u64)]>,
    buckets: Vec<Bucket>,
    /// For each entry as many words as there are in `words`.
    pub(super) keys: Vec<u64>,
    /// Places that were taken since there was room for so many, and entries that lost theirs to others.
    made: usize,
    /// Those from before there was room for so many; they move when they are asked for.
    before: (Vec<Bucket>, Vec<u64>),
    seed: u64,
    /// The entry that was found last in this burst.
    last: Option<PathId>,
    last_values: [u64; N],
}

impl<const N: usize> Index<N> {
    /// Without entries, and of no words yet.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            words: Box::default(),
            buckets: Vec::new(),
            keys: Vec::new(),
            made: 0,
            before: (Vec::new(), Vec::new()),
            seed,
            last: None,
            last_values: [0; N],
        }
    }

    /// The words that count.
    pub(super) const fn words(&self) -> &[(u8, u64)] {
        &self.words
    }

    /// How many entries there is room for.
    pub(super) const fn entries(&self) -> usize {
        self.buckets.len() * WAYS
    }

    /// Has these bits count; returns whether they are others than before. Then all entries are gone.
    pub(super) fn look_at(&mut self, relevant: &Key) -> bool {
        let words = (0_u8..).zip(relevant.words().iter().copied()).take(N);
        let words: Box<[(u8, u64)]> = words.filter(|(_, bits)| *bits != 0).collect();
        let is_other = words != self.words;
        if is_other {
            self.words = words;
            (self.buckets, self.keys, self.made, self.before) = Default::default();
        }
        is_other
    }

    /// Makes room for so many. Those that there are move one by one: a worker has no time for all of them
    /// at once.
    pub(super) fn resize(&mut self, entries: usize) {
        let buckets = std::mem::replace(&mut self.buckets, vec![EMPTY; entries / WAYS]);
        let keys = std::mem::replace(&mut self.keys, vec![0; entries * self.words.len()]);
        (self.before, self.made) = ((buckets, keys), 0);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.buckets.fill(EMPTY);
        self.before = Default::default();
    }

    /// Numbers of paths from before are good for nothing any more.
    #[inline]
    pub(super) const fn begin(&mut self) {
        self.last = None;
    }

    /// The path of a packet with this key, if there is an entry with one of which `judge` says that it, or
    /// another one, is good. If not, a hash of the packet, with which one can be [put](Self::put) in next.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        key: &Key,
        mut judge: impl FnMut(u32) -> Option<u32>,
    ) -> Result<PathId, u64> {
        // Neighbours in a burst are mostly of one flow.
        let mut differs = self.last.is_none();
        for ((word, bits), last) in self.words.iter().zip(&mut self.last_values) {
            let value = key.word(usize::from(*word)) & bits;
            differs |= *last != value;
            *last = value;
        }
        if let (false, Some(id)) = (differs, self.last) {
            return Ok(id);
        }
        let values = self.last_values.get(..self.words.len()).unwrap_or_default();
        let hash = finish(values.iter().fold(self.seed, |hash, value| mix(hash, *value)));
        let entries = (self.buckets.as_mut_slice(), self.keys.as_slice());
        let found = find_entry(entries, hash, values, &mut judge);
        let found = found.or_else(|| self.find_before(hash, judge)).map(PathId);
        self.last = found;
        found.ok_or(hash)
    }

    /// Looks for the packet at hand among the entries from before there was room for so many; what is found
    /// moves.
    #[cold]
    fn find_before(&mut self, hash: u64, mut judge: impl FnMut(u32) -> Option<u32>) -> Option<u32> {
        let (buckets, keys) = &mut self.before;
        let values = self.last_values.get(..self.words.len()).unwrap_or_default();
        let id = find_entry((buckets, keys), hash, values, &mut judge)?;
        self.put_entry(hash, id, |_| true);
        Some(id)
    }

    /// Adds the entry that was missing just now; it may take the place of one whose path is not there.
    pub(super) fn put(&mut self, hash: u64, id: u32, is_there: impl Fn(u32) -> bool) {
        let len = self.words.len();
        let most = MAX_ENTRIES.min(MAX_BYTES / (8 * len.max(1)));
        let entries = self.entries();
        if entries == 0 {
            self.resize(FIRST);
        } else if self.made >= entries && entries * 2 <= most {
            self.resize(entries * 2);
        } else if self.made >= entries / 2 {
            self.before = Default::default();
        }
        self.put_entry(hash, id, is_there);
        self.last = Some(PathId(id));
    }

    fn put_entry(&mut self, hash: u64, id: u32, is_there: impl Fn(u32) -> bool) {
        let values = self.last_values.get(..self.words.len()).unwrap_or_default();
        let (at, tag) = (bucket_of(&self.buckets, hash), tag_of(hash));
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        let start = |way: usize| (at * WAYS + way) * values.len();
        let is_same = |way: &usize| {
            let key = self.keys.get(start(*way)..start(*way) + values.len());
            bucket.tags.get(*way) == Some(&tag) && key == Some(values)
        };
        let is_free = |way: &usize| {
            let free = bucket.tags.get(*way).is_some_and(|tag| *tag == 0);
            free || bucket.paths.get(*way).is_some_and(|id| !is_there(*id))
        };
        let way = (0..WAYS).find(is_same).or_else(|| (0..WAYS).find(is_free));
        let is_empty = |way| bucket.tags.get(way).is_some_and(|tag| *tag == 0);
        // One that is decided anew takes no more room.
        self.made += usize::from(way.is_none_or(is_empty));
        // Whoever makes flows without end cannot tell whose entry goes.
        let way = way.unwrap_or(usize::try_from(hash >> 32).unwrap_or_default() % WAYS);
        if let (Some(own), Some(path)) = (bucket.tags.get_mut(way), bucket.paths.get_mut(way)) {
            (*own, *path) = (tag, id);
        }
        if let Some(key) = self.keys.get_mut(start(way)..start(way) + values.len()) {
            key.copy_from_slice(values);
        }
    }
}

/// The path of the entry with these values, if that is good, or one is that it goes on to.
#[inline]
fn find_entry(
    (buckets, keys): (&mut [Bucket], &[u64]),
    hash: u64,
    values: &[u64],
    judge: &mut impl FnMut(u32) -> Option<u32>,
) -> Option<u32> {
    let at = bucket_of(buckets, hash);
    let bucket = buckets.get_mut(at)?;
    let tag = tag_of(hash);
    let ways = bucket.tags.iter().zip(&mut bucket.paths).enumerate();
    for (way, (_, id)) in ways.filter(|(_, (own, _))| **own == tag) {
        let start = (at * WAYS + way) * values.len();
        if keys.get(start..start + values.len()) == Some(values) {
            let good = judge(*id)?;
            if good != *id {
                *id = good;
            }
            return Some(good);
        }
    }
    None
}

#[inline]
fn bucket_of(buckets: &[Bucket], hash: u64) -> usize {
    // There are as many as a power of two.
    usize::try_from(hash & 0xFFFF_FFFF).unwrap_or_default() & buckets.len().wrapping_sub(1)
}

#[inline]
fn tag_of(hash: u64) -> u16 {
    u16::try_from(hash >> 48).unwrap_or_default() | 1
}
