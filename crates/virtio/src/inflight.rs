//! The region in which a device records the chains that it has taken and not given back yet, so
//! that the next device can go on after a crash (vhost-user, chapter "Inflight I/O tracking").
//!
//! The front-end keeps the region, and every ring has an area in it. The front-end can change any
//! byte at any time: a value is read once and checked before it is used. What must not be seen
//! half changed after a crash lies in one word and is written with one store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use eal::Mapping;

use crate::packed::{MAX_SIZE, Position};

/// The version of the layout; 0 marks an area that holds nothing.
pub const VERSION: u16 = 1;

/// Areas start at multiples of this many bytes.
pub const ALIGN: usize = 64;

/// Where the words of an area's head are: version, number of entries and two more fields in the
/// first, places in a packed ring in the second.
const HEAD: usize = 8;
const PLACES: usize = 16;

/// The form of an area, which follows from the format of its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// For split rings: an entry is about the descriptor with its number.
    Split,
    /// For packed rings: entries hold copies of descriptors.
    Packed,
}

impl Layout {
    /// Bytes before the entries.
    const fn head(self) -> usize {
        match self {
            Self::Split => 16,
            Self::Packed => 32,
        }
    }

    /// Bytes of an entry.
    const fn entry(self) -> usize {
        match self {
            Self::Split => 16,
            Self::Packed => 32,
        }
    }

    /// Bytes of the area of a ring with `entries` entries.
    #[must_use]
    pub const fn area_bytes(self, entries: u16) -> usize {
        (self.head() + self.entry() * entries as usize).next_multiple_of(ALIGN)
    }

    /// Bytes of the region of `rings` rings with `entries` entries each.
    #[must_use]
    pub const fn region_bytes(self, rings: u16, entries: u16) -> usize {
        self.area_bytes(entries) * rings as usize
    }
}

/// The part of a region that belongs to one ring.
#[derive(Clone, Debug)]
pub struct InflightArea {
    map: Arc<Mapping>,
    /// Where it starts in `map`.
    start: usize,
    entries: u16,
    layout: Layout,
}

/// The first word of an area. `first` and `second` are the last batch's head and the used index of
/// a split ring, the head of the free list and what that was before of a packed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) version: u16,
    pub(crate) entries: u16,
    pub(crate) first: u16,
    pub(crate) second: u16,
}

impl InflightArea {
    /// The area of ring `ring` in a region of rings with `entries` entries each, which is `map`;
    /// `None` when the region ends before that, is not aligned, or no ring has so many entries.
    #[must_use]
    pub fn new(map: Arc<Mapping>, layout: Layout, ring: u16, entries: u16) -> Option<Self> {
        let bytes = layout.area_bytes(entries);
        let start = bytes.checked_mul(ring.into())?;
        let fits = start.checked_add(bytes)? <= map.len();
        let aligned = map.ptr().as_ptr().addr().is_multiple_of(8);
        let possible = (1..=MAX_SIZE).contains(&entries);
        (fits && aligned && possible).then_some(Self { map, start, entries, layout })
    }

    /// Entries of the ring that it is for.
    #[must_use]
    pub const fn entries(&self) -> u16 {
        self.entries
    }

    /// What kind of ring it is for.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether a device has recorded anything since the area was made or [forgotten](Self::forget).
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.head().version != 0
    }

    /// Marks the area as one that holds nothing: the place in the ring is known otherwise.
    pub fn forget(&self) {
        self.set_head(Head { version: 0, ..self.head() });
    }

    pub(crate) fn head(&self) -> Head {
        let [a, b, c, d, e, f, g, h] = self.load64(HEAD).to_ne_bytes();
        Head {
            version: u16::from_ne_bytes([a, b]),
            entries: u16::from_ne_bytes([c, d]),
            first: u16::from_ne_bytes([e, f]),
            second: u16::from_ne_bytes([g, h]),
        }
    }

    pub(crate) fn set_head(&self, head: Head) {
        let [a, b] = head.version.to_ne_bytes();
        let [c, d] = head.entries.to_ne_bytes();
        let [e, f] = head.first.to_ne_bytes();
        let [g, h] = head.second.to_ne_bytes();
        self.store64(HEAD, u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }

    /// Where a packed ring's used descriptors end: now, and before the burst that is under way.
    pub(crate) fn places(&self) -> (Position, Position) {
        let [a, b, c, d, now, old, ..] = self.load64(PLACES).to_ne_bytes();
        let place =
            |low, high, wrap| Position { index: u16::from_ne_bytes([low, high]), wrap: wrap != 0 };
        (place(a, b, now), place(c, d, old))
    }

    pub(crate) fn set_places(&self, now: Position, old: Position) {
        let ([a, b], [c, d]) = (now.index.to_ne_bytes(), old.index.to_ne_bytes());
        let bytes = [a, b, c, d, now.wrap.into(), old.wrap.into(), 0, 0];
        self.store64(PLACES, u64::from_ne_bytes(bytes));
    }

    /// Where field `offset` of entry `index` is.
    const fn field(&self, index: u16, offset: usize) -> usize {
        self.layout.head() + self.layout.entry() * index as usize + offset
    }

    pub(crate) fn is_inflight(&self, index: u16) -> bool {
        let byte = self.at(self.field(index, 0), 1).map(|at| {
            // SAFETY: `at` found the byte inside the mapping, which this borrows.
            unsafe { AtomicU8::from_ptr(at) }.load(Relaxed)
        });
        byte == Some(1)
    }

    pub(crate) fn set_inflight(&self, index: u16, inflight: bool) {
        if let Some(at) = self.place(self.field(index, 0), 1) {
            // SAFETY: as in `is_inflight`.
            unsafe { AtomicU8::from_ptr(at) }.store(inflight.into(), Relaxed);
        }
    }

    /// The number of the entry behind entry `index` in a list.
    pub(crate) fn next(&self, index: u16) -> u16 {
        self.load16(self.field(index, self.next_offset()))
    }

    pub(crate) fn set_next(&self, index: u16, next: u16) {
        self.store16(self.field(index, self.next_offset()), next);
    }

    const fn next_offset(&self) -> usize {
        match self.layout {
            Layout::Split => 6,
            Layout::Packed => 2,
        }
    }

    /// By which the order of taken chains is known.
    pub(crate) fn counter(&self, index: u16) -> u64 {
        self.load64(self.field(index, 8))
    }

    pub(crate) fn set_counter(&self, index: u16, counter: u64) {
        self.store64(self.field(index, 8), counter);
    }

    /// The last entry of the chain that starts at entry `index`, and its number of descriptors.
    pub(crate) fn extent(&self, index: u16) -> (u16, u16) {
        (self.load16(self.field(index, 4)), self.load16(self.field(index, 6)))
    }

    pub(crate) fn set_extent(&self, index: u16, last: u16, count: u16) {
        self.store16(self.field(index, 4), last);
        self.store16(self.field(index, 6), count);
    }

    /// The id in the copy of a descriptor at entry `index`.
    pub(crate) fn id(&self, index: u16) -> u16 {
        self.load16(self.field(index, 16))
    }

    /// Copies a descriptor to entry `index`.
    pub(crate) fn set_desc(&self, index: u16, desc: crate::packed::Desc) {
        self.store16(self.field(index, 16), desc.id);
        self.store16(self.field(index, 18), desc.flags);
        if let Some(at) = self.place(self.field(index, 20), 4) {
            // SAFETY: as in `is_inflight`; offset and start are multiples of 4.
            unsafe { AtomicU32::from_ptr(at.cast()) }.store(desc.len, Relaxed);
        }
        self.store64(self.field(index, 24), desc.addr);
    }

    /// The byte at `offset`, if `len` bytes from there on lie in the area.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let inside = offset + len <= self.layout.area_bytes(self.entries);
        // SAFETY: `new` found the area inside the mapping.
        inside.then(|| unsafe { self.map.ptr().add(self.start + offset) }.as_ptr())
    }

    /// The same, to store something there.
    fn place(&self, offset: usize, len: usize) -> Option<*mut u8> {
        #[cfg(test)]
        kill::before_store();
        self.at(offset, len)
    }

    fn load16(&self, offset: usize) -> u16 {
        // SAFETY: as in `is_inflight`; offsets are even, and areas start at multiples of 8.
        self.at(offset, 2).map_or(0, |at| unsafe { AtomicU16::from_ptr(at.cast()) }.load(Relaxed))
    }

    fn store16(&self, offset: usize, value: u16) {
        if let Some(at) = self.place(offset, 2) {
            // SAFETY: as in `load16`.
            unsafe { AtomicU16::from_ptr(at.cast()) }.store(value, Relaxed);
        }
    }

    fn load64(&self, offset: usize) -> u64 {
        // SAFETY: as in `is_inflight`; offsets of words and areas' starts are multiples of 8.
        self.at(offset, 8).map_or(0, |at| unsafe { AtomicU64::from_ptr(at.cast()) }.load(Relaxed))
    }

    fn store64(&self, offset: usize, value: u64) {
        if let Some(at) = self.place(offset, 8) {
            // SAFETY: as in `load64`.
            unsafe { AtomicU64::from_ptr(at.cast()) }.store(value, Relaxed);
        }
    }
}

/// Ends devices before any store or step, as a signal does.
#[cfg(test)]
pub(crate) mod kill {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        static STORES: Cell<Option<u32>> = const { Cell::new(None) };
    }

    struct Killed;

    pub(crate) fn before_store() {
        match STORES.get() {
            None => {}
            Some(0) => resume_unwind(Box::new(Killed)),
            Some(left) => STORES.set(Some(left - 1)),
        }
    }

    /// Runs `device`, and ends it after `stores` stores to an area and steps; returns what it has done if it
    /// was done before.
    pub(crate) fn after<R>(stores: u32, device: impl FnOnce() -> R) -> Option<R> {
        STORES.set(Some(stores));
        let done = catch_unwind(AssertUnwindSafe(device));
        STORES.set(None);
        done.map_err(|why| assert!(why.is::<Killed>(), "it ended for another reason")).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::MemfdFlags;

    use super::*;
    use crate::packed::Desc;

    fn area(layout: Layout, ring: u16, entries: u16) -> (InflightArea, OwnedFd) {
        let len = layout.region_bytes(ring + 1, entries) as u64;
        let fd = rustix::fs::memfd_create("inflight", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, len).unwrap();
        let map = Arc::new(Mapping::map(fd.as_fd(), 0, len).unwrap());
        (InflightArea::new(map, layout, ring, entries).unwrap(), fd)
    }

    fn bytes(fd: &OwnedFd, start: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        rustix::io::pread(fd, &mut bytes, start as u64).unwrap();
        bytes
    }

    fn little(bytes: &[u8]) -> u64 {
        bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn fields_lie_where_the_chapter_says() {
        let (split, fd) = area(Layout::Split, 1, 5);
        split.set_head(Head { version: 1, entries: 2, first: 3, second: 4 });
        split.set_inflight(1, true);
        split.set_next(1, 0x0607);
        split.set_counter(1, 8);
        // 16 + 5 * 16 bytes, to a multiple of 64.
        let found = bytes(&fd, 128, 96);
        assert_eq!(found[..16], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0]);
        assert_eq!(found[32..48], [1, 0, 0, 0, 0, 0, 7, 6, 8, 0, 0, 0, 0, 0, 0, 0]);

        let (packed, fd) = area(Layout::Packed, 2, 3);
        packed.set_head(Head { version: 1, entries: 2, first: 3, second: 4 });
        let place = |index, wrap| Position { index, wrap };
        packed.set_places(place(5, true), place(6, false));
        packed.set_inflight(2, true);
        packed.set_next(2, 7);
        packed.set_extent(2, 8, 9);
        packed.set_counter(2, 10);
        packed.set_desc(2, Desc { addr: 11, len: 12, id: 13, flags: 14 });
        let found = bytes(&fd, 2 * 128, 128);
        assert_eq!(found[8..16], [1, 0, 2, 0, 3, 0, 4, 0]);
        assert_eq!(found[16..24], [5, 0, 6, 0, 1, 0, 0, 0]);
        let entry = &found[32 + 64..];
        assert_eq!(entry[..8], [1, 0, 7, 0, 8, 0, 9, 0]);
        assert_eq!(entry[8..24], [10, 0, 0, 0, 0, 0, 0, 0, 13, 0, 14, 0, 12, 0, 0, 0]);
        assert_eq!(little(&entry[24..]), 11);
        assert_eq!(packed.places(), (place(5, true), place(6, false)));
        assert_eq!((packed.extent(2), packed.id(2), packed.next(2)), ((8, 9), 13, 7));
        assert!(packed.is_in_use());
        packed.forget();
        assert!(!packed.is_in_use());
        assert_eq!(packed.head(), Head { version: 0, entries: 2, first: 3, second: 4 });
    }

    #[test]
    fn no_area_reaches_beyond_its_region() {
        let (inside, fd) = area(Layout::Packed, 3, 7);
        let len = Layout::Packed.region_bytes(4, 7) as u64;
        let map = Arc::new(Mapping::map(fd.as_fd(), 0, len).unwrap());
        for (ring, entries) in [(4, 7), (3, 9), (u16::MAX, 7), (0, 0), (0, u16::MAX)] {
            assert!(InflightArea::new(map.clone(), Layout::Packed, ring, entries).is_none());
        }
        // An entry that does not exist is not written, and reads as nothing.
        let before = bytes(&fd, 0, usize::try_from(len).unwrap());
        for index in [7, 8, u16::MAX] {
            inside.set_inflight(index, true);
            inside.set_counter(index, u64::MAX);
            inside.set_next(index, u16::MAX);
            inside.set_desc(index, Desc { addr: u64::MAX, len: u32::MAX, id: 1, flags: 1 });
            assert!(!inside.is_inflight(index) && inside.counter(index) == 0);
        }
        assert_eq!(bytes(&fd, 0, before.len()), before);
        // A region that does not start at a word.
        let map = Arc::new(Mapping::map(fd.as_fd(), 4, len - 4).unwrap());
        assert!(InflightArea::new(map, Layout::Packed, 0, 1).is_none());
    }
}
