//! Where a device has stopped, found out from the ring alone, with our own driver at the other end.

use std::collections::VecDeque;
use std::sync::Arc;

use eal::{DmaArena, Mapping, SharedMemory};
use proptest::prelude::*;

use super::{BaseCheck, Buffers, Chain, DeviceQueue, PackedQueue, RingSetup, SplitQueue};
use crate::driver::{Buffer, DriverQueue, DriverRing as _};
use crate::features::Features;
use crate::memory::{GuestMemory, Region};

const BYTES: usize = 1 << 20;

struct Bench {
    memory: DmaArena,
    table: Arc<GuestMemory>,
    setup: RingSetup,
    driver: DriverQueue,
    device: DeviceQueue,
    /// Chains that the device has taken and not used, with their numbers, and how many chains it
    /// has taken and the driver has posted.
    taken: VecDeque<(Chain, u64)>,
    taken_count: u64,
    posted_count: u64,
    /// Heads that the driver waits for, oldest first.
    waiting: VecDeque<u16>,
}

impl Bench {
    fn new(packed: bool, size: u16) -> Self {
        let mut features = Features::VERSION_1;
        features.set(Features::RING_PACKED, packed);
        let memory = SharedMemory::allocate("guest", BYTES).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, BYTES as u64).unwrap());
        let region = Region { guest_addr: 0x1000, user_addr: 0x1000, mapping };
        let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
        let mut memory = DmaArena::shared(memory, 0x1000).unwrap();
        let ring = memory.take_at(0, BYTES / 2).unwrap();
        let driver = DriverQueue::new(ring, size, features).unwrap();
        let (desc, avail, used) = driver.device_addresses();
        let setup = RingSetup { size, desc, avail, used, base: driver.first_base(), features };
        assert!(DeviceQueue::is_new(&table, &setup));
        let device = DeviceQueue::new(Arc::clone(&table), setup).unwrap();
        let (taken, waiting) = (VecDeque::new(), VecDeque::new());
        let (taken_count, posted_count) = (0, 0);
        Self { memory, table, setup, driver, device, taken, taken_count, posted_count, waiting }
    }

    fn post(&mut self, count: usize) {
        // One that is older than the ring has entries is not in it any more.
        let oldest = self.taken.iter().map(|(_, number)| *number).min();
        if self.posted_count - oldest.unwrap_or(self.taken_count) >= self.setup.size.into() {
            return;
        }
        let part = self.memory.slice(BYTES / 2, 100).unwrap();
        if let Some(head) = self.driver.add(&vec![Buffer::writable(part); count]) {
            self.waiting.push_back(head);
            self.posted_count += 1;
        }
        let _ = self.driver.publish();
    }

    fn take(&mut self, max: usize) {
        let mut buffers = Buffers::default();
        self.device.fetch::<true>(max, &mut buffers).unwrap();
        let count = buffers.as_slice().len();
        self.taken.extend(buffers.chains().zip(self.taken_count..));
        self.taken_count += count as u64;
        self.device.advance(&buffers, count);
    }

    fn use_one(&mut self, which: usize) {
        if self.taken.is_empty() {
            return;
        }
        let (chain, _) = self.taken.remove(which % self.taken.len()).unwrap();
        self.device.complete([(chain, 1)].into_iter());
    }

    /// The driver takes back what was used.
    fn collect(&mut self) -> usize {
        let (mut count, mut empty) = (0, 0);
        self.driver.poll_used().unwrap();
        while let Some(used) = self.driver.next_used().unwrap() {
            empty += usize::from(used.len == 0);
            let place = self.waiting.iter().position(|head| *head == used.head).unwrap();
            self.waiting.remove(place);
            self.driver.recycle(used.head);
            count += 1;
        }
        assert!(empty <= count);
        empty
    }
}

#[derive(Clone, Debug)]
enum Step {
    Post(usize),
    Take(usize),
    Use(usize),
    Collect,
}

fn steps(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..=longest).prop_map(Step::Post),
        3 => (1_usize..6).prop_map(Step::Take),
        4 => (0_usize..9).prop_map(Step::Use),
        2 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 0..120)
}

fn run(bench: &mut Bench, steps: Vec<Step>, in_order: bool) {
    for step in steps {
        match step {
            Step::Post(count) => bench.post(count),
            Step::Take(max) => bench.take(max),
            Step::Use(which) => bench.use_one(if in_order { 0 } else { which }),
            // Heads come up again after this: see `SplitQueue::recover`.
            Step::Collect if !in_order => {}
            Step::Collect => {
                bench.collect();
            }
        }
    }
}

proptest! {
    #[test]
    fn a_split_ring_goes_on_where_the_device_was(steps in steps(3), in_order in any::<bool>()) {
        let mut bench = Bench::new(false, 8);
        run(&mut bench, steps, in_order);
        let (base, given_back) = SplitQueue::recover(Arc::clone(&bench.table), bench.setup).unwrap();
        if in_order {
            prop_assert_eq!(given_back, 0);
        }
        // The driver gets back what the device used, and what was given up, and nothing else.
        let empty = bench.collect();
        prop_assert_eq!(empty, usize::from(given_back));
        let left = bench.waiting.clone();
        let setup = RingSetup { base, ..bench.setup };
        bench.device = DeviceQueue::new(Arc::clone(&bench.table), setup).unwrap();
        bench.taken.clear();
        bench.take(64);
        prop_assert_eq!(bench.taken.len(), left.len(), "those left are given again");
        while !bench.taken.is_empty() {
            bench.use_one(0);
        }
        bench.collect();
        prop_assert!(bench.waiting.is_empty());
    }

    /// As DPDK does, which tells every new back-end 0.
    #[test]
    fn a_split_ring_that_is_to_begin_elsewhere_goes_on_where_it_was(
        steps in steps(3),
        told in 0_u32..40,
    ) {
        let mut bench = Bench::new(false, 8);
        run(&mut bench, steps, true);
        let right = bench.device.base_without(bench.taken.len());
        let setup = RingSetup { base: told, ..bench.setup };
        let check = DeviceQueue::check_base(&bench.table, &setup).unwrap();
        let expected = if told == right { BaseCheck::Fits } else { BaseCheck::Found(right) };
        prop_assert_eq!(check, expected);
        bench.collect();
        let setup = RingSetup { base: right, ..bench.setup };
        bench.device = DeviceQueue::new(Arc::clone(&bench.table), setup).unwrap();
        bench.taken.clear();
        bench.take(64);
        while !bench.taken.is_empty() {
            bench.use_one(0);
        }
        bench.collect();
        prop_assert!(bench.waiting.is_empty());
    }

    #[test]
    fn a_packed_ring_goes_on_where_the_device_was(steps in steps(3), size in 5_u16..9) {
        let mut bench = Bench::new(true, size);
        run(&mut bench, steps, true);
        let located = PackedQueue::locate(&bench.table, &bench.setup).unwrap();
        bench.collect();
        // A device that goes on where it was.
        let right = bench.device.base_without(bench.taken.len());
        let possible = [Some(located.base), located.behind_rest];
        prop_assert!(possible.contains(&Some(right)), "{right:#x}: {located:x?}");
        let setup = RingSetup { base: right, ..bench.setup };
        bench.device = DeviceQueue::new(Arc::clone(&bench.table), setup).unwrap();
        bench.taken.clear();
        bench.take(64);
        while !bench.taken.is_empty() {
            bench.use_one(0);
        }
        bench.collect();
        prop_assert!(bench.waiting.is_empty());
    }

    /// A device that was asked where it is is believed, one that was killed is found.
    #[test]
    fn a_base_is_checked(steps in steps(3), more in steps(1), size in 5_u16..9) {
        let mut bench = Bench::new(true, size);
        let check = |bench: &Bench, base| {
            DeviceQueue::check_base(&bench.table, &RingSetup { base, ..bench.setup }).unwrap()
        };
        run(&mut bench, steps, true);
        let right = bench.device.base_without(bench.taken.len());
        prop_assert_eq!(check(&bench, right), BaseCheck::Fits);
        // What was taken and not used was taken in vain. (A used half of 0 says nothing.)
        let told = bench.device.base();
        if told >> 16 != 0 {
            prop_assert_eq!(check(&bench, told), BaseCheck::Fits);
        }
        let mut bench = Bench::new(true, size);
        let told = bench.device.base();
        run(&mut bench, more, true);
        let right = bench.device.base_without(bench.taken.len());
        let expected = if right == told { BaseCheck::Fits } else { BaseCheck::Found(right) };
        match check(&bench, told) {
            // By chance it is one behind what looks like the rest of a chain.
            BaseCheck::Fits => {
                let located = PackedQueue::locate(&bench.table, &bench.setup).unwrap();
                prop_assert!(right == told || located.behind_rest == Some(told));
            }
            checked => prop_assert_eq!(checked, expected),
        }
    }

    /// Chains of one descriptor leave no rest.
    #[test]
    fn packed_rings_of_single_buffers_are_certain(steps in steps(1), size in 5_u16..9) {
        let mut bench = Bench::new(true, size);
        run(&mut bench, steps, true);
        let located = PackedQueue::locate(&bench.table, &bench.setup).unwrap();
        prop_assert_eq!(located.base, bench.device.base_without(bench.taken.len()));
    }
}

#[test]
fn chains_that_were_used_in_order_with_one_mark_hide_the_place() {
    let mut bench = Bench::new(true, 8);
    for _ in 0..4 {
        bench.post(1);
    }
    bench.take(4);
    // One mark for the four, as a device with IN_ORDER makes it.
    let (last, _) = bench.taken.pop_back().unwrap();
    bench.device.complete([(last, 0)].into_iter());
    let at = |position| RingSetup {
        base: position,
        features: bench.setup.features | Features::IN_ORDER,
        ..bench.setup
    };
    let check = |base| DeviceQueue::check_base(&bench.table, &at(base)).unwrap();
    assert_eq!(check(0x8004_8004), BaseCheck::Fits, "where it was");
    assert_eq!(check(0x8000_8000), BaseCheck::Unknown, "where it began");
    assert!(DeviceQueue::check_base(&bench.table, &at(0x8008_8008)).is_err(), "outside");
}

#[test]
fn older_chains_that_are_not_used_go_back_empty() {
    let mut bench = Bench::new(false, 8);
    for _ in 0..4 {
        bench.post(1);
    }
    bench.take(4);
    // The second and the third of four.
    bench.use_one(1);
    bench.use_one(1);
    let recovered = SplitQueue::recover(Arc::clone(&bench.table), bench.setup).unwrap();
    assert_eq!(recovered, (3, 1));
    assert_eq!((bench.collect(), bench.waiting.len()), (1, 1));
    // Once more nothing changes.
    let recovered = SplitQueue::recover(Arc::clone(&bench.table), bench.setup).unwrap();
    assert_eq!(recovered, (3, 0));
    assert!(!DeviceQueue::is_new(&bench.table, &bench.setup), "the used ring is not new");
}

#[test]
fn a_ring_that_makes_no_sense_is_survived() {
    let bench = Bench::new(false, 8);
    let memory = bench.memory.memory().as_ptr();
    for seed in 0..200_usize {
        for at in 0..1024 {
            // SAFETY: inside the memory, whose rings nobody uses.
            unsafe { memory.add(at).write((at * seed * 31 % 251).to_le_bytes()[0]) };
        }
        let _ = SplitQueue::recover(Arc::clone(&bench.table), bench.setup).unwrap();
        let _ = DeviceQueue::check_base(&bench.table, &bench.setup).unwrap();
        let packed = RingSetup { avail: 0x2000, used: 0x2004, desc: 0x1000, ..bench.setup };
        let _ = PackedQueue::locate(&bench.table, &packed).unwrap();
        let packed = RingSetup { features: Features::RING_PACKED, base: 0x8000, ..packed };
        let _ = DeviceQueue::check_base(&bench.table, &packed).unwrap();
    }
    let outside = RingSetup { desc: 0, ..bench.setup };
    assert!(SplitQueue::recover(Arc::clone(&bench.table), outside).is_err());
    assert!(PackedQueue::locate(&bench.table, &RingSetup { size: 0, ..outside }).is_err());
}
