//! What the device is told about a frame besides its bytes: contexts for checksums, large
//! segments and VLAN tags (82576 datasheet, 7.2.2.2 and 7.2.4).

use packet::checksum::Checksum;
use packet::offload::layers::PseudoSum;
use packet::offload::layout::{Layout, Transport};
use packet::{Gso, Offload, Packet};

use super::descriptors::tx;

/// Contexts that the device remembers per queue.
const CONTEXTS: usize = 2;

/// Shortest payload of the parts of a large segment. No TCP has less, and what devices do with
/// less is written nowhere.
const MIN_SEGMENT: u16 = 64;

/// Headers of TCP over IPv4 that the device wants to find as zero: it makes them for each part.
mod ipv4 {
    pub(super) const TOTAL_LENGTH: usize = 2;
    pub(super) const CHECKSUM: usize = 10;
    pub(super) const SOURCE: usize = 12;
    pub(super) const DESTINATION: usize = 16;
}

/// The same of IPv6.
mod ipv6 {
    pub(super) const PAYLOAD_LENGTH: usize = 4;
    pub(super) const SOURCE: usize = 8;
    pub(super) const DESTINATION: usize = 24;
}

/// Where the checksum of TCP is in its header.
const TCP_CHECKSUM: usize = 16;

/// The protocol number of TCP.
const TCP: u8 = 6;

/// The two words of a context descriptor, but for the context's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context([u64; 2]);

impl Context {
    /// `lengths` are those of the link and the network header, which fit their fields.
    fn new(link: usize, network: usize, vlan: u16, kind: u64) -> Self {
        let lengths = (network & 0x1FF) as u64 | ((link & 0x7F) as u64) << 9;
        Self([lengths | u64::from(vlan) << 16, tx::CONTEXT | tx::ADVANCED | kind])
    }

    /// With the payload of parts and the length of the TCP header.
    fn with_segments(mut self, size: u16, transport: usize) -> Self {
        let [_, second] = &mut self.0;
        *second |= u64::from(size) << 48 | ((transport & 0xFF) as u64) << 40;
        self
    }

    /// The descriptor that makes it context `number`.
    pub(super) const fn descriptor(self, number: usize) -> [u64; 2] {
        let [first, second] = self.0;
        [first, second | (number as u64) << tx::CONTEXT_SHIFT]
    }
}

/// In the command word of a context: the network protocol is IPv4.
const IPV4: u64 = 1 << 10;

/// The transport protocol is TCP; otherwise it is UDP.
const L4_TCP: u64 = 1 << 11;

/// What to tell the device about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) context: Option<Context>,
    /// Bits of the second word of data descriptors, payload length included.
    pub(super) bits: u64,
}

/// The device cannot do what the frame needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The headers are not where the device needs them: in the first buffer.
    Scattered,
    /// Nobody can: the headers contradict the offload.
    Bad,
}

impl Plan {
    /// For a frame of `len` bytes that is complete.
    #[inline]
    pub(super) fn plain(len: usize, vlan: Option<u16>) -> Self {
        let payload = (len as u64) << tx::PAYLOAD_SHIFT;
        match vlan {
            None => Self { context: None, bits: payload },
            Some(vlan) => {
                let context = Context::new(14, 20, vlan, 0);
                Self { context: Some(context), bits: payload | tx::INSERT_TAG }
            }
        }
    }

    /// For a packet with an offload, of which it changes the headers as the device wants them.
    #[cold]
    pub(super) fn offloaded(packet: &mut Packet, vlan: Option<u16>) -> Result<Self, Unfit> {
        let Some((start, offset)) = packet.offload().csum() else {
            return Ok(Self::plain(packet.len(), vlan));
        };
        let layout = Layout::parse(packet.data(), packet.len()).filter(|layout| {
            let at = (layout.transport_at, layout.transport.csum_offset());
            at == (usize::from(start), usize::from(offset))
        });
        let mut plan = Self::plain(packet.len(), vlan);
        match (layout, packet.offload().gso()) {
            (Some(layout), None) if fits(&layout) => {
                plan.context = Some(context_of(&layout, vlan));
                plan.bits |= tx::L4_CHECKSUM;
                Ok(plan)
            }
            (_, None) => complete_checksum(packet, start, offset).map(|()| plan),
            (Some(layout), Some(Gso::TcpV4 | Gso::TcpV6)) => Self::segmented(packet, &layout, vlan),
            (None, Some(_)) if packet.segment_count() > 1 => Err(Unfit::Scattered),
            (_, Some(_)) => Err(Unfit::Bad),
        }
    }

    fn segmented(packet: &mut Packet, layout: &Layout, vlan: Option<u16>) -> Result<Self, Unfit> {
        let size = packet.offload().gso_size();
        let payload = packet.len().saturating_sub(layout.headers);
        if layout.transport != Transport::Tcp || !fits(layout) || size < MIN_SEGMENT {
            return Err(Unfit::Bad);
        }
        let len = packet.len();
        prepare_headers(packet.data_mut(), layout, len).ok_or(Unfit::Bad)?;
        let header = layout.headers - layout.transport_at;
        let context = context_of(layout, vlan).with_segments(size, header);
        let mut bits = (payload as u64) << tx::PAYLOAD_SHIFT | tx::SEGMENT | tx::L4_CHECKSUM;
        if !layout.is_v6 {
            bits |= tx::IP_CHECKSUM;
        }
        if vlan.is_some() {
            bits |= tx::INSERT_TAG;
        }
        Ok(Self { context: Some(context), bits })
    }
}

/// Whether a context has room for the headers' lengths. They are at most 192 bytes in all.
const fn fits(layout: &Layout) -> bool {
    layout.network_at <= 0x7F && layout.transport_at - layout.network_at <= 0x1FF
}

fn context_of(layout: &Layout, vlan: Option<u16>) -> Context {
    let network = layout.transport_at - layout.network_at;
    let mut kind = 0;
    if !layout.is_v6 {
        kind |= IPV4;
    }
    if layout.transport == Transport::Tcp {
        kind |= L4_TCP;
    }
    Context::new(layout.network_at, network, vlan.unwrap_or(0), kind)
}

/// Zeroes what the device makes anew for each part, and begins the checksum of TCP without the
/// length, which the device adds (7.2.4.5). `None` where the headers are not all there.
fn prepare_headers(head: &mut [u8], layout: &Layout, len: usize) -> Option<()> {
    let field = head.get(layout.transport_at + TCP_CHECKSUM..)?.first_chunk::<2>()?;
    let begun = u16::from_be_bytes(*field);
    let network = head.get_mut(layout.network_at..)?;
    let checksum = if layout.is_routed {
        // The sender began it for the last stop.
        network.get_mut(ipv6::PAYLOAD_LENGTH..)?.first_chunk_mut::<2>()?.fill(0);
        let len = u16::try_from(len.checked_sub(layout.transport_at)?).ok()?;
        PseudoSum::of_begun(begun, len).with_len(0)
    } else if layout.is_v6 {
        network.get_mut(ipv6::PAYLOAD_LENGTH..)?.first_chunk_mut::<2>()?.fill(0);
        let source = network.get(ipv6::SOURCE..)?.first_chunk::<16>()?;
        let destination = network.get(ipv6::DESTINATION..)?.first_chunk::<16>()?;
        Checksum::pseudo_v6(*source, *destination, TCP, 0)
    } else {
        network.get_mut(ipv4::TOTAL_LENGTH..)?.first_chunk_mut::<2>()?.fill(0);
        network.get_mut(ipv4::CHECKSUM..)?.first_chunk_mut::<2>()?.fill(0);
        let source = network.get(ipv4::SOURCE..)?.first_chunk::<4>()?;
        let destination = network.get(ipv4::DESTINATION..)?.first_chunk::<4>()?;
        Checksum::pseudo_v4(*source, *destination, TCP, 0)
    };
    let field = head.get_mut(layout.transport_at + TCP_CHECKSUM..)?.first_chunk_mut::<2>()?;
    *field = checksum.partial().to_be_bytes();
    Some(())
}

/// Completes a checksum that the device cannot: of another transport, or of fragments.
fn complete_checksum(packet: &mut Packet, start: u16, offset: u16) -> Result<(), Unfit> {
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    let mut checksum = Checksum::new();
    checksum.add(packet.data().get(start..).ok_or(Unfit::Scattered)?);
    for segment in packet.tail() {
        // SAFETY: the segment's bytes belong to the packet, which is borrowed exclusively and of
        // which nobody else, no device either, knows at this point.
        checksum
            .add(unsafe { std::slice::from_raw_parts(segment.as_ptr().as_ptr(), segment.len()) });
    }
    // 0 would mean "none" in UDP, and 0xFFFF is the same sum everywhere (RFC 768).
    let sum = checksum.finish_udp().to_be_bytes();
    let field = packet.data_mut().get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>());
    *field.ok_or(Unfit::Scattered)? = sum;
    // Should there be no room for the packet now, it must not be completed a second time.
    packet.set_offload(Offload::NONE);
    Ok(())
}

/// The contexts that the device has of one queue.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    known: [Option<Context>; CONTEXTS],
    /// The one to give up next.
    next: usize,
}

impl Contexts {
    /// The number of `context`, and whether the device has to be told first.
    #[inline]
    pub(super) fn find(&mut self, context: Context) -> (usize, bool) {
        if let Some(number) = self.known.iter().position(|known| *known == Some(context)) {
            return (number, false);
        }
        let number = self.next;
        if let Some(known) = self.known.get_mut(number) {
            *known = Some(context);
        }
        self.next = (number + 1) % CONTEXTS;
        (number, true)
    }
}
