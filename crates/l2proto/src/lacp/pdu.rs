//! Frames of the Link Aggregation Control Protocol (IEEE 802.1AX-2014 clause 6.4.2) and of the
//! marker protocol (clause 6.5), as they are on the wire.

use packet::MacAddr;

/// Where they go: the group "Slow Protocols" (IEEE 802.3 annex 57A).
pub const SLOW_PROTOCOLS: MacAddr = MacAddr([0x01, 0x80, 0xC2, 0, 0, 0x02]);

/// Their EtherType.
pub const ETHERTYPE: u16 = 0x8809;

/// Bytes of a frame of either protocol, without frame check sequence.
pub const FRAME_LEN: usize = 124;

/// Bytes before the first TLV: Ethernet header, subtype and version.
const HEADER: usize = 16;

const LACP: u8 = 1;
const MARKER: u8 = 2;

/// Type and length of the TLVs.
const ACTOR: [u8; 2] = [1, 20];
const PARTNER: [u8; 2] = [2, 20];
const COLLECTOR: [u8; 2] = [3, 16];
const MARKER_INFORMATION: [u8; 2] = [1, 16];
const MARKER_RESPONSE: u8 = 2;

/// Bits of a port's state, as neighbours tell each other (figure 6-9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// Speaks unasked.
    pub const ACTIVITY: Self = Self(0x01);
    /// Wants to hear once a second.
    pub const SHORT_TIMEOUT: Self = Self(0x02);
    /// May be one of several.
    pub const AGGREGATION: Self = Self(0x04);
    /// Belongs to the right group.
    pub const SYNCHRONIZATION: Self = Self(0x08);
    /// Takes frames from the link.
    pub const COLLECTING: Self = Self(0x10);
    /// Sends frames to it.
    pub const DISTRIBUTING: Self = Self(0x20);
    /// What it knows of its partner was not heard from it.
    pub const DEFAULTED: Self = Self(0x40);
    /// It has not heard from its partner for too long.
    pub const EXPIRED: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The same with the bits of `other`, set or not.
    pub const fn with(self, other: Self, set: bool) -> Self {
        Self(if set { self.0 | other.0 } else { self.0 & !other.0 })
    }
}

/// What one side says of itself, or of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The priority of the system; the lowest decides.
    pub system_priority: u16,
    /// Its address.
    pub system: MacAddr,
    /// Ports of a system with the same key may be one.
    pub key: u16,
    /// The priority of the port.
    pub port_priority: u16,
    /// Its number.
    pub port: u16,
    /// Its state.
    pub flags: Flags,
}

impl Info {
    /// Whether both are the same port of the same system with the same key, whatever their state,
    /// but may be aggregated or not.
    pub fn is_same(&self, other: &Self) -> bool {
        let plain =
            |info: &Self| Self { flags: Flags(info.flags.0 & Flags::AGGREGATION.0), ..*info };
        plain(self) == plain(other)
    }

    fn parse(tlv: &[u8; 20]) -> Self {
        let [_, _, p0, p1, m0, m1, m2, m3, m4, m5, k0, k1, q0, q1, n0, n1, flags, ..] = *tlv;
        Self {
            system_priority: u16::from_be_bytes([p0, p1]),
            system: MacAddr([m0, m1, m2, m3, m4, m5]),
            key: u16::from_be_bytes([k0, k1]),
            port_priority: u16::from_be_bytes([q0, q1]),
            port: u16::from_be_bytes([n0, n1]),
            flags: Flags(flags),
        }
    }

    fn write(&self, kind: [u8; 2], to: &mut Vec<u8>) {
        to.extend(kind);
        to.extend(self.system_priority.to_be_bytes());
        to.extend(self.system.0);
        to.extend(self.key.to_be_bytes());
        to.extend(self.port_priority.to_be_bytes());
        to.extend(self.port.to_be_bytes());
        to.extend([self.flags.0, 0, 0, 0]);
    }
}

/// What a neighbour says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pdu {
    /// Of itself.
    pub actor: Info,
    /// Of us.
    pub partner: Info,
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slow {
    /// Of LACP.
    Lacp(Pdu),
    /// Somebody asks whether all he has sent has arrived; this is the answer to send.
    Marker(Vec<u8>),
}

impl Pdu {
    /// The frame, from a port with this address.
    pub fn frame(&self, from: MacAddr) -> Vec<u8> {
        let mut frame = header(from, LACP);
        self.actor.write(ACTOR, &mut frame);
        self.partner.write(PARTNER, &mut frame);
        // Frames are handed on at once.
        frame.extend(COLLECTOR);
        frame.resize(FRAME_LEN, 0);
        frame
    }
}

fn header(from: MacAddr, subtype: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_LEN);
    frame.extend(SLOW_PROTOCOLS.0);
    frame.extend(from.0);
    frame.extend(ETHERTYPE.to_be_bytes());
    frame.extend([subtype, 1]);
    frame
}

/// Reads a frame of a slow protocol that came in on a port with address `own`; `None` for what is
/// none that is known here, or cut off. Later versions than 1 are read as that (clause 6.4.2.3).
pub fn parse(frame: &[u8], own: MacAddr) -> Option<Slow> {
    let (header, body) = frame.split_at_checked(HEADER)?;
    let [.., high, low, subtype, _version] = *header else { return None };
    if header.get(..6)? != SLOW_PROTOCOLS.0 || u16::from_be_bytes([high, low]) != ETHERTYPE {
        return None;
    }
    match subtype {
        LACP => {
            let (actor, rest) = body.split_first_chunk::<20>()?;
            let partner = rest.first_chunk::<20>()?;
            let is_known = actor.starts_with(&ACTOR) && partner.starts_with(&PARTNER);
            let pdu = Pdu { actor: Info::parse(actor), partner: Info::parse(partner) };
            is_known.then_some(Slow::Lacp(pdu))
        }
        MARKER => {
            let marker = body.first_chunk::<16>()?;
            if !marker.starts_with(&MARKER_INFORMATION) {
                return None;
            }
            let mut answer = self::header(own, MARKER);
            answer.extend([MARKER_RESPONSE]);
            answer.extend(marker.iter().skip(1));
            answer.resize(FRAME_LEN, 0);
            Some(Slow::Marker(answer))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn info(number: u8) -> Info {
        Info {
            system_priority: 65534,
            system: MacAddr([2, 0, 0, 0, 9, number]),
            key: 0x0102,
            port_priority: 255,
            port: u16::from(number),
            flags: Flags(0x3D),
        }
    }

    #[test]
    fn frames_are_as_the_standard_has_them() {
        let pdu = Pdu { actor: info(1), partner: info(2) };
        let frame = pdu.frame(OWN);
        assert_eq!(frame.len(), FRAME_LEN);
        assert_eq!(frame[..16], [1, 0x80, 0xC2, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 9, 1, 1]);
        let actor = [1, 20, 0xFF, 0xFE, 2, 0, 0, 0, 9, 1, 1, 2, 0, 255, 0, 1, 0x3D, 0, 0, 0, 2, 20];
        assert_eq!(frame[16..38], actor);
        assert_eq!(frame[56..60], [3, 16, 0, 0]);
        assert_eq!(frame[72..], [0; 52], "the end");
        assert_eq!(parse(&frame, OWN), Some(Slow::Lacp(pdu)));
    }

    #[test]
    fn markers_are_answered() {
        let mut marker = header(MacAddr([2, 0, 0, 0, 0, 7]), MARKER);
        marker.extend([1, 16, 0, 5, 2, 0, 0, 0, 0, 7, 1, 2, 3, 4, 0, 0]);
        let Some(Slow::Marker(answer)) = parse(&marker, OWN) else { panic!() };
        assert_eq!((answer.len(), &answer[6..12]), (FRAME_LEN, &OWN.0[..]));
        assert_eq!(answer[14..20], [2, 1, 2, 16, 0, 5]);
        assert_eq!(answer[20..32], marker[20..32]);
        assert_eq!(parse(&answer, OWN), None, "an answer is not answered");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(
            body in proptest::collection::vec(any::<u8>(), 0..130), subtype in 0_u8..4, is_slow in any::<bool>()
        ) {
            let mut frame = header(OWN, subtype);
            frame.extend(&body);
            if !is_slow {
                frame = body.clone();
            }
            let parsed = parse(&frame, OWN);
            prop_assert!(parsed.is_none() || body.len() >= 16);
        }

        #[test]
        fn what_is_cut_off_is_refused(len in 0_usize..56) {
            let frame = Pdu { actor: info(1), partner: info(2) }.frame(OWN);
            prop_assert_eq!(parse(&frame[..len], OWN), None);
        }
    }
}
