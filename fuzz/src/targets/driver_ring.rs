//! The device of a ring that this process drives: it says that it has used whatever it likes. What
//! the driver takes for used is a chain that it had posted, once, with no more bytes than there
//! was room for; and no buffer is ever lost or twice there.

use std::collections::{BTreeMap, VecDeque};

use eal::{DmaArena, SharedMemory};
use virtio::Features;
use virtio::driver::{Buffer, DriverQueue, DriverRing, RingError};
use virtio::packed::{AVAIL, USED};

use crate::input::Input;

/// Steps of one input.
const STEPS: usize = 300;

/// Bytes of the memory, and where buffers begin in it.
const BYTES: usize = 0x1_0000;
const BUFFERS: usize = 0x8000;

/// Where a device finds the memory.
const DEVICE: u64 = 0x1000_0000;

/// Plays one input to a ring of either format.
pub(super) fn run(data: &[u8], packed: bool) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input, packed);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        // A driver leaves a device alone that has broken the rules.
        if world.step(&mut input).is_err() {
            return;
        }
    }
}

/// What the driver knows of a chain.
#[derive(Clone, Copy, Debug)]
struct Chain {
    /// Ids that it has.
    ids: u16,
    /// Bytes that the device may write.
    room: u32,
}

/// A ring with both its sides.
struct World {
    arena: DmaArena,
    queue: DriverQueue,
    packed: bool,
    /// Chains that the device has, by head.
    posted: BTreeMap<u16, Chain>,
    /// Chains that came back and still hold their ids.
    held: BTreeMap<u16, Chain>,
    /// Heads in the order in which they were posted, and how many of them were published.
    order: VecDeque<u16>,
    published: usize,
    /// The device's place: free-running index, or place and wrap counter.
    used: u16,
    wrap: bool,
}

impl World {
    fn new(input: &mut Input<'_>, packed: bool) -> Self {
        let size = input.pick(if packed { &[1, 2, 3, 17, 64] } else { &[1, 2, 4, 16, 64] });
        let choice = input.byte();
        let mut features = Features::VERSION_1;
        features.set(Features::EVENT_IDX, choice & 1 == 1);
        features.set(Features::IN_ORDER, choice & 2 == 2);
        features.set(Features::RING_PACKED, packed);
        let memory = SharedMemory::allocate("fuzz", BYTES).unwrap();
        let mut arena = DmaArena::shared(memory, DEVICE).unwrap();
        let part = arena.take_at(0, BUFFERS).unwrap();
        let queue = DriverQueue::new(part, size, features).unwrap();
        Self {
            arena,
            queue,
            packed,
            posted: BTreeMap::new(),
            held: BTreeMap::new(),
            order: VecDeque::new(),
            published: 0,
            used: 0,
            wrap: true,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) -> Result<(), RingError> {
        match input.below(12) {
            0 | 1 => self.add(input),
            2 => self.publish(),
            3..=5 => self.use_chain(input),
            6 => self.write(u64::from(input.number::<u16>()) % BUFFERS as u64, input.bytes()),
            7 => self.set_events(input),
            8 | 9 => self.take_used(input)?,
            10 => self.return_held(input),
            _ => {
                if input.yes() {
                    let _ = self.queue.enable_interrupts();
                } else {
                    self.queue.disable_interrupts();
                }
            }
        }
        self.check();
        Ok(())
    }

    /// The driver posts a chain.
    fn add(&mut self, input: &mut Input<'_>) {
        let readable = usize::from(input.below(4));
        let writable = usize::from(input.below(4));
        let mut room = 0;
        let mut buffers = Vec::new();
        for index in 0..readable + writable {
            let len = 1 + u16::from(input.byte());
            let memory = self.arena.slice(BUFFERS + 512 * index, len.into()).unwrap();
            if index < readable {
                buffers.push(Buffer::readable(memory));
            } else {
                buffers.push(Buffer::writable(memory));
                room += u32::from(len);
            }
        }
        let free = usize::from(self.queue.free_count());
        let single = buffers.len() == 1 && input.yes();
        let head = if single {
            let mut head = None;
            let added = self.queue.add_with(|id| {
                head = Some(id);
                Some(buffers[0])
            });
            assert!(added || free == 0);
            head.filter(|_| added)
        } else {
            self.queue.add(&buffers)
        };
        assert_eq!(head.is_some(), !buffers.is_empty() && buffers.len() <= free);
        let Some(head) = head else { return };
        let ids = u16::try_from(buffers.len()).unwrap();
        self.note_posted(head, Chain { ids, room });
    }

    fn note_posted(&mut self, head: u16, chain: Chain) {
        assert!(self.held.remove(&head).is_none() || chain.ids > 0);
        assert!(self.posted.insert(head, chain).is_none(), "{head} was posted already");
        self.order.push_back(head);
    }

    fn publish(&mut self) {
        let _ = self.queue.publish();
        self.published = self.order.len();
    }

    /// The driver takes what the device has used, or says that it has.
    fn take_used(&mut self, input: &mut Input<'_>) -> Result<(), RingError> {
        let most = self.queue.poll_used()?;
        assert!(usize::from(most) <= self.posted.len());
        for _ in 0..input.byte() {
            let Some(used) = self.queue.next_used()? else { break };
            let chain = self.posted.remove(&used.head).expect("it was posted");
            assert!(used.len <= chain.room, "{used:?} of {chain:?}");
            assert!(!self.queue.is_posted(used.head));
            let place = self.order.iter().position(|head| *head == used.head);
            let place = place.expect("it was posted");
            self.order.remove(place);
            self.published -= usize::from(place < self.published);
            self.held.insert(used.head, chain);
        }
        Ok(())
    }

    /// The driver gives a chain that came back to the device again, or frees it.
    fn return_held(&mut self, input: &mut Input<'_>) {
        let Some((head, chain)) = self.held.pop_first() else { return };
        let before = self.posted.len();
        if input.yes() {
            self.queue.post(head);
        }
        if self.queue.is_posted(head) {
            self.note_posted(head, chain);
            assert_eq!(self.posted.len(), before + 1);
        } else {
            self.queue.recycle(head);
        }
    }

    /// No id is lost, and none is there twice.
    fn check(&self) {
        let chains = self.posted.values().chain(self.held.values());
        let taken: u16 = chains.map(|chain| chain.ids).sum();
        assert_eq!(self.queue.free_count() + taken, self.queue.entries());
        assert!(self.posted.keys().all(|head| self.queue.is_posted(*head)));
    }

    /// The device writes into the ring.
    fn write(&self, offset: u64, bytes: &[u8]) {
        rustix::io::pwrite(self.arena.memory().fd(), bytes, offset).unwrap();
    }

    /// Offsets of descriptors, driver area and device area.
    fn parts(&self) -> [u64; 3] {
        let (desc, driver, device) = self.queue.device_addresses();
        [desc, driver, device].map(|address| address - DEVICE)
    }

    /// The device uses a chain: mostly one that it has, and the oldest of those.
    fn use_chain(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let count = self.published.max(1);
        let place = if choice < 0xc0 { 0 } else { usize::from(choice) % count };
        let mut id = self.order.get(place).copied().unwrap_or_default();
        if choice & 0x1f == 0x1f {
            id = input.number();
        }
        let room = self.posted.get(&id).map_or(0, |chain| chain.room);
        let len = if input.byte() < 0xf0 { room.min(input.byte().into()) } else { input.number() };
        if self.packed {
            let ids = self.posted.get(&id).map_or(1, |chain| chain.ids);
            self.use_packed(id, len, ids);
        } else {
            self.use_split(id, len, input);
        }
    }

    fn use_split(&mut self, id: u16, len: u32, input: &mut Input<'_>) {
        let [_, _, used] = self.parts();
        let at = used + 4 + 8 * u64::from(self.used % self.queue.entries());
        self.write(at, &u32::from(id).to_le_bytes());
        self.write(at + 4, &len.to_le_bytes());
        self.used = self.used.wrapping_add(if input.byte() < 0xf0 { 1 } else { input.number() });
        self.write(used + 2, &self.used.to_le_bytes());
    }

    fn use_packed(&mut self, id: u16, len: u32, ids: u16) {
        let [ring, _, _] = self.parts();
        let at = ring + 16 * u64::from(self.used);
        let flags = if self.wrap { AVAIL | USED } else { 0 };
        self.write(at + 8, &len.to_le_bytes());
        self.write(at + 12, &id.to_le_bytes());
        self.write(at + 14, &flags.to_le_bytes());
        self.used += ids;
        if self.used >= self.queue.entries() {
            self.used -= self.queue.entries();
            self.wrap = !self.wrap;
        }
    }

    /// The device says when it wants to be notified.
    fn set_events(&self, input: &mut Input<'_>) {
        let [_, _, device] = self.parts();
        let value = input.number::<u32>().to_le_bytes();
        if self.packed {
            self.write(device, &value);
        } else {
            self.write(device, &value[..2]);
            self.write(device + 4 + 8 * u64::from(self.queue.entries()), &value[2..]);
        }
    }
}
