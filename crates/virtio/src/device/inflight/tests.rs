//! Devices that are killed anywhere, with our own driver at the other end: no chain is lost, none
//! comes back twice, and none is handled twice but those that were in flight.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use eal::{DmaArena, Mapping, SharedMemory};
use proptest::prelude::*;
use rustix::fs::MemfdFlags;

use super::Resumed;
use crate::device::{Buffers, DeviceQueue, RingSetup, SetupError};
use crate::driver::{Buffer, DriverQueue, DriverRing as _};
use crate::features::Features;
use crate::inflight::{Head, InflightArea, Layout, kill};
use crate::memory::{GuestMemory, Region};

const BYTES: usize = 1 << 20;
const USER: u64 = 0x1000;
/// Where buffers are, and how far apart.
const BUFFERS: usize = BYTES / 2;
const STRIDE: usize = 64;
/// More than can be outstanding.
const NUMBERS: u64 = 512;

struct Bench {
    memory: DmaArena,
    table: Arc<GuestMemory>,
    setup: RingSetup,
    region: OwnedFd,
    driver: DriverQueue,
    device: Option<DeviceQueue>,
    posted: u64,
    /// Numbers and heads of chains that the driver waits for, oldest first.
    waiting: VecDeque<(u64, u16)>,
    /// How often each chain was handled, and how often it may be.
    handled: BTreeMap<u64, (u32, u32)>,
}

impl Bench {
    fn new(features: Features, size: u16) -> Self {
        let memory = SharedMemory::allocate("guest", BYTES).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, BYTES as u64).unwrap());
        let region = Region { guest_addr: USER, user_addr: USER, mapping };
        let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
        let mut memory = DmaArena::shared(memory, USER).unwrap();
        let ring = memory.take_at(0, BUFFERS).unwrap();
        let driver = DriverQueue::new(ring, size, features).unwrap();
        let (desc, avail, used) = driver.device_addresses();
        let setup = RingSetup { size, desc, avail, used, base: driver.first_base(), features };
        let flags = MemfdFlags::CLOEXEC;
        let region = rustix::fs::memfd_create("inflight", flags).unwrap();
        let len = layout(features).region_bytes(1, size) as u64;
        rustix::fs::ftruncate(&region, len).unwrap();
        let (waiting, handled) = (VecDeque::new(), BTreeMap::new());
        let mut bench = Self {
            memory,
            table,
            setup,
            region,
            driver,
            device: None,
            posted: 0,
            waiting,
            handled,
        };
        assert_eq!(bench.restart(), Ok(Resumed::Anew));
        bench
    }

    fn area(&self) -> InflightArea {
        let (layout, size) = (layout(self.setup.features), self.setup.size);
        let len = layout.region_bytes(1, size) as u64;
        let map = Arc::new(Mapping::map(self.region.as_fd(), 0, len).unwrap());
        InflightArea::new(map, layout, 0, size).unwrap()
    }

    /// Another device, that is told nothing but where the ring has begun.
    fn restart(&mut self) -> Result<Resumed, SetupError> {
        let mut device = DeviceQueue::new(Arc::clone(&self.table), self.setup).unwrap();
        let resumed = device.resume(self.area());
        self.device = Some(device);
        resumed
    }

    fn post(&mut self, count: usize) {
        let place = usize::try_from(self.posted % NUMBERS).unwrap();
        let part = self.memory.slice(BUFFERS + place * STRIDE, STRIDE).unwrap();
        if let Some(head) = self.driver.add(&vec![Buffer::readable(part); count]) {
            self.waiting.push_back((self.posted, head));
            self.handled.insert(self.posted, (0, 1));
            self.posted += 1;
        }
        let _ = self.driver.publish();
    }

    /// The number of a chain that has `addr`.
    fn number(&self, addr: usize) -> u64 {
        let offset = addr - self.table.regions()[0].mapping.ptr().as_ptr().addr() - BUFFERS;
        let place = (offset / STRIDE) as u64;
        let waiting = self.waiting.iter().map(|(number, _)| *number);
        waiting.rev().find(|number| number % NUMBERS == place).unwrap()
    }

    /// A burst of the device; `killed` is after how many stores it ends.
    fn burst(&mut self, max: usize, written: bool, killed: Option<u32>) {
        let mut device = self.device.take().unwrap();
        let (mut buffers, mut numbers) = (Buffers::default(), Vec::new());
        device.fetch::<false>(max, &mut buffers).unwrap();
        for chain in buffers.chains().collect::<Vec<_>>() {
            let mut segments = Vec::new();
            device.walk::<false>(chain, &mut segments).unwrap();
            numbers.push(self.number(segments[0].as_ptr().as_ptr().addr()));
        }
        let count = numbers.len();
        let handled = &mut self.handled;
        let act = || {
            device.advance(&buffers, count);
            numbers.iter().for_each(|number| handled.get_mut(number).unwrap().0 += 1);
            if written {
                device.complete_written(&buffers, count);
            } else {
                device.complete_read(&buffers, count);
            }
            let _ = device.needs_call();
            device
        };
        match killed {
            None => self.device = Some(act()),
            Some(stores) => self.device = kill::after(stores, act),
        }
        if self.device.is_none() {
            for number in numbers {
                self.handled.get_mut(&number).unwrap().1 += 1;
            }
        }
    }

    /// The driver takes back what was used: what it knows, in order.
    fn collect(&mut self) {
        self.driver.poll_used().unwrap();
        while let Some(used) = self.driver.next_used().unwrap() {
            let (number, head) = self.waiting.pop_front().unwrap();
            assert_eq!(head, used.head, "not the oldest");
            self.driver.recycle(used.head);
            let (times, most) = self.handled[&number];
            assert!((1..=most).contains(&times), "chain {number}: {times} times, {most} at most");
        }
    }
}

fn layout(features: Features) -> Layout {
    if features.contains(Features::RING_PACKED) { Layout::Packed } else { Layout::Split }
}

fn features() -> impl Strategy<Value = Features> {
    // Our driver of split rings does not understand batches of used chains.
    prop::sample::select(vec![
        Features::VERSION_1,
        Features::VERSION_1 | Features::RING_PACKED,
        Features::VERSION_1 | Features::RING_PACKED | Features::IN_ORDER,
    ])
}

#[derive(Clone, Debug)]
enum Step {
    Post(usize),
    /// Chains, whether they are written, and after how many stores the device is killed.
    Burst(usize, bool, Option<u32>),
    /// The device that starts is killed as well.
    KilledAtStart(u32),
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let burst = (1_usize..9, any::<bool>(), prop::option::of(0_u32..100));
    let step = prop_oneof![
        8 => (1_usize..4).prop_map(Step::Post),
        4 => burst.prop_map(|(max, written, killed)| Step::Burst(max, written, killed)),
        1 => (0_u32..30).prop_map(Step::KilledAtStart),
        2 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_killed_device_loses_nothing_and_doubles_only_what_was_in_flight(
        features in features(), size in prop::sample::select(vec![8_u16, 16]), steps in steps(),
    ) {
        let mut bench = Bench::new(features, size);
        for step in steps {
            match step {
                Step::Post(count) => bench.post(count),
                Step::Burst(max, written, killed) => {
                    bench.burst(max, written, killed);
                    if bench.device.is_none() {
                        let resumed = bench.restart();
                        prop_assert!(matches!(resumed, Ok(Resumed::Here { .. })), "{:?}", resumed);
                    }
                }
                Step::KilledAtStart(stores) => {
                    let _ = kill::after(stores, || bench.restart());
                    let resumed = bench.restart();
                        prop_assert!(matches!(resumed, Ok(Resumed::Here { .. })), "{:?}", resumed);
                }
                Step::Collect => bench.collect(),
            }
        }
        bench.restart().unwrap();
        while !bench.waiting.is_empty() {
            let before = bench.waiting.len();
            bench.burst(8, false, None);
            bench.collect();
            prop_assert!(bench.waiting.len() < before, "lost: {:?}", bench.waiting);
        }
    }

    /// The front-end writes what it likes to the region at any time.
    #[test]
    fn no_record_does_harm(
        features in features(),
        steps in steps(),
        spoiled in prop::collection::vec((0_usize..600, any::<u8>()), 1..20),
        in_use in any::<bool>(),
    ) {
        let mut bench = Bench::new(features, 8);
        let mut spoiled = spoiled.into_iter().cycle();
        for step in steps {
            let (at, byte) = spoiled.next().unwrap();
            rustix::io::pwrite(&bench.region, &[byte], at as u64 % 320).unwrap();
            if in_use {
                // So that the rest is looked at.
                rustix::io::pwrite(&bench.region, &[1, 0, 8, 0], 8).unwrap();
            }
            match step {
                Step::Post(count) => bench.post(count),
                Step::Burst(max, written, _) => {
                    let device = bench.device.as_mut().unwrap();
                    let mut buffers = Buffers::default();
                    if device.fetch::<false>(max, &mut buffers).is_ok() {
                        let count = buffers.as_slice().len();
                        device.advance(&buffers, count);
                        if written {
                            device.complete_written(&buffers, count);
                        } else {
                            device.complete_read(&buffers, count);
                        }
                    }
                }
                Step::KilledAtStart(_) | Step::Collect => {
                    // Whether it likes the records or not, and where it then goes on.
                    let _ = bench.restart();
                }
            }
        }
    }
}

#[test]
fn chains_that_another_kind_of_device_has_left_go_back_empty() {
    for packed in [false, true] {
        let mut features = Features::VERSION_1;
        features.set(Features::RING_PACKED, packed);
        let mut bench = Bench::new(features, 8);
        (0..4).for_each(|_| bench.post(1));
        let device = bench.device.as_mut().unwrap();
        let mut buffers = Buffers::default();
        device.fetch::<false>(3, &mut buffers).unwrap();
        device.advance(&buffers, 3);
        // As a device would that has used the second one first.
        let second = buffers.as_slice()[1].chain();
        device.complete([(second, 0)].into_iter());
        if packed {
            // Our own device took it for the first one; that one would not.
            let area = bench.area();
            area.set_inflight(0, true);
            area.set_inflight(1, false);
            area.set_next(1, 3);
            area.set_head(Head { version: 1, entries: 8, first: 1, second: 1 });
        }
        assert_eq!(bench.restart(), Ok(Resumed::GivenBack { chains: 2 }));
        let mut seen = Vec::new();
        bench.driver.poll_used().unwrap();
        while let Some(used) = bench.driver.next_used().unwrap() {
            seen.push(used.head);
            bench.driver.recycle(used.head);
        }
        let heads: Vec<u16> = bench.waiting.iter().map(|(_, head)| *head).collect();
        assert_eq!(seen, [heads[1], heads[0], heads[2]]);
        // What was not taken is taken now.
        let device = bench.device.as_mut().unwrap();
        device.fetch::<false>(8, &mut buffers).unwrap();
        assert_eq!(buffers.as_slice().len(), 1);
    }
}

#[test]
fn a_batch_of_a_split_ring_with_one_used_element_is_given_back_or_taken_again() {
    let features = Features::VERSION_1 | Features::IN_ORDER;
    let mut outcomes = std::collections::BTreeSet::new();
    for stores in 0..60 {
        let mut bench = Bench::new(features, 8);
        (0..6).for_each(|_| bench.post(1));
        bench.burst(2, false, None);
        bench.burst(3, false, Some(stores));
        let Ok(Resumed::Here { again }) = bench.restart() else { panic!("not here") };
        let device = bench.device.as_mut().unwrap();
        let left = 6 - device.base();
        let mut buffers = Buffers::default();
        device.fetch::<false>(8, &mut buffers).unwrap();
        assert_eq!(buffers.as_slice().len(), usize::try_from(left).unwrap());
        assert!(left == 4 || left == 1 && again == 0, "{left} {again}");
        outcomes.insert((left, again));
    }
    // Killed while it took them, before and after it gave them back.
    assert_eq!(outcomes, [(1, 0), (4, 0), (4, 1), (4, 2), (4, 3)].into());
}

#[test]
fn records_of_another_ring_are_refused() {
    for packed in [false, true] {
        let mut features = Features::VERSION_1;
        features.set(Features::RING_PACKED, packed);
        let mut bench = Bench::new(features, 8);
        for head in [[2, 0, 8, 0], [1, 0, 7, 0], [1, 0, 9, 0]] {
            rustix::io::pwrite(&bench.region, &head, 8).unwrap();
            let error = bench.restart().unwrap_err().to_string();
            assert!(error.contains("expected version 1 for a ring of 8"), "{error}");
        }
        bench.area().forget();
        assert_eq!(bench.restart(), Ok(Resumed::Anew));
        let other = if packed { Layout::Split } else { Layout::Packed };
        let len = other.region_bytes(1, 8) as u64;
        rustix::fs::ftruncate(&bench.region, len).unwrap();
        let map = Arc::new(Mapping::map(bench.region.as_fd(), 0, len).unwrap());
        let area = InflightArea::new(map, other, 0, 8).unwrap();
        let mut device = DeviceQueue::new(Arc::clone(&bench.table), bench.setup).unwrap();
        assert!(matches!(device.resume(area), Err(SetupError::Inflight { .. })));
    }
}
