//! Bursts in both directions against a guest's driver side in shared memory.

mod blocking;
mod device_state;
mod iommu;
mod log;
mod offload;
mod postcopy;
mod vduse;

use std::os::fd::AsFd;
use std::sync::Arc;

use eal::{DmaArena, DmaMemory};
use eal::{EventFd, Mapping, PeerEvent, SharedMemory};
use ethdev::drop_reason::DropReason;
use ethdev::queue::{RxDriver, RxQueue, Sent, TxDriver, TxQueue};
use ethdev::stats::QueueStats;
use packet::{BURST, Frame};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags};
use virtio::device::{DeviceQueue, RingError, RingSetup};
use virtio::driver::{Buffer, SplitQueue as DriverQueue};
use virtio::memory::{GuestMemory, Region};
use virtio::ring::QueueSize;
use virtio::{Features, NET_HEADER_LEN, NetHeader};

use super::ring::{Ring, RingSlot};
use super::{NetReceiver, NetTransmitter};
use testkit::wait_for;

const BYTES: usize = 4 << 20;
const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7000_0000_0000;
const SIZE: u16 = 128;

/// A guest with one ring, and the slot of the back-end that serves it.
struct Guest {
    memory: DmaArena,
    ring: DriverQueue,
    slot: Arc<RingSlot>,
    call: PeerEvent,
    kick: PeerEvent,
    stats: QueueStats,
    next_buffer: usize,
}

impl Guest {
    fn new(features: Features) -> Self {
        let features = features | Features::VERSION_1;
        let memory = SharedMemory::allocate("guest", BYTES).unwrap();
        let mapping = Arc::new(Mapping::map(memory.fd(), 0, BYTES as u64).unwrap());
        let region = Region { guest_addr: GUEST, user_addr: USER, mapping };
        let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
        let mut memory = DmaArena::shared(memory, GUEST).unwrap();
        let part = memory.take_at(0, 1 << 16).unwrap();
        let size = QueueSize::new(SIZE).unwrap();
        let event_idx = features.contains(Features::EVENT_IDX);
        let mut ring = DriverQueue::new(part, size, event_idx).unwrap();
        assert!(ring.enable_interrupts());
        let setup = place(ring.device_addresses(), 0, features);
        let (call, kick) = (PeerEvent::new().unwrap(), PeerEvent::new().unwrap());
        let slot = RingSlot::new("test".into(), Arc::new(EventFd::new().unwrap())).unwrap();
        slot.edit(|place| {
            let mut running = Ring::new(DeviceQueue::new(table, setup).unwrap(), features);
            running.enabled = true;
            running.call = Some(call.clone().into());
            running.kick = Some(kick.clone());
            *place = Some(Box::new(running));
        });
        let (slot, stats) = (Arc::new(slot), QueueStats::default());
        Self { memory, ring, slot, call, kick, stats, next_buffer: 1 << 16 }
    }

    fn allocate(&mut self, len: usize) -> DmaMemory {
        let at = self.next_buffer;
        self.next_buffer += len.next_multiple_of(64);
        self.memory.slice(at, len).expect("test guest has memory")
    }

    /// Posts a chain to be read by the device: `bytes`, cut into pieces of the given lengths,
    /// the rest in a last one.
    fn post(&mut self, bytes: &[u8], pieces: &[usize]) {
        let mut buffers = Vec::new();
        let mut rest = bytes;
        for piece in pieces.iter().copied().chain([usize::MAX]) {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            rest = later;
            if !now.is_empty() {
                let memory = self.allocate(now.len());
                // SAFETY: `allocate` cut exactly this many bytes from the guest's memory.
                unsafe { memory.host().as_ptr().copy_from_nonoverlapping(now.as_ptr(), now.len()) };
                buffers.push(Buffer::readable(memory));
            }
        }
        self.ring.add(&buffers).unwrap();
    }

    fn frame(bytes: &[u8]) -> Vec<u8> {
        [&[0; NET_HEADER_LEN], bytes].concat()
    }

    /// Posts a chain of buffers for the device to write.
    fn offer(&mut self, lens: &[usize]) -> Vec<DmaMemory> {
        let memory: Vec<DmaMemory> = lens.iter().map(|len| self.allocate(*len)).collect();
        let buffers: Vec<Buffer> = memory.iter().copied().map(Buffer::writable).collect();
        self.ring.add(&buffers).unwrap();
        memory
    }

    fn read(memory: &[DmaMemory], len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in memory {
            for index in 0..piece.len() {
                // SAFETY: inside the piece.
                bytes.push(unsafe { piece.host().add(index).read() });
            }
        }
        bytes.truncate(len);
        bytes
    }

    fn used(&mut self) -> Vec<u32> {
        self.ring.poll_used().unwrap();
        std::iter::from_fn(|| self.ring.next_used().unwrap()).map(|used| used.len).collect()
    }

    fn receive(&self, receiver: &mut NetReceiver) -> Vec<Vec<u8>> {
        receiver.receive(BURST, &self.stats);
        receiver.batch().frames().iter().map(Frame::to_vec).collect()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.stats.snapshot().dropped_for(reason)
    }
}

/// Where a ring of the guest lies for the device, whose parts it has at these addresses.
fn place((desc, avail, used): (u64, u64, u64), base: u32, features: Features) -> RingSetup {
    let [desc, avail, used] = [desc, avail, used].map(|addr| addr - GUEST + USER);
    RingSetup { size: SIZE, desc, avail, used, base, features }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

#[test]
fn frames_are_borrowed_until_released() {
    let mut guest = Guest::new(Features::empty());
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    for len in [60, 64, 1514] {
        guest.post(&Guest::frame(&pattern(len)), &[]);
    }
    assert!(guest.receive(&mut receiver).is_empty(), "nothing was published yet");
    let _ = guest.ring.publish();
    assert_eq!(guest.receive(&mut receiver), [pattern(60), pattern(64), pattern(1514)]);
    assert_eq!(guest.used(), [] as [u32; 0], "the frames still lie in the ring");
    receiver.release();
    assert_eq!(guest.used(), [0, 0, 0]);
    wait_for("the interrupt that the guest wanted", || guest.call.drain().unwrap());
}

#[test]
fn a_depth_is_what_waits_when_it_is_asked_for() {
    let mut guest = Guest::new(Features::empty());
    let stats = Arc::new(QueueStats::default());
    let receiver = NetReceiver::new(Arc::clone(&guest.slot));
    let mut queue = RxQueue::new(Box::new(receiver), Arc::clone(&stats));
    (0..BURST + 3).for_each(|_| guest.post(&Guest::frame(&pattern(60)), &[]));
    let _ = guest.ring.publish();
    ethdev::ask_depths();
    assert_eq!(queue.rx_burst(BURST).frames().len(), BURST);
    let expected = u32::try_from(BURST + 3).unwrap();
    assert_eq!(stats.pressure().depth, Some(expected), "before the burst");
    assert_eq!(queue.rx_burst(BURST).frames().len(), 3);
    let pressure = stats.pressure();
    assert_eq!((pressure.bursts, pressure.full_bursts), (2, 1));
    // Who sleeps is told when something comes.
    assert!(queue.arm());
    assert_eq!(stats.pressure().depth, Some(0));
    queue.disarm();
    guest.slot.edit(Option::take);
    ethdev::ask_depths();
    assert!(queue.rx_burst(BURST).frames().is_empty());
    assert_eq!(stats.pressure().depth, None, "there is no ring");
}

#[test]
fn bursts_without_room_are_counted() {
    let mut guest = Guest::new(Features::empty());
    let stats = Arc::new(QueueStats::default());
    let transmitter = NetTransmitter::new(Arc::clone(&guest.slot));
    let mut queue = TxQueue::new(Box::new(transmitter), Arc::clone(&stats));
    (0..3).for_each(|_| _ = guest.offer(&[128]));
    let _ = guest.ring.publish();
    let frame = pattern(60);
    let burst = [(); 2].map(|()| Frame::from_bytes(&frame));
    ethdev::ask_depths();
    assert_eq!(queue.tx_burst(&burst), 2);
    assert_eq!((stats.pressure().depth, stats.pressure().stalls), (Some(3), 0));
    assert_eq!(queue.tx_burst(&burst), 1);
    assert_eq!(queue.tx_burst(&burst[1..]), 0);
    assert_eq!(stats.pressure().stalls, 2);
}

#[test]
fn headers_and_frames_may_be_cut_anywhere() {
    let mut guest = Guest::new(Features::empty());
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    let frame = pattern(200);
    let cuts: [&[usize]; 4] = [&[12], &[1, 2, 3, 4, 5, 6, 7], &[11, 2, 100], &[12, 13, 1]];
    for pieces in cuts {
        guest.post(&Guest::frame(&frame), pieces);
    }
    let _ = guest.ring.publish();
    assert_eq!(guest.receive(&mut receiver), vec![frame; cuts.len()]);
}

#[test]
fn bad_frames_are_dropped_for_a_reason_and_their_buffers_go_back() {
    let mut guest = Guest::new(Features::empty());
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    guest.post(&Guest::frame(&[0; 13]), &[]);
    guest.post(&[0; 11], &[5]);
    guest.post(&Guest::frame(&[0; 66_000]), &[]);
    guest.post(&Guest::frame(&[0; 66_000]), &[60]);
    let csum = NetHeader { flags: 1, csum_start: 60_000, ..NetHeader::default() }.encode();
    guest.post(&[&csum[..], &[0; 60]].concat(), &[]);
    let gso = NetHeader { gso_type: 1, ..NetHeader::default() }.encode();
    guest.post(&[&gso[..], &[0; 60]].concat(), &[3]);
    guest.offer(&[100]);
    guest.post(&Guest::frame(&pattern(60)), &[]);
    let _ = guest.ring.publish();
    assert_eq!(guest.receive(&mut receiver), [pattern(60)]);
    receiver.release();
    assert_eq!(guest.used().len(), 8);
    assert_eq!(guest.drops(DropReason::TooShort), 2);
    assert_eq!(guest.drops(DropReason::TooLong), 2);
    assert_eq!(guest.drops(DropReason::BadHeader), 2);
    assert_eq!(guest.drops(DropReason::BadDescriptor), 1, "a buffer to write among the sent");
}

#[test]
fn a_disabled_ring_is_drained() {
    let mut guest = Guest::new(Features::empty());
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    guest.slot.edit(|ring| ring.as_mut().unwrap().enabled = false);
    assert!(!guest.slot.is_ready());
    guest.post(&Guest::frame(&pattern(60)), &[]);
    let _ = guest.ring.publish();
    assert!(guest.receive(&mut receiver).is_empty());
    assert_eq!((guest.used().len(), guest.drops(DropReason::QueueDisabled)), (1, 1));
}

#[test]
fn a_ring_that_is_pending_is_left_alone() {
    let mut guest = Guest::new(Features::empty());
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    let slot = Arc::clone(&guest.slot);
    let edit = |enabled, pending| {
        let change = |ring: &mut Ring| (ring.enabled, ring.pending) = (enabled, pending);
        slot.edit(|ring| ring.as_deref_mut().map(change));
    };
    edit(false, true);
    guest.post(&Guest::frame(&pattern(60)), &[]);
    let _ = guest.ring.publish();
    assert!(guest.receive(&mut receiver).is_empty());
    assert_eq!((guest.used().len(), guest.drops(DropReason::QueueDisabled)), (0, 0));
    assert!(receiver.arm(), "nobody looks again and again");
    receiver.disarm();
    edit(true, false);
    assert_eq!(guest.receive(&mut receiver), [pattern(60)]);
}

#[test]
fn a_broken_ring_is_left_alone() {
    let mut guest = Guest::new(Features::empty());
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    let err = PeerEvent::new().unwrap();
    guest.slot.edit(|ring| ring.as_mut().unwrap().set_err(Some(err.clone().into())));
    for _ in 0..SIZE {
        guest.post(&Guest::frame(&pattern(60)), &[]);
    }
    let _ = guest.ring.publish();
    // The available ring starts behind the descriptor table; its index is at offset 2.
    let index = usize::from(SIZE) * 16 + 2;
    // SAFETY: inside the guest's memory.
    unsafe { guest.memory.memory().as_ptr().add(index).cast::<u16>().write(SIZE + 1) };
    assert!(guest.receive(&mut receiver).is_empty());
    wait_for("the front-end is told", || err.drain().unwrap());
    assert!(!guest.slot.is_ready());
    // SAFETY: as above.
    unsafe { guest.memory.memory().as_ptr().add(index).cast::<u16>().write(SIZE) };
    assert!(guest.receive(&mut receiver).is_empty(), "once broken, always broken");
}

/// Whether what its worker sleeps on is readable.
fn is_awake(guest: &Guest) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(guest.slot.wait_fd().unwrap(), PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&now)).unwrap() == 1
}

#[test]
fn an_error_file_that_comes_late_is_told_of_a_ring_that_is_broken_already() {
    for broken in [false, true] {
        let guest = Guest::new(Features::empty());
        guest.slot.edit(|ring| {
            let ring = ring.as_mut().unwrap();
            if broken {
                guest.slot.break_ring(ring, RingError::EndlessChain { head: 0 });
            }
        });
        let err = PeerEvent::new().unwrap();
        guest.slot.edit(|ring| ring.as_mut().unwrap().set_err(Some(err.clone().into())));
        if broken {
            wait_for("the front-end is told", || err.drain().unwrap());
        } else {
            assert!(!err.drain().unwrap());
        }
    }
}

#[test]
fn a_ring_whose_memory_was_taken_away_is_broken() {
    // Of zeroes neither ring looks wrong: a packed one is empty, and so is a split one at 0.
    for packed in [false, true] {
        for transmits in [false, true] {
            let mut features = Features::VERSION_1;
            features.set(Features::RING_PACKED, packed);
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            let file = rustix::fs::memfd_create("guest", flags).unwrap();
            rustix::fs::ftruncate(&file, BYTES as u64).unwrap();
            let mapping = Arc::new(Mapping::map(file.as_fd(), 0, BYTES as u64).unwrap());
            let region = Region { guest_addr: GUEST, user_addr: USER, mapping };
            let table = Arc::new(GuestMemory::new(vec![region]).unwrap());
            let base = if packed { 0x8000 } else { 0 };
            let (desc, avail, used) = (USER, USER + 0x1_0000, USER + 0x2_0000);
            let setup = RingSetup { size: SIZE, desc, avail, used, base, features };
            let err = PeerEvent::new().unwrap();
            let slot =
                Arc::new(RingSlot::new("test".into(), Arc::new(EventFd::new().unwrap())).unwrap());
            slot.edit(|place| {
                let mut ring = Ring::new(DeviceQueue::new(table, setup).unwrap(), features);
                ring.enabled = true;
                ring.set_err(Some(err.clone().into()));
                *place = Some(Box::new(ring));
            });
            let stats = QueueStats::default();
            let burst = || {
                if transmits {
                    let frame = pattern(60);
                    let frames = [Frame::from_bytes(&frame)];
                    NetTransmitter::new(Arc::clone(&slot)).transmit(&frames, &stats);
                } else {
                    NetReceiver::new(Arc::clone(&slot)).receive(32, &stats);
                }
            };
            burst();
            assert!(!err.drain().unwrap() && slot.is_ready());
            rustix::fs::ftruncate(&file, 0).unwrap();
            burst();
            assert!(!slot.is_ready(), "{packed} {transmits}");
            wait_for("the front-end is told", || err.drain().unwrap());
        }
    }
}

/// Bytes of a split ring at its start of memory: a buffer in each page of `at`, to be received into
/// or to send from, all of them available.
fn ring_of_pages(at: u64, receives: bool) -> Vec<u8> {
    let mut bytes = vec![0; 0x1_0000];
    let flags: u16 = if receives { 2 } else { 0 };
    for (id, entry) in (0..u64::from(SIZE)).zip(bytes.chunks_exact_mut(16)) {
        entry[..8].copy_from_slice(&(at + 4096 * id).to_le_bytes());
        entry[8..12].copy_from_slice(&100_u32.to_le_bytes());
        entry[12..14].copy_from_slice(&flags.to_le_bytes());
    }
    let available = [0, SIZE].into_iter().chain(0..SIZE);
    bytes.extend(available.flat_map(u16::to_le_bytes));
    bytes
}

#[test]
fn a_ring_whose_buffers_were_taken_away_is_not_used_for_long() {
    use std::os::unix::fs::FileExt;
    for receives in [false, true] {
        let file = || {
            let file = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&file, BYTES as u64).unwrap();
            std::fs::File::from(file)
        };
        let (rings, buffers) = (file(), file());
        rings.write_all_at(&ring_of_pages(2 * GUEST, receives), 0).unwrap();
        let region = |file: &std::fs::File, times: u64| Region {
            guest_addr: times * GUEST,
            user_addr: times * USER,
            mapping: Arc::new(Mapping::map(file.as_fd(), 0, BYTES as u64).unwrap()),
        };
        let table = GuestMemory::new(vec![region(&rings, 1), region(&buffers, 2)]).unwrap();
        let (desc, avail, used) = (USER, USER + 0x1_0000, USER + 0x2_0000);
        let setup =
            RingSetup { size: SIZE, desc, avail, used, base: 0, features: Features::VERSION_1 };
        let slot =
            Arc::new(RingSlot::new("test".into(), Arc::new(EventFd::new().unwrap())).unwrap());
        slot.edit(|place| {
            let queue = DeviceQueue::new(Arc::new(table), setup).unwrap();
            let mut ring = Ring::new(queue, Features::VERSION_1);
            ring.enabled = true;
            *place = Some(Box::new(ring));
        });
        let stats = QueueStats::default();
        let (frame, mut receiver) = (pattern(60), NetReceiver::new(Arc::clone(&slot)));
        let mut transmitter = NetTransmitter::new(Arc::clone(&slot));
        let mut burst = || {
            if receives {
                transmitter.transmit(&[Frame::from_bytes(&frame)], &stats);
            } else {
                receiver.receive(1, &stats);
                receiver.release();
            }
        };
        burst();
        assert!(slot.is_ready());
        buffers.set_len(0).unwrap();
        burst();
        burst();
        assert!(!slot.is_ready(), "{receives}");
    }
}

#[test]
fn the_control_thread_gets_the_ring_between_bursts_and_wakes_the_worker() {
    let mut guest = Guest::new(Features::empty());
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    assert!(receiver.arm());
    receiver.disarm();
    assert!(!is_awake(&guest));
    let ring = guest.slot.edit(Option::take).unwrap();
    assert_eq!(ring.queue.base(), 0);
    assert!(receiver.arm(), "nothing to poll without a ring");
    guest.slot.edit(|place| *place = Some(ring));
    assert!(is_awake(&guest), "the worker must look at the new ring");
    receiver.disarm();
    assert!(!is_awake(&guest));
    for _ in 0..2 {
        guest.kick.signal().unwrap();
        assert!(is_awake(&guest), "a kick wakes it");
        receiver.disarm();
        assert!(!is_awake(&guest));
    }
    guest.slot.inspect(|ring| assert!(ring.is_some()));
    assert!(!is_awake(&guest), "nothing has changed");
    guest.post(&Guest::frame(&pattern(60)), &[]);
    let _ = guest.ring.publish();
    assert!(!receiver.arm(), "a frame is waiting");
}

fn transmit(guest: &Guest, frames: &[Vec<u8>]) -> Sent {
    let frames: Vec<Frame<'_>> = frames.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
    NetTransmitter::new(Arc::clone(&guest.slot)).transmit(&frames, &guest.stats)
}

#[test]
fn frames_reach_the_guests_buffers_with_a_header_each() {
    let mut guest = Guest::new(Features::MRG_RXBUF);
    let buffers: Vec<_> = (0..3).map(|_| guest.offer(&[1526])).collect();
    let _ = guest.ring.publish();
    let frames = [pattern(60), pattern(1514), pattern(64), pattern(65)];
    assert_eq!(transmit(&guest, &frames), Sent::first(3), "there are three buffers");
    assert_eq!(guest.used(), [72, 1526, 76]);
    let header = NetHeader { num_buffers: 1, ..NetHeader::default() }.encode();
    for (memory, frame) in buffers.iter().zip(&frames) {
        assert_eq!(Guest::read(memory, 12 + frame.len()), [&header[..], frame].concat());
    }
    wait_for("an interrupt", || guest.call.drain().unwrap());
}

#[test]
fn a_long_frame_spans_merged_buffers() {
    let mut guest = Guest::new(Features::MRG_RXBUF);
    let memory: Vec<_> = (0..10).flat_map(|_| guest.offer(&[1000])).collect();
    let _ = guest.ring.publish();
    let frames = [pattern(2500), pattern(60), pattern(9000)];
    assert_eq!(transmit(&guest, &frames), Sent::first(2), "six buffers are too few for the last");
    assert_eq!(guest.used(), [1000, 1000, 512, 72]);
    let header = NetHeader { num_buffers: 3, ..NetHeader::default() }.encode();
    assert_eq!(Guest::read(&memory, 2512), [&header[..], &frames[0]].concat());
}

#[test]
fn without_merging_a_frame_must_fit_one_chain() {
    let mut guest = Guest::new(Features::empty());
    let chain = guest.offer(&[5, 7, 50, 1000]);
    guest.offer(&[100]);
    let _ = guest.ring.publish();
    let frames = [pattern(1050), pattern(89), pattern(88), pattern(60)];
    let sent = transmit(&guest, &frames);
    assert_eq!((sent.consumed, sent.packets()), (3, 2));
    assert_eq!(guest.drops(DropReason::BufferTooSmall), 1, "89 bytes do not fit into 88");
    assert_eq!(guest.used(), [1062, 100]);
    assert_eq!(Guest::read(&chain, 1062)[12..], frames[0]);
}

#[test]
fn buffers_of_the_wrong_direction_are_not_written() {
    let mut guest = Guest::new(Features::MRG_RXBUF);
    guest.post(&pattern(500), &[]);
    guest.offer(&[500]);
    let _ = guest.ring.publish();
    assert_eq!(transmit(&guest, &[pattern(60)]), Sent::first(1));
    assert_eq!(guest.used().len(), 2);
    assert_eq!(guest.slot.bad_chains.get(), 1);
}

#[test]
fn tiny_buffers_cannot_be_overrun() {
    // The header alone does not fit: DPDK's batch path once underflowed here.
    for len in [0, 1, 11, 12] {
        let mut guest = Guest::new(Features::empty());
        guest.offer(&[len]);
        let _ = guest.ring.publish();
        let sent = transmit(&guest, &[pattern(60)]);
        assert_eq!((sent.consumed, sent.packets()), (1, 0), "buffer of {len} bytes");
    }
}

#[test]
fn frames_wait_while_the_control_thread_edits_the_ring() {
    let mut guest = Guest::new(Features::empty());
    guest.offer(&[100]);
    let _ = guest.ring.publish();
    let sent = guest.slot.edit(|_| transmit(&guest, &[pattern(60)]));
    assert_eq!(sent, Sent::NONE);
    assert_eq!(transmit(&guest, &[pattern(60)]), Sent::first(1));
}

#[test]
fn without_a_ring_frames_are_dropped() {
    let guest = Guest::new(Features::empty());
    guest.slot.edit(Option::take);
    let sent = transmit(&guest, &[pattern(60), pattern(61)]);
    assert_eq!((sent.consumed, sent.packets()), (2, 0));
    assert_eq!(guest.drops(DropReason::LinkDown), 2);
}

proptest! {
    /// Frames of any length through chains and merged buffers of any shape arrive whole.
    #[test]
    fn frames_arrive_whole(
        lens in prop::collection::vec(14_usize..9000, 1..12),
        chains in prop::collection::vec(prop::collection::vec(12_usize..3000, 1..4), 60),
        mergeable in any::<bool>(),
    ) {
        let features = if mergeable { Features::MRG_RXBUF } else { Features::empty() };
        let mut guest = Guest::new(features);
        let memory: Vec<_> = chains.iter().take(40).map(|chain| guest.offer(chain)).collect();
        let _ = guest.ring.publish();
        let frames: Vec<Vec<u8>> = lens.iter().map(|len| pattern(*len)).collect();
        let sent = transmit(&guest, &frames);
        let delivered: Vec<&Vec<u8>> = (0..sent.consumed)
            .filter(|index| sent.dropped & (1 << index) == 0)
            .map(|index| &frames[index])
            .collect();
        let used = guest.used();
        let mut buffers = memory.iter().zip(used);
        for frame in delivered {
            let (first, len) = buffers.next().unwrap();
            let mut bytes = Guest::read(first, len as usize);
            let (header, data) = bytes.split_at(12);
            let header = NetHeader::decode(header.try_into().unwrap());
            let mut whole = data.to_vec();
            for _ in 1..header.num_buffers {
                let (next, len) = buffers.next().unwrap();
                bytes = Guest::read(next, len as usize);
                whole.extend_from_slice(&bytes);
            }
            prop_assert_eq!(&whole, frame);
        }
        prop_assert!(buffers.next().is_none());
    }
}

#[test]
fn a_guest_that_has_moved_here_is_announced_once() {
    let mut guest = Guest::new(Features::empty());
    let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
    receiver.disarm();
    guest.slot.edit(|ring| ring.as_mut().unwrap().announce = Some([2, 0, 0, 0, 0, 9]));
    assert!(is_awake(&guest), "a worker that sleeps is woken");
    // What the guest sends comes first.
    guest.post(&Guest::frame(&[7; 60]), &[]);
    let _ = guest.ring.publish();
    receiver.receive(32, &guest.stats);
    assert_eq!(receiver.batch().frames()[0].to_vec(), [7; 60]);
    receiver.receive(32, &guest.stats);
    let frames = receiver.batch().frames();
    assert_eq!(frames.len(), 1);
    assert_eq!(
        frames[0].to_vec()[..14],
        [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 0x80, 0x35]
    );
    receiver.receive(32, &guest.stats);
    assert!(receiver.batch().frames().is_empty());
    // A guest that is not connected to the network is not announced.
    guest.slot.edit(|ring| {
        let ring = ring.as_mut().unwrap();
        (ring.enabled, ring.announce) = (false, Some([2, 0, 0, 0, 0, 9]));
    });
    receiver.receive(32, &guest.stats);
    assert!(receiver.batch().frames().is_empty());
}
