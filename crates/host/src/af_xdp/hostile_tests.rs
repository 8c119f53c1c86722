//! What the queues make of rings that say what they must not.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use eal::{Epoll, EventFd};
use ethdev::{DropReason, PortEvent, QueueStats, RxDriver, TxDriver};
use packet::{BURST, Frame};

use super::receive::{CONTINUED, MAX_PIECES, Options, XdpRx};
use super::ring::tests::{Kernel, consumer, producer};
use super::ring::{Chunk, Descriptor};
use super::transmit::XdpTx;
use super::umem::{CHUNK, Umem};
use crate::kernel::link::LinkState;

const SIZE: u32 = 64;

fn socket() -> Arc<OwnedFd> {
    // It stands for the socket, which nobody calls: the rings never need a wake-up.
    Arc::new(EventFd::new().unwrap().into())
}

/// A receive queue and the kernel's side of its rings.
struct Receiver {
    queue: XdpRx,
    umem: Arc<Umem>,
    state: Arc<LinkState>,
    rx: Kernel,
    fill: Kernel,
    head: u32,
    stats: QueueStats,
}

impl Receiver {
    fn new(begun: bool) -> Self {
        let umem = Arc::new(Umem::new(SIZE).unwrap());
        let state = Arc::new(LinkState::attached("AF_XDP", "test0", true, 65_000));
        let (rx_ring, rx) = consumer::<Descriptor>(SIZE, 0);
        let (fill_ring, fill) = producer::<Chunk>(2 * SIZE, 0);
        let options = Options { begun, busy_poll: false };
        let rings = (rx_ring, fill_ring);
        let (shared_umem, shared_state) = (Arc::clone(&umem), Arc::clone(&state));
        let wait = Arc::new(Epoll::new().unwrap());
        let queue = XdpRx::new(socket(), shared_umem, shared_state, rings, options, wait);
        Self { queue, umem, state, rx, fill, head: 0, stats: QueueStats::default() }
    }

    /// The kernel writes `bytes` to a chunk, and tells of them.
    fn put(&mut self, chunk: u32, bytes: &[u8], options: u32) {
        let address = u64::from(chunk) * CHUNK as u64 + 256;
        let len = u32::try_from(bytes.len()).unwrap();
        let descriptor = Descriptor { address, len, options };
        if let Some(piece) = self.umem.received(&descriptor) {
            // SAFETY: the piece is of that length, and the chunk not in use.
            unsafe { piece.first.as_ptr().copy_from(bytes.as_ptr(), bytes.len()) };
        }
        self.tell(descriptor);
    }

    fn tell(&mut self, descriptor: Descriptor) {
        // SAFETY: within the ring.
        unsafe { self.rx.entry::<Descriptor>(self.head, SIZE).write(descriptor) };
        self.head = self.head.wrapping_add(1);
        self.rx.set_producer(self.head);
    }

    /// The frames of a burst.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        self.queue.receive(BURST, &self.stats);
        self.queue.batch().frames().iter().map(Frame::to_vec).collect()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.stats.snapshot().dropped_for(reason)
    }
}

#[test]
fn frames_are_received_in_place_and_their_chunks_go_back() {
    let mut receiver = Receiver::new(false);
    for round in 0..10_u8 {
        let frames: Vec<Vec<u8>> =
            (0..20_u8).map(|n| vec![n ^ round; 60 + usize::from(n)]).collect();
        for (chunk, frame) in (0..).zip(&frames) {
            receiver.put(chunk, frame, 0);
        }
        assert_eq!(receiver.receive(), frames);
        assert_eq!(receiver.rx.consumer(), receiver.head);
        receiver.queue.batch_mut().head_mut(3).unwrap()[0] = 0xEE;
        assert_eq!(receiver.queue.batch().frames()[3].head()[0], 0xEE);
        receiver.queue.release();
        assert_eq!(receiver.fill.producer(), 20 * (u32::from(round) + 1));
        receiver.fill.set_consumer(receiver.fill.producer());
    }
    assert_eq!(receiver.stats.snapshot().dropped(), 0);
}

#[test]
fn descriptors_of_what_is_not_lent_are_dropped() {
    let mut receiver = Receiver::new(false);
    receiver.put(1, &[1; 60], 0);
    // The same chunk again, others' memory, past the chunk's end, nowhere.
    receiver.put(1, &[2; 60], 0);
    let at = |address, len| Descriptor { address, len, options: 0 };
    for descriptor in [
        at(u64::from(SIZE) * CHUNK as u64, 60),
        at(4096 - 30, 60),
        at(u64::MAX - 10, 60),
        at(2 * 4096, u32::MAX),
    ] {
        receiver.tell(descriptor);
    }
    receiver.put(2, &[3; 13], 0);
    receiver.put(3, &[4; 14], 0);
    // The second one of chunk 1 has overwritten the first: no chunk is looked at twice.
    assert_eq!(receiver.receive(), [vec![2; 60], vec![4; 14]]);
    assert_eq!(receiver.dropped(DropReason::BadDescriptor), 5);
    assert_eq!(receiver.dropped(DropReason::TooShort), 1);
    receiver.queue.release();
    // Chunks 1, 2 and 3, each once.
    assert_eq!(receiver.fill.producer(), 3);
    assert!(receiver.state.is_alive());
}

#[test]
fn a_frame_of_several_pieces_is_one_frame_when_all_are_there() {
    let mut receiver = Receiver::new(false);
    receiver.put(0, &[1; 3840], CONTINUED);
    receiver.put(1, &[2; 3840], CONTINUED);
    assert!(receiver.receive().is_empty(), "its end is not there yet");
    assert_eq!(receiver.rx.consumer(), 0);
    receiver.put(2, &[3; 100], 0);
    receiver.put(3, &[4; 60], 0);
    let whole = [vec![1; 3840], vec![2; 3840], vec![3; 100]].concat();
    assert_eq!(receiver.receive(), [whole, vec![4; 60]]);
    receiver.queue.release();
    assert_eq!(receiver.fill.producer(), 4);
}

#[test]
fn a_frame_without_end_is_left_out() {
    let mut receiver = Receiver::new(false);
    let pieces = u32::try_from(MAX_PIECES).unwrap() + 5;
    for chunk in 0..pieces {
        receiver.put(chunk, &[1; 3840], CONTINUED);
    }
    assert!(receiver.receive().is_empty());
    receiver.put(pieces, &[1; 10], 0);
    receiver.put(pieces + 1, &[2; 60], 0);
    assert_eq!(receiver.receive(), [vec![2; 60]]);
    assert_eq!(receiver.dropped(DropReason::TooLong), 1);
    receiver.queue.release();
    assert_eq!(receiver.fill.producer(), pieces + 2, "no chunk is lost");
    // One bad piece spoils its frame, and only that.
    receiver.fill.set_consumer(pieces + 2);
    receiver.put(0, &[1; 3840], CONTINUED);
    receiver.put(0, &[1; 60], 0);
    receiver.put(1, &[3; 60], 0);
    assert_eq!(receiver.receive(), [vec![3; 60]]);
    assert_eq!(receiver.dropped(DropReason::BadDescriptor), 1);
}

#[test]
fn a_ring_that_overflows_ends_the_port_once() {
    let mut receiver = Receiver::new(false);
    let (sender, events) = std::sync::mpsc::channel();
    receiver.state.events.listen(move |event| sender.send(event).unwrap());
    receiver.rx.set_producer(SIZE + 1);
    assert!(receiver.receive().is_empty());
    assert!(receiver.receive().is_empty());
    assert!(!receiver.state.is_alive());
    assert!(receiver.queue.arm(), "nothing will come");
    assert_eq!(events.try_iter().collect::<Vec<_>>(), [PortEvent::Removed]);
}

/// A transmit queue and the kernel's side of its rings.
fn sender() -> (XdpTx, Kernel, Kernel, Arc<Umem>) {
    let umem = Arc::new(Umem::new(SIZE).unwrap());
    let state = Arc::new(LinkState::attached("AF_XDP", "test0", true, 65_000));
    let (tx_ring, tx) = producer::<Descriptor>(SIZE, 0);
    let (completion_ring, completion) = consumer::<Chunk>(SIZE, 0);
    let rings = (tx_ring, completion_ring);
    (XdpTx::new(socket(), Arc::clone(&umem), state, rings, true), tx, completion, umem)
}

/// What the kernel finds in entry `index`.
fn sent(umem: &Umem, tx: &Kernel, index: u32) -> (Vec<u8>, u32, Chunk) {
    // SAFETY: within the ring.
    let descriptor = unsafe { tx.entry::<Descriptor>(index, SIZE).read() };
    let (_, first) = umem.send(umem.send_chunk(descriptor.address).unwrap()).unwrap();
    // SAFETY: the chunk has that many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(first.as_ptr(), descriptor.len as usize) };
    (bytes.to_vec(), descriptor.options, descriptor.address)
}

#[test]
fn frames_are_copied_to_chunks_until_there_is_no_room() {
    let (mut queue, tx, completion, umem) = sender();
    let stats = QueueStats::default();
    let bytes: Vec<Vec<u8>> = (0..32_u8).map(|n| vec![n; 14 + 100 * usize::from(n)]).collect();
    let frames: Vec<Frame<'_>> = bytes.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
    assert_eq!(queue.transmit(&frames, &stats).packets(), 32);
    for (index, bytes) in (0..).zip(&bytes) {
        assert_eq!(&sent(&umem, &tx, index).0, bytes);
    }
    assert_eq!(queue.transmit(&frames, &stats).packets(), 32);
    assert_eq!(queue.transmit(&frames, &stats).consumed, 0, "no room");
    // The kernel has sent four; it names one of them twice, and chunks that are not ours.
    tx.set_consumer(64);
    let chunks: Vec<Chunk> = (0..4).map(|index| sent(&umem, &tx, index).2).collect();
    let told = [chunks[0], chunks[1], chunks[2], chunks[3], chunks[0], 0, u64::MAX];
    for (index, chunk) in (0..).zip(told) {
        // SAFETY: within the ring.
        unsafe { completion.entry::<Chunk>(index, SIZE).write(chunk) };
    }
    completion.set_producer(7);
    assert_eq!(queue.transmit(&frames, &stats).packets(), 4);
    // Its index is nonsense.
    completion.set_producer(7 + SIZE + 1);
    assert_eq!(queue.transmit(&frames, &stats).consumed, 0);
    assert!(!queue.is_ready());
}

#[test]
fn a_long_frame_takes_several_chunks_or_none() {
    let (mut queue, tx, _completion, umem) = sender();
    let stats = QueueStats::default();
    let long: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let frames = [Frame::from_bytes(&long); 5];
    // 15 chunks each, of 64.
    assert_eq!(queue.transmit(&frames, &stats).packets(), 4);
    for index in 0..60 {
        let (bytes, options, _) = sent(&umem, &tx, index);
        let at = (index as usize % 15) * CHUNK;
        assert_eq!(bytes, long[at..60_000.min(at + CHUNK)]);
        assert_eq!(options, if index % 15 == 14 { 0 } else { CONTINUED });
    }
    let short = Frame::from_bytes(&[1; 13]);
    let sent = queue.transmit(&[short, short], &stats);
    assert_eq!((sent.consumed, sent.packets()), (2, 0));
    assert_eq!(stats.snapshot().dropped_for(DropReason::TooShort), 2);
}
