//! Shadow rings between a driver, which is ours, and a model of a device, which takes and uses
//! chains in any order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use eal::{DmaArena, Mapping, SharedMemory};
use proptest::prelude::*;

use super::*;
use crate::Features;
use crate::device::{Chain, RingSetup};
use crate::memory::{GuestMemory, Region};

/// Where the guest has its memory, where the device finds the shadow ring, and the bytes of each.
const GUEST: u64 = 0x10_0000;
const SHADOW: u64 = 0x4000_0000;
const BYTES: usize = 1 << 20;
/// Where buffers begin in the guest's memory.
const DATA: usize = 0x4_0000;

fn map(memory: &DmaArena, at: u64) -> Region {
    let fd = memory.memory().fd();
    let mapping = Arc::new(Mapping::map(fd, 0, BYTES as u64).unwrap());
    Region { guest_addr: at, user_addr: at, mapping }
}

fn arena(name: &str, at: u64) -> DmaArena {
    DmaArena::shared(SharedMemory::allocate(name, BYTES).unwrap(), at).unwrap()
}

/// A chain that the guest's driver has made available.
#[derive(Clone, Debug)]
struct Posted {
    /// Address and length of each part.
    parts: Vec<(u64, u32)>,
    /// The device has used it, with this length.
    used: Option<u32>,
}

/// A guest's driver, a device, and the shadow ring between them.
struct Bench {
    features: Features,
    writes: bool,
    size: u16,
    shadow_size: u16,
    guest: DmaArena,
    driver: DriverQueue,
    relay: Option<ShadowRing>,
    device: DeviceQueue,
    base: u32,
    /// Chains that the device has taken and not used: with the driver's name of each.
    taken: Vec<(Chain, u16)>,
    posted: BTreeMap<u16, Posted>,
    order: VecDeque<u16>,
    next_data: usize,
    /// Chains that came back: used by the device, and given up.
    done: usize,
    given_up: usize,
}

impl Bench {
    fn new(packed: bool, event_idx: bool, writes: bool, size: u16, shadow_size: u16) -> Self {
        let mut features = Features::VERSION_1 | Features::INDIRECT_DESC;
        features.set(Features::RING_PACKED, packed);
        features.set(Features::EVENT_IDX, event_idx);
        let mut guest = arena("guest", GUEST);
        let ring = guest.take_at(0, DATA).unwrap();
        let driver = DriverQueue::new(ring, size, features).unwrap();
        let base = driver.first_base();
        let (relay, device) = connect(features, writes, (size, shadow_size), &guest, &driver, base);
        Self {
            features,
            writes,
            size,
            shadow_size,
            guest,
            driver,
            relay: Some(relay),
            device,
            base,
            taken: Vec::new(),
            posted: BTreeMap::new(),
            order: VecDeque::new(),
            next_data: DATA,
            done: 0,
            given_up: 0,
        }
    }

    fn post(&mut self, lens: &[u32]) {
        let buffers: Vec<Buffer> = lens
            .iter()
            .map(|len| {
                if self.next_data + *len as usize > BYTES {
                    self.next_data = DATA;
                }
                let part = self.guest.slice(self.next_data, *len as usize).unwrap();
                // Addresses are not used twice by chains that are under way at the same time.
                self.next_data += (*len as usize).max(1);
                if self.writes { Buffer::writable(part) } else { Buffer::readable(part) }
            })
            .collect();
        let parts = buffers.iter().map(Buffer::place).collect();
        let posted = Posted { parts, used: None };
        if let Some(head) = self.driver.add(&buffers) {
            assert!(self.posted.insert(head, posted).is_none());
            self.order.push_back(head);
        }
        let _ = self.driver.publish();
    }

    /// The device takes chains, and sees the very buffers that the guest gave.
    fn take(&mut self, max: usize) {
        let (mut buffers, mut segments) = (Buffers::default(), Vec::new());
        match self.writes {
            true => self.device.fetch::<true>(max, &mut buffers).unwrap(),
            false => self.device.fetch::<false>(max, &mut buffers).unwrap(),
        }
        let chains: Vec<Chain> = buffers.chains().collect();
        for chain in &chains {
            match self.writes {
                true => self.device.walk::<true>(*chain, &mut segments).unwrap(),
                false => self.device.walk::<false>(*chain, &mut segments).unwrap(),
            }
            let memory = self.device.memory();
            let parts: Vec<(u64, u32)> = segments
                .iter()
                .map(|part| {
                    (memory.guest_address(*part).unwrap(), u32::try_from(part.len()).unwrap())
                })
                .collect();
            let expected = |posted: &Posted| {
                let filled = posted.parts.iter().filter(|part| part.1 > 0);
                posted.used.is_none() && filled.eq(&parts)
            };
            let head = self.order.iter().find(|head| expected(&self.posted[head]));
            let head = *head.expect("a chain that the guest has posted");
            assert!(self.taken.iter().all(|(_, other)| *other != head), "given twice");
            self.taken.push((*chain, head));
        }
        self.device.advance(&buffers, chains.len());
    }

    fn use_one(&mut self, which: usize, len: u32) {
        if self.taken.is_empty() {
            return;
        }
        let (chain, head) = self.taken.remove(which % self.taken.len());
        let posted = self.posted.get_mut(&head).unwrap();
        let room: u32 = posted.parts.iter().map(|part| part.1).sum();
        let len = if self.writes { len % (room + 1) } else { 0 };
        posted.used = Some(len);
        self.device.complete([(chain, len)].into_iter());
    }

    fn relay(&mut self) {
        let relay = self.relay.as_mut().unwrap();
        while relay.relay().unwrap().again {}
    }

    /// The guest gets chains back: each once, in order, with what the device said.
    fn collect(&mut self) {
        self.driver.poll_used().unwrap();
        while let Some(used) = self.driver.next_used().unwrap() {
            assert_eq!(self.order.pop_front(), Some(used.head));
            let posted = self.posted.remove(&used.head).unwrap();
            let is_bad = posted.parts.iter().all(|part| part.1 == 0)
                || posted.parts.len() > self.shadow_size.into();
            match posted.used {
                Some(len) => assert_eq!(used.len, len),
                None => {
                    assert_eq!(used.len, 0);
                    self.given_up += usize::from(!is_bad);
                }
            }
            self.done += 1;
            self.driver.recycle(used.head);
        }
    }

    /// The device is reset, and another takes over where it was.
    fn restart(&mut self) {
        let (base, ended) = self.relay.take().unwrap().end();
        self.base = base;
        self.taken.clear();
        self.collect();
        // What was not given back was not used either.
        assert!(self.posted.values().all(|posted| posted.used.is_none()));
        assert!(self.writes || ended.bad as usize <= self.given_up);
        let sizes = (self.size, self.shadow_size);
        let (relay, device) =
            connect(self.features, self.writes, sizes, &self.guest, &self.driver, base);
        (self.relay, self.device) = (Some(relay), device);
    }

    /// Everything comes back in the end.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            self.relay();
            self.collect();
            if self.order.is_empty() {
                return;
            }
            self.take(64);
            self.use_one(0, 7);
        }
        panic!("{} chains have not come back", self.order.len());
    }
}

/// A shadow ring that begins at `base` of the guest's, and a device that begins anew.
fn connect(
    features: Features,
    writes: bool,
    (size, shadow_size): (u16, u16),
    guest: &DmaArena,
    driver: &DriverQueue,
    base: u32,
) -> (ShadowRing, DeviceQueue) {
    let table = Arc::new(GuestMemory::new(vec![map(guest, GUEST)]).unwrap());
    let (desc, avail, used) = driver.device_addresses();
    let setup = RingSetup { size, desc, avail, used, base, features };
    let guest_side = DeviceQueue::new(table, setup).unwrap();
    let mut shadow = arena("shadow", SHADOW);
    let ring = shadow.take_at(0, BYTES).unwrap();
    let queue = DriverQueue::new(ring, shadow_size, features).unwrap();
    let (desc, avail, used) = queue.device_addresses();
    let base = queue.first_base();
    let relay = ShadowRing::new(guest_side, size, queue, writes);
    let regions = vec![map(guest, GUEST), map(&shadow, SHADOW)];
    let table = Arc::new(GuestMemory::new(regions).unwrap());
    let setup = RingSetup { size: shadow_size, desc, avail, used, base, features };
    (relay, DeviceQueue::new(table, setup).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Post(Vec<u32>),
    Relay,
    Take(usize),
    Use(usize, u32),
    Collect,
    Restart,
}

fn steps(in_order: bool) -> impl Strategy<Value = Vec<Step>> {
    let which = if in_order { 0..1_usize } else { 0..50_usize };
    let step = prop_oneof![
        4 => prop::collection::vec(0_u32..300, 1..4).prop_map(Step::Post),
        4 => Just(Step::Relay),
        3 => (1_usize..10).prop_map(Step::Take),
        6 => (which, any::<u32>()).prop_map(|(which, len)| Step::Use(which, len)),
        3 => Just(Step::Collect),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..150)
}

fn run(bench: &mut Bench, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Post(lens) => bench.post(&lens),
            Step::Relay => bench.relay(),
            Step::Take(max) => bench.take(max),
            Step::Use(which, len) => bench.use_one(which, len),
            Step::Collect => bench.collect(),
            Step::Restart => bench.restart(),
        }
    }
    bench.finish();
}

proptest! {
    #[test]
    fn every_chain_comes_back_once_with_the_devices_length(
        (packed, event_idx, writes) in any::<(bool, bool, bool)>(),
        (size, shadow) in prop_oneof![Just((8, 8)), Just((16, 4)), Just((4, 16))],
        steps in steps(false),
    ) {
        run(&mut Bench::new(packed, event_idx, writes, size, shadow), steps);
    }

    #[test]
    fn a_device_that_keeps_order_loses_nothing_over_a_restart(
        (packed, event_idx, writes) in any::<(bool, bool, bool)>(),
        steps in steps(true),
    ) {
        let mut bench = Bench::new(packed, event_idx, writes, 8, 8);
        run(&mut bench, steps);
        prop_assert_eq!(bench.given_up, 0);
    }
}

#[test]
fn indexes_wrap_around() {
    for (packed, writes) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut bench = Bench::new(packed, true, writes, 8, 8);
        for round in 0..70_000 {
            bench.post(&[10, 20]);
            bench.relay();
            bench.take(8);
            bench.use_one(0, 5);
            bench.relay();
            bench.collect();
            if round % 7919 == 0 {
                bench.restart();
            }
        }
        bench.finish();
        assert_eq!((bench.done, bench.given_up), (70_000, 0));
    }
}

#[test]
fn chains_that_break_the_rules_go_back_and_others_pass() {
    let mut bench = Bench::new(false, false, true, 8, 4);
    bench.post(&[10]);
    // Longer than the device's ring, and without any byte.
    bench.post(&[10, 10, 10, 10, 10]);
    bench.post(&[0]);
    let _ = bench.device.arm();
    let relay = bench.relay.as_mut().unwrap();
    let relayed = relay.relay().unwrap();
    assert_eq!((relayed.given, relayed.bad, relayed.notify), (1, 2, true));
    assert_eq!(relay.in_flight(), 1);
    bench.collect();
    assert_eq!(bench.done, 0, "the first one comes back first");
    bench.take(8);
    bench.use_one(0, 3);
    bench.relay();
    bench.collect();
    assert_eq!((bench.done, bench.given_up), (3, 0));
}

#[test]
fn notifications_are_asked_for_and_given() {
    for packed in [false, true] {
        let mut bench = Bench::new(packed, false, true, 8, 8);
        let _ = bench.driver.enable_interrupts();
        bench.relay();
        let _ = bench.device.arm();
        // The guest is asked to notify, and the device to interrupt.
        let buffer = Buffer::writable(bench.guest.slice(DATA, 64).unwrap());
        bench.driver.add(&[buffer]).unwrap();
        assert!(bench.driver.publish());
        let relayed = bench.relay.as_mut().unwrap().relay().unwrap();
        assert!(relayed.notify && !relayed.call && !relayed.again);
        let mut buffers = Buffers::default();
        bench.device.fetch::<true>(1, &mut buffers).unwrap();
        let chain = buffers.chains().next().unwrap();
        bench.device.advance(&buffers, 1);
        bench.device.complete([(chain, 9)].into_iter());
        assert!(bench.device.needs_call());
        let relayed = bench.relay.as_mut().unwrap().relay().unwrap();
        assert_eq!((relayed.returned, relayed.call, relayed.again), (1, true, false));
        bench.driver.poll_used().unwrap();
        assert_eq!(bench.driver.next_used().unwrap().unwrap().len, 9);
    }
}
