//! The transmit side: frames are copied into the slots of a ring, and the kernel is called once
//! per burst.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use ethdev::{DropReason, QueueStats, Sent, TxDriver};
use packet::{Capabilities, ETHERNET_HEADER_LEN, Frame, MAX_FRAME_LEN};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use virtio::{LEGACY_NET_HEADER_LEN, NetHeader};

use super::ring::Slots;
use super::socket::Sender;
use crate::gather::{MAX_PIECES, write_frame};
use crate::kernel::link::LinkState;

/// How often the kernel is called for a burst that it does not take at once.
const TRIES: u32 = 8;

/// The transmit side of a queue.
#[derive(Debug)]
pub(super) struct PacketTx {
    slots: Slots,
    ring: OwnedFd,
    plain: OwnedFd,
    state: Arc<LinkState>,
    takes: Capabilities,
    /// Slots filled since the kernel was last called.
    filled: u32,
    /// The kernel has not taken all that it was given.
    waiting: bool,
    /// For frames of too many pieces; empty until there is one.
    copy: Vec<u8>,
}

/// What became of a frame.
enum Fate {
    Sent,
    NoRoom,
    Dropped(DropReason),
}

impl PacketTx {
    pub(super) fn new(sender: Sender, state: Arc<LinkState>) -> Self {
        let Sender { slots, ring, plain } = sender;
        let takes = takes(rustix::system::uname().release().to_bytes());
        Self { slots, ring, plain, state, takes, filled: 0, waiting: false, copy: Vec::new() }
    }

    fn send(&mut self, frame: &Frame<'_>, max_len: usize) -> Fate {
        if frame.len() < ETHERNET_HEADER_LEN {
            return Fate::Dropped(DropReason::TooShort);
        }
        if frame.wire_len() > max_len {
            return Fate::Dropped(DropReason::TooLong);
        }
        let with_header = LEGACY_NET_HEADER_LEN + frame.len();
        if frame.offload().gso().is_some() || self.slots.to_send(0, with_header).is_none() {
            return self.send_large(frame);
        }
        if self.slots.status(0) != libc::TP_STATUS_AVAILABLE {
            return Fate::NoRoom;
        }
        let Some(to) = self.slots.to_send(0, with_header) else { return Fate::NoRoom };
        let header = encode(net_header(frame));
        // SAFETY: the slot is available, so it is ours, and has room for header and frame.
        unsafe {
            to.cast::<[u8; LEGACY_NET_HEADER_LEN]>().write(header);
            let to: NonNull<u8> = to.add(LEGACY_NET_HEADER_LEN);
            if !frame.copy_first_to_ptr(to) {
                frame.copy_rest_to_ptr(to);
            }
        }
        self.slots.set_status(0, libc::TP_STATUS_SEND_REQUEST);
        self.slots.advance(1);
        self.filled += 1;
        Fate::Sent
    }

    /// Sends a frame that does not fit a slot or is to be cut, behind those before it.
    #[cold]
    fn send_large(&mut self, frame: &Frame<'_>) -> Fate {
        self.wake();
        if self.waiting {
            return Fate::NoRoom;
        }
        loop {
            let Err(error) = self.write(frame) else { return Fate::Sent };
            return match Errno::from_io_error(&error) {
                Some(Errno::INTR) => continue,
                Some(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Fate::NoRoom,
                Some(Errno::NETDOWN | Errno::NXIO | Errno::NODEV) => {
                    Fate::Dropped(DropReason::LinkDown)
                }
                // A peer took the frame's memory away.
                Some(Errno::FAULT) => Fate::Dropped(DropReason::BadDescriptor),
                Some(Errno::MSGSIZE) => Fate::Dropped(DropReason::TooLong),
                _ => Fate::Dropped(DropReason::DeviceError),
            };
        }
    }

    fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let header = encode(NetHeader::for_offload(frame.offload(), 0));
        if frame.body().len() < MAX_PIECES {
            return write_frame(self.plain.as_fd(), &header, frame);
        }
        self.copy.resize(MAX_FRAME_LEN, 0);
        let len = frame.copy_to(&mut self.copy);
        let bytes = self.copy.get(..len).unwrap_or_default();
        let whole = Frame::from_bytes(bytes);
        write_frame(self.plain.as_fd(), &header, &whole)
    }

    /// Has the kernel send what is in the ring.
    fn wake(&mut self) {
        if self.filled == 0 && !self.waiting {
            return;
        }
        self.filled = 0;
        // The slot that was filled last.
        let last = self.slots.count() - 1;
        for _ in 0..TRIES {
            // An error is about one frame, or about now; the slots tell what is left.
            let _ = send(&self.ring, &[], SendFlags::DONTWAIT);
            self.waiting = self.slots.status(last) & libc::TP_STATUS_SEND_REQUEST != 0;
            if !self.waiting {
                break;
            }
        }
    }
}

/// The net header of a frame that goes into a slot. As the length of the headers it gives the
/// frame's: so much the kernel copies at once, where it would otherwise refer to the slot, and
/// copy later what passes on to another namespace.
fn net_header(frame: &Frame<'_>) -> NetHeader {
    let hdr_len = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    NetHeader { hdr_len, ..NetHeader::for_offload(frame.offload(), 0) }
}

/// A net header in the machine's byte order, as packet sockets have it.
fn encode(header: NetHeader) -> [u8; LEGACY_NET_HEADER_LEN] {
    let mut bytes = [0; LEGACY_NET_HEADER_LEN];
    bytes.iter_mut().zip(header.encode()).for_each(|(to, from)| *to = from);
    if cfg!(target_endian = "big") {
        let (_, words) = bytes.split_at_mut(2);
        words.as_chunks_mut::<2>().0.iter_mut().for_each(|word| word.reverse());
    }
    bytes
}

/// What a kernel of this release takes: large datagrams since Linux 6.2. It cuts no segment that
/// came to it inside a tunnel, since nothing tells it where the headers inside are.
fn takes(release: &[u8]) -> Capabilities {
    let text = String::from_utf8_lossy(release);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0_u32, 0_u32),
    };
    let datagrams = Capabilities::USO4 | Capabilities::USO6;
    if version >= (6, 2) { Capabilities::VIRTIO } else { Capabilities::VIRTIO - datagrams }
}

impl TxDriver for PacketTx {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        if !self.state.is_alive() {
            return Sent::NONE;
        }
        if !self.state.is_up() {
            return Sent::all_dropped(frames.len(), stats, DropReason::LinkDown);
        }
        let max_len = self.state.max_len();
        let mut sent = Sent::NONE;
        for frame in frames {
            match self.send(frame, max_len) {
                Fate::Sent => sent.add_sent(),
                Fate::Dropped(reason) => sent.add_dropped(stats, reason),
                Fate::NoRoom => break,
            }
        }
        self.wake();
        sent
    }

    fn takes(&self) -> Capabilities {
        self.takes
    }

    fn is_ready(&self) -> bool {
        self.state.is_alive()
    }

    fn flush(&mut self) -> bool {
        if !self.waiting || !self.state.is_up() {
            return false;
        }
        self.wake();
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_takes_depends_on_its_release() {
        let all = Capabilities::VIRTIO;
        for release in ["6.2", "6.18.44-generic", "7.0.0-rc1", "10.1"] {
            assert_eq!(takes(release.as_bytes()), all, "{release}");
        }
        for release in ["6.1.0-37-amd64", "5.15", "", "x.y", "6", "4.99999999999"] {
            assert!(!takes(release.as_bytes()).contains(Capabilities::USO4), "{release}");
        }
    }

    #[test]
    fn a_frame_in_a_slot_is_all_header() {
        let bytes = [1; 100];
        let header = net_header(&Frame::from_bytes(&bytes));
        assert_eq!(encode(header)[2..4], 100_u16.to_ne_bytes());
        assert_eq!(encode(header)[..2], [0, 0]);
    }
}
