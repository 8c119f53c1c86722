//! A virtio network device on the PCI bus, driven by vDPA. It needs a machine whose devices nobody
//! else uses, and somebody at the other end of its cable who sends every frame back with addresses
//! swapped, so these are run by the end-to-end tests, in a guest, with the PCI address of the device
//! in `RINGWAY_TEST_VDPA`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eal::event::{Epoll, Events};
use eal::pci::Bar;
use eal::{DmaMemory, EventFd, Mapping, SharedMemory};
use rustix::mm::{MapFlags, ProtFlags};
use vdpa::{NotifyArea, Ring, Setup, VdpaDevice};
use virtio::driver::{Buffer, DriverQueue, DriverRing as _};
use virtio::memory::Region;
use virtio::{Features, GuestMemory, NET_HEADER_LEN};

/// Where the guest has its memory.
const GUEST: u64 = 0x4000_0000;
/// Bytes of it.
const BYTES: usize = 8 << 20;
/// Where buffers begin in it, and their size.
const BUFFERS: usize = 1 << 20;
const BUFFER: usize = 2048;
/// Entries of each ring.
const SIZE: u16 = 64;

const LIMIT: Duration = Duration::from_secs(20);

fn device() -> Option<Box<dyn VdpaDevice>> {
    let address = std::env::var("RINGWAY_TEST_VDPA").ok()?;
    Some(vdpa::open(&format!("virtio-pci:{address}")).unwrap())
}

/// How the guest notifies the device.
enum Doorbell {
    Event,
    Mapped(Bar),
}

/// One ring as the guest's driver has it.
struct Side {
    index: u16,
    queue: DriverQueue,
    kick: EventFd,
    call: EventFd,
    doorbell: Doorbell,
    /// By descriptor: the number of the buffer it has.
    slots: Vec<u16>,
    free: Vec<u16>,
}

impl Side {
    fn new(memory: DmaMemory, index: u16, features: Features) -> Self {
        let ring = memory.slice(usize::from(index) * 0x1_0000, 0x1_0000).unwrap();
        let mut queue = DriverQueue::new(ring, SIZE, features).unwrap();
        let _ = queue.enable_interrupts();
        let (kick, call) = (EventFd::new().unwrap(), EventFd::new().unwrap());
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
            kick: Some(self.kick.try_clone().unwrap()),
            call: Some(self.call.try_clone().unwrap()),
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
    fn used(&mut self) -> Vec<(u16, u32)> {
        let mut all = Vec::new();
        if self.queue.poll_used().unwrap() > 0 {
            while let Some(used) = self.queue.next_used().unwrap() {
                all.push((self.slots[usize::from(used.head)], used.len));
                self.queue.recycle(used.head);
            }
        }
        all
    }
}

/// A guest with pairs of rings, and the device that serves them.
struct Guest {
    device: Box<dyn VdpaDevice>,
    memory: SharedMemory,
    table: Arc<GuestMemory>,
    features: Features,
    sides: Vec<Side>,
    bases: Vec<u32>,
}

impl Guest {
    fn new(device: Box<dyn VdpaDevice>, features: Features, pairs: u16) -> Self {
        let memory = SharedMemory::allocate("guest", BYTES).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, BYTES as u64).unwrap());
        let region = Region { guest_addr: GUEST, user_addr: 0x7000_0000, mapping };
        let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
        let features = features | Features::VERSION_1 | Features::MRG_RXBUF;
        let features = if pairs > 1 { features | Features::MQ } else { features };
        // SAFETY: the memory lives as long as the guest, which has the rings.
        let all = unsafe { DmaMemory::new(memory.as_ptr(), BYTES, GUEST) }.unwrap();
        let sides: Vec<Side> =
            (0..2 * pairs).map(|index| Side::new(all, index, features)).collect();
        let bases = sides.iter().map(Side::base).collect();
        let mut guest = Self { device, memory, table, features, sides, bases };
        for index in (0..2 * pairs).step_by(2) {
            for slot in 0..SIZE {
                guest.offer(index.into(), slot);
            }
        }
        guest
    }

    fn memory(&self) -> DmaMemory {
        // SAFETY: as above.
        unsafe { DmaMemory::new(self.memory.as_ptr(), BYTES, GUEST) }.unwrap()
    }

    fn buffer(&self, side: usize, slot: u16) -> DmaMemory {
        let number = side * usize::from(SIZE) + usize::from(slot);
        self.memory().slice(BUFFERS + number * BUFFER, BUFFER).unwrap()
    }

    fn offer(&mut self, side: usize, slot: u16) {
        let memory = self.buffer(side, slot);
        self.sides[side].post(slot, Buffer::writable(memory));
    }

    fn setup(&self) -> Setup {
        let rings = self.sides.iter().zip(&self.bases).map(|(side, base)| side.ring(*base));
        let (features, memory) = (self.features.bits(), Arc::clone(&self.table));
        Setup { features, memory, rings: rings.collect() }
    }

    fn start(&mut self) {
        let setup = self.setup();
        self.device.start(setup).unwrap();
        assert!(self.device.is_running());
    }

    fn stop(&mut self) {
        let bases = self.device.stop();
        assert_eq!(bases.len(), self.sides.len());
        for (index, base) in bases {
            self.bases[usize::from(index)] = base;
        }
        assert!(!self.device.is_running());
    }

    fn statistic(&self, name: &str) -> u64 {
        let all = self.device.statistics();
        let found = all.iter().find(|statistic| statistic.name == name);
        assert!(found.is_some(), "{name}: {all:?}");
        found.unwrap().value
    }

    /// Sends a frame, if there is a buffer for it.
    fn send(&mut self, pair: usize, frame: &[u8]) -> bool {
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

    fn receive_any(&mut self) -> Vec<Vec<u8>> {
        (0..self.sides.len() / 2).flat_map(|pair| self.receive(pair)).collect()
    }

    /// Sends `count` frames and waits for all of them to come back.
    fn exchange(&mut self, count: u32) {
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
            if sent == frames.len() {
                std::thread::yield_now();
            }
        }
        let mut expected: Vec<Vec<u8>> = frames.iter().map(|frame| swapped(frame)).collect();
        expected.sort();
        back.sort();
        assert!(back == expected, "frames have changed");
    }

    /// By ring: where the driver is, and what the device has said last.
    fn state(&self) -> Vec<(u16, [u8; 4])> {
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
    fn map_doorbell(&mut self, index: u16) {
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
fn frame(number: u32) -> Vec<u8> {
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

fn swapped(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

/// The processor time of the relay thread, in ticks.
fn relay_ticks() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut ticks = 0;
    for task in tasks {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        if stat.contains("(vdpa-") {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks
}

/// Not both at once: QEMU (seen in 10.0) does not move on the place that it wants to be notified at
/// in a packed ring when it goes on after its socket was full, so that a driver that keeps to it
/// does not notify any more.
const FORMATS: [Features; 3] = [Features::empty(), Features::EVENT_IDX, Features::RING_PACKED];

#[test]
fn frames_pass_and_come_back_in_all_formats() {
    for features in FORMATS {
        for pairs in [1, 2] {
            let Some(device) = device() else { return };
            if device.queue_pairs() < pairs {
                continue;
            }
            let mut guest = Guest::new(device, features, pairs);
            guest.start();
            assert_eq!(guest.statistic("mapped_bytes"), BYTES as u64);
            assert_eq!(guest.statistic("shadow_rings"), 0);
            guest.exchange(300);
            assert!(guest.statistic("tx0_kicks") > 0);
            guest.stop();
            assert_eq!(guest.statistic("mapped_bytes"), 0);
            println!("direct {features:?} {pairs}: bases {:x?}", guest.bases);
        }
    }
}

#[test]
fn rings_go_on_where_they_were() {
    for features in FORMATS {
        let Some(device) = device() else { return };
        let mut guest = Guest::new(device, features, 1);
        for round in 0..4 {
            guest.start();
            assert_eq!(guest.statistic("shadow_rings"), if round == 0 { 0 } else { 2 });
            guest.exchange(200);
            guest.stop();
        }
        assert!(guest.statistic("tx0_shadow_given") >= 600);
        assert_eq!(guest.statistic("rx0_given_up") + guest.statistic("tx0_given_up"), 0);
        assert_eq!(guest.statistic("broken_rings"), 0);
        println!("restarted {features:?}: bases {:x?}", guest.bases);
    }
}

#[test]
fn a_mapped_doorbell_leaves_nothing_to_do() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let Some(device) = device() else { return };
        let mut guest = Guest::new(device, features, 1);
        guest.start();
        guest.map_doorbell(0);
        guest.map_doorbell(1);
        guest.exchange(100);
        let (ticks, kicks) = (relay_ticks(), guest.statistic("tx0_kicks"));
        guest.exchange(2000);
        assert_eq!(guest.statistic("tx0_kicks"), kicks);
        assert_eq!(relay_ticks(), ticks);
        println!("mapped doorbell: {} ticks of the relay", relay_ticks());
    }
}

/// From a signal to the answer of another thread that waits for it, at the median.
fn eventfd_round_trip() -> Duration {
    let (there, back) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    let (their_there, their_back) = (there.try_clone().unwrap(), back.try_clone().unwrap());
    let thread = std::thread::spawn(move || {
        let mut waiter = Waiter::new(&their_there);
        for _ in 0..ROUNDS {
            waiter.wait();
            their_back.signal().unwrap();
        }
    });
    let mut waiter = Waiter::new(&back);
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        there.signal().unwrap();
        waiter.wait();
        start.elapsed()
    });
    let times = times.collect();
    thread.join().unwrap();
    median(times)
}

const ROUNDS: usize = 1000;

/// Waits for an event as the relay does.
struct Waiter {
    epoll: Epoll,
    events: Events,
}

impl Waiter {
    fn new(event: &EventFd) -> Self {
        let epoll = Epoll::new().unwrap();
        epoll.add_edge(event, 0).unwrap();
        Self { epoll, events: Events::new() }
    }

    fn wait(&mut self) {
        self.epoll.wait(&mut self.events, Some(LIMIT)).unwrap();
        assert!(!self.events.as_slice().is_empty());
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// How long it takes until the device has sent a frame that it was notified of, at the median.
fn sending_time(guest: &mut Guest) -> Duration {
    let frame = [[0xff; 6], [2, 0, 0, 0, 0, 1], [0x88; 6], [0; 6]].concat();
    let mut waiter = Waiter::new(&guest.sides[1].call);
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        assert!(guest.send(0, &frame));
        waiter.wait();
        let time = start.elapsed();
        for (slot, _) in guest.sides[1].used() {
            guest.sides[1].free.push(slot);
        }
        time
    });
    median(times.collect())
}

#[test]
fn the_relay_is_about_as_fast_as_an_eventfd() {
    let Some(device) = device() else { return };
    let mut guest = Guest::new(device, Features::empty(), 1);
    guest.start();
    guest.exchange(10);
    let (mut relayed, mut mapped, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        plain.push(eventfd_round_trip());
        guest.sides[1].doorbell = Doorbell::Event;
        relayed.push(sending_time(&mut guest));
        guest.map_doorbell(1);
        mapped.push(sending_time(&mut guest));
    }
    let (relayed, mapped, plain) = (median(relayed), median(mapped), median(plain));
    let added = relayed.saturating_sub(mapped);
    println!(
        "a frame takes {relayed:?} through the relay and {mapped:?} by a mapped doorbell, which is \
         {added:?} more; an eventfd round trip takes {plain:?}"
    );
    assert!(added <= 2 * plain, "{added:?} for the relay, {plain:?} for a round trip");
}

#[test]
fn what_cannot_be_mapped_leaves_nothing_mapped() {
    let Some(device) = device() else { return };
    let mut guest = Guest::new(device, Features::empty(), 1);
    let mapping = |len: u64| Arc::new(Mapping::map(guest.memory.fd(), 0, len).unwrap());
    let region =
        |guest_addr, user_addr, len| Region { guest_addr, user_addr, mapping: mapping(len) };
    for (what, regions, reason) in [
        (
            "the interrupt window",
            vec![
                region(GUEST, 0x7000_0000, BYTES as u64),
                region(0xfee0_0000, 0x9000_0000, 1 << 20),
            ],
            "0xfee00000",
        ),
        (
            "half a page",
            vec![region(GUEST, 0x7000_0000, BYTES as u64), region(0x8000_0000, 0x9000_0000, 6144)],
            "whole pages",
        ),
        (
            "an address that the IOMMU cannot do",
            vec![region(GUEST, 0x7000_0000, BYTES as u64), region(1 << 60, 0x9000_0000, 1 << 20)],
            "cannot do them",
        ),
    ] {
        let mut setup = guest.setup();
        setup.memory = Arc::new(GuestMemory::new(regions).unwrap());
        let error = guest.device.start(setup).unwrap_err().to_string();
        assert!(error.contains(reason), "{what}: {error}");
        println!("{what}: {error}");
        assert_eq!(guest.statistic("mapped_bytes"), 0);
    }
    let mut setup = guest.setup();
    setup.features |= Features::GUEST_UFO.bits() | Features::RSS.bits();
    let error = guest.device.start(setup).unwrap_err().to_string();
    assert!(error.contains("rss"), "{error}");
    // Nothing is in the way of a proper start: whatever those had mapped is gone.
    guest.start();
    guest.exchange(50);
}
