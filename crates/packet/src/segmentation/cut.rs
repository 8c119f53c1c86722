//! Large segments, cut into frames: the same headers in front of each part of the payload, with
//! what depends on the part made anew, innermost header first.

use std::ptr::NonNull;

use arrayvec::ArrayVec;

use super::{complete, put, take};
use crate::checksum::{Checksum, checksum};
use crate::frame::{BURST, Frame, FrameReader};
use crate::headers::TcpFlags;
use crate::offload::layers::{Layer, Layers, MAX_HEADERS};
use crate::offload::layout::Transport;
use crate::offload::{BadOffload, Capabilities, Offload};

/// Where the flags are in a TCP header.
const TCP_FLAGS: usize = 13;

/// A frame that is being cut.
#[derive(Debug)]
pub(super) struct Cut<'a> {
    payload: FrameReader<'a>,
    payload_left: usize,
    segments_left: usize,
    gso_size: usize,
    layers: Layers,
    /// All headers, with what changes from frame to frame as it is in the next one.
    headers: ArrayVec<u8, MAX_HEADERS>,
    /// FIN and PSH, which only the last frame has.
    last_flags: u8,
    /// The receiver completes checksums itself.
    leave_csum: bool,
}

/// Copies the next bytes, as many as there are and fit; returns how many.
fn read(from: &mut FrameReader<'_>, to: &mut [u8]) -> usize {
    // SAFETY: `to` is as long as it says and private.
    unsafe { from.copy_next(NonNull::from(&mut *to).cast(), to.len()) }
}

impl<'a> Cut<'a> {
    pub(super) fn new(frame: &Frame<'a>, takes: Capabilities) -> Result<Self, BadOffload> {
        let offload = frame.offload();
        let mismatch = || offload.gso().map_or(BadOffload::NotNegotiated, BadOffload::Mismatch);
        // Those that are not in the head may have changed since they were checked.
        let mut headers = ArrayVec::from([0; MAX_HEADERS]);
        headers.truncate(offload.hdr_len().into());
        let mut payload = FrameReader::new(frame);
        read(&mut payload, &mut headers);
        let start = offload.csum().map_or(0, |(start, _)| start);
        let layers = Layers::parse(&headers, frame.len(), start).map_err(|_| mismatch())?;
        if layers.headers != headers.len() || !offload.needs().contains(layers.segmentation()) {
            return Err(mismatch());
        }
        let mut last_flags = 0;
        if layers.transport == Transport::Tcp
            && let Some(flags) = headers.get_mut(layers.transport_at + TCP_FLAGS)
        {
            last_flags = *flags & (TcpFlags::FIN | TcpFlags::PSH).0;
            *flags &= !last_flags;
        }
        Ok(Self {
            payload,
            payload_left: frame.len() - layers.headers,
            segments_left: layers.segments(offload.gso_size(), frame.len())?,
            gso_size: offload.gso_size().into(),
            // A checksum around it is about the complete one.
            leave_csum: takes.contains(Capabilities::CSUM) && !layers.is_covered(),
            layers,
            headers,
            last_flags,
        })
    }

    /// As [`Parts::fill`](super::Parts::fill).
    pub(super) fn fill<'s>(
        &mut self,
        room: &mut &'s mut [u8],
        frames: &mut ArrayVec<Frame<'s>, BURST>,
    ) -> bool {
        let offload = if self.leave_csum {
            Offload::partial_csum(self.layers.transport_at, self.layers.transport.csum_offset())
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
            && let Some(flags) = self.headers.get_mut(self.layers.transport_at + TCP_FLAGS)
        {
            *flags |= self.last_flags;
        }
        headers.copy_from_slice(&self.headers);
        read(&mut self.payload, payload);
        self.payload_left -= payload.len();
        self.segments_left -= 1;
        self.advance(payload.len());
        self.finish(bytes);
    }

    /// Changes the headers to those of the frame after one with `len` bytes of payload.
    fn advance(&mut self, len: usize) {
        for layer in self.layers.inside_out() {
            if let Layer::Ipv4 { at, .. } = layer
                && let Some(id) = self.headers.get_mut(at + 4..)
                && let Some(id) = id.first_chunk_mut()
            {
                *id = u16::from_be_bytes(*id).wrapping_add(1).to_be_bytes();
            }
        }
        if self.layers.transport != Transport::Tcp {
            return;
        }
        let Some(tcp) = self.headers.get_mut(self.layers.transport_at..) else { return };
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
        let layers = &self.layers;
        if let Some(transport) = bytes.get_mut(layers.transport_at..) {
            let len = len_of(transport);
            if layers.transport == Transport::Udp {
                put(transport, 4, len);
            }
            let field = layers.transport.csum_offset();
            put(transport, field, layers.pseudo.with_len(len).partial());
            if !self.leave_csum {
                complete(transport, 0, field);
            }
        }
        for layer in layers.inside_out() {
            finish_layer(layer, bytes);
        }
    }
}

/// [`Layers::segments`] made sure that lengths fit.
fn len_of(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

/// Sets length and checksum of a header in front of what is finished.
fn finish_layer(layer: Layer, frame: &mut [u8]) {
    let (Layer::Ipv4 { at, .. } | Layer::Ipv6 { at } | Layer::Udp { at, .. } | Layer::Gre { at }) =
        layer;
    let Some(bytes) = frame.get_mut(at..) else { return };
    let whole = len_of(bytes);
    match layer {
        Layer::Ipv4 { len, .. } => {
            put(bytes, 2, whole);
            put(bytes, 10, 0);
            let sum = bytes.get(..len).map_or(0, checksum);
            put(bytes, 10, sum);
        }
        Layer::Ipv6 { .. } => put(bytes, 4, whole.saturating_sub(40)),
        Layer::Udp { pseudo, .. } => {
            put(bytes, 4, whole);
            if let Some(pseudo) = pseudo {
                put(bytes, 6, pseudo.with_len(whole).partial());
                complete(bytes, 0, 6);
            }
        }
        Layer::Gre { .. } => {
            put(bytes, 4, 0);
            let mut sum = Checksum::new();
            sum.add(bytes);
            put(bytes, 4, sum.finish());
        }
    }
}
