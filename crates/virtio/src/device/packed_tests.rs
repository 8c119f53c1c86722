//! Tests of packed rings against a driver written out by hand.

use std::collections::VecDeque;
use std::sync::Arc;

use eal::{Mapping, SharedMemory};
use packet::RawSegment;
use proptest::prelude::*;

use super::burst::{Buffers, MAX_BUFFERS};
use super::{Chain, ChainError, DeviceQueue, RingError, RingSetup, SetupError};
use crate::features::Features;
use crate::memory::{GuestMemory, Region};
use crate::packed::{AVAIL, Desc, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, USED};
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE};

const BYTES: usize = 1 << 20;
const DRIVER_EVENT: usize = 0x8000;
const DEVICE_EVENT: usize = 0x8004;
const DATA: u64 = 0x1_0000;

/// A driver that keeps to the letter of section 2.8 and knows nothing of our own driver.
struct Driver {
    memory: SharedMemory,
    size: u16,
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
}

impl Driver {
    fn new(size: u16) -> Self {
        let memory = SharedMemory::allocate("guest", BYTES).unwrap();
        Self { memory, size, next: 0, wrap: true, used: 0, used_wrap: true }
    }

    fn table(&self) -> Arc<GuestMemory> {
        let mapping = Arc::new(Mapping::map(self.memory.fd(), 0, BYTES as u64).unwrap());
        Arc::new(GuestMemory::new(vec![Region { guest_addr: 0, user_addr: 0, mapping }]).unwrap())
    }

    fn setup(&self, features: Features, base: u32) -> RingSetup {
        let features = features | Features::VERSION_1 | Features::RING_PACKED;
        let (avail, used) = (DRIVER_EVENT as u64, DEVICE_EVENT as u64);
        RingSetup { size: self.size, desc: 0, avail, used, base, features }
    }

    fn queue(&self, features: Features) -> DeviceQueue {
        DeviceQueue::new(self.table(), self.setup(features, 0x8000_8000)).unwrap()
    }

    fn write<T>(&self, offset: usize, value: T) {
        assert!(offset + size_of::<T>() <= BYTES);
        // SAFETY: inside the memory, as just checked.
        unsafe { self.memory.as_ptr().add(offset).cast::<T>().write_unaligned(value) };
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        assert!(offset + size_of::<T>() <= BYTES);
        // SAFETY: inside the memory, as just checked; only integers and descriptors are read.
        unsafe { self.memory.as_ptr().add(offset).cast::<T>().read_unaligned() }
    }

    /// Offers a chain of buffers, given by address, length and flags.
    fn offer(&mut self, id: u16, buffers: &[(u64, u32, u16)]) {
        for (index, (addr, len, flags)) in buffers.iter().enumerate() {
            let next = if index + 1 < buffers.len() { DESC_NEXT } else { 0 };
            let mark = if self.wrap { AVAIL } else { USED };
            let desc = Desc { addr: *addr, len: *len, id, flags: flags | next | mark };
            self.write(16 * usize::from(self.next), desc);
            self.next += 1;
            if self.next == self.size {
                (self.next, self.wrap) = (0, !self.wrap);
            }
        }
    }

    /// The next chain that the device gave back, of `slots` descriptors: id and length.
    fn take_used(&mut self, slots: u16) -> Option<(u16, u32)> {
        let desc: Desc = self.read(16 * usize::from(self.used));
        let marks = (desc.flags & AVAIL != 0, desc.flags & USED != 0);
        if marks != (self.used_wrap, self.used_wrap) {
            return None;
        }
        self.used += slots;
        if self.used >= self.size {
            (self.used, self.used_wrap) = (self.used - self.size, !self.used_wrap);
        }
        Some((desc.id, desc.len))
    }
}

fn fetch(queue: &mut DeviceQueue, max: usize) -> Buffers {
    let mut buffers = Buffers::default();
    queue.fetch::<false>(max, &mut buffers).unwrap();
    buffers
}

fn chain(buffers: &Buffers, index: usize) -> Chain {
    buffers.as_slice()[index].chain()
}

fn walk(queue: &mut DeviceQueue, chain: Chain) -> Result<Vec<usize>, ChainError> {
    let mut segments = Vec::new();
    queue.walk::<false>(chain, &mut segments)?;
    Ok(segments.iter().map(RawSegment::len).collect())
}

#[test]
fn a_burst_goes_through_and_back() {
    let mut driver = Driver::new(5);
    let mut queue = driver.queue(Features::empty());
    for id in [7, 3, 9] {
        driver.offer(id, &[(DATA, 60 + u32::from(id), 0)]);
    }
    let buffers = fetch(&mut queue, 2);
    let found =
        buffers.as_slice().iter().map(|buffer| (buffer.chain().id, buffer.single().unwrap().len()));
    assert_eq!(found.collect::<Vec<_>>(), [(7, 67), (3, 63)]);
    queue.advance(&buffers, 2);
    assert_eq!(driver.take_used(1), None);
    queue.complete(buffers.chains().map(|chain| (chain, 5)));
    assert_eq!((driver.take_used(1), driver.take_used(1)), (Some((7, 5)), Some((3, 5))));
    assert_eq!(driver.take_used(1), None);
    assert_eq!(queue.base(), 0x8002_8002);
    assert_eq!(fetch(&mut queue, 9).chains().len(), 1);
}

#[test]
fn the_depth_is_that_of_the_ring_at_every_place() {
    let mut driver = Driver::new(5);
    let mut queue = driver.queue(Features::empty());
    // Two laps, with everything from an empty ring to a full one.
    for round in 0..12_u16 {
        let offered = round % 6;
        for id in 0..offered {
            driver.offer(id, &[(DATA, 60, 0)]);
        }
        assert_eq!(queue.depth(), offered, "round {round}");
        let buffers = fetch(&mut queue, 5);
        queue.advance(&buffers, offered.into());
        assert_eq!(queue.depth(), 0, "round {round}");
        queue.complete(buffers.chains().map(|chain| (chain, 0)));
        assert_eq!(queue.depth(), 0, "round {round}");
        (0..offered).for_each(|id| assert_eq!(driver.take_used(1), Some((id, 0))));
    }
    driver.offer(1, &[(DATA, 12, 0), (DATA, 100, 0), (DATA, 1, 0)]);
    assert_eq!(queue.depth(), 3);
}

#[test]
fn chains_take_slots_and_tables_one() {
    let mut driver = Driver::new(7);
    let mut queue = driver.queue(Features::INDIRECT_DESC);
    driver.offer(1, &[(DATA, 12, 0), (DATA, 100, 0), (DATA, 1, 0)]);
    let entry = |len| Desc { addr: DATA, len, id: 77, flags: DESC_NEXT };
    driver.write(0x2_0000, [entry(12), entry(30)]);
    driver.offer(2, &[(0x2_0000, 32, DESC_INDIRECT)]);
    let buffers = fetch(&mut queue, 9);
    let slots: Vec<_> = buffers.chains().map(|chain| (chain.id, chain.slots)).collect();
    assert_eq!(slots, [(1, 3), (2, 1)]);
    assert_eq!(walk(&mut queue, chain(&buffers, 0)), Ok(vec![12, 100, 1]));
    assert_eq!(walk(&mut queue, chain(&buffers, 1)), Ok(vec![12, 30]));
    queue.advance(&buffers, 2);
    queue.complete(buffers.chains().map(|chain| (chain, 0)));
    assert_eq!((driver.take_used(3), driver.take_used(1)), (Some((1, 0)), Some((2, 0))));
}

#[test]
fn a_chain_without_end_breaks_the_ring() {
    let mut driver = Driver::new(4);
    let mut queue = driver.queue(Features::empty());
    for id in 0..4 {
        driver.offer(id, &[(DATA, 60, DESC_NEXT)]);
    }
    let broken = queue.fetch::<false>(9, &mut Buffers::default());
    assert_eq!(broken, Err(RingError::EndlessChain { head: 0 }));
}

/// DPDK's driver leaves WRITE on the net header of its tables.
#[test]
fn a_queue_that_is_read_reads_all_of_a_table() {
    let mut driver = Driver::new(4);
    let mut queue = driver.queue(Features::INDIRECT_DESC);
    let entry = |len, flags| Desc { addr: DATA, len, id: 0, flags };
    driver.write(0x2_0000, [entry(12, DESC_WRITE), entry(30, 0)]);
    driver.offer(0, &[(0x2_0000, 32, DESC_INDIRECT)]);
    let chain = chain(&fetch(&mut queue, 9), 0);
    assert_eq!(walk(&mut queue, chain), Ok(vec![12, 30]));
    assert_eq!(queue.walk::<true>(chain, &mut Vec::new()), Err(ChainError::WrongDirection));
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    let refused = queue.walk_request(chain, &mut request, &mut answer);
    assert_eq!(refused, Err(ChainError::WrongDirection), "requests end with what is written");
}

#[test]
fn hostile_descriptors_are_refused() {
    for (desc, error) in [
        ((BYTES as u64 - 5, 6, 0), ChainError::Unmapped { addr: BYTES as u64 - 5, len: 6 }),
        ((DATA, 60, DESC_WRITE), ChainError::WrongDirection),
        ((DATA, 0, DESC_INDIRECT), ChainError::BadIndirect),
        ((DATA, 17, DESC_INDIRECT), ChainError::BadIndirect),
        ((DATA + 1, 16, DESC_INDIRECT), ChainError::Unmapped { addr: DATA + 1, len: 16 }),
    ] {
        let mut driver = Driver::new(8);
        let mut queue = driver.queue(Features::INDIRECT_DESC);
        driver.offer(0, &[desc]);
        let buffers = fetch(&mut queue, 1);
        assert!(buffers.as_slice()[0].single().is_none(), "the fast path took {desc:?}");
        assert_eq!(walk(&mut queue, chain(&buffers, 0)), Err(error));
    }
}

#[test]
fn a_ring_offered_twice_over_is_taken_once() {
    // All descriptors say "available" for either wrap counter in turn: a driver that rewrites
    // them while we read. One fetch must not go round for ever.
    let mut driver = Driver::new(2);
    let mut queue = driver.queue(Features::empty());
    driver.offer(0, &[(DATA, 60, 0)]);
    driver.offer(1, &[(DATA, 60, 0)]);
    assert_eq!(fetch(&mut queue, MAX_BUFFERS).chains().len(), 2);
}

#[test]
fn the_driver_is_told_as_it_asks() {
    let mut driver = Driver::new(6);
    let mut queue = driver.queue(Features::EVENT_IDX);
    let use_one = |driver: &mut Driver, queue: &mut DeviceQueue| {
        driver.offer(0, &[(DATA, 60, 0)]);
        let buffers = fetch(queue, 1);
        queue.advance(&buffers, 1);
        queue.complete(buffers.chains().map(|chain| (chain, 0)));
    };
    use_one(&mut driver, &mut queue);
    assert!(queue.needs_call());
    assert!(!queue.needs_call(), "nothing new since");
    driver.write(DRIVER_EVENT + 2, EVENT_DISABLE);
    use_one(&mut driver, &mut queue);
    assert!(!queue.needs_call());
    driver.write(DRIVER_EVENT, u32::from(EVENT_DESC) << 16 | 0x8003);
    use_one(&mut driver, &mut queue);
    assert!(!queue.needs_call(), "descriptor 2 was used, 3 was asked for");
    use_one(&mut driver, &mut queue);
    assert!(queue.needs_call());
    // Over the end of the ring: descriptor 0 of the next round.
    driver.write(DRIVER_EVENT, u32::from(EVENT_DESC) << 16);
    use_one(&mut driver, &mut queue);
    use_one(&mut driver, &mut queue);
    assert!(!queue.needs_call());
    use_one(&mut driver, &mut queue);
    assert!(queue.needs_call());
}

#[test]
fn arming_looks_again() {
    for (features, flags) in [(Features::empty(), EVENT_ENABLE), (Features::EVENT_IDX, EVENT_DESC)]
    {
        let mut driver = Driver::new(4);
        let mut queue = driver.queue(features);
        assert_eq!(driver.read::<u16>(DEVICE_EVENT + 2), EVENT_DISABLE);
        assert!(queue.arm());
        assert_eq!(driver.read::<u16>(DEVICE_EVENT), 0x8000);
        assert_eq!(driver.read::<u16>(DEVICE_EVENT + 2), flags);
        queue.disarm();
        assert_eq!(driver.read::<u16>(DEVICE_EVENT + 2), EVENT_DISABLE);
        driver.offer(0, &[(DATA, 60, 0)]);
        assert!(!queue.arm());
    }
}

#[test]
fn a_base_must_lie_in_the_ring() {
    let driver = Driver::new(5);
    let start = |base| {
        DeviceQueue::new(driver.table(), driver.setup(Features::empty(), base))
            .map(|ring| ring.base())
    };
    assert_eq!(start(0x8003_8004), Ok(0x8003_8004));
    assert_eq!(start(0x0000_8004), Ok(0x8004_8004), "DPDK sends one half");
    assert_eq!(start(0x8005_8000), Err(SetupError::Base { base: 0x8005_8000, size: 5 }));
    assert_eq!(start(0x8000_7FFF), Err(SetupError::Base { base: 0x8000_7FFF, size: 5 }));
}

#[test]
fn chains_of_a_larger_ring_lead_nowhere_else() {
    const SIZE: u16 = 16;
    let chains = [(SIZE, 1), (u16::MAX, 1), (SIZE - 1, SIZE), (0, u16::MAX), (1, 32_768)];
    for (head, slots) in chains {
        let driver = Driver::new(SIZE);
        let mut queue = driver.queue(Features::INDIRECT_DESC);
        let chain = Chain { head, id: 0, slots };
        if head >= SIZE {
            assert_eq!(walk(&mut queue, chain), Err(ChainError::NextOutOfRange(head)));
        }
        queue.complete([(chain, 1), (chain, 1), (chain, 1)].into_iter());
        let [used, avail] = [queue.base() >> 16, queue.base() & 0xffff];
        assert!(used & 0x7fff < SIZE.into() && avail == 0x8000, "{head} and {slots}: {used:#x}");
        // All that was written lies in the ring: behind it nothing has changed.
        for at in (16 * usize::from(SIZE)..DRIVER_EVENT).step_by(8) {
            assert_eq!(driver.read::<u64>(at), 0, "{head} and {slots} at {at:#x}");
        }
    }
}

proptest! {
    /// Bursts of any shape come back once each and in order, over many rounds of a ring of any
    /// size, with a stop and a new start in between.
    #[test]
    fn all_that_is_offered_comes_back_in_order(
        size in 3_u16..40,
        rounds in prop::collection::vec(
            (prop::collection::vec(1_usize..4, 0..12), 0_usize..40, any::<bool>()), 1..60,
        ),
        in_order in any::<bool>(),
    ) {
        let features = if in_order { Features::IN_ORDER } else { Features::empty() };
        let mut driver = Driver::new(size);
        let mut queue = driver.queue(features);
        let mut outstanding = VecDeque::new();
        let mut free = usize::from(size);
        let mut next_id = 0_u16;
        for (offers, max, restart) in rounds {
            for len in offers {
                if len > free { continue }
                free -= len;
                driver.offer(next_id, &vec![(DATA, 60, 0); len]);
                outstanding.push_back((next_id, u16::try_from(len).unwrap()));
                next_id = next_id.wrapping_add(1);
            }
            let buffers = fetch(&mut queue, max);
            let count = buffers.chains().len();
            prop_assert!(count == max.min(outstanding.len()).min(MAX_BUFFERS));
            queue.advance(&buffers, count);
            queue.complete_read(&buffers, count);
            let done: Vec<(u16, u16)> = outstanding.drain(..count).collect();
            let slots = done.iter().map(|(_, slots)| slots).sum();
            free += usize::from(slots);
            if in_order {
                // One descriptor for all, which has the id of the last.
                let last = done.last().map(|(id, _)| (*id, 0));
                prop_assert_eq!(last.and_then(|_| driver.take_used(slots)), last);
            } else {
                for (id, slots) in done {
                    prop_assert_eq!(driver.take_used(slots), Some((id, 0)));
                }
            }
            if restart {
                let setup = driver.setup(features, queue.base());
                queue = DeviceQueue::new(driver.table(), setup).unwrap();
            }
        }
    }

    /// Whatever a driver writes, every accepted segment lies in shared memory.
    #[test]
    fn random_rings_do_no_harm(
        descs in prop::collection::vec(
            (0_u64..2 * BYTES as u64, prop_oneof![0_u32..5000, any::<u32>()], any::<u16>(), any::<u16>()),
            16,
        ),
    ) {
        let driver = Driver::new(16);
        let mut queue = driver.queue(Features::INDIRECT_DESC);
        for (index, (addr, len, id, flags)) in descs.into_iter().enumerate() {
            driver.write(16 * index, Desc { addr, len, id, flags });
        }
        let region = queue.memory().regions()[0].mapping.ptr().as_ptr().addr();
        let mut buffers = Buffers::default();
        if queue.fetch::<true>(MAX_BUFFERS, &mut buffers).is_ok() {
            for chain in buffers.chains() {
                let mut segments = Vec::new();
                if queue.walk::<true>(chain, &mut segments).is_ok() {
                    for segment in segments {
                        let start = segment.as_ptr().as_ptr().addr();
                        prop_assert!(start >= region && start + segment.len() <= region + BYTES);
                    }
                }
            }
            queue.advance(&buffers, buffers.chains().len());
            queue.complete(buffers.chains().map(|chain| (chain, 1)));
        }
    }
}
