//! The driver side of packed rings against the device side, and against a device that breaks the
//! rules.

use std::collections::HashMap;
use std::sync::Arc;

use eal::{DmaArena, Mapping, SharedMemory};
use packet::RawSegment;
use proptest::prelude::*;

use super::PackedQueue;
use crate::device::{Buffers, Chain, DeviceQueue, RingSetup};
use crate::driver::{Buffer, DmaPart, DmaSlice, RingError, Used};
use crate::features::Features;
use crate::memory::{GuestMemory, Region};
use crate::packed::{AVAIL, Desc, Position, USED};
use crate::ring::DESC_WRITE;

const BASE: u64 = 0x7_0000_0000;
const BYTES: usize = 1 << 18;
/// Buffers and tables lie behind the ring.
const DATA: usize = 1 << 16;

fn arena() -> DmaArena {
    DmaArena::shared(SharedMemory::allocate("packed", BYTES).unwrap(), BASE).unwrap()
}

struct Bench {
    memory: DmaArena,
    tables: DmaPart,
    addresses: (u64, u64, u64),
    size: u16,
    features: Features,
}

impl Bench {
    fn new(size: u16, features: Features) -> (Self, PackedQueue) {
        let mut memory = arena();
        let ring = memory.take_at(0, DATA).unwrap();
        let tables = memory.take_at(2 * DATA, DATA).unwrap();
        let queue = PackedQueue::new(ring, size, features).unwrap();
        let addresses = queue.device_addresses();
        (Self { memory, tables, addresses, size, features }, queue)
    }

    fn device(&self, base: u32) -> DeviceQueue {
        let mapping = Arc::new(Mapping::map(self.memory.memory().fd(), 0, BYTES as u64).unwrap());
        let region = Region { guest_addr: BASE, user_addr: BASE, mapping };
        let memory = Arc::new(GuestMemory::new(vec![region]).unwrap());
        let features = self.features | Features::RING_PACKED | Features::VERSION_1;
        let (desc, avail, used) = self.addresses;
        DeviceQueue::new(memory, RingSetup { size: self.size, desc, avail, used, base, features })
            .unwrap()
    }

    /// A buffer of `len` bytes, at a place that depends on the length.
    fn buffer(&self, len: usize, writable: bool) -> Buffer {
        let part = self.memory.slice(DATA + 64 * len, len).unwrap();
        if writable { Buffer::writable(part) } else { Buffer::readable(part) }
    }

    fn table(&mut self, id: u16) -> DmaSlice<'_> {
        self.tables.slice_mut(256 * usize::from(id), 256).unwrap()
    }

    /// Marks the descriptor at `at` as used, as a device without shame would.
    fn use_desc(&self, at: Position, id: u16, len: u32) {
        let flags = if at.wrap { AVAIL | USED } else { 0 };
        let desc = Desc { addr: 0, len, id, flags: flags | DESC_WRITE };
        assert!(at.index < self.size);
        // SAFETY: the ring starts at the memory's start and has `size` descriptors.
        unsafe {
            let ring = self.memory.memory().as_ptr().cast::<Desc>();
            ring.add(at.index.into()).write_volatile(desc);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Lengths of buffers, how many of them are writable, and whether they lie in a table.
    Post(Vec<usize>, usize, bool),
    Publish,
    Fetch(usize),
    /// Gives back those of the fetched chains that the numbers choose.
    Complete(Vec<usize>),
    Take,
    Restart,
    Arm(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let lens = proptest::collection::vec(1_usize..200, 1..5);
    prop_oneof![
        6 => (lens, 0_usize..5, any::<bool>()).prop_map(|(l, w, t)| Step::Post(l, w, t)),
        3 => Just(Step::Publish),
        3 => (1_usize..8).prop_map(Step::Fetch),
        3 => proptest::collection::vec(any::<usize>(), 1..6).prop_map(Step::Complete),
        2 => Just(Step::Take),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Arm),
    ]
}

/// What the device must see of a chain: the lengths to read and those to write.
type Expected = (Vec<usize>, Vec<usize>);

struct Model {
    bench: Bench,
    driver: PackedQueue,
    device: DeviceQueue,
    posted: HashMap<u16, Expected>,
    /// Posted chains that were not published, oldest first, and those that were.
    waiting: Vec<u16>,
    offered: Vec<u16>,
    fetched: Vec<Chain>,
    /// Chains that the device gave back and the driver has not taken, oldest first.
    used: Vec<Used>,
    descriptors: usize,
    counts: HashMap<u16, Vec<u16>>,
}

impl Model {
    fn new(size: u16, features: Features) -> Self {
        let (bench, driver) = Bench::new(size, features);
        let device = bench.device(0x8000_8000);
        Self {
            bench,
            driver,
            device,
            posted: HashMap::new(),
            waiting: Vec::new(),
            offered: Vec::new(),
            fetched: Vec::new(),
            used: Vec::new(),
            descriptors: 0,
            counts: HashMap::new(),
        }
    }

    fn post(&mut self, lens: &[usize], writable: usize, table: bool) {
        let first_writable = lens.len() - writable.min(lens.len());
        let buffers: Vec<Buffer> = lens
            .iter()
            .enumerate()
            .map(|(at, len)| self.bench.buffer(*len, at >= first_writable))
            .collect();
        let wanted = if table { 1 } else { lens.len() };
        let free = usize::from(self.bench.size) - self.descriptors;
        assert_eq!(usize::from(self.driver.free_count()), free);
        if wanted > free {
            return;
        }
        let ids: Vec<u16> = (0..wanted).map(|_| self.driver.reserve().unwrap()).collect();
        if table {
            assert!(self.driver.set_indirect(ids[0], self.bench.table(ids[0]), &buffers));
        } else {
            self.driver.set_chain(&ids, &buffers);
        }
        self.driver.post(ids[0]);
        assert!(self.driver.is_posted(ids[0]));
        let (read, write) = lens.split_at(first_writable);
        assert!(self.posted.insert(ids[0], (read.to_vec(), write.to_vec())).is_none());
        self.waiting.push(ids[0]);
        self.descriptors += wanted;
        self.counts.insert(ids[0], ids);
    }

    fn fetch(&mut self, max: usize) {
        let mut buffers = Buffers::default();
        self.device.fetch::<false>(max, &mut buffers).unwrap();
        let chains = buffers.chains().collect::<Vec<_>>();
        assert_eq!(chains.len(), max.min(self.offered.len()));
        for (chain, id) in chains.iter().zip(self.offered.drain(..chains.len())) {
            assert_eq!(chain.id, id, "chains come in the order in which they were posted");
            let (mut read, mut write) = (Vec::new(), Vec::new());
            self.device.walk_request(*chain, &mut read, &mut write).unwrap();
            let lens = |all: &[RawSegment]| all.iter().map(RawSegment::len).collect::<Vec<_>>();
            assert_eq!((lens(&read), lens(&write)), self.posted[&id]);
        }
        self.device.advance(&buffers, chains.len());
        self.fetched.extend(chains);
    }

    fn complete(&mut self, choices: &[usize], in_order: bool) {
        let mut done = Vec::new();
        for choice in choices {
            if self.fetched.is_empty() {
                break;
            }
            let at = if in_order { 0 } else { choice % self.fetched.len() };
            let chain = self.fetched.remove(at);
            let room: usize = self.posted[&chain.id].1.iter().sum();
            let len = u32::try_from(choice % (room + 1)).unwrap();
            self.used.push(Used { head: chain.id, len });
            done.push((chain, len));
        }
        self.device.complete(done.into_iter());
    }

    fn take(&mut self) {
        let bound = self.driver.poll_used().unwrap();
        assert_eq!(bound > 0, !self.used.is_empty());
        assert!(usize::from(bound) >= self.used.len());
        for expected in std::mem::take(&mut self.used) {
            assert_eq!(self.driver.next_used().unwrap(), Some(expected));
            self.posted.remove(&expected.head);
            self.descriptors -= self.counts.remove(&expected.head).unwrap().len();
            self.driver.recycle(expected.head);
        }
        assert_eq!(self.driver.next_used().unwrap(), None);
    }

    fn run(&mut self, steps: &[Step], in_order: bool) {
        for step in steps {
            match step {
                Step::Post(lens, writable, table) => self.post(lens, *writable, *table),
                Step::Publish => {
                    let _ = self.driver.publish();
                    self.offered.append(&mut self.waiting);
                }
                Step::Fetch(max) => self.fetch(*max),
                Step::Complete(choices) => self.complete(choices, in_order),
                Step::Take => self.take(),
                // The half of the base that is 0 stands for "the same" with DPDK.
                Step::Restart if self.device.base() >> 16 != 0 => {
                    self.device = self.bench.device(self.device.base());
                }
                Step::Restart => {}
                Step::Arm(true) => {
                    assert_eq!(self.driver.enable_interrupts(), self.used.is_empty());
                    let _ = self.device.needs_call();
                    let before = self.used.len();
                    self.complete(&[0], in_order);
                    let now = self.used.len() > before && before == 0;
                    assert!(self.device.needs_call() || !now);
                }
                Step::Arm(false) => {
                    self.driver.disable_interrupts();
                    self.complete(&[0], in_order);
                    assert!(!self.device.needs_call());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn chains_go_through_and_back_whatever_happens(
        size in 1_u16..40,
        event_idx in any::<bool>(),
        in_order in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let mut features = Features::INDIRECT_DESC;
        features.set(Features::EVENT_IDX, event_idx);
        features.set(Features::IN_ORDER, in_order);
        Model::new(size, features).run(&steps, in_order);
    }

    /// Whatever a device writes, the driver never holds an id twice nor loses count.
    #[test]
    fn a_hostile_device_does_no_harm(
        size in 1_u16..12,
        in_order in any::<bool>(),
        writes in proptest::collection::vec((0_u16..12, any::<bool>(), 0_u16..14, 0_u32..200), 1..60),
    ) {
        let features = if in_order { Features::IN_ORDER } else { Features::empty() };
        let (bench, mut queue) = Bench::new(size, features);
        for (index, wrap, id, len) in writes {
            let buffer = bench.buffer(100, true);
            while queue.add_with(|_| Some(buffer)) {}
            prop_assert_eq!(queue.posted_count(), size);
            let _ = queue.publish();
            bench.use_desc(Position { index: index % size, wrap }, id, len);
            let mut taken = 0;
            loop {
                match queue.next_used() {
                    Ok(Some(used)) => {
                        prop_assert!(used.len <= 100 && used.head < size);
                        prop_assert!(!queue.is_posted(used.head));
                        queue.release(used.head);
                        taken += 1;
                    }
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            prop_assert!(taken <= size);
            prop_assert_eq!(queue.free_count(), taken);
        }
    }
}

#[test]
fn in_order_batches_come_back_by_their_last_id() {
    let (bench, mut queue) = Bench::new(5, Features::IN_ORDER);
    let mut at = Position::FIRST;
    for _ in 0..7 {
        let ids: Vec<u16> =
            (0..3).map(|_| queue.add(&[bench.buffer(100, true)]).unwrap()).collect();
        let _ = queue.publish();
        bench.use_desc(at, ids[2], 7);
        assert_eq!(queue.poll_used(), Ok(3));
        for (id, len) in ids.iter().zip([100, 100, 7]) {
            assert_eq!(queue.next_used(), Ok(Some(Used { head: *id, len })));
            queue.recycle(*id);
        }
        assert_eq!(queue.next_used(), Ok(None));
        at = at.after(3, 5);
    }
}

#[test]
fn lies_are_told_by_name() {
    let (bench, mut queue) = Bench::new(4, Features::empty());
    let id = queue.add(&[bench.buffer(100, true)]).unwrap();
    // What is not published cannot have been used.
    bench.use_desc(Position::FIRST, id, 1);
    assert_eq!(queue.next_used(), Ok(None));
    let _ = queue.publish();
    assert_eq!(queue.next_used(), Ok(None));
    for wrong in [id + 1, 4, u16::MAX] {
        bench.use_desc(Position::FIRST, wrong, 1);
        assert_eq!(queue.next_used(), Err(RingError::Id { id: wrong.into() }));
    }
    bench.use_desc(Position::FIRST, id, 101);
    assert_eq!(queue.next_used(), Err(RingError::Len { head: id, len: 101, room: 100 }));
    bench.use_desc(Position::FIRST, id, 100);
    assert_eq!(queue.next_used(), Ok(Some(Used { head: id, len: 100 })));
}

#[test]
fn sizes_and_memory_are_checked() {
    let new = |offset, len, size| {
        let part = arena().take_at(offset, len).unwrap();
        PackedQueue::new(part, size, Features::empty())
    };
    assert!(new(0, BYTES, 0).is_none() && new(0, BYTES, 32_769).is_none());
    assert!(new(8, 4096, 4).is_none());
    let bytes = PackedQueue::bytes(5);
    assert!(new(0, bytes - 1, 5).is_none() && new(0, bytes, 5).is_some());
}
