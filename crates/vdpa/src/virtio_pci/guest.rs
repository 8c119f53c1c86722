//! A guest for vDPA devices, which is its driver, its memory, and its front-end at once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_debug_implementations,
    reason = "test code"
)]

use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{NotifyArea, Ring, Setup, VdpaDevice};
use eal::pci::Bar;
use eal::{DmaArena, DmaMemory, DmaPart, Mapping, PeerEvent, SharedMemory};
use rustix::mm::{MapFlags, ProtFlags};
use virtio::dirty::LOG_PAGE;
use virtio::driver::{Buffer, DriverQueue, DriverRing as _};
use virtio::memory::Region;
use virtio::{DirtyLog, Features, GuestMemory, NET_HEADER_LEN};

/// Where the guest has its memory.
pub const GUEST: u64 = 0x4000_0000;
/// Bytes of it.
pub const BYTES: usize = 8 << 20;
/// Where buffers begin in it, and their size.
const BUFFERS: usize = 1 << 20;
const BUFFER: usize = 2048;
/// Entries of each ring.
pub const SIZE: u16 = 64;

const LIMIT: Duration = Duration::from_secs(20);

/// How the guest notifies the device.
pub enum Doorbell {
    Event,
    Mapped(Bar),
}

/// One ring as the guest's driver has it.
pub struct Side {
    pub index: u16,
    pub queue: DriverQueue,
    pub kick: PeerEvent,
    pub call: PeerEvent,
    pub doorbell: Doorbell,
    /// By descriptor: the number of the buffer it has.
    slots: Vec<u16>,
    pub free: Vec<u16>,
}

impl Side {
    pub fn new(ring: DmaPart, index: u16, features: Features) -> Self {
        let mut queue = DriverQueue::new(ring, SIZE, features).unwrap();
        let _ = queue.enable_interrupts();
        let (kick, call) = (PeerEvent::new().unwrap(), PeerEvent::new().unwrap());
        let slots = vec![0; SIZE.into()];
        Self {
            index,
            queue,
            kick,
            call,
            doorbell: Doorbell::Event,
            slots,
            free: (0..SIZE).collect(),
        }
    }

    fn base(&self) -> u32 {
        self.queue.first_base()
    }

    fn ring(&self, base: u32) -> Ring {
        let (descriptors, driver, device) = self.queue.device_addresses();
        Ring {
            index: self.index,
            size: SIZE,
            descriptors,
            driver,
            device,
            base,
            enabled: true,
            kick: Some(self.kick.clone()),
            call: Some(self.call.clone()),
        }
    }

    fn notify(&self) {
        match &self.doorbell {
            Doorbell::Event => self.kick.signal().unwrap(),
            Doorbell::Mapped(bar) => bar.write16(0, self.index),
        }
    }

    fn post(&mut self, slot: u16, buffer: Buffer) {
        let id = self.queue.reserve().unwrap();
        self.slots[usize::from(id)] = slot;
        self.queue.set(id, buffer);
        self.queue.post(id);
        if self.queue.publish() {
            self.notify();
        }
    }

    /// Buffers that came back, each with the bytes that were written into it.
    pub fn used(&mut self) -> Vec<(u16, u32)> {
        let mut all = Vec::new();
        if self.queue.poll_used().unwrap() > 0 {
            while let Some(used) = self.queue.next_used().unwrap() {
                all.push((self.slots[usize::from(used.head)], used.len));
                self.queue.recycle(used.head);
            }
            let _ = self.queue.enable_interrupts();
        }
        all
    }
}

/// A guest with pairs of rings, and the device that serves them.
pub struct Guest {
    pub device: Box<dyn VdpaDevice>,
    pub memory: DmaArena,
    table: Arc<GuestMemory>,
    pub features: Features,
    pub sides: Vec<Side>,
    pub bases: Vec<u32>,
}

impl Guest {
    pub fn new(device: Box<dyn VdpaDevice>, features: Features, pairs: u16) -> Self {
        let memory = SharedMemory::allocate("guest", BYTES).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, BYTES as u64).unwrap());
        let region = Region { guest_addr: GUEST, user_addr: 0x7000_0000, mapping };
        let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
        let features = features | Features::VERSION_1 | Features::MRG_RXBUF;
        let features = if pairs > 1 { features | Features::MQ } else { features };
        let mut memory = DmaArena::shared(memory, GUEST).unwrap();
        let mut ring = |index: u16| memory.take_at(usize::from(index) * 0x1_0000, 0x1_0000);
        let sides: Vec<Side> =
            (0..2 * pairs).map(|index| Side::new(ring(index).unwrap(), index, features)).collect();
        let bases = sides.iter().map(Side::base).collect();
        let mut guest = Self { device, memory, table, features, sides, bases };
        for index in (0..2 * pairs).step_by(2) {
            for slot in 0..SIZE {
                guest.offer(index.into(), slot);
            }
        }
        guest
    }

    pub fn memory(&self) -> DmaMemory {
        self.memory.slice(0, BYTES).unwrap()
    }

    fn buffer(&self, side: usize, slot: u16) -> DmaMemory {
        let number = side * usize::from(SIZE) + usize::from(slot);
        self.memory().slice(BUFFERS + number * BUFFER, BUFFER).unwrap()
    }

    fn offer(&mut self, side: usize, slot: u16) {
        let memory = self.buffer(side, slot);
        self.sides[side].post(slot, Buffer::writable(memory));
    }

    pub fn setup(&self) -> Setup {
        let rings = self.sides.iter().zip(&self.bases).map(|(side, base)| side.ring(*base));
        let (features, memory) = (self.features.bits(), Arc::clone(&self.table));
        Setup { features, memory, rings: rings.collect() }
    }

    pub fn start(&mut self) {
        let setup = self.setup();
        self.device.start(setup).unwrap();
        assert!(self.device.is_running());
    }

    pub fn stop(&mut self) {
        let bases = self.device.stop();
        assert_eq!(bases.len(), self.sides.len());
        for (index, base) in bases {
            self.bases[usize::from(index)] = base;
        }
        assert!(!self.device.is_running());
    }

    pub fn statistic(&self, name: &str) -> u64 {
        let all = self.device.statistics();
        let found = all.iter().find(|statistic| statistic.name == name);
        assert!(found.is_some(), "{name}: {all:?}");
        found.unwrap().value
    }

    /// Sends a frame, if there is a buffer for it.
    pub fn send(&mut self, pair: usize, frame: &[u8]) -> bool {
        let side = 2 * pair + 1;
        for (slot, _) in self.sides[side].used() {
            self.sides[side].free.push(slot);
        }
        let Some(slot) = self.sides[side].free.pop() else { return false };
        let memory = self.buffer(side, slot).slice(0, NET_HEADER_LEN + frame.len()).unwrap();
        // SAFETY: the buffer is longer, and the device does not have it.
        unsafe {
            memory.host().as_ptr().write_bytes(0, NET_HEADER_LEN);
            let data = memory.host().as_ptr().add(NET_HEADER_LEN);
            data.copy_from(frame.as_ptr(), frame.len());
        }
        self.sides[side].post(slot, Buffer::readable(memory));
        true
    }

    /// Frames that have come; their buffers are offered again.
    fn receive(&mut self, pair: usize) -> Vec<Vec<u8>> {
        let used = self.sides[2 * pair].used();
        let mut frames = Vec::new();
        for (slot, len) in used {
            let memory = self.buffer(2 * pair, slot);
            let mut bytes = vec![0; len as usize];
            // SAFETY: the buffer has that many bytes, and is not the device's any more.
            unsafe { memory.host().as_ptr().copy_to(bytes.as_mut_ptr(), bytes.len()) };
            // A buffer that comes back empty was with a device that has been stopped.
            if bytes.len() > NET_HEADER_LEN {
                frames.push(bytes.split_off(NET_HEADER_LEN));
            }
            self.offer(2 * pair, slot);
        }
        frames
    }

    pub fn receive_any(&mut self) -> Vec<Vec<u8>> {
        (0..self.sides.len() / 2).flat_map(|pair| self.receive(pair)).collect()
    }

    /// Sends `count` frames and waits for all of them to come back; `meanwhile` is called again
    /// and again.
    pub fn exchange(&mut self, count: u32, mut meanwhile: impl FnMut()) {
        let frames: Vec<Vec<u8>> = (0..count).map(frame).collect();
        let pairs = self.sides.len() / 2;
        let (mut sent, mut back) = (0, Vec::new());
        let deadline = Instant::now() + LIMIT;
        while back.len() < frames.len() {
            // Few under way, so that no socket in between overflows.
            if sent < frames.len()
                && sent - back.len() < 32
                && self.send(sent % pairs, &frames[sent])
            {
                sent += 1;
            }
            back.extend(self.receive_any());
            let (got, now) = (back.len(), Instant::now());
            let what = || format!("{:?} {:?}", self.device.statistics(), self.state());
            assert!(now < deadline, "{got} of {sent} came back: {}", what());
            meanwhile();
            if sent == frames.len() {
                std::thread::yield_now();
            }
        }
        let mut expected: Vec<Vec<u8>> = frames.iter().map(|frame| swapped(frame)).collect();
        expected.sort();
        back.sort();
        assert!(back == expected, "frames have changed");
    }

    /// A copy of all memory, and a log for it without any mark.
    pub fn snapshot(&self) -> (Vec<u8>, SharedMemory, Arc<DirtyLog>) {
        let mut bytes = vec![0; BYTES];
        // SAFETY: the memory is that long.
        unsafe { self.memory.memory().as_ptr().as_ptr().copy_to(bytes.as_mut_ptr(), BYTES) };
        let end = GUEST + BYTES as u64;
        let memory =
            SharedMemory::allocate("log", usize::try_from(end / LOG_PAGE / 8).unwrap()).unwrap();
        let map = Mapping::map(memory.fd(), 0, memory.len() as u64).unwrap();
        let log = Arc::new(DirtyLog::new(Arc::new(map), None));
        assert!(log.covers(end));
        (bytes, memory, log)
    }

    /// Checks that each page that has changed since and that the guest itself does not write is
    /// marked: receive buffers and what devices write of rings. Returns how many there are.
    pub fn check_log(&self, before: &[u8], log: &SharedMemory) -> usize {
        let (now, _, _) = self.snapshot();
        let page = usize::try_from(LOG_PAGE).unwrap();
        let mut marks = vec![0; log.len()];
        // SAFETY: the memory is that long.
        unsafe { log.as_ptr().as_ptr().copy_to(marks.as_mut_ptr(), marks.len()) };
        let first = usize::try_from(GUEST / LOG_PAGE).unwrap();
        let is_marked = |at: usize| {
            let number = first + at / page;
            marks[number / 8] >> (number % 8) & 1 == 1
        };
        let mut parts = Vec::new();
        for (index, side) in self.sides.iter().enumerate() {
            // The driver writes in the same place in packed rings: there all must be marked.
            let (descriptors, _, used) = side.queue.device_addresses();
            let (start, len) = match self.features.contains(Features::RING_PACKED) {
                true => (descriptors, 16 * usize::from(SIZE)),
                false => (used, 4 + 8 * usize::from(SIZE)),
            };
            parts.push((usize::try_from(start - GUEST).unwrap(), len));
            if index % 2 == 0 {
                let buffers = index * usize::from(SIZE) * BUFFER;
                parts.push((BUFFERS + buffers, usize::from(SIZE) * BUFFER));
            }
        }
        let mut written = 0;
        for (start, len) in parts {
            for at in start..start + len {
                if now[at] != before[at] {
                    assert!(is_marked(at), "{at:#x} was written and not marked");
                    written += usize::from(at % page == 0 || now[at - 1] == before[at - 1]);
                }
            }
        }
        written
    }

    /// By ring: where the driver is, and what the device has said last.
    pub fn state(&self) -> Vec<(u16, [u8; 4])> {
        let side = |side: &Side| {
            let at = usize::try_from(side.queue.device_addresses().2 - GUEST).unwrap();
            let mut bytes = [0; 4];
            let place = self.memory().slice(at, 4).unwrap().host();
            // SAFETY: the ring's device area has four bytes at least.
            unsafe { place.as_ptr().copy_to(bytes.as_mut_ptr(), 4) };
            (side.queue.position(), bytes)
        };
        self.sides.iter().map(side).collect()
    }

    /// Maps the doorbell of ring `index`, as a front-end would.
    pub fn map_doorbell(&mut self, index: u16) {
        let NotifyArea { file, offset, len } = self.device.notify_area(index).unwrap();
        let len = usize::try_from(len).unwrap();
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, file.as_fd(), offset).unwrap()
        };
        // The mapping keeps the device open.
        let unmap: fn(NonNull<u8>, usize) = |at, len| {
            // SAFETY: the bar that had it ends.
            unsafe { rustix::mm::munmap(at.as_ptr().cast(), len).unwrap() };
        };
        // SAFETY: it was just mapped, and is until the bar is dropped.
        let bar = unsafe { Bar::new(NonNull::new(at.cast()).unwrap(), len, Some(unmap)) };
        self.sides[usize::from(index)].doorbell = Doorbell::Mapped(bar);
    }
}

/// Frame number `number`: its length and contents differ from all others.
pub fn frame(number: u32) -> Vec<u8> {
    let len = 60 + (number as usize * 37) % 1400;
    let mut frame = vec![0; len];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_le_bytes());
    for (at, byte) in frame.iter_mut().enumerate().skip(18) {
        *byte = (at ^ number as usize).to_le_bytes()[0];
    }
    frame
}

/// What comes back for a frame.
pub fn swapped(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}
