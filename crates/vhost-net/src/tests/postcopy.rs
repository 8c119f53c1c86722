//! A guest that runs here before its memory does: no worker touches a page that is missing, and
//! all that lay in such pages comes through.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use eal::Epoll;
use eal::event::Events;
use virtio::driver::{DriverQueue, DriverRing};

use super::*;
use crate::device::NetDevice;
use crate::postcopy::TOKEN;
use vhost::backend::{Backend, RegionFile, RingSetup as Told};
use vhost::control::Watcher;
use vhost::postcopy::Pagers;
use vhost::testing::faults::{FaultServer, file, pagers, serve_pager};

const PAGE: usize = 4096;
const PAGES: usize = 256;
const BYTES: usize = PAGES * PAGE;
const RING_BYTES: usize = 1 << 16;
/// What buffers to write are full of before.
const FILL: u8 = 0xee;

#[test]
#[ignore = "what other tests start"]
fn the_process_itself() {
    serve_pager();
}

/// The guest as the other machine has it, with one ring.
struct Origin {
    memory: DmaArena,
    ring: DriverQueue,
    features: Features,
    next_buffer: usize,
}

impl Origin {
    fn new(packed: bool) -> Self {
        let format = if packed { Features::RING_PACKED } else { Features::empty() };
        let features = Features::VERSION_1 | Features::INDIRECT_DESC | format;
        let memory = SharedMemory::allocate("origin", BYTES).unwrap();
        let mut memory = DmaArena::shared(memory, GUEST).unwrap();
        let ring = memory.take_at(0, RING_BYTES).unwrap();
        let ring = DriverQueue::new(ring, SIZE, features).unwrap();
        Self { memory, ring, features, next_buffer: RING_BYTES }
    }

    /// Memory in a page of its own, with these bytes.
    fn place(&mut self, bytes: &[u8]) -> DmaMemory {
        let memory = self.memory.slice(self.next_buffer, bytes.len()).unwrap();
        // SAFETY: `slice` gave exactly this many bytes of the guest's memory.
        unsafe { memory.host().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.next_buffer = (self.next_buffer + bytes.len()).next_multiple_of(PAGE);
        memory
    }

    /// Posts a chain of buffers with these contents, or an indirect table of them.
    fn post(&mut self, pieces: &[&[u8]], writable: bool, indirect: bool) {
        let kind = if writable { Buffer::writable } else { Buffer::readable };
        let buffers: Vec<_> = pieces.iter().map(|piece| kind(self.place(piece))).collect();
        if indirect {
            let mut table = self.memory.take_at(self.next_buffer, 16 * pieces.len()).unwrap();
            self.next_buffer += PAGE;
            let id = self.ring.reserve().unwrap();
            let table = table.slice_mut(0, 16 * pieces.len()).unwrap();
            assert!(self.ring.set_indirect(id, table, &buffers));
            self.ring.post(id);
        } else {
            self.ring.add(&buffers).unwrap();
        }
        let _ = self.ring.publish();
    }

    fn page(&self, page: usize) -> &[u8] {
        let start = self.memory.memory().as_ptr();
        // SAFETY: nobody writes to it any more: the guest has left.
        unsafe { std::slice::from_raw_parts(start.add(page * PAGE).as_ptr(), PAGE) }
    }
}

/// The same guest where it has arrived, at a device with one queue pair.
struct Late {
    origin: Origin,
    memory: File,
    device: NetDevice,
    server: FaultServer,
    epoll: Arc<Epoll>,
    brought: usize,
    /// For as long as the pager is needed.
    _pagers: Arc<Pagers>,
}

impl Late {
    /// The guest has left its origin; all of its memory is missing here.
    fn new(origin: Origin) -> Self {
        let pagers = pagers("tests::postcopy::the_process_itself");
        let mut device =
            NetDevice::new("test", 1).unwrap().with_postcopy_from(Arc::clone(&pagers)).unwrap();
        let epoll = Arc::new(Epoll::new().unwrap());
        device.attached(Watcher::new(Arc::clone(&epoll), 0));
        device.connected();
        device.set_features((origin.features | Features::CTRL_VQ).bits()).unwrap();
        let memory = file(PAGES as u64);
        let userfault = device.advise_postcopy().unwrap();
        let at = device.set_missing_memory(table(&memory), &[region(&memory)]).unwrap()[0];
        let server = FaultServer::new(userfault, &memory, at);
        device.postcopy_acknowledged();
        let mut late = Self { origin, memory, device, server, epoll, brought: 0, _pagers: pagers };
        late.take_report();
        late
    }

    fn start(&mut self, index: u16) {
        let Origin { ring, features, .. } = &self.origin;
        let place = place(ring.device_addresses(), ring.first_base(), *features);
        self.device.start_ring(index, Told::at(place)).unwrap();
    }

    /// As the control thread does it.
    fn take_report(&mut self) {
        let mut events = Events::new();
        self.epoll.wait(&mut events, Some(Duration::from_secs(60))).unwrap();
        assert!(events.iter().next().is_some(), "no report");
        self.device.kicked(TOKEN);
    }

    /// Waits for a fault and brings the page in.
    fn bring_one(&mut self) {
        assert!(self.brought < PAGES, "it comes to no end");
        let page = self.server.next();
        let content = self.origin.page(usize::try_from(page).unwrap());
        self.server.bring(page, content);
        self.brought += 1;
        self.take_report();
    }

    fn runs(&self, index: usize) -> bool {
        self.device.slots()[index].inspect(|ring| ring.is_some())
    }

    /// Brings pages in until ring `index` runs, and no more than its own.
    fn bring_ring(&mut self, index: usize) {
        assert!(!self.runs(index), "its pages are missing");
        while !self.runs(index) {
            self.bring_one();
        }
        assert!(self.brought <= RING_BYTES / PAGE);
    }

    /// Pages that are there, brought or made by whoever touched them.
    fn pages_here(&self) -> usize {
        usize::try_from(self.memory.metadata().unwrap().blocks()).unwrap() * 512 / PAGE
    }
}

fn table(memory: &File) -> Arc<GuestMemory> {
    let mapping = Arc::new(Mapping::map(memory.as_fd(), 0, BYTES as u64).unwrap());
    let region = Region { guest_addr: GUEST, user_addr: USER, mapping };
    Arc::new(GuestMemory::new(vec![region]).unwrap())
}

fn region(memory: &File) -> RegionFile<'_> {
    RegionFile { guest_addr: GUEST, fd: memory.as_fd(), offset: 0, len: BYTES as u64 }
}

#[test]
fn what_a_guest_has_sent_comes_when_its_pages_do() {
    for packed in [false, true] {
        let mut origin = Origin::new(packed);
        let frames = [60, 200, 9000, 1514].map(pattern);
        let whole = frames.each_ref().map(|frame| Guest::frame(frame));
        origin.post(&[&whole[0]], false, false);
        let (header, body) = whole[1].split_at(NET_HEADER_LEN);
        origin.post(&[header, &body[..70], &body[70..]], false, false);
        origin.post(&[&whole[2]], false, false);
        let (front, rest) = whole[3].split_at(40);
        origin.post(&[front, rest], false, true);
        let mut late = Late::new(origin);
        late.start(1);
        late.bring_ring(1);
        let mut receiver = late.device.receivers().remove(0);
        let stats = QueueStats::default();
        let mut arrived: Vec<Vec<u8>> = Vec::new();
        while arrived.len() < frames.len() {
            receiver.receive(BURST, &stats);
            let new: Vec<_> = receiver.batch().frames().iter().map(Frame::to_vec).collect();
            receiver.release();
            if new.is_empty() {
                // There are chains in the ring, and it may sleep: the next page wakes it.
                assert!(receiver.arm());
                late.bring_one();
                receiver.disarm();
            }
            arrived.extend(new);
        }
        assert_eq!(arrived, frames, "packed: {packed}");
        assert_eq!(late.pages_here(), late.brought, "a page was touched before it was there");
        // 1 + 3 + 3 + a table and 2, at least.
        assert!(late.brought >= 10, "{}", late.brought);
        assert_eq!(stats.snapshot().dropped_for(DropReason::BadDescriptor), 0);
    }
}

#[test]
fn what_a_guest_is_sent_waits_for_its_buffers() {
    for packed in [false, true] {
        let mut origin = Origin::new(packed);
        let room = [FILL; 2000];
        origin.post(&[&room], true, false);
        origin.post(&[&room[..12], &room], true, false);
        origin.post(&[&room[..12], &room], true, true);
        let places: Vec<_> = (RING_BYTES / PAGE..PAGES).collect();
        let mut late = Late::new(origin);
        late.start(0);
        late.bring_ring(0);
        let mut transmitter = late.device.transmitters().remove(0);
        let (stats, frame) = (QueueStats::default(), pattern(100));
        let mut sent = 0;
        while sent < 3 {
            let now = transmitter.transmit(&[Frame::from_bytes(&frame)], &stats);
            assert_eq!(now.dropped, 0);
            sent += now.consumed;
            if now.consumed == 0 {
                late.bring_one();
            }
        }
        assert_eq!(late.pages_here(), late.brought, "a page was touched before it was there");
        // Where the frame was written, and nowhere else, is what came last.
        let found = places.into_iter().filter(|&page| {
            let mut here = [0; PAGE];
            late.memory.read_exact_at(&mut here, (page * PAGE) as u64).unwrap();
            let start = if here.starts_with(&[0; 10]) { NET_HEADER_LEN } else { 0 };
            let written = here[start..].starts_with(&frame);
            let rest = start + frame.len();
            written && here[rest..] == late.origin.page(page)[rest..]
        });
        assert_eq!(found.count(), 3, "packed: {packed}");
    }
}

#[test]
fn the_end_of_a_migration_starts_what_waits() {
    let mut origin = Origin::new(false);
    origin.post(&[&Guest::frame(&pattern(60))], false, false);
    let mut late = Late::new(origin);
    late.start(1);
    // The control queue is for the control thread, which waits for nothing.
    late.start(2);
    late.device.set_ring_enabled(1, false).unwrap();
    late.device.set_ring_enabled(1, true).unwrap();
    for page in 0..PAGES {
        late.memory.write_all_at(late.origin.page(page), (page * PAGE) as u64).unwrap();
    }
    assert!(!late.runs(1));
    late.device.end_postcopy();
    assert!(late.runs(1));
    let mut receiver = late.device.receivers().remove(0);
    receiver.receive(BURST, &QueueStats::default());
    assert_eq!(receiver.batch().frames().len(), 1);
    receiver.release();
    assert_eq!((late.device.stop_ring(1), late.device.stop_ring(2)), (1, 0));
}

#[test]
fn a_ring_that_waits_can_be_stopped_and_started_again() {
    let mut origin = Origin::new(false);
    origin.post(&[&Guest::frame(&pattern(60))], false, false);
    let mut late = Late::new(origin);
    for _ in 0..2 {
        late.start(1);
        let other = file(PAGES as u64);
        let error = late.device.set_missing_memory(table(&other), &[region(&other)]).unwrap_err();
        assert!(error.to_string().contains("stop them"), "{error}");
        assert_eq!(late.device.stop_ring(1), 0);
    }
    late.start(1);
    late.bring_ring(1);
    late.device.stop_ring(1);
    // Another memory may come between two starts, and is missing as well.
    let memory = file(PAGES as u64);
    let at = late.device.set_missing_memory(table(&memory), &[region(&memory)]).unwrap()[0];
    late.device.postcopy_acknowledged();
    late.start(1);
    assert!(!late.runs(1));
    assert_ne!(at, 0);
    late.device.stop_ring(1);
    late.device.disconnected();
    // And another migration, with a pager of its own, which may take a moment.
    let next = || late.device.advise_postcopy().map_err(|error| error.to_string());
    let again = std::iter::repeat_with(next).find(|next| match next {
        Err(error) => !error.contains("try again"),
        Ok(_) => true,
    });
    again.unwrap().unwrap();
}

#[test]
fn a_place_that_cannot_be_is_refused_at_once() {
    let mut late = Late::new(Origin::new(false));
    let features = late.origin.features;
    let end = USER + BYTES as u64;
    for (size, desc) in [(100, USER), (SIZE, USER - 16), (SIZE, end - 16)] {
        let bad = RingSetup { size, desc, avail: USER, used: USER, base: 0, features };
        late.device.start_ring(1, Told::at(bad)).unwrap_err();
    }
    assert_eq!(late.pages_here(), 0);
}
