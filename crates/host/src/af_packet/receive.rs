//! The receive side: frames are used in the slots where the kernel has put them.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use eal::Epoll;
use ethdev::{DropReason, QueueStats, RxDriver};
use packet::headers::ethernet::TAG_LEN;
use packet::{BURST, BadOffload, Capabilities, ETHERNET_HEADER_LEN, FrameBatch, OffloadRequest};
use rustix::io::readv;
use virtio::{LEGACY_NET_HEADER_LEN, NET_HEADER_LEN, NetHeader};

use super::ring::{Received, Slots};
use super::socket::Receiver;
use crate::kernel::link::LinkState;
use crate::kernel::socket::clear_error;
use crate::kernel::wait::Waiter;

/// Bytes of both addresses, behind which a VLAN tag belongs.
const ADDRESSES: usize = 12;

/// EtherType of a VLAN tag of which the kernel tells no other (IEEE 802.1Q).
const VLAN: u16 = 0x8100;

/// Room for a frame that does not fit a slot: a tag in front, and one byte more than the longest
/// frame has, so that a longer one is noticed.
const LARGE: usize = TAG_LEN + u16::MAX as usize + 1;

/// The receive side of a queue.
#[derive(Debug)]
pub(super) struct PacketRx {
    /// Dropped first: its frames point into `slots` and `large`.
    batch: FrameBatch,
    slots: Slots,
    /// Memory for frames that do not fit a slot, one for each frame of a burst: resident only
    /// once there are such. Raw, since frames point into it while the next is filled.
    large: NonNull<[[u8; LARGE]]>,
    fd: Arc<OwnedFd>,
    state: Arc<LinkState>,
    /// Slots of the burst.
    held: u32,
    waiter: Waiter,
}

// SAFETY: `large` belongs to this value alone, as a Box would.
unsafe impl Send for PacketRx {}

/// What is known of a frame: where it lies, how long it is, and its net header.
type Located = (NonNull<u8>, usize, [u8; LEGACY_NET_HEADER_LEN]);

impl PacketRx {
    pub(super) fn new(receiver: Receiver, state: Arc<LinkState>, wait: Arc<Epoll>) -> Self {
        let Receiver { slots, fd } = receiver;
        let waiter = Waiter::new(wait, &*fd);
        let large = vec![[0; LARGE]; BURST].into_boxed_slice();
        Self {
            batch: FrameBatch::with_segments(0),
            slots,
            large: NonNull::from(Box::leak(large)),
            fd,
            state,
            held: 0,
            waiter,
        }
    }

    fn take(&mut self, max: usize, stats: &QueueStats) {
        while self.batch.frames().len() < max && self.held < self.slots.count() {
            let status = self.slots.status(self.held);
            if status & libc::TP_STATUS_USER == 0 {
                break;
            }
            let received = self.slots.received(self.held, status);
            if let Err(reason) = self.take_one(&received) {
                stats.count_drops(reason, 1);
            }
            self.held += 1;
        }
    }

    /// Makes a frame of what is in the slot.
    #[inline]
    fn take_one(&mut self, received: &Received) -> Result<(), DropReason> {
        let (mut first, mut len, header) = if received.status & libc::TP_STATUS_COPY == 0 {
            self.in_slot(received)?
        } else {
            self.in_queue()?
        };
        if len < ETHERNET_HEADER_LEN {
            return Err(DropReason::TooShort);
        }
        let mut inserted = 0;
        if received.status & libc::TP_STATUS_VLAN_VALID != 0 {
            // SAFETY: both `in_slot` and `in_queue` leave room for a tag in front of at least an
            // Ethernet header.
            first = unsafe { insert_tag(first, received) };
            len += TAG_LEN;
            inserted = TAG_LEN;
        }
        let len = u16::try_from(len).map_err(|_| DropReason::TooLong)?;
        // SAFETY: the slot is ours until `release` gives it back, which clears the batch first;
        // memory for large frames is this value's own, and used for one frame of a burst.
        if !unsafe { self.batch.push_private(first, len) } {
            return Err(DropReason::NoBuffer);
        }
        if header != [0; LEGACY_NET_HEADER_LEN] {
            self.set_offload(header, inserted)?;
        }
        Ok(())
    }

    /// The frame, which lies in the slot.
    #[inline]
    fn in_slot(&self, received: &Received) -> Result<Located, DropReason> {
        let (at, len) = (usize::from(received.at), received.here as usize);
        if received.here < received.len {
            // The rest found no room.
            return Err(DropReason::BufferTooSmall);
        }
        let first = self.slots.bytes(self.held, at, len).ok_or(DropReason::BadDescriptor)?;
        // The net header lies in front of the frame, and both behind the kernel's header. With
        // a tag inserted, the frame's beginning will be where the net header was.
        let header_at = at.checked_sub(LEGACY_NET_HEADER_LEN);
        let header_at = header_at.filter(|at| *at >= size_of::<libc::tpacket2_hdr>());
        let header = header_at.ok_or(DropReason::BadDescriptor)?;
        let header = self.slots.bytes(self.held, header, LEGACY_NET_HEADER_LEN);
        let header = header.ok_or(DropReason::BadDescriptor)?.cast();
        // SAFETY: the header's bytes lie in the slot, which is ours; any bytes will do.
        Ok((first, len, unsafe { header.read() }))
    }

    /// The frame, which does not fit the slot and waits in the socket's queue.
    #[cold]
    fn in_queue(&self) -> Result<Located, DropReason> {
        let index = self.batch.frames().len();
        if index >= self.large.len() {
            return Err(DropReason::NoBuffer);
        }
        // SAFETY: the memory lives as long as this value, `index` is less than its length, and
        // frames of this burst use what is below `index` only.
        let buffer = unsafe { &mut *self.large.cast::<[u8; LARGE]>().add(index).as_ptr() };
        let Some((_, room)) = buffer.split_at_mut_checked(TAG_LEN) else {
            return Err(DropReason::NoBuffer);
        };
        let mut header = [0; LEGACY_NET_HEADER_LEN];
        let pieces = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(room)];
        let len = readv(&self.fd, pieces).map_err(|_| DropReason::BufferTooSmall)?;
        let len = len.checked_sub(LEGACY_NET_HEADER_LEN).ok_or(DropReason::BadHeader)?;
        Ok((NonNull::from(room).cast(), len, header))
    }

    /// Gives the last frame what its net header says, of a frame that had `inserted` bytes less.
    #[cold]
    fn set_offload(
        &mut self,
        header: [u8; LEGACY_NET_HEADER_LEN],
        inserted: usize,
    ) -> Result<(), DropReason> {
        let request = request(header, inserted).ok_or(BadOffload::NotNegotiated);
        let set = request.and_then(|request| self.batch.set_offload(&request, Capabilities::all()));
        set.map_err(|error| {
            tracing::debug!(%error, "a frame of the kernel's is dropped");
            DropReason::BadHeader
        })
    }
}

/// What a net header of the kernel's asks for, once `inserted` bytes are in front of the headers
/// that it is about. It is in the machine's byte order.
fn request(header: [u8; LEGACY_NET_HEADER_LEN], inserted: usize) -> Option<OffloadRequest> {
    let mut whole = [0; NET_HEADER_LEN];
    whole.iter_mut().zip(header).for_each(|(to, from)| *to = from);
    if cfg!(target_endian = "big") {
        let (_, words) = whole.split_at_mut(2);
        words.as_chunks_mut::<2>().0.iter_mut().for_each(|word| word.reverse());
    }
    let mut request = NetHeader::decode(whole).request()?;
    let inserted = u16::try_from(inserted).ok()?;
    if request.needs_csum {
        request.csum_start = request.csum_start.checked_add(inserted)?;
    }
    Some(request)
}

/// Puts the tag that the kernel has taken out back in, and returns the frame's new beginning.
///
/// # Safety
/// `first` must be the first byte of a frame of at least an Ethernet header, and the bytes of a
/// tag in front of it free; all of that must be ours alone.
unsafe fn insert_tag(first: NonNull<u8>, received: &Received) -> NonNull<u8> {
    let tells_type = received.status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let ether_type = if tells_type { received.vlan_type } else { VLAN };
    let ([t0, t1], [c0, c1]) = (ether_type.to_be_bytes(), received.vlan_control.to_be_bytes());
    // SAFETY: the caller vouches for TAG_LEN bytes in front and more than ADDRESSES behind.
    unsafe {
        let start = first.sub(TAG_LEN);
        start.copy_from(first, ADDRESSES);
        start.add(ADDRESSES).cast::<[u8; TAG_LEN]>().write([t0, t1, c0, c1]);
        start
    }
}

impl RxDriver for PacketRx {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        self.release();
        if !self.state.is_alive() {
            return;
        }
        self.take(max.min(BURST), stats);
        if self.batch.frames().is_empty() {
            // Frames that were left out.
            self.release();
        }
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        self.batch.clear();
        for ahead in 0..self.held {
            self.slots.set_status(ahead, libc::TP_STATUS_KERNEL);
        }
        self.slots.advance(self.held);
        self.held = 0;
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.waiter.as_fd())
    }

    fn arm(&mut self) -> bool {
        if !self.state.is_alive() {
            return true;
        }
        // An interface that went down leaves an error, which would wake for ever.
        clear_error(self.fd.as_fd());
        let armed = self.waiter.arm(&*self.fd) && self.slots.status(0) & libc::TP_STATUS_USER == 0;
        if !armed {
            self.disarm();
        }
        armed
    }

    fn disarm(&mut self) {
        self.waiter.disarm(&*self.fd);
    }
}

impl Drop for PacketRx {
    fn drop(&mut self) {
        self.disarm();
        self.batch.clear();
        // SAFETY: it comes from `Box::leak` in `new` and is freed only here; no frame is left.
        drop(unsafe { Box::from_raw(self.large.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use eal::EventFd;
    use packet::Frame;

    use super::super::ring::tests::{put, slots};
    use super::*;

    const SLOTS: u32 = 8;

    fn queue() -> (PacketRx, QueueStats) {
        // It stands for the socket.
        let fd = Arc::new(EventFd::new().unwrap().into());
        let receiver = Receiver { slots: slots(SLOTS, 2048), fd };
        let state = Arc::new(LinkState::attached("AF_PACKET", "test0", true, 1500));
        let wait = Arc::new(Epoll::new().unwrap());
        (PacketRx::new(receiver, state, wait), QueueStats::default())
    }

    fn received(status: u32, len: u32, at: u16) -> Received {
        let status = status | libc::TP_STATUS_USER;
        Received { status, len, here: len, at, ..Received::default() }
    }

    fn frames(queue: &mut PacketRx, stats: &QueueStats) -> Vec<Vec<u8>> {
        queue.receive(BURST, stats);
        queue.batch().frames().iter().map(Frame::to_vec).collect()
    }

    #[test]
    fn frames_are_received_in_place_and_slots_go_back() {
        let (mut queue, stats) = queue();
        for round in 0..5_u8 {
            for ahead in 0..6 {
                put(&queue.slots, ahead, &received(0, 60, 76), &[round; 60]);
            }
            assert_eq!(frames(&mut queue, &stats), vec![vec![round; 60]; 6]);
            queue.release();
            assert!((0..SLOTS).all(|ahead| queue.slots.status(ahead) == 0));
        }
    }

    #[test]
    fn lengths_and_places_that_cannot_be_are_refused() {
        let (mut queue, stats) = queue();
        let bad = [
            // Over the end, in the kernel's header, cut short, no frame.
            received(0, 1973, 76),
            received(0, u32::MAX, 76),
            received(0, 60, 2040),
            received(0, 60, 41),
            received(0, 60, 0),
            Received { here: 59, ..received(0, 60, 76) },
            received(0, 13, 76),
        ];
        for (ahead, header) in (0..).zip(&bad) {
            put(&queue.slots, ahead, header, &[]);
        }
        put(&queue.slots, 7, &received(0, 1972, 76), &[7; 1972]);
        assert_eq!(frames(&mut queue, &stats), [vec![7; 1972]]);
        let stats = stats.snapshot();
        assert_eq!(stats.dropped_for(DropReason::BadDescriptor), 5);
        assert_eq!(stats.dropped_for(DropReason::BufferTooSmall), 1);
        assert_eq!(stats.dropped_for(DropReason::TooShort), 1);
    }

    #[test]
    fn a_ring_of_bad_frames_only_goes_back_at_once() {
        let (mut queue, stats) = queue();
        for ahead in 0..SLOTS {
            put(&queue.slots, ahead, &received(0, 60, 0), &[]);
        }
        assert!(frames(&mut queue, &stats).is_empty());
        assert!((0..SLOTS).all(|ahead| queue.slots.status(ahead) == 0));
    }

    #[test]
    fn a_tag_is_put_back_where_it_was() {
        let (mut queue, stats) = queue();
        let bytes: Vec<u8> = (0..60).collect();
        let valid = libc::TP_STATUS_VLAN_VALID;
        let mut header = received(valid | libc::TP_STATUS_VLAN_TPID_VALID, 60, 76);
        (header.vlan_control, header.vlan_type) = (0x2005, 0x88A8);
        put(&queue.slots, 0, &header, &bytes);
        put(&queue.slots, 1, &Received { status: valid | 1, ..header }, &bytes);
        let tagged = |tag: [u8; 4]| [&bytes[..12], &tag, &bytes[12..]].concat();
        assert_eq!(
            frames(&mut queue, &stats),
            [tagged([0x88, 0xA8, 0x20, 5]), tagged([0x81, 0x00, 0x20, 5])]
        );
    }

    #[test]
    fn a_net_header_is_about_the_frame_with_its_tag() {
        // Flags, kind, then lengths and places in the machine's byte order.
        let words = [54_u16, 1448, 34, 16].map(u16::to_ne_bytes).concat();
        let header: Vec<u8> = [vec![1, 1], words].concat();
        let header = header.try_into().unwrap();
        let found = request(header, 4).unwrap();
        assert!(found.needs_csum && found.gso.is_some());
        assert_eq!((found.csum_start, found.csum_offset, found.gso_size), (38, 16, 1448));
        let mut unknown = header;
        unknown[1] = 77;
        assert!(request(unknown, 0).is_none());
    }
}
