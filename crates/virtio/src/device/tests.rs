//! Tests of device-side rings against hand-made guests, well-behaved and hostile.

use std::sync::Arc;

use eal::{Mapping, SharedMemory};
use packet::RawSegment;
use proptest::prelude::*;

use super::burst::{Buffers, MAX_BUFFERS};
use super::{Chain, DeviceQueue, RingSetup};
use super::{ChainError, RingError, SetupError};
use crate::features::Features;
use crate::memory::{GuestMemory, MemoryError, Region, Translator};
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Desc, UsedElem};

const GUEST: u64 = 0x10_0000;
pub(super) const USER: u64 = 0x7F00_0000_0000;
const BYTES: usize = 1 << 20;
pub(super) const SIZE: u16 = 16;
const DESC_AT: usize = 0;
const AVAIL_AT: usize = 0x1000;
const USED_AT: usize = 0x2000;
const DATA_AT: usize = 0x1_0000;

/// A guest whose rings and buffers are written byte by byte.
pub(super) struct Guest {
    memory: SharedMemory,
    avail: u16,
}

impl Guest {
    pub(super) fn new() -> Self {
        Self { memory: SharedMemory::allocate("guest", BYTES).unwrap(), avail: 0 }
    }

    fn region(&self, guest_addr: u64, user_addr: u64) -> Region {
        let mapping = Mapping::map(self.memory.fd(), 0, BYTES as u64).unwrap();
        Region { guest_addr, user_addr, mapping: Arc::new(mapping) }
    }

    pub(super) fn table(&self) -> Arc<GuestMemory> {
        Arc::new(GuestMemory::new(vec![self.region(GUEST, USER)]).unwrap())
    }

    pub(super) fn setup(features: Features) -> RingSetup {
        RingSetup {
            size: SIZE,
            desc: USER + DESC_AT as u64,
            avail: USER + AVAIL_AT as u64,
            used: USER + USED_AT as u64,
            base: 0,
            features,
        }
    }

    fn queue(&self, features: Features) -> DeviceQueue {
        DeviceQueue::new(self.table(), Self::setup(features)).unwrap()
    }

    pub(super) fn write<T>(&self, offset: usize, value: T) {
        assert!(offset + size_of::<T>() <= BYTES);
        // SAFETY: inside the memory, as just checked.
        unsafe { self.memory.as_ptr().add(offset).cast::<T>().write_unaligned(value) };
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        assert!(offset + size_of::<T>() <= BYTES);
        // SAFETY: inside the memory, as just checked; only integers are read.
        unsafe { self.memory.as_ptr().add(offset).cast::<T>().read_unaligned() }
    }

    pub(super) fn desc(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.write(DESC_AT + 16 * index as usize, Desc { addr, len, flags, next });
    }

    pub(super) fn offer(&mut self, head: u16) {
        self.write(AVAIL_AT + 4 + 2 * (self.avail % SIZE) as usize, head);
        self.avail = self.avail.wrapping_add(1);
        self.write(AVAIL_AT + 2, self.avail);
    }

    fn used(&self, index: u16) -> UsedElem {
        let at = USED_AT + 4 + 8 * (index % SIZE) as usize;
        UsedElem { id: self.read(at), len: self.read(at + 4) }
    }
}

fn data(offset: u64) -> u64 {
    GUEST + DATA_AT as u64 + offset
}

fn chain(head: u16) -> Chain {
    Chain { head, id: head, slots: 1 }
}

fn heads(buffers: &Buffers) -> Vec<u16> {
    buffers.chains().map(|chain| chain.head).collect()
}

fn waiting(queue: &mut DeviceQueue) -> usize {
    let mut buffers = Buffers::default();
    queue.fetch::<false>(MAX_BUFFERS, &mut buffers).unwrap();
    buffers.chains().len()
}

fn lens(segments: &[RawSegment]) -> Vec<usize> {
    segments.iter().map(RawSegment::len).collect()
}

fn walk(queue: &mut DeviceQueue, head: u16) -> Result<Vec<RawSegment>, ChainError> {
    let mut segments = Vec::new();
    queue.walk::<false>(chain(head), &mut segments).map(|()| segments)
}

#[test]
fn a_burst_goes_through_and_back() {
    let mut guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1);
    let mut buffers = Buffers::default();
    for index in 0..5 {
        guest.desc(index, data(100 * u64::from(index)), 60 + u32::from(index), 0, 0);
        guest.offer(index);
    }
    queue.fetch::<false>(3, &mut buffers).unwrap();
    assert_eq!(heads(&buffers), [0, 1, 2]);
    let found: Vec<usize> =
        buffers.as_slice().iter().map(|buffer| buffer.single().unwrap().len()).collect();
    assert_eq!(found, [60, 61, 62]);
    queue.advance(&buffers, 2);
    queue.complete([0, 1].map(|head| (chain(head), 7)).into_iter());
    assert_eq!(guest.read::<u16>(USED_AT + 2), 2);
    assert_eq!(guest.used(1), UsedElem { id: 1, len: 7 });
    assert_eq!((queue.base(), waiting(&mut queue), queue.depth()), (2, 3, 3));
    queue.fetch::<false>(MAX_BUFFERS, &mut buffers).unwrap();
    assert_eq!(heads(&buffers), [2, 3, 4], "what was not advanced over is fetched again");
}

#[test]
fn in_order_one_element_stands_for_a_burst_that_was_read() {
    for (features, first) in [(Features::IN_ORDER, 2), (Features::empty(), 0)] {
        let mut guest = Guest::new();
        let mut queue = guest.queue(Features::VERSION_1 | features);
        let mut buffers = Buffers::default();
        for index in 0..3 {
            guest.desc(index, data(100 * u64::from(index)), 60, 0, 0);
            guest.offer(index);
        }
        queue.fetch::<false>(3, &mut buffers).unwrap();
        queue.advance(&buffers, 3);
        queue.complete_read(&buffers, 3);
        assert_eq!(guest.read::<u16>(USED_AT + 2), 3);
        assert_eq!(guest.used(0), UsedElem { id: first, len: 0 });
        assert!(queue.needs_call());
        queue.complete_read(&buffers, 0);
        assert_eq!(guest.read::<u16>(USED_AT + 2), 3, "nothing is nothing");
    }
}

#[test]
fn the_driver_is_told_as_its_flags_ask() {
    let mut guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1);
    guest.offer(0);
    queue.complete([(chain(0), 0)].into_iter());
    assert!(queue.needs_call());
    assert!(!queue.needs_call(), "nothing new since");
    guest.write(AVAIL_AT, 1_u16);
    queue.complete([(chain(0), 0)].into_iter());
    assert!(!queue.needs_call(), "the driver polls");
}

#[test]
fn the_driver_is_told_at_the_index_it_asked_for() {
    let guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1 | Features::EVENT_IDX);
    guest.write(AVAIL_AT + 4 + 2 * SIZE as usize, 1_u16);
    queue.complete([(chain(0), 0)].into_iter());
    assert!(!queue.needs_call());
    queue.complete([(chain(0), 0)].into_iter());
    assert!(queue.needs_call());
}

#[test]
fn arming_looks_again() {
    for features in [Features::VERSION_1, Features::VERSION_1 | Features::EVENT_IDX] {
        let mut guest = Guest::new();
        let mut queue = guest.queue(features);
        assert!(queue.arm());
        queue.disarm();
        let flags = u16::from(!features.contains(Features::EVENT_IDX));
        assert_eq!(guest.read::<u16>(USED_AT), flags);
        guest.offer(0);
        assert!(!queue.arm(), "a buffer came before the wish was stated");
        assert_eq!(guest.read::<u16>(USED_AT), 0);
        assert_eq!(guest.read::<u16>(USED_AT + 4 + 8 * SIZE as usize), 0);
    }
}

#[test]
fn chains_are_walked_through_next_and_tables() {
    let guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1 | Features::INDIRECT_DESC);
    guest.desc(3, data(0), 12, DESC_NEXT, 7);
    guest.desc(7, data(50), 100, DESC_NEXT, 1);
    guest.desc(1, data(500), 1, 0, 3);
    assert_eq!(lens(&walk(&mut queue, 3).unwrap()), [12, 100, 1]);
    // The same as a table, its entries out of order.
    guest.desc(0, data(0x800), 3 * 16, DESC_INDIRECT, 0);
    let entry = |index: usize, len, flags, next| {
        guest.write(DATA_AT + 0x800 + 16 * index, Desc { addr: data(0), len, flags, next });
    };
    entry(0, 12, DESC_NEXT, 2);
    entry(2, 100, DESC_NEXT, 1);
    entry(1, 1, 0, 0);
    assert_eq!(lens(&walk(&mut queue, 0).unwrap()), [12, 100, 1]);
}

#[test]
fn hostile_chains_are_refused() {
    let guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1 | Features::INDIRECT_DESC);
    let end = GUEST + BYTES as u64;
    let mut refused = |desc: Desc| {
        guest.write(DESC_AT, desc);
        let error = walk(&mut queue, 0).unwrap_err();
        let mut buffers = Buffers::default();
        guest.write(AVAIL_AT + 4, 0_u16);
        guest.write(AVAIL_AT + 2, 1_u16);
        queue.fetch::<false>(1, &mut buffers).unwrap();
        assert!(buffers.as_slice()[0].single().is_none(), "the fast path took {desc:?}");
        error
    };
    let plain = |addr, len| Desc { addr, len, flags: 0, next: 0 };
    let unmapped = |addr, len| ChainError::Unmapped { addr, len };
    assert_eq!(refused(plain(end - 10, 11)), unmapped(end - 10, 11), "runs past the end");
    assert_eq!(refused(plain(end, 0)), unmapped(end, 0));
    assert_eq!(refused(plain(GUEST - 1, 2)), unmapped(GUEST - 1, 2));
    assert_eq!(refused(plain(u64::MAX, 1)), unmapped(u64::MAX, 1));
    assert_eq!(refused(plain(GUEST, u32::MAX)), unmapped(GUEST, u32::MAX));
    let flagged = |flags, next| Desc { addr: data(0), len: 32, flags, next };
    assert_eq!(refused(flagged(DESC_WRITE, 0)), ChainError::WrongDirection);
    assert_eq!(refused(flagged(DESC_NEXT, SIZE)), ChainError::NextOutOfRange(SIZE));
    assert_eq!(refused(flagged(DESC_NEXT, 0)), ChainError::TooLong, "points to itself");
    let table = |addr, len, flags| Desc { addr, len, flags: DESC_INDIRECT | flags, next: 0 };
    assert_eq!(refused(table(data(0), 0, 0)), ChainError::BadIndirect);
    assert_eq!(refused(table(data(0), 24, 0)), ChainError::BadIndirect);
    assert_eq!(refused(table(data(4), 16, 0)), unmapped(data(4), 16), "not aligned");
    assert_eq!(refused(table(data(0), 16, DESC_NEXT)), ChainError::BadIndirect);
    assert_eq!(refused(table(end - 16, 32, 0)), unmapped(end - 16, 32));
    guest.write(DATA_AT, table(data(0), 16, 0));
    assert_eq!(refused(table(data(0), 16, 0)), ChainError::BadIndirect, "a table in a table");
    guest.write(DATA_AT, flagged(DESC_NEXT, 1));
    assert_eq!(refused(table(data(0), 16, 0)), ChainError::NextOutOfRange(1));
    guest.write(DATA_AT, flagged(DESC_NEXT, 0));
    assert_eq!(refused(table(data(0), 32, 0)), ChainError::TooLong);
    // The longest table that a length can name, all of it one chain, ends as well.
    for index in 0..2000_u16 {
        guest.write(DATA_AT + 16 * index as usize, flagged(DESC_NEXT, index + 1));
    }
    assert_eq!(refused(table(data(0), 16 * 2000, 0)), ChainError::TooLong);
}

#[test]
fn a_request_is_read_and_answered_in_one_chain() {
    let guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1);
    guest.desc(0, data(0), 2, DESC_NEXT, 1);
    guest.desc(1, data(8), 6, DESC_NEXT, 2);
    guest.desc(2, data(16), 1, DESC_WRITE, 0);
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    queue.walk_request(chain(0), &mut request, &mut answer).unwrap();
    assert_eq!((lens(&request), lens(&answer)), (vec![2, 6], vec![1]));
    guest.desc(2, data(16), 1, DESC_WRITE | DESC_NEXT, 3);
    guest.desc(3, data(24), 1, 0, 0);
    let error = queue.walk_request(chain(0), &mut request, &mut answer);
    assert_eq!(error, Err(ChainError::WrongDirection), "to be read after what is written");
}

#[test]
fn tables_need_negotiation() {
    let guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1);
    guest.desc(0, data(0), 16, DESC_INDIRECT, 0);
    assert_eq!(walk(&mut queue, 0).unwrap_err(), ChainError::BadIndirect);
}

#[test]
fn hostile_indexes_break_the_ring() {
    let mut guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1);
    guest.write(AVAIL_AT + 2, SIZE + 1);
    let jump = RingError::IndexJump { avail: SIZE + 1, next: 0, size: SIZE };
    assert_eq!(queue.fetch::<false>(9, &mut Buffers::default()), Err(jump));
    assert!(!queue.arm());
    guest.write(AVAIL_AT + 2, 0_u16);
    guest.offer(SIZE);
    let head = RingError::HeadOutOfRange { head: SIZE, size: SIZE };
    assert_eq!(queue.fetch::<false>(9, &mut Buffers::default()), Err(head));
}

#[test]
fn rings_must_lie_in_shared_memory() {
    let guest = Guest::new();
    let start = |change: fn(&mut RingSetup)| {
        let mut setup = Guest::setup(Features::VERSION_1);
        change(&mut setup);
        DeviceQueue::new(guest.table(), setup).map(|_| ())
    };
    assert_eq!(start(|_| ()), Ok(()));
    for size in [0, 3, 255, 65_535] {
        let error =
            DeviceQueue::new(guest.table(), RingSetup { size, ..Guest::setup(Features::empty()) });
        assert_eq!(error.map(|_| ()), Err(SetupError::Size(size)));
    }
    assert!(start(|setup| setup.desc = USER + BYTES as u64 - 16 * 15).is_err());
    assert!(start(|setup| setup.desc += 8).is_err(), "not aligned to 16");
    assert!(start(|setup| setup.avail = USER - 2).is_err());
    assert!(start(|setup| setup.avail += 1).is_err());
    assert!(start(|setup| setup.used = u64::MAX - 3).is_err());
    assert!(start(|setup| setup.used += 2).is_err());
}

#[test]
fn memory_tables_are_checked() {
    let guest = Guest::new();
    let table = |one: (u64, u64), two: (u64, u64)| {
        GuestMemory::new(vec![guest.region(one.0, one.1), guest.region(two.0, two.1)]).map(|_| ())
    };
    let far = BYTES as u64;
    assert_eq!(table((far, 0), (0, far)), Ok(()), "side by side, in any order");
    let overlap = |first, second| Err(MemoryError::Overlap { first, second });
    assert_eq!(table((0, 0), (far - 1, far)), overlap(0, far - 1));
    assert_eq!(table((0, 0), (far, far - 1)), overlap(0, far - 1));
    assert!(matches!(table((u64::MAX - 5, 0), (0, far)), Err(MemoryError::Wraps { .. })));
}

#[test]
fn buffers_in_several_regions_are_found_and_none_may_span_two() {
    let guest = Guest::new();
    let far = BYTES as u64;
    let regions = (0..9).map(|n| guest.region(n * far, (20 - n) * far)).collect();
    let memory = GuestMemory::new(regions).unwrap();
    let mut ring = Translator::new(Arc::new(memory));
    for n in [0, 8, 3, 3, 7] {
        assert_eq!(ring.translate::<false>(n * far + 5, 10).unwrap().len(), 10);
        assert!(ring.translate::<false>(n * far + far - 5, 10).is_none());
    }
    assert!(ring.translate::<false>(9 * far, 1).is_none());
}

#[test]
fn a_ring_survives_a_new_memory_table() {
    let mut guest = Guest::new();
    let mut queue = guest.queue(Features::VERSION_1);
    guest.desc(0, data(0), 60, 0, 0);
    guest.offer(0);
    queue.set_memory(guest.table()).unwrap();
    let mut buffers = Buffers::default();
    queue.fetch::<false>(1, &mut buffers).unwrap();
    assert!(buffers.as_slice()[0].single().is_some());
    assert!(queue.set_memory(Arc::default()).is_err(), "the ring is not in an empty table");
}

proptest! {
    /// Whatever a guest writes, the device reads and refuses within bounds, and every segment
    /// that it accepts lies in shared memory.
    #[test]
    fn random_rings_do_no_harm(
        descs in prop::collection::vec(
            (0_u64..3 * BYTES as u64, prop_oneof![0_u32..5000, any::<u32>()], 0_u16..8, 0..SIZE + 2),
            SIZE as usize,
        ),
        heads in prop::collection::vec(0..SIZE + 1, 1..SIZE as usize),
    ) {
        let mut guest = Guest::new();
        let mut queue = guest.queue(Features::VERSION_1 | Features::INDIRECT_DESC);
        for (index, (addr, len, flags, next)) in (0..).zip(descs) {
            guest.desc(index, addr, len, flags, next);
        }
        for head in &heads {
            guest.offer(*head);
        }
        let mut buffers = Buffers::default();
        let bad = heads.iter().position(|head| *head >= SIZE);
        prop_assert_eq!(queue.fetch::<false>(64, &mut buffers).is_err(), bad.is_some());
        let region = queue.memory().regions()[0].mapping.ptr().as_ptr().addr();
        for head in self::heads(&buffers) {
            for segment in walk(&mut queue, head).into_iter().flatten() {
                let start = segment.as_ptr().as_ptr().addr();
                prop_assert!(start >= region && start + segment.len() <= region + BYTES);
            }
        }
    }
}
