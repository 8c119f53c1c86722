//! Offloads: what a frame still needs before it is complete on a wire.
//!
//! A sender that negotiated it leaves the checksum to the device, or hands over one large
//! segment that stands for many (virtio 1.3 section 5.1.6.2). [`OffloadRequest`] is what the
//! sender asks for, and nothing in it can be trusted; [`Offload`] is what was found to hold for
//! the frame. A frame goes as it is to a receiver that takes what it needs
//! ([`Capabilities`]); for others [`segmentation`](crate::segmentation) completes it.
//!
//! - [`layers`]: the headers of a large segment, those of tunnels too
//! - [`layout`]: where the headers of an ordinary frame are

pub mod layers;
pub mod layout;
#[cfg(test)]
mod tests;

use self::layers::{Layers, MAX_HEADERS, NoLayers};
use self::layout::{Transport, link_len};
use crate::frame::Frame;

/// Most frames that one large segment may stand for. A sender that wants more asks for segments
/// so short that they are worth nobody's time.
pub const MAX_SEGMENTS: usize = 1024;

/// Shortest network header that can be in front of a checksummed transport: IPv4 without options.
const MIN_NETWORK_HEADER: usize = 20;

/// Where a transport's checksum field can be at the earliest: behind its port numbers, so that
/// a checksum is never written over what a frame was classified by.
const MIN_CSUM_OFFSET: u16 = 4;

/// Longest transport header that is cut: that of TCP with all its options.
const MAX_TRANSPORT: usize = 60;

bitflags::bitflags! {
    /// What a receiver takes, and, in an [`Offload`], what a frame needs of its receiver.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Capabilities: u8 {
        /// Frames whose checksum is only begun.
        const CSUM = 1 << 0;
        /// Large TCP segments over IPv4.
        const TSO4 = 1 << 1;
        /// Large TCP segments over IPv6.
        const TSO6 = 1 << 2;
        /// Large TCP segments with ECN (the CWR flag on the first only).
        const ECN = 1 << 3;
        /// Large UDP datagrams over IPv4, to be cut into datagrams.
        const USO4 = 1 << 4;
        /// Large UDP datagrams over IPv6, to be cut into datagrams.
        const USO6 = 1 << 5;
        /// Large segments whose TCP or UDP is inside a tunnel, beside the bit for their kind. The
        /// net header of virtio 1.3 has no word for them: a receiver that cannot take them off
        /// the tunnel itself would take them for something else.
        const TUNNEL = 1 << 6;
    }
}

impl Capabilities {
    /// Everything that can be cut into several frames.
    pub const SEGMENTATION: Self = Self::TSO4.union(Self::TSO6).union(Self::USO4).union(Self::USO6);

    /// Everything that virtio 1.3 has a feature for.
    pub const VIRTIO: Self = Self::SEGMENTATION.union(Self::CSUM).union(Self::ECN);
}

/// How a large segment is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either, into datagrams.
    Udp,
}

/// What a sender asks for, unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadRequest {
    /// The checksum is only begun: complete it from `csum_start` to the end of the frame.
    pub needs_csum: bool,
    /// Somebody whom we trust has checked the checksum.
    pub data_valid: bool,
    /// The frame is a large segment.
    pub gso: Option<Gso>,
    /// It has ECN bits that only its first part may carry.
    pub ecn: bool,
    /// Payload bytes of each part.
    pub gso_size: u16,
    /// First byte under the checksum, from the start of the frame.
    pub csum_start: u16,
    /// Where the checksum field is, from `csum_start`.
    pub csum_offset: u16,
}

/// Why a frame cannot have the offload that was asked for; it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOffload {
    /// The checksum field is not in the frame.
    #[error("checksum at {start} + {offset} is not within the frame's {len} bytes")]
    ChecksumOutside {
        /// First byte under the checksum.
        start: u16,
        /// The field, from there.
        offset: u16,
        /// Bytes of the frame.
        len: usize,
    },
    /// The checksum field lies where addresses or ports are.
    #[error("checksum at {start} + {offset} is not behind addresses and ports")]
    ChecksumMisplaced {
        /// First byte under the checksum.
        start: u16,
        /// The field, from there.
        offset: u16,
    },
    /// A large segment without request for its checksum (virtio 1.3 section 5.1.6.2.1).
    #[error("segmentation without checksum offload")]
    NoChecksum,
    /// Segments of no bytes.
    #[error("segment size 0")]
    NoSegmentSize,
    /// More than [`MAX_SEGMENTS`].
    #[error("{0} segments, expected at most {MAX_SEGMENTS}")]
    TooManySegments(usize),
    /// Segments that no frame or IP packet has room for.
    #[error("segments of {0} bytes are too long for an IP packet")]
    TooLong(usize),
    /// The frame is not what the kind of segmentation says: another protocol, a fragment,
    /// headers that contradict themselves or are not all there.
    #[error("the headers are not those of a frame to be cut as {0:?}")]
    Mismatch(Gso),
    /// There is a header, named here, behind which nothing can be cut.
    #[error("a large segment {0} cannot be cut")]
    Uncuttable(&'static str),
    /// Something that does not exist or was not negotiated.
    #[error("an offload that was not negotiated")]
    NotNegotiated,
}

/// The kind of segmentation that is among `needs`.
const fn gso_of(needs: Capabilities) -> Option<Gso> {
    if needs.contains(Capabilities::TSO4) {
        Some(Gso::TcpV4)
    } else if needs.contains(Capabilities::TSO6) {
        Some(Gso::TcpV6)
    } else if needs.intersects(Capabilities::USO4.union(Capabilities::USO6)) {
        Some(Gso::Udp)
    } else {
        None
    }
}

/// What a frame needs before it is complete, and what is known about it; by default nothing.
///
/// Whatever it says held for the frame when it was made. It is small, since every frame has one,
/// and one store makes an empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Offload {
    /// Bits of [`Capabilities`], and [`DATA_VALID`].
    flags: u8,
    /// Length of the transport header, which begins at `csum_start`; 0 unless the frame is to be
    /// cut.
    transport_len: u8,
    csum_start: u16,
    csum_offset: u16,
    gso_size: u16,
}

const _: () = assert!(size_of::<Offload>() == 8);

/// In `flags`: the checksum was found good.
const DATA_VALID: u8 = 1 << 7;

impl Offload {
    /// A complete frame of which nothing is known.
    pub const NONE: Self =
        Self { flags: 0, transport_len: 0, csum_start: 0, csum_offset: 0, gso_size: 0 };

    /// A complete frame whose checksum was found good.
    pub const DATA_VALID: Self = Self { flags: DATA_VALID, ..Self::NONE };

    /// Checks a request against what the sender may ask for, `allowed`, and against the frame
    /// that it is for, of which `head` is the private first part and `len` the whole length.
    ///
    /// That a large segment is inside a tunnel needs no leave: whoever may leave it to us to cut
    /// such a segment outside has lost nothing by it.
    ///
    /// # Errors
    /// When the request contradicts itself or the frame, or was not negotiated.
    pub fn check(
        request: &OffloadRequest,
        allowed: Capabilities,
        head: &[u8],
        len: usize,
    ) -> Result<Self, BadOffload> {
        let offload = Self::check_any(request, head, len)?;
        let needs = offload.needs() - Capabilities::TUNNEL;
        if allowed.contains(needs) { Ok(offload) } else { Err(BadOffload::NotNegotiated) }
    }

    /// As [`check`](Self::check), for a frame whose headers may be longer than its private head.
    /// What was read of the others is not what is sent, since their owner may change them; they
    /// are checked again, in private, where the frame is cut.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_frame(
        request: &OffloadRequest,
        allowed: Capabilities,
        frame: &Frame<'_>,
    ) -> Result<Self, BadOffload> {
        let (head, len) = (frame.head(), frame.len());
        let headers = usize::from(request.csum_start) + MAX_TRANSPORT;
        if request.gso.is_none() || head.len() >= headers.min(len) {
            return Self::check(request, allowed, head, len);
        }
        let mut copy = [0; MAX_HEADERS];
        let count = frame.copy_to(&mut copy);
        Self::check(request, allowed, copy.get(..count).unwrap_or_default(), len)
    }

    fn check_any(request: &OffloadRequest, head: &[u8], len: usize) -> Result<Self, BadOffload> {
        let mut offload = Self::NONE;
        if request.needs_csum {
            offload = Self::with_csum(request, head, len)?;
        } else if request.data_valid {
            offload.flags = DATA_VALID;
        }
        match request.gso {
            None => Ok(offload),
            Some(_) if !request.needs_csum => Err(BadOffload::NoChecksum),
            Some(gso) => offload.with_gso(gso, request, head, len),
        }
    }

    fn with_csum(request: &OffloadRequest, head: &[u8], len: usize) -> Result<Self, BadOffload> {
        let (start, offset) = (request.csum_start, request.csum_offset);
        if usize::from(start) + usize::from(offset) + 2 > len {
            return Err(BadOffload::ChecksumOutside { start, offset, len });
        }
        let first = link_len(head).map(|link| link + MIN_NETWORK_HEADER);
        if first.is_none_or(|first| usize::from(start) < first) || offset < MIN_CSUM_OFFSET {
            return Err(BadOffload::ChecksumMisplaced { start, offset });
        }
        let flags = Capabilities::CSUM.bits();
        Ok(Self { flags, csum_start: start, csum_offset: offset, ..Self::NONE })
    }

    fn with_gso(
        mut self,
        gso: Gso,
        request: &OffloadRequest,
        head: &[u8],
        len: usize,
    ) -> Result<Self, BadOffload> {
        let (start, offset) = (request.csum_start, request.csum_offset);
        let misplaced = BadOffload::ChecksumMisplaced { start, offset };
        let layers = Layers::parse(head, len, start).map_err(|error| match error {
            NoLayers::Mismatch => BadOffload::Mismatch(gso),
            NoLayers::Misplaced => misplaced,
            NoLayers::Uncuttable(what) => BadOffload::Uncuttable(what),
        })?;
        let mut needs = layers.segmentation();
        if gso_of(needs) != Some(gso) {
            return Err(BadOffload::Mismatch(gso));
        }
        if usize::from(offset) != layers.transport.csum_offset() {
            return Err(misplaced);
        }
        layers.segments(request.gso_size, len)?;
        if request.ecn && layers.transport == Transport::Tcp {
            needs |= Capabilities::ECN;
        }
        self.flags |= needs.bits();
        let transport_len = layers.headers - layers.transport_at;
        self.transport_len = u8::try_from(transport_len).map_err(|_| BadOffload::Mismatch(gso))?;
        self.gso_size = request.gso_size;
        Ok(self)
    }

    /// For a frame of our own making whose checksum is begun.
    #[must_use]
    pub(crate) fn partial_csum(start: usize, offset: usize) -> Self {
        match (u16::try_from(start), u16::try_from(offset)) {
            (Ok(csum_start), Ok(csum_offset)) => {
                Self { flags: Capabilities::CSUM.bits(), csum_start, csum_offset, ..Self::NONE }
            }
            _ => Self::NONE,
        }
    }

    /// What the frames of a burst need together; `None` when all of them are complete frames of
    /// which nothing is known.
    #[must_use]
    #[inline]
    pub fn needs_of(frames: &[Frame<'_>]) -> Option<Capabilities> {
        Self::needs_by(frames.iter().fold(0, |flags, frame| flags | frame.offload().flags))
    }

    /// The same of frames that have this one, each.
    #[must_use]
    #[inline]
    pub fn needs_of_each(self) -> Option<Capabilities> {
        Self::needs_by(self.flags)
    }

    #[inline]
    fn needs_by(flags: u8) -> Option<Capabilities> {
        (flags != 0).then_some(Capabilities::from_bits_truncate(flags))
    }

    /// Whether nothing is needed and nothing known.
    #[must_use]
    #[inline]
    pub const fn is_none(self) -> bool {
        self.flags == 0
    }

    /// What a receiver must take to get the frame as it is.
    #[must_use]
    #[inline]
    pub const fn needs(self) -> Capabilities {
        Capabilities::from_bits_truncate(self.flags)
    }

    /// Whether the checksum was found good.
    #[must_use]
    #[inline]
    pub const fn is_data_valid(self) -> bool {
        self.flags & DATA_VALID != 0
    }

    /// Where the begun checksum starts, and where its field is from there; `None` where the
    /// checksum is complete.
    #[must_use]
    pub const fn csum(self) -> Option<(u16, u16)> {
        if self.needs().contains(Capabilities::CSUM) {
            Some((self.csum_start, self.csum_offset))
        } else {
            None
        }
    }

    /// How the frame is to be cut; `None` when it is an ordinary one.
    #[must_use]
    pub const fn gso(self) -> Option<Gso> {
        gso_of(self.needs())
    }

    /// Payload bytes per frame after the cut; 0 when it is an ordinary frame.
    #[must_use]
    pub const fn gso_size(self) -> u16 {
        self.gso_size
    }

    /// Length of all headers of a frame to be cut; 0 when it is an ordinary one.
    #[must_use]
    pub const fn hdr_len(self) -> u16 {
        // `Layers` found all of them within MAX_HEADERS bytes.
        if self.transport_len == 0 { 0 } else { self.csum_start + self.transport_len as u16 }
    }

    /// Length in bytes, on a wire, of the longest frame that a frame of `len` bytes becomes.
    #[must_use]
    pub fn wire_len(self, len: usize) -> usize {
        if self.gso().is_none() {
            return len;
        }
        len.min(usize::from(self.hdr_len()) + usize::from(self.gso_size))
    }

    /// The same after `count` bytes were put in front of the headers that it is about, or taken
    /// away there where `count` is negative: a VLAN tag, as a rule. `None` when the headers
    /// would then not be where an offload can say.
    #[must_use]
    pub fn shifted(self, count: isize) -> Option<Self> {
        if self.csum().is_none() {
            return Some(self);
        }
        let start = usize::from(self.csum_start).checked_add_signed(count)?;
        if self.gso().is_some() && start + usize::from(self.transport_len) > MAX_HEADERS {
            return None;
        }
        Some(Self { csum_start: u16::try_from(start).ok()?, ..self })
    }

    /// The same of a frame that was put into a tunnel: nothing is known of the checksum outside.
    #[must_use]
    pub(crate) fn in_tunnel(self) -> Self {
        match (self.csum(), self.gso()) {
            (None, _) => Self::NONE,
            (Some(_), None) => self,
            (Some(_), Some(_)) => Self { flags: self.flags | Capabilities::TUNNEL.bits(), ..self },
        }
    }

    /// The same of a frame that was taken out of one, of `len` bytes, which begins with `head` and was
    /// behind `outer` bytes. `None` where the headers in the way make no frame that can be finished.
    #[must_use]
    pub(crate) fn out_of_tunnel(self, outer: usize, head: &[u8], len: usize) -> Option<Self> {
        let Some((start, _)) = self.csum() else { return Some(Self::NONE) };
        let Some(start) = usize::from(start).checked_sub(outer) else {
            // Of a large segment, the parts have no headers of their own.
            return self.gso().is_none().then_some(Self::NONE);
        };
        let request = OffloadRequest { csum_start: u16::try_from(start).ok()?, ..self.request() };
        Self::check(&request, Capabilities::all(), head, len).ok()
    }

    /// What a sender would ask for to get this.
    #[must_use]
    pub fn request(self) -> OffloadRequest {
        let (csum_start, csum_offset) = self.csum().unwrap_or_default();
        OffloadRequest {
            needs_csum: self.csum().is_some(),
            data_valid: self.is_data_valid(),
            gso: self.gso(),
            ecn: self.needs().contains(Capabilities::ECN),
            gso_size: self.gso_size,
            csum_start,
            csum_offset,
        }
    }
}
