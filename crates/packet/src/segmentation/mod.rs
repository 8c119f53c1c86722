//! Offloads in software: what a sender left to the device, done for a receiver that does not
//! take it either.
//!
//! A [`Segmenter`] completes checksums, and cuts large TCP segments and UDP datagrams into
//! frames. Bytes of the frame are copied into private memory once and looked at only there,
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

/// The most memory that a burst takes: headers for each of its frames, and a whole payload.
const SCRATCH: usize = MAX_FRAME_LEN + BURST * HEAD_CAPACITY;

/// Longest frame whose bytes are all head.
const MAX_WHOLE: usize = u16::MAX as usize;

/// Completes frames. Its memory is allocated with the first frame and used again for all others.
#[derive(Debug, Default)]
pub struct Segmenter {
    scratch: Vec<u8>,
}

impl Segmenter {
    /// A segmenter without memory yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { scratch: Vec::new() }
    }

    /// Starts to make frames of `frame` that a receiver can have which takes only `takes`.
    ///
    /// A receiver that takes begun checksums gets the frames with such.
    ///
    /// # Errors
    /// When the frame's offload does not hold for it: somebody has changed its headers.
    pub fn split<'a>(
        &'a mut self,
        frame: &Frame<'a>,
        takes: Capabilities,
    ) -> Result<Segments<'a>, BadOffload> {
        let offload = frame.offload();
        let work = match offload.gso() {
            _ if takes.contains(offload.needs()) => Work::Nothing(*frame),
            None => Work::complete(frame)?,
            Some(_) => Work::Cut(Cut::new(frame, takes)?),
        };
        self.scratch.resize(SCRATCH, 0);
        Ok(Segments { scratch: &mut self.scratch, work })
    }
}

/// The frames that one frame becomes; see [`next_burst`](Self::next_burst).
#[derive(Debug)]
pub struct Segments<'a> {
    scratch: &'a mut [u8],
    work: Work<'a>,
}

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

impl Segments<'_> {
    /// The next frames, up to a burst of them; none when all were made.
    pub fn next_burst(&mut self) -> ArrayVec<Frame<'_>, BURST> {
        let mut frames = ArrayVec::new();
        match &mut self.work {
            Work::Done => {}
            Work::Nothing(frame) => {
                frames.push(*frame);
                self.work = Work::Done;
            }
            Work::Complete { frame, start, offset } => {
                if let Some(whole) = self.scratch.get_mut(..frame.len()) {
                    frame.copy_to(whole);
                    complete(whole, *start, *offset);
                    frames.push(Frame::from_bytes(whole));
                }
                self.work = Work::Done;
            }
            Work::Cut(cut) => cut.fill(self.scratch, &mut frames),
        }
        frames
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
        let mismatch = || offload.gso().map_or(BadOffload::Unknown, BadOffload::Mismatch);
        let layout = Layout::parse(head, frame.len()).ok_or_else(mismatch)?;
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

    /// Makes the next burst of frames in `scratch`.
    fn fill<'s>(&mut self, scratch: &'s mut [u8], frames: &mut ArrayVec<Frame<'s>, BURST>) {
        let offload = if self.leave_csum {
            Offload::partial_csum(self.layout.transport_at, self.layout.transport.csum_offset())
        } else {
            Offload::NONE
        };
        let mut rest = scratch;
        while self.segments_left > 0 && !frames.is_full() {
            let len = self.headers.len() + self.payload_left.min(self.gso_size);
            let Some((bytes, behind)) = rest.split_at_mut_checked(len) else { return };
            rest = behind;
            self.fill_one(bytes);
            frames.push(Frame::from_bytes(bytes).with_offload(offload));
        }
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
