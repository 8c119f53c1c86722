//! The hash table of the forwarding database: lock-free for readers, one writer at a time.
//!
//! A bucket is one cache line of four entries. Each key has two buckets; an entry goes to the
//! second only when the first is full, which the first then carries a mark of. So nearly every
//! lookup costs one line, whether it finds something or not, and none ever costs more than two.
//!
//! An entry is two words, key and value, which are read without a lock. So that a key is never
//! taken together with the value of another, both carry a version that changes whenever the
//! entry gets a new key: a reader takes the key, the value, and the key again, and all three
//! must agree.

#[cfg(all(test, loom))]
mod models;

use std::hash::{BuildHasher, RandomState};

use eal::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use packet::MacAddr;
use packet::prefetch::prefetch_read;

/// Entries per bucket: as many as one cache line holds.
pub(super) const WAYS: usize = 4;

/// The entry is in use.
const VALID: u64 = 1 << 63;
/// In the key of a bucket's first entry, in use or not: some entries whose first bucket this is
/// are in their second.
const OVERFLOWED: u64 = 1 << 62;
const KEY_VERSION_SHIFT: u32 = 60;
const KEY_VERSION_MASK: u64 = 3 << KEY_VERSION_SHIFT;
/// What of a key word is key.
const KEY_MASK: u64 = !(OVERFLOWED | KEY_VERSION_MASK);
const MAC_MASK: u64 = (1 << 48) - 1;
const VLAN_SHIFT: u32 = 48;

/// What the database is keyed by: a VLAN id (12 bits) and a MAC address, with a mark that no
/// empty entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// The key of `mac`, its six bytes read as one big-endian number, in VLAN `vlan`.
    #[must_use]
    #[inline]
    pub const fn from_bits(vlan: u16, mac: u64) -> Self {
        Self(VALID | ((vlan as u64 & 0xFFF) << VLAN_SHIFT) | (mac & MAC_MASK))
    }

    /// The key of `mac` in VLAN `vlan`.
    #[must_use]
    pub const fn new(vlan: u16, mac: MacAddr) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        Self::from_bits(vlan, u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The MAC address.
    #[must_use]
    #[inline]
    pub const fn mac(self) -> MacAddr {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        MacAddr([a, b, c, d, e, f])
    }

    /// The VLAN id.
    #[must_use]
    #[inline]
    pub const fn vlan(self) -> u16 {
        ((self.0 >> VLAN_SHIFT) & 0xFFF) as u16
    }
}

/// A key's hash, computed once per lookup: first the bucket is prefetched with it, then read.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

/// Port, flags, time and version of an entry, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(u64);

const STATIC: u64 = 1 << 16;
const VERSION_SHIFT: u32 = 17;
const VERSION_MASK: u64 = 0x7FFF;
const SEEN_SHIFT: u32 = 32;

impl Value {
    /// A value without a version: the entry that it is written to gives it one.
    pub(super) const fn new(port: u16, is_static: bool, seen: u32) -> Self {
        let flag = if is_static { STATIC } else { 0 };
        Self(port as u64 | flag | ((seen as u64) << SEEN_SHIFT))
    }

    /// The port that the address is behind.
    #[must_use]
    #[inline]
    pub const fn port(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }

    /// Whether an operator set the entry; such entries neither age nor move.
    #[must_use]
    #[inline]
    pub const fn is_static(self) -> bool {
        self.0 & STATIC != 0
    }

    /// The second in which the address was last seen as a source.
    #[must_use]
    #[inline]
    pub const fn seen(self) -> u32 {
        (self.0 >> SEEN_SHIFT) as u32
    }

    #[inline]
    const fn version(self) -> u64 {
        (self.0 >> VERSION_SHIFT) & VERSION_MASK
    }

    #[inline]
    const fn with_version(self, version: u64) -> Self {
        let cleared = self.0 & !(VERSION_MASK << VERSION_SHIFT);
        Self(cleared | ((version & VERSION_MASK) << VERSION_SHIFT))
    }

    #[inline]
    const fn with_seen(self, seen: u32) -> Self {
        Self((self.0 & 0xFFFF_FFFF) | ((seen as u64) << SEEN_SHIFT))
    }
}

/// One entry.
#[derive(Debug, Default)]
pub(super) struct Slot {
    key: AtomicU64,
    value: AtomicU64,
}

impl Slot {
    /// The key word and, if the entry is in use, what is in it.
    pub(super) fn entry(&self) -> Option<(Key, Value)> {
        let word = self.key.load(Acquire);
        if word & VALID == 0 {
            return None;
        }
        Some((Key(word & KEY_MASK), self.value_of(word)?))
    }

    /// The value that belongs to the key word `word`, just read with acquire ordering.
    #[inline]
    fn value_of(&self, word: u64) -> Option<Value> {
        // Acquire: if this is the value of a later key, the key word is seen to have changed.
        let value = Value(self.value.load(Acquire));
        let agree = (word & KEY_VERSION_MASK) >> KEY_VERSION_SHIFT == value.version() & 3;
        let changed = (self.key.load(Relaxed) ^ word) & !OVERFLOWED;
        (agree && changed == 0).then_some(value)
    }

    /// Notes that the address of `value`, read from this entry, was seen again.
    #[inline]
    pub(super) fn refresh(&self, value: Value, seen: u32) {
        // Not a plain store: the entry may have become another's meanwhile. It is once per
        // address and second, so its cost does not matter.
        let _ = self.value.compare_exchange(value.0, value.with_seen(seen).0, Relaxed, Relaxed);
    }

    // The following are for the one writer.

    pub(super) fn is_free(&self) -> bool {
        self.key.load(Relaxed) & VALID == 0
    }

    /// Gives the entry a new key and value.
    pub(super) fn set(&self, key: Key, value: Value) {
        self.clear();
        let version = Value(self.value.load(Relaxed)).version().wrapping_add(1);
        let mark = self.key.load(Relaxed) & OVERFLOWED;
        // Release: whoever sees the value sees that the old key is gone; whoever sees the key
        // sees the value.
        self.value.store(value.with_version(version).0, Release);
        self.key.store(key.0 | mark | ((version & 3) << KEY_VERSION_SHIFT), Release);
    }

    /// Changes the value and leaves the key.
    pub(super) fn update(&self, value: Value) {
        let version = Value(self.value.load(Relaxed)).version();
        self.value.store(value.with_version(version).0, Release);
    }

    /// Makes the entry free.
    pub(super) fn clear(&self) {
        self.key.store(self.key.load(Relaxed) & !VALID, Relaxed);
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Bucket(pub(super) [Slot; WAYS]);

impl Bucket {
    /// Finds `key`, or tells whether to look in its second bucket.
    #[inline]
    fn find(&self, key: Key) -> Result<Hit<'_>, bool> {
        // Acquire: a key that is seen has its value written.
        let words = self.0.each_ref().map(|slot| slot.key.load(Acquire));
        // Where an address is within its bucket is chance, which a branch per entry would make
        // the CPU guess; so all are compared.
        let mut way = WAYS;
        for (index, word) in words.iter().enumerate().rev() {
            way = if word & KEY_MASK == key.0 { index } else { way };
        }
        let Some((slot, word)) = self.0.get(way).zip(words.get(way)) else {
            let [first, ..] = words;
            return Err(first & OVERFLOWED != 0);
        };
        match slot.value_of(*word) {
            Some(value) => Ok(Hit { slot, value }),
            // It is just being replaced.
            None => Err(true),
        }
    }

    /// Sets or removes the mark that entries are in their second bucket instead; for the writer.
    pub(super) fn mark_overflowed(&self, overflowed: bool) {
        let [first, ..] = &self.0;
        let word = first.key.load(Relaxed);
        let word = if overflowed { word | OVERFLOWED } else { word & !OVERFLOWED };
        // Release: as in `set`, for a reader that takes the key from this store.
        first.key.store(word, Release);
    }
}

/// An entry that a lookup found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit<'t> {
    pub(super) slot: &'t Slot,
    pub(super) value: Value,
}

/// The table: a power of two of buckets.
#[derive(Debug)]
pub(super) struct Table {
    buckets: Box<[Bucket]>,
    mask: usize,
    seeds: [u64; 2],
}

impl Table {
    /// A table in which `limit` entries take half of the room.
    pub(super) fn new(limit: usize) -> Self {
        let count = limit.div_ceil(WAYS / 2).next_power_of_two().max(8);
        let mut buckets = eal::huge_vec(count);
        buckets.resize_with(count, Bucket::default);
        // Secret, so that nobody can choose addresses that share a bucket.
        let random = RandomState::new();
        let seeds = [random.hash_one(0_u8), random.hash_one(1_u8) | 1];
        Self { buckets: buckets.into_boxed_slice(), mask: count - 1, seeds }
    }

    /// Number of entries that fit.
    pub(super) fn slots(&self) -> usize {
        self.buckets.len() * WAYS
    }

    pub(super) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    #[inline]
    pub(super) fn hash(&self, key: Key) -> Hash {
        let [first, second] = self.seeds;
        let product = u128::from(key.0 ^ first) * u128::from(second);
        #[allow(clippy::cast_possible_truncation, reason = "the two halves are folded")]
        let folded = product as u64 ^ (product >> 64) as u64;
        // The low half of a product's bits depend on the low bits alone; mix them once more.
        Hash(folded ^ (folded >> 29))
    }

    /// The bucket where a key is looked for first.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "masked")]
    pub(super) const fn first(&self, hash: Hash) -> usize {
        hash.0 as usize & self.mask
    }

    /// The bucket where a key is looked for next; never the same as the first.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "masked")]
    pub(super) const fn second(&self, hash: Hash) -> usize {
        let index = (hash.0 >> 32) as usize & self.mask;
        if index == self.first(hash) { index ^ 1 } else { index }
    }

    #[inline]
    pub(super) fn bucket(&self, index: usize) -> Option<&Bucket> {
        self.buckets.get(index)
    }

    /// Slot `index`, counted over all buckets.
    pub(super) fn slot(&self, index: usize) -> Option<&Slot> {
        self.buckets.get(index / WAYS)?.0.get(index % WAYS)
    }

    /// Starts to load the first bucket.
    #[inline]
    pub(super) fn prefetch(&self, hash: Hash) {
        if let Some(bucket) = self.bucket(self.first(hash)) {
            prefetch_read(std::ptr::from_ref(bucket).cast());
        }
    }

    /// Finds `key`.
    #[inline(always)]
    pub(super) fn find(&self, key: Key, hash: Hash) -> Option<Hit<'_>> {
        match self.bucket(self.first(hash))?.find(key) {
            Ok(hit) => Some(hit),
            Err(false) => None,
            Err(true) => self.bucket(self.second(hash))?.find(key).ok(),
        }
    }

    /// The index of the slot that holds `key`; for the writer.
    pub(super) fn position(&self, key: Key, hash: Hash) -> Option<usize> {
        [self.first(hash), self.second(hash)].into_iter().find_map(|index| {
            let holds = |slot: &Slot| slot.key.load(Relaxed) & KEY_MASK == key.0;
            Some(index * WAYS + self.bucket(index)?.0.iter().position(holds)?)
        })
    }

    /// The index of a free slot in bucket `index`; for the writer.
    pub(super) fn free_in(&self, index: usize) -> Option<usize> {
        let way = self.bucket(index)?.0.iter().position(Slot::is_free)?;
        Some(index * WAYS + way)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_keep_what_they_are_made_of() {
        let mac: MacAddr = "52:54:00:12:34:56".parse().unwrap();
        let key = Key::new(4095, mac);
        assert_eq!((key.mac(), key.vlan()), (mac, 4095));
        assert_ne!(key, Key::new(0, mac));
        let value = Value::new(1023, true, u32::MAX);
        assert_eq!((value.port(), value.is_static(), value.seen()), (1023, true, u32::MAX));
        let later = value.with_version(0xFFFF).with_seen(7);
        assert_eq!((later.port(), later.is_static(), later.seen()), (1023, true, 7));
        assert_eq!(later.version(), 0x7FFF);
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn the_zero_address_is_not_an_empty_entry() {
        let table = Table::new(16);
        let key = Key::new(0, MacAddr::default());
        assert!(table.find(key, table.hash(key)).is_none());
    }

    #[test]
    fn an_entry_with_a_new_key_ignores_refreshes_of_the_old() {
        let slot = Slot::default();
        let [old, new] = [1, 2].map(|mac| Key::from_bits(0, mac));
        slot.set(old, Value::new(3, false, 10));
        let (_, stale) = slot.entry().unwrap();
        slot.set(new, Value::new(3, false, 10));
        slot.refresh(stale, 99);
        let (key, value) = slot.entry().unwrap();
        assert_eq!((key, value.seen()), (new, 10));
    }

    #[test]
    fn a_key_never_goes_with_the_value_of_another_version() {
        let slot = Slot::default();
        let key = Key::from_bits(0, 1);
        slot.set(key, Value::new(1, false, 0));
        let word = slot.key.load(Relaxed);
        // What a reader would hold who was interrupted after the first load.
        slot.set(Key::from_bits(0, 2), Value::new(2, false, 0));
        assert_eq!(slot.value_of(word), None);
        slot.set(key, Value::new(3, false, 0));
        assert_eq!(slot.value_of(word), None);
    }

    #[test]
    fn the_mark_of_a_bucket_is_no_part_of_its_keys() {
        let bucket = Bucket::default();
        let keys = [1, 2].map(|mac| Key::from_bits(0xFFF, mac));
        assert!(matches!(bucket.find(keys[0]), Err(false)));
        bucket.mark_overflowed(true);
        assert!(matches!(bucket.find(keys[0]), Err(true)));
        for (slot, key) in bucket.0.iter().zip(keys) {
            slot.set(key, Value::new(5, false, 0));
        }
        assert!(keys.iter().all(|key| bucket.find(*key).unwrap().value.port() == 5));
        assert_eq!(bucket.0[0].entry().unwrap().0, keys[0]);
        bucket.0[0].clear();
        assert!(matches!(bucket.find(keys[0]), Err(true)));
        bucket.mark_overflowed(false);
        assert!(matches!(bucket.find(keys[0]), Err(false)));
        assert!(bucket.find(keys[1]).is_ok());
    }

    #[test]
    fn the_two_buckets_of_a_key_differ_and_keys_spread() {
        // Of as many neighbouring addresses as a table has room for, how many have their first place
        // in the bucket where most have it.
        let most_in_a_bucket = |_| {
            let table = Table::new(1 << 12);
            let mut load = vec![0_u32; table.buckets().len()];
            for mac in 0..1 << 12 {
                let hash = table.hash(Key::from_bits(0, 0x5254_0000_0000 + mac));
                assert_ne!(table.first(hash), table.second(hash));
                load[table.first(hash)] += 1;
            }
            load.into_iter().max().unwrap()
        };
        // Two per bucket on average, and 7 to 9 in the fullest. One seed in a hundred makes that a
        // dozen, one in a thousand more, for which there are second buckets; most do not.
        let mut most: Vec<u32> = (0..9).map(most_in_a_bucket).collect();
        most.sort_unstable();
        assert!(most[4] < 11, "{most:?}");
    }
}
