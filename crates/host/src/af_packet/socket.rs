//! Packet sockets and their rings: for each queue one to receive, one to send from a ring, and
//! one to send what does not go by the ring. Facts: packet(7), Linux
//! `Documentation/networking/packet_mmap.rst`.
//!
//! The rings are of version 2, where each slot has a frame. Version 3 packs frames into blocks,
//! which saves memory and suits a recorder, but a block is only handed over when it is full or
//! after a millisecond or more, which no switch can wait. Frames that are longer than a slot,
//! such as those that the kernel has put together from many, come through the socket's queue.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::ring::Slots;
use crate::interfaces::says_gone;
use crate::kernel::interface::{NotOpened, socket_refused};
use crate::kernel::memory::Pages;
use crate::kernel::socket::{enlarge_send_buffer, option, packet_socket, set_number, set_option};

/// Bytes of the smallest slot: the kernel's header and a frame of 1500 bytes with room to spare.
const SMALLEST_SLOT: usize = 2048;

/// Bytes of the largest slot. Longer frames are few, and pay for a system call each.
const LARGEST_SLOT: usize = 16 << 10;

/// Bytes of the kernel's header, the net header and padding in front of a frame in a slot.
const SLOT_HEADER: usize = 96;

/// Bytes of a block of the ring, which the kernel allocates in one piece.
const BLOCK: usize = 64 << 10;

/// Room for long frames that wait for us, in bytes of kernel memory.
const RECEIVE_BUFFER: c_int = 16 << 20;

/// What rings look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Slots, a power of two.
    slots: u32,
    slot_len: usize,
}

impl Shape {
    /// Rings of `slots` frames of up to `frame_len` bytes, as far as that is reasonable.
    pub(super) fn new(slots: u32, frame_len: usize) -> Self {
        let wanted = (frame_len + SLOT_HEADER).clamp(SMALLEST_SLOT, LARGEST_SLOT);
        Self { slots, slot_len: wanted.next_power_of_two() }
    }

    fn request(self) -> io::Result<libc::tpacket_req> {
        let len = self.slots as usize * self.slot_len;
        let number = |value: usize| u32::try_from(value).map_err(io::Error::other);
        Ok(libc::tpacket_req {
            tp_block_size: number(BLOCK)?,
            tp_block_nr: number(len / BLOCK)?,
            tp_frame_size: number(self.slot_len)?,
            tp_frame_nr: self.slots,
        })
    }

    /// Makes a ring of a socket, and maps it.
    fn ring(self, fd: BorrowedFd<'_>, which: c_int) -> io::Result<Slots> {
        let request = self.request()?;
        // SAFETY: PACKET_RX_RING and PACKET_TX_RING take a tpacket_req for version 2, which has
        // no padding and no address.
        unsafe { set_option(fd, libc::SOL_PACKET, which, &request)? };
        let pages = Pages::of(fd, 0, self.slots as usize * self.slot_len)?;
        Slots::new(pages, self.slots, self.slot_len)
            .ok_or_else(|| io::Error::other("the ring does not fit its mapping"))
    }
}

/// Why a socket could not be opened.
#[derive(Debug)]
pub(super) struct Failure {
    step: &'static str,
    cause: io::Error,
}

const OPENING: &str = "open";

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |cause| Failure { step, cause }
}

impl From<Failure> for NotOpened {
    fn from(Failure { step, cause }: Failure) -> Self {
        match step {
            OPENING => Self::Refused(opening_refused(&cause)),
            _ if says_gone(&cause) => Self::Gone,
            _ => Self::Refused(format!("cannot {step}: {cause}")),
        }
    }
}

fn opening_refused(cause: &io::Error) -> String {
    socket_refused(cause, "AF_PACKET", "CAP_NET_RAW")
}

/// Whether this process may open packet sockets; the error is the reason.
pub(super) fn check_rights() -> Result<(), String> {
    packet_socket().map(drop).map_err(|cause| opening_refused(&cause))
}

/// Whether a socket is still bound to interface `ifindex`: the kernel unbinds it when the
/// interface is deleted or leaves for another network namespace, should it come back or not.
pub(super) fn is_bound(fd: BorrowedFd<'_>, ifindex: u32) -> bool {
    let mut address = address(0, 0);
    let Ok(mut len) = libc::socklen_t::try_from(size_of_val(&address)) else { return false };
    let to = (&raw mut address).cast();
    // SAFETY: the kernel writes at most `len` bytes, which is what the address has room for; any
    // bytes make an address.
    let result = unsafe { libc::getsockname(fd.as_raw_fd(), to, &raw mut len) };
    result == 0 && u32::try_from(address.sll_ifindex) == Ok(ifindex)
}

/// What all sockets need; to be called before there is a ring.
fn prepare(fd: BorrowedFd<'_>) -> Result<(), Failure> {
    let set = |name, value| set_number(fd, libc::SOL_PACKET, name, value);
    let version = libc::tpacket_versions::TPACKET_V2 as c_int;
    set(libc::PACKET_VERSION, version).map_err(failed("choose version 2 of rings"))?;
    set(libc::PACKET_VNET_HDR, 1).map_err(failed("have net headers in front of frames"))
}

const fn address(protocol: u16, ifindex: c_int) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        #[allow(clippy::cast_possible_truncation, reason = "a constant that fits")]
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

/// Binds a socket to an interface; it receives frames of `protocol`, if that is not 0.
fn bind(fd: BorrowedFd<'_>, ifindex: u32, protocol: c_int) -> io::Result<()> {
    let protocol = u16::try_from(protocol).map_err(io::Error::other)?;
    let address = address(protocol, c_int::try_from(ifindex).map_err(io::Error::other)?);
    let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the address is one of this family, and as long as it says.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket that receives, and its ring.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) slots: Slots,
    pub(super) fd: Arc<OwnedFd>,
}

impl Receiver {
    pub(super) fn open(ifindex: u32, shape: Shape) -> Result<Self, Failure> {
        let fd = packet_socket().map_err(failed(OPENING))?;
        prepare(fd.as_fd())?;
        let set = |name, value| set_number(fd.as_fd(), libc::SOL_PACKET, name, value);
        // What the host itself sends is not what arrives.
        set(libc::PACKET_IGNORE_OUTGOING, 1)
            .map_err(failed("leave out what the host sends (Linux 4.20 or later)"))?;
        set(libc::PACKET_COPY_THRESH, 1).map_err(failed("have long frames queued"))?;
        let level = libc::SOL_SOCKET;
        if set_number(fd.as_fd(), level, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
            // With less room, more long frames are dropped.
            let _ = set_number(fd.as_fd(), level, libc::SO_RCVBUF, RECEIVE_BUFFER);
        }
        let slots = shape
            .ring(fd.as_fd(), libc::PACKET_RX_RING)
            .map_err(failed("make a ring to receive"))?;
        bind(fd.as_fd(), ifindex, libc::ETH_P_ALL).map_err(failed("bind to the interface"))?;
        Ok(Self { slots, fd: Arc::new(fd) })
    }

    /// Joins the group of sockets among which flows are spread, or makes a new one, and returns
    /// its number.
    pub(super) fn join(&self, group: Option<u16>) -> io::Result<u16> {
        let kind = libc::PACKET_FANOUT_HASH;
        let (id, kind) = match group {
            Some(id) => (id, kind),
            None => (0, kind | libc::PACKET_FANOUT_FLAG_UNIQUEID),
        };
        let value = (kind << 16 | u32::from(id)).cast_signed();
        set_number(self.fd.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, value)?;
        let mut joined: u32 = 0;
        // SAFETY: any bytes make a number.
        unsafe {
            option(self.fd.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, &mut joined)?;
        }
        let [low, high, ..] = joined.to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }

    /// Forgets everything received so far.
    pub(super) fn discard(&mut self) {
        self.slots.discard();
        // Long frames that belong to the slots.
        while rustix::net::recv(&self.fd, &mut [0_u8; 1], rustix::net::RecvFlags::DONTWAIT).is_ok()
        {
        }
    }
}

/// Sockets that send, and the ring of one of them.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) slots: Slots,
    /// With the ring, past the queueing discipline or through it.
    pub(super) ring: OwnedFd,
    /// For frames that do not fit a slot, or are to be cut: only the way through the queueing
    /// discipline cuts them.
    pub(super) plain: OwnedFd,
}

impl Sender {
    pub(super) fn open(ifindex: u32, shape: Shape, qdisc: bool) -> Result<Self, Failure> {
        let ring = packet_socket().map_err(failed(OPENING))?;
        prepare(ring.as_fd())?;
        let set = |name, value| set_number(ring.as_fd(), libc::SOL_PACKET, name, value);
        // A frame that the kernel refuses must not stop those behind it.
        set(libc::PACKET_LOSS, 1).map_err(failed("have refused frames left out"))?;
        // Past it go frames that no other packet socket sees, such as tcpdump's.
        let bypass = i32::from(!qdisc);
        set(libc::PACKET_QDISC_BYPASS, bypass).map_err(failed("bypass the queueing discipline"))?;
        let slots = shape
            .ring(ring.as_fd(), libc::PACKET_TX_RING)
            .map_err(failed("make a ring to send"))?;
        let plain = packet_socket().map_err(failed(OPENING))?;
        prepare(plain.as_fd())?;
        for fd in [&ring, &plain] {
            enlarge_send_buffer(fd.as_fd());
            bind(fd.as_fd(), ifindex, 0).map_err(failed("bind to the interface"))?;
        }
        Ok(Self { slots, ring, plain })
    }
}

/// Frames that a socket has dropped for lack of room since the last call.
pub(super) fn drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    // SAFETY: any bytes make two numbers.
    unsafe { option(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, &mut stats)? };
    Ok(stats.tp_drops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_room_for_the_interface_s_frames() {
        for (mtu, slot) in [(68, 2048), (1500, 2048), (1934, 2048), (1935, 4096), (9000, 16_384)] {
            let shape = Shape::new(1024, mtu + 18);
            assert_eq!(shape.slot_len, slot, "{mtu}");
        }
        assert_eq!(Shape::new(64, 70_000).slot_len, LARGEST_SLOT);
        for slots in [64, 1024, 32_768] {
            for len in [0, 2_000, 9_000, 70_000] {
                let request = Shape::new(slots, len).request().unwrap();
                let per_block = request.tp_block_size / request.tp_frame_size;
                assert_eq!(request.tp_block_nr * per_block, request.tp_frame_nr);
            }
        }
    }
}
