//! The driver of a ring that a device serves, as it is seen by [`DeviceQueue`]: what comes out of
//! the ring lies in the guest's memory, and what goes back is what came.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;

use eal::Mapping;
use packet::RawSegment;
use virtio::device::burst::MAX_BUFFERS;
use virtio::device::{Buffers, Chain, DeviceQueue, RingError, RingLog, RingSetup, SplitQueue};
use virtio::inflight::Layout;
use virtio::{DirtyLog, Features, GuestMemory, InflightArea};

use crate::guest::{BYTES, Driver, GUEST, Ram, file};
use crate::input::Input;

/// Steps of one input.
const STEPS: usize = 300;

/// Sizes of rings: packed ones may have any.
const SPLIT_SIZES: [u16; 6] = [1, 2, 4, 16, 64, 256];
const PACKED_SIZES: [u16; 6] = [1, 2, 3, 17, 64, 256];

/// Plays one input to a ring of either format.
pub(super) fn run(data: &[u8], packed: bool) {
    let mut input = Input::new(data);
    let Some(mut world) = World::new(&mut input, packed) else { return };
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        // A device stops using a ring that is broken.
        if world.step(&mut input).is_err() {
            break;
        }
    }
    world.end();
}

/// A ring with both its sides.
struct World {
    ram: Ram,
    driver: Driver,
    queue: DeviceQueue,
    setup: RingSetup,
    buffers: Buffers,
    /// Chains that were taken and not given back, oldest first.
    taken: VecDeque<Chain>,
    segments: Vec<RawSegment>,
    answer: Vec<RawSegment>,
    area: Option<InflightArea>,
    log: Arc<DirtyLog>,
    /// A chain of another ring.
    foreign: Option<Chain>,
}

impl World {
    /// A ring that is used already, or new; `None` if it cannot be started.
    fn new(input: &mut Input<'_>, packed: bool) -> Option<Self> {
        let size = input.pick(if packed { &PACKED_SIZES } else { &SPLIT_SIZES });
        let mut features = Features::VERSION_1;
        let optional = [Features::EVENT_IDX, Features::IN_ORDER, Features::INDIRECT_DESC];
        let choice = input.byte();
        for (bit, feature) in (0..).zip(optional) {
            features.set(feature, choice >> bit & 1 == 1);
        }
        features.set(Features::RING_PACKED, packed);
        let ram = Ram::new();
        let mut driver = Driver::new(0, size, packed);
        let place = if choice & 0x80 != 0 { input.number() } else { u16::from(packed) << 15 };
        driver.begin(&ram, place);
        let base = if packed { u32::from(place) << 16 | u32::from(place) } else { place.into() };
        let [desc, avail, used] = driver.user();
        let setup = RingSetup { size, desc, avail, used, base, features };
        let memory = ram.table(2);
        let area = (choice & 0x40 != 0).then(|| area(input, packed, size));
        let queue = start(&memory, setup, area.as_ref(), input)?;
        let log = Mapping::map(file(0x1_0000).as_fd(), 0, 0x1_0000).unwrap();
        Some(Self {
            ram,
            driver,
            queue,
            setup,
            buffers: Buffers::default(),
            taken: VecDeque::new(),
            segments: Vec::new(),
            answer: Vec::new(),
            area,
            log: Arc::new(DirtyLog::new(Arc::new(log), None)),
            foreign: None,
        })
    }

    fn step(&mut self, input: &mut Input<'_>) -> Result<(), RingError> {
        match input.below(16) {
            0..=5 => self.driver.act(&self.ram, input),
            6 | 7 => self.burst::<false>(input)?,
            8 | 9 => self.burst::<true>(input)?,
            10 => self.give_back(input.byte().into()),
            11 => {
                let _ = self.queue.needs_call();
            }
            12 => {
                let _ = self.queue.arm();
                self.queue.disarm();
            }
            13 => match input.below(8) {
                0 => {
                    let (head, id, slots) = (input.number(), input.number(), input.number());
                    self.foreign = Some(Chain { head, id, slots });
                }
                _ => self.restart(input),
            },
            14 => {
                let used = input.yes().then(|| GUEST.wrapping_add(input.likely(&[0, BYTES - 1])));
                let log = input.yes().then(|| RingLog::new(Arc::clone(&self.log), used));
                self.queue.set_log(log);
            }
            _ => {
                self.queue.set_memory(self.ram.table(1 + u64::from(input.below(2)))).unwrap();
                self.buffers.clear();
            }
        }
        Ok(())
    }

    /// Takes some chains, looks at each, and gives them back or keeps them.
    fn burst<const WRITE: bool>(&mut self, input: &mut Input<'_>) -> Result<(), RingError> {
        self.queue.fetch::<WRITE>(usize::from(input.byte()), &mut self.buffers)?;
        let fetched = self.buffers.as_slice().len();
        assert!(fetched <= MAX_BUFFERS && fetched <= self.setup.size.into());
        let memory = Arc::clone(self.queue.memory());
        for buffer in self.buffers.as_slice() {
            assert!(buffer.chain().head < self.setup.size);
            if let Some(segment) = buffer.single() {
                check(&memory, segment);
            }
        }
        let chains: Vec<Chain> = self.buffers.chains().collect();
        for chain in &chains {
            if self.queue.walk::<WRITE>(*chain, &mut self.segments).is_ok() {
                self.segments.iter().for_each(|segment| check(&memory, *segment));
                if WRITE {
                    self.queue.log_written(&self.segments, input.byte().into());
                }
            }
            let request = self.queue.walk_request(*chain, &mut self.segments, &mut self.answer);
            if request.is_ok() {
                let both = self.segments.iter().chain(&self.answer);
                both.for_each(|segment| check(&memory, *segment));
            }
        }
        let count = usize::from(input.byte()) % (fetched + 1);
        self.queue.advance(&self.buffers, count);
        if self.taken.is_empty() && input.yes() {
            for buffer in self.buffers.as_mut_slice() {
                buffer.set_written(input.byte().into());
            }
            if WRITE {
                self.queue.complete_written(&self.buffers, count);
            } else {
                self.queue.complete_read(&self.buffers, count);
            }
            return Ok(());
        }
        self.taken.extend(&chains[..count]);
        // More than a ring has can be taken of a driver that makes entries available again.
        self.give_back(self.taken.len().saturating_sub(self.setup.size.into()));
        Ok(())
    }

    fn give_back(&mut self, count: usize) {
        let count = count.min(self.taken.len());
        self.queue.complete(self.taken.drain(..count).map(|chain| (chain, 1)));
    }

    /// The device is killed, and another takes its place.
    fn restart(&mut self, input: &mut Input<'_>) {
        let memory = Arc::clone(self.queue.memory());
        let mut setup = self.setup;
        setup.base = if input.yes() {
            self.queue.base_without(self.taken.len())
        } else {
            input.likely_u32(&[0, 0x8000_8000])
        };
        let _ = DeviceQueue::is_new(&memory, &setup);
        let _ = DeviceQueue::check_base(&memory, &setup);
        if input.yes() && !setup.features.contains(Features::RING_PACKED) {
            let (base, _) = SplitQueue::recover(Arc::clone(&memory), setup).unwrap();
            setup.base = base;
        }
        let area = self.area.take();
        if let Some(queue) = start(&memory, setup, area.as_ref(), input) {
            self.queue = queue;
            self.setup = setup;
            self.taken.clear();
        }
        self.buffers.clear();
        self.area = area;
    }

    fn end(mut self) {
        self.give_back(usize::MAX);
        let Some(chain) = self.foreign else { return };
        // Chains that are not of this ring: the device is wrong, but does no harm.
        let _ = self.queue.walk::<false>(chain, &mut self.segments);
        self.queue.complete([(chain, 1), (chain, 1)].into_iter());
        let _ = self.queue.fetch::<true>(MAX_BUFFERS, &mut self.buffers);
        let index = self.queue.base() >> 16 & 0x7fff;
        assert!(index < self.setup.size.into() || matches!(self.queue, DeviceQueue::Split(_)));
    }
}

/// Memory of the guest, all of it: reading says more than the address, if it is not mapped.
fn check(memory: &GuestMemory, segment: RawSegment) {
    let address = memory.guest_address(segment).expect("it lies in the guest's memory");
    let len = u32::try_from(segment.len()).unwrap();
    let segment = memory.translate(address, len).expect("it does so with all its bytes");
    let mut bytes = vec![0; segment.len()];
    assert_eq!(segment.copy_to(&mut bytes), bytes.len());
}

/// Records of chains in flight, which anybody has written.
fn area(input: &mut Input<'_>, packed: bool, size: u16) -> InflightArea {
    let layout = if packed { Layout::Packed } else { Layout::Split };
    let bytes = layout.region_bytes(1, size);
    let region = file(bytes as u64);
    if input.yes() {
        let count = usize::from(input.number::<u16>());
        rustix::io::pwrite(&region, input.exactly(count.min(bytes)), 0).unwrap();
    }
    let mapping = Mapping::map(region.as_fd(), 0, bytes as u64).unwrap();
    InflightArea::new(Arc::new(mapping), layout, 0, size).unwrap()
}

/// Starts a ring; in the end it serves what a device with records of chains in flight would.
fn start(
    memory: &Arc<GuestMemory>,
    setup: RingSetup,
    area: Option<&InflightArea>,
    input: &mut Input<'_>,
) -> Option<DeviceQueue> {
    let mut queue = DeviceQueue::new(Arc::clone(memory), setup).ok()?;
    if let Some(area) = area
        && input.byte() < 0xf0
    {
        queue.resume(area.clone()).ok()?;
    }
    Some(queue)
}
