//! A model of a virtio-net device on the PCI bus: registers of both generations, and a thread
//! that serves the rings.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::cast_possible_truncation,
    reason = "for tests"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "for tests"
)]
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, reason = "for tests")]

mod registers;

pub use registers::ModelWindows;

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use eal::dma::{AddressSpace, DeviceAddresses};
use eal::mem::Pages;
use eal::pci::{Bar, DeviceInfo, PciAddress, PciDevice, PciError};
use eal::{DmaSpace, EventFd, Mapping, PeerEvent, SharedMemory};
use packet::{RawSegment, Segment};
use virtio::device::{Buffers, DeviceQueue, RingSetup};
use virtio::memory::{GuestMemory, Region};
use virtio::{Features, NET_HEADER_LEN};

use super::registers::DRIVER_OK;

/// Where the registers are, in the only base address register.
pub const COMMON: u32 = 0;
pub const ISR: u32 = 0x1000;
pub const NET: u32 = 0x2000;
pub const NOTIFY: u32 = 0x3000;
/// Its length in words of 8 bytes.
const BAR_WORDS: usize = 0x4000 / 8;

/// What the driver wrote to the doorbells.
pub const NOTIFY_MULTIPLIER: u32 = 4;

struct Map {
    mapping: Arc<Mapping>,
    address: u64,
    /// Resets before it was mapped: after another one the device knows nothing of it.
    resets: usize,
}

#[derive(Default)]
pub struct Queue {
    pub max: u16,
    pub size: u16,
    pub vector: u16,
    pub enabled: bool,
    pub addresses: [u64; 3],
    pub ring: Option<DeviceQueue>,
}

/// The device's insides.
pub struct State {
    pub offered: Features,
    pub accepted: Features,
    /// The device does not let FEATURES_OK stand.
    pub refuses: bool,
    /// The device is gone: everything reads as ones.
    pub gone: bool,
    /// The driver has given it back, in a state where it reached no memory.
    pub given_back: bool,
    /// The device never finishes a reset.
    pub stuck: bool,
    pub status: u8,
    pub resets: usize,
    pub generation: u8,
    pub net: [u8; 32],
    pub queues: Vec<Queue>,
    pub selects: [usize; 3],
    pub config_vector: u16,
    pub isr: u8,
    pub msix: u16,
    events: Vec<Option<PeerEvent>>,
    /// Per queue pair: frames that the driver has sent, without their headers.
    pub sent: Vec<VecDeque<Vec<u8>>>,
    /// Per queue pair: frames for the driver.
    pub inject: Vec<VecDeque<Vec<u8>>>,
    /// The first bytes of their net header.
    pub header: [u8; 10],
    /// Commands as they came, and the answer to the next ones.
    pub commands: Vec<Vec<u8>>,
    pub ack: u8,
    /// Memory that the driver has mapped.
    maps: Vec<Map>,
    next_address: u64,
    /// What the IOMMU can do at most.
    pub most_address: u64,
    /// Memory was taken away while the device could use it.
    pub violations: usize,
    pub bus_master: bool,
}

/// A handle to the device.
#[derive(Clone)]
pub struct Model {
    state: Arc<Mutex<State>>,
    info: DeviceInfo,
    config: Arc<Mutex<Vec<u8>>>,
    space: DmaSpace,
    line: Option<Arc<EventFd>>,
    /// The kernel wants it back.
    pub request: Arc<EventFd>,
    legacy: bool,
    pub doorbells: Arc<Bar>,
}

/// Keeps the device running.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.take().unwrap().join();
        assert!(outcome.is_ok() || std::thread::panicking());
    }
}

/// Memory of the driver's as the device sees it, in pieces or not.
#[derive(Clone)]
struct Space {
    state: Arc<Mutex<State>>,
    piece: usize,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Space")
    }
}

impl AddressSpace for Space {
    fn pages(&self) -> Pages {
        Pages::Plain
    }

    fn piece_len(&self) -> usize {
        self.piece
    }

    unsafe fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = state.next_address;
        state.next_address += memory.len() as u64 + (1 << 20);
        let mapping = Mapping::map(memory.fd(), 0, memory.len() as u64).unwrap();
        let resets = state.resets;
        state.maps.push(Map { mapping: Arc::new(mapping), address: first, resets });
        if self.piece == usize::MAX {
            return Ok(DeviceAddresses::Contiguous(first));
        }
        let shift = self.piece.ilog2();
        let pages = memory.len().div_ceil(self.piece) as u64;
        Ok(DeviceAddresses::Pages {
            shift,
            addresses: (0..pages).map(|page| first + (page << shift)).collect(),
        })
    }

    fn unmap(&self, _memory: &SharedMemory, addresses: &DeviceAddresses) {
        let first = match addresses {
            DeviceAddresses::Contiguous(first) => *first,
            DeviceAddresses::Pages { addresses, .. } => addresses[0],
        };
        self.unmap_at(first);
    }

    unsafe fn map_at(&self, memory: &Arc<Mapping>, at: u64) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let end = at + memory.len() as u64;
        if end > state.most_address {
            return Err("the IOMMU cannot do these addresses".to_owned());
        }
        let overlaps = |map: &Map| at < map.address + map.mapping.len() as u64 && map.address < end;
        assert!(!state.maps.iter().any(overlaps));
        let resets = state.resets;
        state.maps.push(Map { mapping: Arc::clone(memory), address: at, resets });
        state.next_address = state.next_address.max(end.next_multiple_of(1 << 20));
        Ok(())
    }

    fn unmap_at(&self, at: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let position = state.maps.iter().position(|map| map.address == at).unwrap();
        let map = state.maps.remove(position);
        if state.status & DRIVER_OK != 0 && map.resets == state.resets && !state.gone {
            state.violations += 1;
        }
    }
}

/// What to make of it.
pub struct Shape {
    pub offered: Features,
    pub pairs: u16,
    pub size: u16,
    pub msix: u16,
    pub legacy: bool,
    pub piece: usize,
    pub line: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            offered: Features::all() - Features::RSS - Features::NOTIFICATION_DATA,
            pairs: 2,
            size: 256,
            msix: 8,
            legacy: false,
            piece: usize::MAX,
            line: false,
        }
    }
}

impl State {
    fn new(shape: &Shape) -> Self {
        let queue = |max| Queue { max, size: max, ..Queue::default() };
        let mut queues: Vec<Queue> = (0..2 * shape.pairs).map(|_| queue(shape.size)).collect();
        queues.push(queue(64));
        let frames = || (0..shape.pairs).map(|_| VecDeque::new()).collect::<Vec<_>>();
        let offered = if shape.legacy {
            Features::from_bits_truncate(shape.offered.bits() & u64::from(u32::MAX))
        } else {
            shape.offered
        };
        Self {
            offered,
            accepted: Features::empty(),
            refuses: false,
            gone: false,
            given_back: false,
            stuck: false,
            status: 0,
            resets: 0,
            generation: 0,
            net: net_config(shape.pairs),
            queues,
            selects: [0; 3],
            config_vector: 0,
            isr: 0,
            msix: shape.msix,
            events: Vec::new(),
            sent: frames(),
            inject: frames(),
            header: [0; 10],
            commands: Vec::new(),
            ack: 0,
            maps: Vec::new(),
            next_address: 0x10_0000,
            most_address: 1 << 39,
            violations: 0,
            bus_master: false,
        }
    }
}

impl Model {
    pub fn new(shape: &Shape) -> Self {
        let state = Arc::new(Mutex::new(State::new(shape)));
        let space = Space { state: Arc::clone(&state), piece: shape.piece };
        Self {
            state,
            info: info(if shape.legacy { 0x1000 } else { 0x1041 }),
            config: Arc::new(Mutex::new(config_space(shape.legacy))),
            space: DmaSpace::new(Arc::new(space)),
            line: shape.line.then(|| Arc::new(EventFd::new().unwrap())),
            request: Arc::new(EventFd::new().unwrap()),
            legacy: shape.legacy,
            doorbells: Arc::new(Bar::memory(BAR_WORDS)),
        }
    }

    /// Serves the rings on a thread of its own.
    pub fn run(&self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let (model, stopped) = (self.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !model.step() {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
        Running { stop, thread: Some(thread) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Configuration space, to write nonsense into.
    pub fn config(&self) -> MutexGuard<'_, Vec<u8>> {
        self.config.lock().unwrap()
    }

    /// The last value in the notify register of ring `index`.
    pub fn notified(&self, index: u32) -> u32 {
        self.doorbells.read32((NOTIFY + index * NOTIFY_MULTIPLIER) as usize)
    }

    /// Regions of memory that the device reaches now.
    pub fn mapped(&self) -> usize {
        self.state().maps.len()
    }

    /// Events that interrupts would signal now.
    pub fn connected(&self) -> usize {
        self.state().events.iter().flatten().count()
    }

    /// Changes the network device's configuration, with an interrupt.
    pub fn set_status_word(&self, status: u16) {
        let mut state = self.state();
        state.net[6..8].copy_from_slice(&status.to_le_bytes());
        state.generation = state.generation.wrapping_add(1);
        state.isr |= 2;
        let vector = state.config_vector;
        self.interrupt(&state, vector);
    }

    /// The device says that it cannot go on.
    pub fn need_reset(&self) {
        let mut state = self.state();
        state.status |= 0x40;
        let vector = state.config_vector;
        self.interrupt(&state, vector);
    }

    fn interrupt(&self, state: &State, vector: u16) {
        if let Some(line) = &self.line {
            line.signal().unwrap();
        } else if let Some(Some(event)) = state.events.get(usize::from(vector)) {
            event.signal().unwrap();
        }
    }

    /// Serves what waits in the rings; `false` when nothing did.
    pub fn step(&self) -> bool {
        let mut state = self.state();
        if state.status & 4 == 0 || state.gone {
            return false;
        }
        let mut any = false;
        let several = state.accepted.intersects(Features::MQ | Features::RSS);
        let control = if several { state.queues.len() - 1 } else { 2 };
        for index in 0..state.queues.len() {
            if !state.queues[index].enabled {
                continue;
            }
            let mut ring = match state.queues[index].ring.take() {
                Some(ring) => ring,
                None => start(&state, index, self.legacy),
            };
            let moved = match index {
                _ if index == control => serve_command(&mut state, &mut ring),
                _ if index % 2 == 0 => fill(&mut state, &mut ring, index / 2),
                _ => collect(&mut state, &mut ring, index / 2),
            };
            if moved && ring.needs_call() {
                state.isr |= 1;
                let vector = state.queues[index].vector;
                self.interrupt(&state, vector);
            }
            any |= moved;
            state.queues[index].ring = Some(ring);
        }
        any
    }
}

fn start(state: &State, index: usize, legacy: bool) -> DeviceQueue {
    let regions = state.maps.iter().map(|map| Region {
        guest_addr: map.address,
        user_addr: map.address,
        mapping: Arc::clone(&map.mapping),
    });
    let memory = Arc::new(GuestMemory::new(regions.collect()).unwrap());
    let queue = &state.queues[index];
    let [desc, mut avail, mut used] = queue.addresses;
    if legacy {
        avail = desc + 16 * u64::from(queue.size);
        used = (avail + 6 + 2 * u64::from(queue.size)).next_multiple_of(4096);
    }
    let base = if state.accepted.contains(Features::RING_PACKED) { 0x8000_8000 } else { 0 };
    let (size, features) = (queue.size, state.accepted);
    let mut ring =
        DeviceQueue::new(memory, RingSetup { size, desc, avail, used, base, features }).unwrap();
    ring.disarm();
    ring
}

fn bytes_of(segments: &[Segment<'_>]) -> Vec<u8> {
    let mut all = Vec::new();
    for segment in segments {
        let start = all.len();
        all.resize(start + segment.len(), 0);
        segment.copy_to(&mut all[start..]);
    }
    all
}

/// Takes frames that the driver sends.
fn collect(state: &mut State, ring: &mut DeviceQueue, pair: usize) -> bool {
    let (mut buffers, mut segments) = (Buffers::default(), Vec::new());
    ring.fetch::<false>(32, &mut buffers).unwrap();
    let chains: Vec<_> = buffers.chains().collect();
    for chain in &chains {
        ring.walk::<false>(*chain, &mut segments).unwrap();
        // SAFETY: the ring keeps the memory that it has found them in.
        let frame = bytes_of(unsafe { RawSegment::get_all(&segments) });
        let frame = frame[state.accepted.net_header_len()..].to_vec();
        state.sent[pair].push_back(frame);
    }
    ring.advance(&buffers, chains.len());
    ring.complete(chains.iter().map(|chain| (*chain, 0)));
    !chains.is_empty()
}

/// Gives a frame to the driver, over as many buffers as it takes.
fn fill(state: &mut State, ring: &mut DeviceQueue, pair: usize) -> bool {
    let header_len = state.accepted.net_header_len();
    let Some(frame) = state.inject[pair].front() else { return false };
    let (mut buffers, mut segments) = (Buffers::default(), Vec::new());
    ring.fetch::<true>(64, &mut buffers).unwrap();
    let rest = vec![0; header_len - state.header.len()];
    let mut left: Vec<u8> = [&state.header[..], &rest, frame].concat();
    let mut used = Vec::new();
    let mut first = None;
    for chain in buffers.chains() {
        ring.walk::<true>(chain, &mut segments).unwrap();
        let [segment] = segments[..] else { panic!("one piece per buffer") };
        let count = segment.len().min(left.len());
        // SAFETY: the segment has `count` bytes and its memory is kept by the ring.
        unsafe { segment.as_ptr().as_ptr().copy_from(left.as_ptr(), count) };
        left.drain(..count);
        first = first.or(Some(segment));
        used.push((chain, u32::try_from(count).unwrap()));
        if left.is_empty() {
            break;
        }
    }
    if !left.is_empty() {
        return false;
    }
    if header_len == NET_HEADER_LEN {
        let count = u16::try_from(used.len()).unwrap().to_le_bytes();
        // SAFETY: the header is in the first segment, which is longer than that.
        unsafe { first.unwrap().as_ptr().as_ptr().add(10).copy_from(count.as_ptr(), 2) };
    }
    ring.advance(&buffers, used.len());
    ring.complete(used.into_iter());
    state.inject[pair].pop_front();
    true
}

fn serve_command(state: &mut State, ring: &mut DeviceQueue) -> bool {
    let (mut buffers, mut request, mut answer) = (Buffers::default(), Vec::new(), Vec::new());
    ring.fetch::<false>(1, &mut buffers).unwrap();
    let Some(chain) = buffers.chains().next() else { return false };
    ring.walk_request(chain, &mut request, &mut answer).unwrap();
    // SAFETY: the ring keeps the memory that it has found them in.
    let command = bytes_of(unsafe { RawSegment::get_all(&request) });
    if command == [3, 0] {
        state.net[6] &= !2;
    }
    state.commands.push(command);
    // SAFETY: the driver's buffer for the answer, of one byte, which the ring keeps.
    unsafe { answer[0].as_ptr().write(state.ack) };
    ring.advance(&buffers, 1);
    ring.complete([(chain, 1)].into_iter());
    true
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Model")
    }
}

impl PciDevice for Model {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn dma(&self) -> &DmaSpace {
        &self.space
    }

    fn read_config(&self, offset: u16, into: &mut [u8]) -> Result<(), PciError> {
        let from = usize::from(offset);
        if self.state().gone {
            into.fill(0xFF);
        } else {
            into.copy_from_slice(&self.config()[from..from + into.len()]);
        }
        Ok(())
    }

    fn write_config(&self, _offset: u16, _bytes: &[u8]) -> Result<(), PciError> {
        unreachable!("not by this driver")
    }

    /// Memory without any behaviour, for tests of windows.
    fn map_bar(&self, index: u8) -> Result<Bar, PciError> {
        assert_eq!(index, 0);
        Ok(Bar::memory(BAR_WORDS))
    }

    fn read_io(&self, index: u8, offset: u64, into: &mut [u8]) -> Result<(), PciError> {
        assert!(index == 0 && self.legacy);
        let mut state = self.state();
        let value = if state.gone { u32::MAX } else { state.read_port(offset) };
        into.copy_from_slice(&value.to_le_bytes()[..into.len()]);
        Ok(())
    }

    fn write_io(&self, index: u8, offset: u64, bytes: &[u8]) -> Result<(), PciError> {
        assert!(index == 0 && self.legacy);
        let mut value = [0; 4];
        value[..bytes.len()].copy_from_slice(bytes);
        let mut state = self.state();
        if !state.gone {
            state.write_port(offset, u32::from_le_bytes(value));
        }
        Ok(())
    }

    fn set_bus_master(&self, on: bool) -> Result<(), PciError> {
        self.state().bus_master = on;
        Ok(())
    }

    fn reset(&self) -> Result<(), PciError> {
        Ok(())
    }

    fn msix_vectors(&self) -> u16 {
        self.state().msix
    }

    fn set_msix(&self, events: &[Option<BorrowedFd<'_>>]) -> Result<(), PciError> {
        self.state().events = events.iter().map(|event| event.map(heard_by)).collect();
        Ok(())
    }

    fn change_msix(&self, vector: u16, event: Option<BorrowedFd<'_>>) -> Result<(), PciError> {
        self.state().events[usize::from(vector)] = event.map(heard_by);
        Ok(())
    }

    fn share_bar(&self, index: u8, offset: u64, len: u64) -> Result<(OwnedFd, u64), PciError> {
        assert_eq!((index, len), (0, 4096));
        Ok((EventFd::new().unwrap().into(), offset))
    }

    fn line_interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(|line| line.as_fd())
    }

    fn release_request(&self) -> Option<BorrowedFd<'_>> {
        Some(self.request.as_fd())
    }

    fn give_back(&self) {
        let mut state = self.state();
        assert!(state.gone || state.status & DRIVER_OK == 0, "it still runs");
        state.given_back = true;
        state.gone = true;
    }

    fn unmask_line_interrupt(&self) -> Result<(), PciError> {
        let (state, line) = (self.state(), self.line.as_ref().unwrap());
        line.drain().unwrap();
        // The line is a level: what came since the status was read interrupts again.
        if state.isr != 0 {
            line.signal().unwrap();
        }
        Ok(())
    }
}

/// What the device says of itself: its address, that the link is up, and its limits.
fn net_config(pairs: u16) -> [u8; 32] {
    let mut net = [0; 32];
    net[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    net[6] = 1;
    net[8..10].copy_from_slice(&pairs.to_le_bytes());
    net[10..12].copy_from_slice(&9000_u16.to_le_bytes());
    net[12..16].copy_from_slice(&25_000_u32.to_le_bytes());
    net[17] = 40;
    net[18..20].copy_from_slice(&128_u16.to_le_bytes());
    net[20..24].copy_from_slice(&0x1FF_u32.to_le_bytes());
    net
}

fn info(device: u16) -> DeviceInfo {
    DeviceInfo {
        address: PciAddress { domain: 0, bus: 1, device: 0, function: 0 },
        vendor: 0x1AF4,
        device,
        subsystem_vendor: 0x1AF4,
        subsystem_device: 1,
        class: 0x02_0000,
        revision: 1,
        driver: None,
        numa_node: None,
        iommu_group: None,
        interfaces: Vec::new(),
    }
}

/// Where the first virtio capability is; the next ones follow at 20 bytes each.
pub const FIRST_CAPABILITY: usize = 0x40;

/// Configuration space with the four capabilities, unless it is a legacy device.
fn config_space(legacy: bool) -> Vec<u8> {
    let mut space = vec![0; 256];
    space[0..2].copy_from_slice(&0x1AF4_u16.to_le_bytes());
    if legacy {
        return space;
    }
    space[6] = 0x10;
    space[0x34] = FIRST_CAPABILITY as u8;
    let parts = [(1, COMMON, 56), (2, NOTIFY, 64), (3, ISR, 1), (4, NET, 32)];
    for (number, (kind, offset, len)) in parts.into_iter().enumerate() {
        let at = FIRST_CAPABILITY + 20 * number;
        let next = if number == 3 { 0 } else { (at + 20) as u8 };
        space[at..at + 4].copy_from_slice(&[9, next, 20, kind]);
        space[at + 8..at + 12].copy_from_slice(&u32::to_le_bytes(offset));
        space[at + 12..at + 16].copy_from_slice(&u32::to_le_bytes(len));
        space[at + 16..at + 20].copy_from_slice(&NOTIFY_MULTIPLIER.to_le_bytes());
    }
    space
}

/// The event of a vector, which the device signals.
fn heard_by(event: BorrowedFd<'_>) -> PeerEvent {
    PeerEvent::from_fd(event.try_clone_to_owned().unwrap()).unwrap()
}
