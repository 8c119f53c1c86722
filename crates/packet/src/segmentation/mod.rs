//! Offloads in software: what a sender left to the device, done for a receiver that does not
//! take it either.
//!
//! [`Parts`] completes checksums, and cuts large TCP segments and UDP datagrams into frames, inside
//! tunnels too. Bytes of the frame are copied into private memory once and looked at only there,
//! since their owner may be changing them.
//!
//! - `cut`: large segments

mod cut;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tunnel_tests;

use arrayvec::ArrayVec;

use self::cut::Cut;
use crate::checksum::Checksum;
use crate::frame::{BURST, Frame, HEAD_CAPACITY, MAX_FRAME_LEN};
use crate::offload::layout::Transport;
use crate::offload::{BadOffload, Capabilities};

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
        let len = frame.len();
        let (start_at, offset_at) = (usize::from(start), usize::from(offset));
        if start_at + offset_at + 2 > len {
            return Err(BadOffload::ChecksumOutside { start, offset, len });
        }
        if len > MAX_WHOLE {
            return Err(BadOffload::TooLong(len));
        }
        Ok(Self::Complete { frame: *frame, start: start_at, offset: offset_at })
    }
}

/// Completes a checksum that was begun in its field. Of UDP a sum of 0 becomes 0xFFFF, which is
/// equal in one's complement, since there 0 means that there is no checksum (RFC 768).
fn complete(frame: &mut [u8], start: usize, offset: usize) {
    let Some(covered) = frame.get_mut(start..) else { return };
    let mut sum = Checksum::new();
    sum.add(covered);
    let is_udp = offset == Transport::Udp.csum_offset();
    put(covered, offset, if is_udp { sum.finish_udp() } else { sum.finish() });
}

/// Writes a big-endian number where there is room for it.
fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}
