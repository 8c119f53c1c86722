//! The driver side against a model of a device that follows the specification, and against one
//! that does not.

use std::collections::VecDeque;
use std::sync::Arc;

use eal::dma::DmaBacking;
use eal::{DmaArena, SharedMemory};
use proptest::prelude::*;

use super::*;
use crate::driver::{Buffer, DmaPart, RingError, Used};
use crate::ring::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Desc, QueueSize, need_event};

/// Where the device believes the memory to be: nothing like the driver's addresses.
const DEVICE_BASE: u64 = 0x7_0000_0000;
const LEN: usize = 64 * 1024;
/// Buffers and tables lie behind the ring.
const BUFFERS: usize = 16 * 1024;

/// A device, which reaches the memory through its own addresses.
struct Device {
    memory: Arc<DmaBacking>,
    size: QueueSize,
    addresses: (u64, u64, u64),
    avail_seen: u16,
    used: u16,
    signalled: u16,
    event_idx: bool,
}

fn arena() -> DmaArena {
    DmaArena::shared(SharedMemory::allocate("split", LEN).unwrap(), DEVICE_BASE).unwrap()
}

/// The part of new memory that has `len` bytes from `offset` on.
fn part(offset: usize, len: usize) -> DmaPart {
    arena().take_at(offset, len).unwrap()
}

fn pair(size: u16, event_idx: bool) -> (SplitQueue, Device, DmaArena) {
    let mut arena = arena();
    let size = QueueSize::new(size).unwrap();
    let ring = arena.take_at(0, BUFFERS).unwrap();
    let queue = SplitQueue::new(ring, size, event_idx).unwrap();
    let (memory, addresses) = (Arc::clone(arena.backing()), queue.device_addresses());
    let (avail_seen, used, signalled) = (0, 0, 0);
    let device = Device { memory, size, addresses, avail_seen, used, signalled, event_idx };
    (queue, device, arena)
}

/// A buffer as a device sees it: address, length, writable.
type Seen = (u64, u32, bool);

impl Device {
    fn at<T>(&self, address: u64) -> *mut T {
        let offset = usize::try_from(address - DEVICE_BASE).unwrap();
        assert!(offset + size_of::<T>() <= LEN);
        // SAFETY: checked to be inside.
        unsafe { self.memory.shared().as_ptr().add(offset).as_ptr().cast() }
    }

    fn read<T: Copy>(&self, address: u64) -> T {
        // SAFETY: `at` checks the bounds; tests use T for which any bytes do.
        unsafe { self.at::<T>(address).read_unaligned() }
    }

    fn write<T>(&self, address: u64, value: T) {
        // SAFETY: as for `read`.
        unsafe { self.at::<T>(address).write_unaligned(value) }
    }

    fn follow(&self, table: u64, first: u16) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut id = first;
        loop {
            let desc: Desc = self.read(table + 16 * u64::from(id));
            if desc.flags & DESC_INDIRECT != 0 {
                return self.follow(desc.addr, 0);
            }
            seen.push((desc.addr, desc.len, desc.flags & DESC_WRITE != 0));
            if desc.flags & DESC_NEXT == 0 {
                return seen;
            }
            id = desc.next;
        }
    }

    /// The next available chain.
    fn pop(&mut self) -> Option<(u16, Vec<Seen>)> {
        let (table, avail, _) = self.addresses;
        if self.read::<u16>(avail + 2) == self.avail_seen {
            return None;
        }
        let head = self.read(avail + 4 + 2 * self.size.position(self.avail_seen) as u64);
        self.avail_seen = self.avail_seen.wrapping_add(1);
        Some((head, self.follow(table, head)))
    }

    /// Uses a chain; publishes at once.
    fn push(&mut self, id: u32, len: u32) {
        let used = self.addresses.2;
        let entry = used + 4 + 8 * self.size.position(self.used) as u64;
        self.write(entry, id);
        self.write(entry + 4, len);
        self.used = self.used.wrapping_add(1);
        self.write(used + 2, self.used);
    }

    /// Whether the device must interrupt for what it used since it was last asked.
    fn must_interrupt(&mut self) -> bool {
        let (_, avail, _) = self.addresses;
        let old = std::mem::replace(&mut self.signalled, self.used);
        if self.event_idx {
            let event = self.read(avail + self.size.used_event_offset() as u64);
            need_event(event, self.used, old)
        } else {
            old != self.used && self.read::<u16>(avail) & 1 == 0
        }
    }

    fn want_notifications(&self, on: bool) {
        let used = self.addresses.2;
        if self.event_idx {
            let at = if on { self.avail_seen } else { self.avail_seen.wrapping_sub(1) };
            self.write(used + self.size.avail_event_offset() as u64, at);
        } else {
            self.write(used, u16::from(!on));
        }
    }
}

fn buffer(memory: &DmaArena, index: usize, len: usize, writable: bool) -> Buffer {
    let part = memory.slice(BUFFERS + 64 * index, len).unwrap();
    if writable { Buffer::writable(part) } else { Buffer::readable(part) }
}

fn seen(buffer: usize, len: usize, writable: bool) -> Seen {
    (DEVICE_BASE + (BUFFERS + 64 * buffer) as u64, u32::try_from(len).unwrap(), writable)
}

#[test]
fn a_chain_reaches_the_device_and_comes_back() {
    let (mut queue, mut device, memory) = pair(8, false);
    let buffers = [buffer(&memory, 0, 12, false), buffer(&memory, 1, 64, true)];
    let head = queue.add(&buffers).unwrap();
    assert_eq!(device.pop(), None, "nothing is visible before it is published");
    assert!(queue.publish());
    assert_eq!(device.pop(), Some((head, vec![seen(0, 12, false), seen(1, 64, true)])));
    assert_eq!((queue.free_count(), queue.posted_count()), (6, 1));

    device.push(head.into(), 40);
    assert_eq!(queue.poll_used(), Ok(1));
    assert_eq!(queue.next_used(), Ok(Some(Used { head, len: 40 })));
    assert_eq!(queue.next_used(), Ok(None));
    queue.recycle(head);
    assert_eq!((queue.free_count(), queue.posted_count()), (8, 0));
}

#[test]
fn a_table_takes_one_descriptor() {
    let (mut queue, mut device, mut memory) = pair(2, false);
    let mut table = memory.take_at(BUFFERS + 4096, 4 * 16).unwrap();
    let buffers: Vec<_> = (0..4).map(|index| buffer(&memory, index, 64, index == 3)).collect();
    let id = queue.reserve().unwrap();
    assert!(queue.set_indirect(id, table.slice_mut(0, 64).unwrap(), &buffers));
    queue.post(id);
    assert!(queue.publish());
    let expected = (0..4).map(|index| seen(index, 64, index == 3)).collect();
    assert_eq!(device.pop(), Some((id, expected)));
    assert_eq!(queue.free_count(), 1);

    let other = queue.reserve().unwrap();
    assert!(!queue.set_indirect(other, table.slice_mut(0, 64).unwrap(), &[]));
    assert!(!queue.set_indirect(other, table.slice_mut(0, 63).unwrap(), &buffers));
    assert!(!queue.set_indirect(other, table.slice_mut(8, 56).unwrap(), &buffers[..2]));
    assert!(
        !queue.set_indirect(id, table.slice_mut(0, 64).unwrap(), &buffers),
        "the device has that one"
    );
}

#[test]
fn a_descriptor_keeps_its_buffer() {
    let (mut queue, mut device, memory) = pair(4, false);
    let id = queue.reserve().unwrap();
    queue.set(id, buffer(&memory, 5, 64, true));
    for round in 0..10 {
        queue.post(id);
        assert!(queue.publish());
        assert_eq!(device.pop(), Some((id, vec![seen(5, 64, true)])));
        device.push(id.into(), round);
        assert_eq!(queue.poll_used(), Ok(1));
        assert_eq!(queue.next_used(), Ok(Some(Used { head: id, len: round })));
    }
}

#[test]
fn descriptors_that_the_device_has_are_left_alone() {
    let (mut queue, mut device, memory) = pair(4, false);
    let head = queue.add(&[buffer(&memory, 0, 64, true)]).unwrap();
    queue.set(head, buffer(&memory, 1, 1, false));
    queue.post(head);
    queue.release(head);
    queue.recycle(head);
    assert!(queue.publish());
    assert_eq!(device.pop(), Some((head, vec![seen(0, 64, true)])));
    assert_eq!(device.pop(), None);
    assert_eq!((queue.free_count(), queue.posted_count()), (3, 1));
}

#[test]
fn a_device_that_breaks_the_rules_is_found_out() {
    let posted = || {
        let (mut queue, device, memory) = pair(8, false);
        queue.add(&[buffer(&memory, 0, 64, true), buffer(&memory, 1, 64, true)]).unwrap();
        let _ = queue.publish();
        (queue, device)
    };
    let cases = [
        (8, 0, RingError::Id { id: 8 }),
        (u32::MAX, 0, RingError::Id { id: u32::MAX }),
        (65_536, 0, RingError::Id { id: 65_536 }),
        (1, 0, RingError::Id { id: 1 }),
        (2, 0, RingError::Id { id: 2 }),
        (0, 129, RingError::Len { head: 0, len: 129, room: 128 }),
    ];
    for (id, len, error) in cases {
        let (mut queue, mut device) = posted();
        device.push(id, len);
        assert_eq!(queue.poll_used(), Ok(1));
        assert_eq!(queue.next_used(), Err(error));
    }
    let (mut queue, mut device) = posted();
    device.push(0, 128);
    device.push(0, 128);
    assert_eq!(queue.poll_used(), Err(RingError::Index { from: 0, to: 2, posted: 1 }));
}

#[test]
fn the_length_of_what_is_only_read_does_not_matter() {
    let (mut queue, mut device, memory) = pair(2, false);
    let head = queue.add(&[buffer(&memory, 0, 64, false)]).unwrap();
    let _ = queue.publish();
    device.push(head.into(), 64);
    assert_eq!(queue.poll_used(), Ok(1));
    assert_eq!(queue.next_used(), Ok(Some(Used { head, len: 0 })));
}

#[test]
fn interrupts_come_only_when_asked_for() {
    for event_idx in [false, true] {
        let (mut queue, mut device, memory) = pair(16, event_idx);
        let id = queue.reserve().unwrap();
        queue.set(id, buffer(&memory, 0, 64, true));
        // Long enough for every index to come by, and the parked event with them.
        for round in 0..200_000_u32 {
            queue.post(id);
            let _ = queue.publish();
            device.pop().unwrap();
            let asked = round % 70_000 == 69_999;
            if asked {
                assert!(queue.enable_interrupts());
            }
            device.push(id.into(), 0);
            assert_eq!(device.must_interrupt(), asked, "round {round}");
            if asked {
                assert!(!queue.enable_interrupts(), "one has come already");
                queue.disable_interrupts();
            }
            queue.poll_used().unwrap();
            queue.next_used().unwrap().unwrap();
        }
    }
}

#[test]
fn the_device_is_notified_when_it_wants_to_be() {
    for event_idx in [false, true] {
        let (mut queue, mut device, memory) = pair(4, event_idx);
        for round in 0..70_000_u32 {
            let wanted = round % 3 == 0;
            device.want_notifications(wanted);
            let head = queue.add(&[buffer(&memory, 0, 64, true)]).unwrap();
            assert_eq!(queue.publish(), wanted, "round {round}");
            assert!(!queue.publish(), "nothing new");
            device.pop().unwrap();
            device.push(head.into(), 0);
            queue.poll_used().unwrap();
            queue.next_used().unwrap().unwrap();
            queue.recycle(head);
        }
    }
}

#[test]
fn memory_must_be_large_enough_and_aligned() {
    let size = QueueSize::new(16).unwrap();
    let bytes = SplitQueue::bytes(size);
    assert!(SplitQueue::new(part(0, bytes), size, false).is_some());
    assert!(SplitQueue::new(part(0, bytes - 1), size, false).is_none());
    assert!(SplitQueue::new(part(8, bytes), size, false).is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Add {
        buffers: usize,
        writable: usize,
    },
    Publish,
    /// The device takes what is there.
    Take,
    /// The device uses one of the chains that it took, in any order.
    Use {
        which: usize,
        len: u32,
    },
    Collect {
        recycle: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_usize..5, 0_usize..5)
            .prop_map(|(buffers, writable)| Step::Add { buffers, writable: writable.min(buffers) }),
        Just(Step::Publish),
        Just(Step::Take),
        (any::<usize>(), any::<u32>()).prop_map(|(which, len)| Step::Use { which, len }),
        any::<bool>().prop_map(|recycle| Step::Collect { recycle }),
    ]
}

proptest! {
    /// A model with lists for rings: the device sees exactly the chains that were published, in
    /// order, and the driver gets back exactly those that were used, in the order of their use.
    #[test]
    fn it_behaves_as_a_pair_of_lists(
        bits in 0_u32..5,
        event_idx in any::<bool>(),
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let size = 1_u16 << bits;
        let (mut queue, mut device, memory) = pair(size, event_idx);
        let mut free = usize::from(size);
        let mut unpublished: VecDeque<(u16, Vec<Seen>)> = VecDeque::new();
        let mut published: VecDeque<(u16, Vec<Seen>)> = VecDeque::new();
        let mut taken: Vec<(u16, Vec<Seen>)> = Vec::new();
        let mut used: VecDeque<(u16, usize, u32)> = VecDeque::new();
        for step in steps {
            match step {
                Step::Add { buffers: count, writable } => {
                    let flags: Vec<bool> = (0..count).map(|index| index >= count - writable).collect();
                    let buffers: Vec<_> = flags.iter().enumerate()
                        .map(|(index, flag)| buffer(&memory, index, 64, *flag)).collect();
                    let added = queue.add(&buffers);
                    prop_assert_eq!(added.is_some(), count <= free);
                    if let Some(head) = added {
                        free -= count;
                        let chain = flags.iter().enumerate()
                            .map(|(index, flag)| seen(index, 64, *flag)).collect();
                        unpublished.push_back((head, chain));
                    }
                }
                Step::Publish => {
                    let _ = queue.publish();
                    published.append(&mut unpublished);
                }
                Step::Take => {
                    while let Some(expected) = published.pop_front() {
                        prop_assert_eq!(device.pop(), Some(expected.clone()));
                        taken.push(expected);
                    }
                    prop_assert_eq!(device.pop(), None);
                }
                Step::Use { which, len } => if !taken.is_empty() {
                    let (head, chain) = taken.swap_remove(which % taken.len());
                    let room: u32 = chain.iter().filter(|seen| seen.2).map(|seen| seen.1).sum();
                    let len = len.checked_rem(room).unwrap_or(0);
                    device.push(head.into(), len);
                    used.push_back((head, chain.len(), len));
                },
                Step::Collect { recycle } => {
                    let count = queue.poll_used().unwrap();
                    prop_assert_eq!(usize::from(count), used.len());
                    while let Some((head, count, len)) = used.pop_front() {
                        prop_assert_eq!(queue.next_used().unwrap(), Some(Used { head, len }));
                        if recycle || count > 1 {
                            queue.recycle(head);
                        } else {
                            queue.release(head);
                        }
                        free += count;
                    }
                    prop_assert_eq!(queue.next_used(), Ok(None));
                }
            }
            prop_assert_eq!(usize::from(queue.free_count()), free);
        }
    }

    /// Whatever a device writes over the whole ring, the driver gets at worst an error.
    #[test]
    fn nonsense_in_the_ring_does_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        index in any::<u16>(),
    ) {
        let (mut queue, device, memory) = pair(8, true);
        for slot in 0..8 {
            queue.add(&[buffer(&memory, slot, 64, true)]).unwrap();
        }
        let _ = queue.publish();
        for (offset, byte) in bytes.iter().enumerate() {
            device.write(DEVICE_BASE + offset as u64, *byte);
        }
        device.write(device.addresses.2 + 2, index % 10);
        let mut heads = Vec::new();
        if queue.poll_used().is_ok() {
            while let Ok(Some(used)) = queue.next_used() {
                prop_assert!(used.len <= 64 && used.head < 8);
                prop_assert!(!heads.contains(&used.head), "no descriptor comes back twice");
                heads.push(used.head);
                queue.recycle(used.head);
            }
        }
        let _ = queue.enable_interrupts();
    }
}

#[test]
fn the_legacy_layout_is_the_one_that_devices_compute() {
    for size in [1, 8, 64, 256].map(|size| QueueSize::new(size).unwrap()) {
        let queue = SplitQueue::new_legacy(part(0, LEN), size, false).unwrap();
        let (desc, avail, used) = queue.device_addresses();
        let entries = u64::from(size.get());
        assert_eq!((desc, avail), (DEVICE_BASE, desc + 16 * entries));
        // Virtio 1.3 section 2.7.2: the used ring begins on the next page.
        let end = avail + 6 + 2 * entries;
        assert_eq!(used, DEVICE_BASE + (end - DEVICE_BASE).next_multiple_of(4096));
        let bytes = SplitQueue::legacy_bytes(size) as u64;
        assert_eq!(bytes, (used - DEVICE_BASE + 6 + 8 * entries).next_multiple_of(4096));
    }
    let unaligned = part(2048, LEN - 2048);
    assert!(SplitQueue::new_legacy(unaligned, QueueSize::new(8).unwrap(), false).is_none());
    let short = part(0, 8191);
    assert!(SplitQueue::new_legacy(short, QueueSize::new(8).unwrap(), false).is_none());
}

#[test]
fn the_position_is_where_the_next_chain_goes() {
    let (mut queue, _device, memory) = pair(4, false);
    assert_eq!(queue.position(), 0);
    let piece = buffer(&memory, 0, 10, false);
    for index in 1..=3 {
        queue.add(&[piece]).unwrap();
        assert_eq!(queue.position(), index);
    }
}
