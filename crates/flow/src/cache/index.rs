//! Entries, each found by values that its path depends on.
//!
//! An entry is in one of two buckets, the first that had room; so a hit mostly reads one line of memory with
//! the tags of a bucket, and one with the values, which have one of their own if they are eight words. Where
//! both are full, one of theirs moves to its other bucket: as long as a quarter of all places is empty, hardly
//! ever an entry loses its place.

use std::hash::{BuildHasher as _, RandomState};

use packet::prefetch::prefetch_read;

use crate::pattern::{finish, mix};

/// Entries that are found together.
const WAYS: usize = 8;

/// Entries of one that is new.
const FIRST: usize = 1 << 10;

/// The most entries.
pub(super) const MAX_ENTRIES: usize = 1 << 20;

/// The most bytes that their values may have.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// More entries than this are hardly all in a processor's own caches.
const MANY: usize = 1 << 12;

/// Words that are hashed together.
const HASHED: usize = 8;

/// Words of a line of memory.
const LINE: usize = 8;

/// The first bits of lanes of 16 bits each, and all of them but the last ones.
const LANES: u64 = 0x0001_0001_0001_0001;
const LOWER: u64 = 0x7FFF * LANES;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket {
    /// Four in each word; 0 where there is no entry.
    tags: [u64; 2],
    paths: [u32; WAYS],
}

/// Ways of a bucket, each a bit: the lowest of its lane for those of the first word, the next for the others.
struct Ways(u64);

impl Iterator for Ways {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (bit < 64).then_some(bit / 16 + bit % 2 * 4)
    }
}

const EMPTY: Bucket = Bucket { tags: [0; 2], paths: [0; WAYS] };

impl Bucket {
    /// The ways with this tag.
    #[inline(always)]
    fn with(&self, tag: u16) -> Ways {
        let spread = u64::from(tag) * LANES;
        let [low, high] = self.tags.map(|tags| {
            // The highest bit of each lane that is zero, and nothing else.
            let differs = tags ^ spread;
            let below = (differs & LOWER) + LOWER;
            !(below | differs | LOWER)
        });
        Ways(low >> 15 | high >> 14)
    }

    /// The first way of which no path is there.
    fn free(&self, is_there: &impl Fn(u32) -> bool) -> Option<usize> {
        let is_gone = |way: &usize| self.paths.get(*way).is_some_and(|id| !is_there(*id));
        self.with(0).next().or_else(|| (0..WAYS).find(is_gone))
    }

    fn is_empty(&self, way: usize) -> bool {
        self.with(0).any(|empty| empty == way)
    }

    fn set(&mut self, way: usize, tag: u16, id: u32) {
        let shift = way % 4 * 16;
        if let Some(tags) = self.tags.get_mut(way / 4) {
            *tags = *tags & !(0xFFFF << shift) | u64::from(tag) << shift;
        }
        if let Some(path) = self.paths.get_mut(way) {
            *path = id;
        }
    }
}

/// Entries and their values.
#[derive(Debug, Default)]
struct Store {
    /// As many as a power of two, or none.
    buckets: Vec<Bucket>,
    /// For each entry as many words, from `start` on: the first that begins a line.
    values: Vec<u64>,
    start: usize,
}

impl Store {
    /// For so many entries, each with so many words. The memory of values is not touched yet.
    fn new(entries: usize, words: usize) -> Self {
        let values = vec![0; entries * words + LINE];
        let start = (values.as_ptr().addr() / size_of::<u64>()).wrapping_neg() % LINE;
        Self { buckets: vec![EMPTY; entries / WAYS], values, start }
    }

    #[inline]
    const fn entries(&self) -> usize {
        self.buckets.len() * WAYS
    }

    /// The buckets for a hash.
    #[inline(always)]
    fn places(&self, hash: u64) -> [usize; 2] {
        let within = |hash: u64| {
            let bits = usize::try_from(hash & 0xFFFF_FFFF).unwrap_or_default();
            bits & self.buckets.len().wrapping_sub(1)
        };
        [within(hash), within(hash.rotate_right(24))]
    }

    /// Where the values of an entry begin.
    #[inline(always)]
    const fn at(&self, bucket: usize, way: usize, words: usize) -> usize {
        self.start + (bucket * WAYS + way) * words
    }

    /// Where the entry with these values is, in one of its buckets.
    #[inline(always)]
    fn find_in(&self, bucket: usize, hash: u64, values: &[u64]) -> Option<(usize, usize)> {
        for way in self.buckets.get(bucket)?.with(tag_of(hash)) {
            let start = self.at(bucket, way, values.len());
            let own = self.values.get(start..start + values.len())?;
            if are_same(own, values) {
                return Some((bucket, way));
            }
        }
        None
    }

    /// Its bucket and way.
    #[inline(always)]
    fn find(&self, hash: u64, values: &[u64]) -> Option<(usize, usize)> {
        let [first, second] = self.places(hash);
        self.find_in(first, hash, values).or_else(|| self.find_beside(second, hash, values))
    }

    /// The same of one that came when its first bucket was full.
    #[inline(never)]
    fn find_beside(&self, bucket: usize, hash: u64, values: &[u64]) -> Option<(usize, usize)> {
        self.find_in(bucket, hash, values)
    }

    /// The number of an entry's path.
    #[inline(always)]
    fn path_mut(&mut self, (bucket, way): (usize, usize)) -> Option<&mut u32> {
        self.buckets.get_mut(bucket)?.paths.get_mut(way)
    }

    /// Puts an entry in, or changes it; returns whether that is one more, or another one's place. One that is
    /// in the way may move to where else it can be found.
    fn put(
        &mut self,
        secrets: &Secrets,
        (values, id): (&[u64], u32),
        is_there: &impl Fn(u32) -> bool,
    ) -> bool {
        let hash = secrets.hash(values);
        let places = self.places(hash);
        let room = |store: &mut Self| {
            let free = places.into_iter().find_map(|bucket| store.free_in(bucket, is_there));
            let all = || places.into_iter().flat_map(|at| (0..WAYS).map(move |way| (at, way)));
            let len = values.len();
            free.or_else(|| all().find(|place| store.move_away(*place, len, secrets, is_there)))
        };
        let place = self.find(hash, values).or_else(|| room(self));
        // Whoever makes flows without end cannot tell whose entry goes.
        let some = usize::try_from(hash >> 45 & 7).unwrap_or_default();
        let is_taken = place.is_none();
        let (at, way) = place.unwrap_or((places[0], some));
        let start = self.at(at, way, values.len());
        let Some(bucket) = self.buckets.get_mut(at) else { return false };
        let is_new = is_taken || bucket.is_empty(way);
        bucket.set(way, tag_of(hash), id);
        if let Some(own) = self.values.get_mut(start..start + values.len()) {
            own.copy_from_slice(values);
        }
        is_new
    }

    /// A place in a bucket of which no path is there.
    fn free_in(&self, bucket: usize, is_there: &impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        Some((bucket, self.buckets.get(bucket)?.free(is_there)?))
    }

    /// Moves an entry to its other bucket if there is a place; returns whether it did. The place that it had is
    /// empty then.
    fn move_away(
        &mut self,
        (bucket, way): (usize, usize),
        len: usize,
        secrets: &Secrets,
        is_there: &impl Fn(u32) -> bool,
    ) -> bool {
        let start = self.at(bucket, way, len);
        let Some(values) = self.values.get(start..start + len) else { return false };
        let hash = secrets.hash(values);
        let [first, second] = self.places(hash);
        let other = if first == bucket { second } else { first };
        let free = if other == bucket { None } else { self.free_in(other, is_there) };
        let Some((other, free)) = free else { return false };
        let to = self.at(other, free, len);
        self.values.copy_within(start..start + len, to);
        let Some(id) = self.path_mut((bucket, way)).map(|id| *id) else { return false };
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.set(way, 0, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(other) {
            bucket.set(free, tag_of(hash), id);
        }
        true
    }
}

/// What nobody outside knows, so that nobody can choose values that collide.
#[derive(Debug)]
struct Secrets([u64; HASHED]);

impl Secrets {
    /// A hash of values. Products of sums with secrets collide as seldom as chance has it, whoever chooses
    /// the values.
    #[inline(always)]
    fn hash(&self, values: &[u64]) -> u64 {
        let mut hash = 0;
        for part in values.chunks(HASHED) {
            let mut sum = 0_u128;
            for (pair, secret) in part.chunks(2).zip(self.0.as_chunks::<2>().0) {
                let second = pair.get(1).copied().unwrap_or_default();
                let first = pair.first().map_or(0, |word| word.wrapping_add(secret[0]));
                let product = u128::from(first) * u128::from(second.wrapping_add(secret[1]));
                sum = sum.wrapping_add(product);
            }
            let fold = |half: u128| u64::try_from(half & u128::from(u64::MAX)).unwrap_or_default();
            hash = mix(mix(hash, fold(sum)), fold(sum >> 64));
        }
        finish(hash)
    }
}

/// Entries by values of so many words.
#[derive(Debug)]
pub(super) struct Index {
    words: usize,
    now: Store,
    /// Those from before there was room for so many; they move when they are asked for.
    before: Store,
    /// Places that were taken since there was room for so many, and entries that lost theirs to others.
    made: usize,
    secrets: Secrets,
}

impl Index {
    /// Without entries.
    pub(super) fn new(words: usize) -> Self {
        let random = RandomState::new();
        let secrets = Secrets(std::array::from_fn(|at| random.hash_one(at)));
        Self { words, now: Store::default(), before: Store::default(), made: 0, secrets }
    }

    /// How many entries there is room for.
    pub(super) const fn entries(&self) -> usize {
        self.now.entries()
    }

    /// The bytes of their values.
    #[cfg(test)]
    pub(super) const fn bytes(&self) -> usize {
        self.now.values.len() * size_of::<u64>()
    }

    /// Whether entries may have to come from far away.
    #[inline]
    pub(super) const fn is_large(&self) -> bool {
        self.now.entries() > MANY
    }

    /// Forgets all, and goes by so many words.
    pub(super) fn begin_with(&mut self, words: usize) {
        (self.words, self.made) = (words, 0);
        (self.now, self.before) = Default::default();
    }

    /// Makes room for so many. Those that there are move one by one: a worker has no time for all of them
    /// at once.
    pub(super) fn resize(&mut self, entries: usize) {
        self.before = std::mem::replace(&mut self.now, Store::new(entries, self.words));
        self.made = 0;
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.now.buckets.fill(EMPTY);
        self.before = Store::default();
    }

    /// A hash of values, by which an entry is found.
    #[inline(always)]
    pub(super) fn hash(&self, values: &[u64]) -> u64 {
        self.secrets.hash(values)
    }

    /// Asks for the memory of the tags among which an entry would be.
    #[inline(always)]
    pub(super) fn fetch_tags(&self, hash: u64) {
        if let Some(bucket) = self.now.buckets.get(self.now.places(hash)[0]) {
            prefetch_read(std::ptr::from_ref(bucket).cast());
        }
    }

    /// Asks for the memory of the values of what looks like this entry.
    #[inline(always)]
    pub(super) fn fetch_values(&self, hash: u64) {
        let place = self.now.places(hash)[0];
        let Some(bucket) = self.now.buckets.get(place) else { return };
        let Some(way) = bucket.with(tag_of(hash)).next() else { return };
        if let Some(word) = self.now.values.get(self.now.at(place, way, self.words)) {
            prefetch_read(std::ptr::from_ref(word).cast());
        }
    }

    /// The path of the entry with these values, if there is one of which `judge` says that it, or another
    /// one, is good.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        hash: u64,
        values: &[u64],
        mut judge: impl FnMut(u32) -> Option<u32>,
    ) -> Option<u32> {
        let Some(place) = self.now.find(hash, values) else {
            return self.find_before(hash, values, judge);
        };
        let own = self.now.path_mut(place)?;
        let good = judge(*own)?;
        if good != *own {
            *own = good;
        }
        Some(good)
    }

    /// The same among the entries from before there was room for so many; what is found moves.
    #[cold]
    fn find_before(
        &mut self,
        hash: u64,
        values: &[u64],
        mut judge: impl FnMut(u32) -> Option<u32>,
    ) -> Option<u32> {
        let place = self.before.find(hash, values)?;
        let id = judge(*self.before.path_mut(place)?)?;
        self.put_entry(values, id, &|_| true);
        Some(id)
    }

    /// Adds the entry that was missing; it may take the place of one whose path is not there.
    pub(super) fn put(&mut self, values: &[u64], id: u32, is_there: impl Fn(u32) -> bool) {
        let most = MAX_ENTRIES.min(MAX_BYTES / (8 * self.words.max(1)));
        let entries = self.entries();
        if entries == 0 {
            self.resize(FIRST);
        } else if self.made >= entries / 4 * 3 && entries * 2 <= most {
            self.resize(entries * 2);
        } else if self.made >= entries / 2 {
            self.before = Store::default();
        }
        self.put_entry(values, id, &is_there);
    }

    fn put_entry(&mut self, values: &[u64], id: u32, is_there: &impl Fn(u32) -> bool) {
        // One that is decided anew takes no more room.
        self.made += usize::from(self.now.put(&self.secrets, (values, id), is_there));
    }
}

/// Whether so many words are the same; for a few it takes longer to ask the library.
#[inline(always)]
pub(super) fn are_same(one: &[u64], other: &[u64]) -> bool {
    one.iter().zip(other).fold(0, |differs, (one, other)| differs | one ^ other) == 0
}

#[inline(always)]
fn tag_of(hash: u64) -> u16 {
    u16::try_from(hash >> 48).unwrap_or_default() | 1
}
