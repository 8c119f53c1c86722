//! Out of a tunnel.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use packet::checksum::Checksum;
use packet::headers::{EtherType, Ethernet, ethernet};
use packet::{BURST, DEEPEST_HEAD, Editing, Frame, Open};
use tunnel::{Congestion, Envelope, Found, Inner, Kind, Meta, Refused, best, parse};

use super::{TunnelPort, Tunnels};

/// A frame that has come out of a tunnel.
pub(crate) struct Popped<'t, 'e> {
    pub(crate) port: &'t TunnelPort,
    pub(crate) meta: Meta,
    pub(crate) open: Open<'e>,
}

impl Popped<'_, '_> {
    /// Whether another one has come by the same way, so that no rule tells them apart by that.
    pub(crate) fn is_like(&self, other: &Popped<'_, '_>) -> bool {
        self.port.port == other.port.port && self.meta == other.meta
    }
}

impl Tunnels {
    /// Takes frames out of their tunnels; `lost` is called with why one is dropped.
    pub(crate) fn pop<'t, 'e>(
        &'t self,
        frames: &[Frame<'e>],
        editing: &mut Editing<'e>,
        mut lost: impl FnMut(DropReason),
    ) -> ArrayVec<Popped<'t, 'e>, BURST> {
        let mut popped = ArrayVec::new();
        for frame in frames.iter().take(BURST) {
            match self.pop_one(frame, editing) {
                Ok(one) => popped.push(one),
                Err(reason) => lost(reason),
            }
        }
        popped
    }

    fn pop_one<'t, 'e>(
        &'t self,
        frame: &Frame<'e>,
        editing: &mut Editing<'e>,
    ) -> Result<Popped<'t, 'e>, DropReason> {
        let mut open = editing.open_deep(frame).ok_or(DropReason::TooLong)?;
        let mut envelope = envelope(&open)?;
        if envelope.end < open.len() && !may_go_on(&envelope, open.head()) {
            // Whatever lies beyond the packet is padding.
            let frame = editing.cut(frame, envelope.end);
            open = editing.open_deep(&frame).ok_or(DropReason::TooLong)?;
            envelope = self::envelope(&open)?;
        }
        let found = self.kind_of(&envelope, open.head()).ok_or(DropReason::NoTunnel)?;
        let mut parsed = parse(found.0, &envelope, open.head());
        if parsed == Err(Refused::Deeper) {
            // Many options may end behind the heads that others have.
            let frame = editing.cut(frame, envelope.end);
            open = editing.open_to(&frame, DEEPEST_HEAD).ok_or(DropReason::TooLong)?;
            parsed = parse(found.0, &envelope, open.head());
        }
        let Found { mut meta, at, checksum } = parsed.map_err(|_| DropReason::Malformed)?;
        if let Some(from) = checksum
            && !is_right(&open, &envelope, from)
        {
            return Err(DropReason::BadChecksum);
        }
        let ports = self.ports.iter().map(|port| (port, &*port.settings));
        let port = best(ports, found, &meta).ok_or(DropReason::NoTunnel)?;
        if !port.settings.has_policy {
            // Nobody has agreed with who sends it what it says.
            meta.policy = None;
        }
        // No rule can ask for that, so packets do not differ by it; nor does Open vSwitch note it.
        meta.dont_fragment = false;
        let at = match meta.inner {
            Inner::Ethernet => at,
            Inner::Bare(kind) => {
                put_place(open.head_mut(), at, kind).ok_or(DropReason::Malformed)?
            }
        };
        // What is for the end of the tunnel itself comes in as it is.
        if at > 0 && !open.decapsulate(at) {
            return Err(DropReason::Malformed);
        }
        mark_congestion(meta.tos, open.head_mut())?;
        Ok(Popped { port, meta, open })
    }
}

/// The IP header of a frame. Its head has as much as is looked at of any header.
fn envelope(open: &Open<'_>) -> Result<Envelope, DropReason> {
    let found = Envelope::parse(open.head(), open.len());
    found.map_err(|refused| match refused {
        Refused::Other => DropReason::NoTunnel,
        Refused::Deeper | Refused::Malformed => DropReason::Malformed,
    })
}

/// Whether what lies beyond the packet is taken for a part of the frame inside. Nothing of GRE says how long that is but the
/// outer packet; where that says less than there is, Open vSwitch takes all that there is. Where something is summed, it is
/// no part of that.
fn may_go_on(envelope: &Envelope, head: &[u8]) -> bool {
    const HAS_SUM: u8 = 0x80;
    let flags = head.get(envelope.at).copied();
    envelope.protocol == Kind::Gre.protocol() && flags.is_some_and(|flags| flags & HAS_SUM == 0)
}

/// Whether a checksum is right that begins here; of UDP with a pseudo header. One that the receiver is to
/// complete was not spoilt on the way, nor one that somebody has looked at whom we trust.
fn is_right(open: &Open<'_>, envelope: &Envelope, (from, is_udp): (usize, bool)) -> bool {
    let offload = open.offload();
    if is_udp && (offload.is_data_valid() || offload.csum().is_some()) {
        return true;
    }
    let Some(frame) = open.frame() else { return false };
    let mut sum = if is_udp { envelope.pseudo_header() } else { Checksum::new() };
    frame.add_to(&mut sum, from);
    sum.is_valid()
}

/// Puts the place of a header of Ethernet in front of what is at `at`, where its outer header ends; returns where
/// that begins.
fn put_place(head: &mut [u8], at: usize, kind: EtherType) -> Option<usize> {
    let from = at.checked_sub(ethernet::HEADER_LEN)?;
    let (addresses, own) = head.get_mut(from..at)?.split_last_chunk_mut()?;
    addresses.fill(0);
    *own = kind.0.to_be_bytes();
    Some(from)
}

/// Tells the frame inside of congestion that was met outside.
fn mark_congestion(outer: u8, head: &mut [u8]) -> Result<(), DropReason> {
    let Some((kind, at)) = network(head) else { return Ok(()) };
    let packet = head.get_mut(at..).unwrap_or_default();
    let [first, second, ..] = *packet else { return Ok(()) };
    let tos = if kind == EtherType::IPV4 { second } else { first << 4 | second >> 4 };
    match Congestion::of(outer, Some(tos)) {
        Congestion::Keep => {}
        Congestion::Drop => return Err(DropReason::Congested),
        Congestion::Mark if kind == EtherType::IPV4 => {
            let [_, own, _, _, _, _, _, _, _, _, high, low, ..] = packet else { return Ok(()) };
            *own |= 3;
            // RFC 1624, equation 3.
            let mut sum = Checksum::new();
            sum.add_u16(!u16::from_be_bytes([*high, *low]));
            sum.add_u16(!u16::from_be_bytes([first, second]));
            sum.add_u16(u16::from_be_bytes([first, *own]));
            [*high, *low] = sum.finish().to_be_bytes();
        }
        Congestion::Mark => {
            if let Some(byte) = packet.get_mut(1) {
                *byte |= 3 << 4;
            }
        }
    }
    Ok(())
}

/// What IP packet a frame carries, and where.
fn network(head: &[u8]) -> Option<(EtherType, usize)> {
    let ethernet = Ethernet::parse(head)?;
    let (kind, payload) = ethernet.inner()?;
    let is_ip = matches!(kind, EtherType::IPV4 | EtherType::IPV6);
    is_ip.then(|| (kind, head.len().saturating_sub(payload.len())))
}

#[cfg(test)]
mod tests {
    use packet::MacAddr;
    use packet::builder::FrameBuilder;
    use packet::headers::Ipv4;

    use super::*;

    #[test]
    fn congestion_is_told_inside() {
        let [from, to] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
        let frame = FrameBuilder::new(from, to).ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2);
        let mut frame = frame.build().unwrap();
        assert_eq!(mark_congestion(3, &mut frame.clone()), Err(DropReason::Congested));
        // Capable of saying so.
        frame[15] = 2;
        frame[24..26].fill(0);
        let sum = packet::checksum::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let before = frame.clone();
        assert_eq!(mark_congestion(2, &mut frame), Ok(()));
        assert_eq!(frame, before);
        assert_eq!(mark_congestion(3, &mut frame), Ok(()));
        let ip = Ipv4::parse(&frame[14..]).unwrap();
        assert_eq!((ip.traffic_class(), ip.checksum_is_valid()), (3, true));
        let v6 = FrameBuilder::new(from, to).ip([0; 16], [1; 16]).udp(1, 2);
        let mut v6 = v6.build().unwrap();
        v6[15] |= 1 << 4;
        assert_eq!(mark_congestion(3, &mut v6), Ok(()));
        assert_eq!(v6[15] >> 4 & 3, 3);
    }
}
