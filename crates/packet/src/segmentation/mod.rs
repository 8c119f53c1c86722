//! Offloads in software: what a sender left to the device, done for a receiver that does not
//! take it either.
//!
//! [`Parts`] completes checksums, and cuts large TCP segments and UDP datagrams into frames. Bytes of the frame are copied into private memory once and looked at only there,
//! since their owner may be changing them.

#[cfg(test)]
mod tests;

use std::ptr::NonNull;

use arrayvec::ArrayVec;

use crate::checksum::{Checksum, checksum};
use crate::frame::{BURST, Frame, FrameReader, HEAD_CAPACITY, MAX_FRAME_LEN};
use crate::headers::{IpProtocol, TcpFlags};
use crate::offload::layout::{Layout, Transport};
use crate::offload::{BadOffload, Capabilities, Offload};

/// Bytes of memory in which frames are made: enough for any one frame with the headers of a
/// burst.
pub const SCRATCH: usize = MAX_FRAME_LEN + BURST * HEAD_CAPACITY;

/// Longest frame whose bytes are all head.
const MAX_WHOLE: usize = u16::MAX as usize;

/// The frames that one frame becomes.
#[derive(Debug)]
pub struct Parts<'a>(Work<'a>);

/// What is left to do.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives on the stack, once per large segment")]
enum Work<'a> {
    /// The frame is as it should be.
    Nothing(Frame<'a>),
    /// Complete its checksum.
    Complete {
        frame: Frame<'a>,
        start: usize,
        offset: usize,
    },
    Cut(Cut<'a>),
    Done,
}

impl<'a> Parts<'a> {
    /// Starts to make frames of `frame` that a receiver can have which takes only `takes`.
    ///
    /// A receiver that takes begun checksums gets the frames with such.
    ///
    /// # Errors
    /// When the frame's offload does not hold for it: somebody has changed its headers.
    pub fn new(frame: &Frame<'a>, takes: Capabilities) -> Result<Self, BadOffload> {
        let offload = frame.offload();
        Ok(Self(match offload.gso() {
            _ if takes.contains(offload.needs()) => Work::Nothing(*frame),
            None => Work::complete(frame)?,
            Some(_) => Work::Cut(Cut::new(frame, takes)?),
        }))
    }

    /// Makes the next frames, in memory that is cut off from `room`, and returns whether these
    /// were all: if not, either `frames` is full, or the next one has no room.
    ///
    /// With [`SCRATCH`] bytes of room there is always room for the next one.
    pub fn fill<'s>(
        &mut self,
        room: &mut &'s mut [u8],
        frames: &mut ArrayVec<Frame<'s>, BURST>,
    ) -> bool
    where
        'a: 's,
    {
        if frames.is_full() {
            return matches!(self.0, Work::Done);
        }
        match &mut self.0 {
            Work::Done => return true,
            Work::Nothing(frame) => frames.push(*frame),
            Work::Complete { frame, start, offset } => {
                let Some(whole) = take(room, frame.len()) else { return false };
                frame.copy_to(whole);
                complete(whole, *start, *offset);
                frames.push(Frame::from_bytes(whole));
            }
            Work::Cut(cut) => {
                if !cut.fill(room, frames) {
                    return false;
                }
            }
        }
        self.0 = Work::Done;
        true
    }
}

/// Cuts the first `len` bytes off from `room`.
fn take<'s>(room: &mut &'s mut [u8], len: usize) -> Option<&'s mut [u8]> {
    room.split_off_mut(..len)
}

impl<'a> Work<'a> {
    fn complete(frame: &Frame<'a>) -> Result<Self, BadOffload> {
        // With nothing needed there would be nothing to do.
        let (start, offset) = frame.offload().csum().unwrap_or_default();
        let head_len = frame.head().len();
        let (start_at, offset_at) = (usize::from(start), usize::from(offset));
        if start_at + offset_at + 2 > head_len {
            return Err(BadOffload::ChecksumOutside { start, offset, head_len });
        }
        if frame.len() > MAX_WHOLE {
            return Err(BadOffload::TooLong(frame.len()));
        }
        Ok(Self::Complete { frame: *frame, start: start_at, offset: offset_at })
    }
}

/// Completes a checksum that was begun in its field. A sum of 0 becomes 0xFFFF, which is equal
/// in one's complement, since to UDP 0 means that there is no checksum (RFC 768).
fn complete(frame: &mut [u8], start: usize, offset: usize) {
    let Some(covered) = frame.get_mut(start..) else { return };
    let mut sum = Checksum::new();
    sum.add(covered);
    put(covered, offset, sum.finish_udp());
}

/// Writes a big-endian number where there is room for it.
fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}

/// A frame that is being cut.
#[derive(Debug)]
struct Cut<'a> {
    payload: FrameReader<'a>,
    payload_left: usize,
    segments_left: usize,
    gso_size: usize,
    layout: Layout,
    /// All headers, with what changes from frame to frame as it is in the next one.
    headers: ArrayVec<u8, HEAD_CAPACITY>,
    /// FIN and PSH, which only the last frame has.
    last_flags: u8,
    /// The receiver completes checksums itself.
    leave_csum: bool,
}

impl<'a> Cut<'a> {
    fn new(frame: &Frame<'a>, takes: Capabilities) -> Result<Self, BadOffload> {
        let (offload, head) = (frame.offload(), frame.head());
        let mismatch = || offload.gso().map_or(BadOffload::NotNegotiated, BadOffload::Mismatch);
        let layout = Layout::parse(head, frame.len())
            .filter(|layout| offload.needs().contains(layout.segmentation()))
            .ok_or_else(mismatch)?;
        let segments_left = layout.segments(offload.gso_size(), frame.len())?;
        let headers = head.get(..layout.headers).ok_or_else(mismatch)?;
        let mut headers = ArrayVec::try_from(headers).map_err(|_| mismatch())?;
        let mut last_flags = 0;
        if layout.transport == Transport::Tcp
            && let Some(flags) = headers.get_mut(layout.transport_at + TCP_FLAGS)
        {
            last_flags = *flags & (TcpFlags::FIN | TcpFlags::PSH).0;
            *flags &= !last_flags;
        }
        let mut payload = FrameReader::new(frame);
        payload.skip_head(layout.headers);
        Ok(Self {
            payload,
            payload_left: frame.len() - layout.headers,
            segments_left,
            gso_size: offload.gso_size().into(),
            layout,
            headers,
            last_flags,
            leave_csum: takes.contains(Capabilities::CSUM),
        })
    }

    /// As [`Parts::fill`].
    fn fill<'s>(
        &mut self,
        room: &mut &'s mut [u8],
        frames: &mut ArrayVec<Frame<'s>, BURST>,
    ) -> bool {
        let offload = if self.leave_csum {
            Offload::partial_csum(self.layout.transport_at, self.layout.transport.csum_offset())
        } else {
            Offload::NONE
        };
        while self.segments_left > 0 && !frames.is_full() {
            let len = self.headers.len() + self.payload_left.min(self.gso_size);
            let Some(bytes) = take(room, len) else { return false };
            self.fill_one(bytes);
            frames.push(Frame::from_bytes(bytes).with_offload(offload));
        }
        self.segments_left == 0
    }

    /// Makes the next frame.
    fn fill_one(&mut self, bytes: &mut [u8]) {
        let header_len = self.headers.len();
        let Some((headers, payload)) = bytes.split_at_mut_checked(header_len) else { return };
        if self.segments_left == 1
            && let Some(flags) = self.headers.get_mut(self.layout.transport_at + TCP_FLAGS)
        {
            *flags |= self.last_flags;
        }
        headers.copy_from_slice(&self.headers);
        // SAFETY: `payload` is as long as it says and private.
        unsafe { self.payload.copy_next(NonNull::from(&mut *payload).cast(), payload.len()) };
        self.payload_left -= payload.len();
        self.segments_left -= 1;
        self.advance(payload.len());
        self.finish(bytes);
    }

    /// Changes the headers to those of the frame after one with `len` bytes of payload.
    fn advance(&mut self, len: usize) {
        let layout = self.layout;
        if !layout.is_v6
            && let Some(id) = self.headers.get_mut(layout.network_at + 4..)
            && let Some(id) = id.first_chunk_mut()
        {
            *id = u16::from_be_bytes(*id).wrapping_add(1).to_be_bytes();
        }
        if layout.transport != Transport::Tcp {
            return;
        }
        let Some(tcp) = self.headers.get_mut(layout.transport_at..) else { return };
        if let Some(sequence) = tcp.get_mut(4..).and_then(<[u8]>::first_chunk_mut) {
            let count = u32::try_from(len).unwrap_or(0);
            *sequence = u32::from_be_bytes(*sequence).wrapping_add(count).to_be_bytes();
        }
        if let Some(flags) = tcp.get_mut(TCP_FLAGS) {
            *flags &= !TcpFlags::CWR.0;
        }
    }

    /// Sets lengths and checksums of a frame.
    fn finish(&self, bytes: &mut [u8]) {
        let layout = self.layout;
        let Some(ip) = bytes.get_mut(layout.network_at..) else { return };
        let header_len = layout.transport_at - layout.network_at;
        // `Layout::segments` made sure that lengths fit.
        let ip_len = u16::try_from(ip.len()).unwrap_or(u16::MAX);
        let transport_len = ip.len() - header_len;
        let transport_len = u16::try_from(transport_len).unwrap_or(u16::MAX);
        if layout.is_v6 {
            put(ip, 4, ip_len.saturating_sub(40));
        } else {
            put(ip, 2, ip_len);
            put(ip, 10, 0);
            let sum = ip.get(..header_len).map_or(0, checksum);
            put(ip, 10, sum);
        }
        let Some(pseudo) = pseudo_header(ip, layout, transport_len) else { return };
        let Some(transport) = ip.get_mut(header_len..) else { return };
        if layout.transport == Transport::Udp {
            put(transport, 4, transport_len);
        }
        put(transport, layout.transport.csum_offset(), pseudo.partial());
        if !self.leave_csum {
            complete(transport, 0, layout.transport.csum_offset());
        }
    }
}

/// Where the flags are in a TCP header.
const TCP_FLAGS: usize = 13;

/// The start of the transport's checksum; `ip` starts with the IP header.
fn pseudo_header(ip: &[u8], layout: Layout, len: u16) -> Option<Checksum> {
    let IpProtocol(protocol) = match layout.transport {
        Transport::Tcp => IpProtocol::TCP,
        Transport::Udp => IpProtocol::UDP,
    };
    Some(if layout.is_v6 {
        let source = ip.get(8..)?.first_chunk::<16>()?;
        let destination = ip.get(24..)?.first_chunk::<16>()?;
        Checksum::pseudo_v6(*source, *destination, protocol, len.into())
    } else {
        let source = ip.get(12..)?.first_chunk::<4>()?;
        let destination = ip.get(16..)?.first_chunk::<4>()?;
        Checksum::pseudo_v4(*source, *destination, protocol, len)
    })
}
