//! From an outer header to what it says.

use packet::headers::EtherType;

use crate::envelope::Envelope;
use crate::erspan::{BASE, Erspan, HAS_MORE};
use crate::gpe;
use crate::kind::Kind;
use crate::meta::{Gtpu, Inner, Meta, Options, Policy};

/// The least EtherType (IEEE 802.3, section 3.2.6).
const LEAST_ETHER_TYPE: u16 = 0x600;

/// What carries Ethernet (RFC 8926, section 3.4; RFC 7637 for GRE).
pub(crate) const ETHERNET: [u8; 2] = [0x65, 0x58];

/// The flag G of VXLAN: there is a group.
pub(crate) const POLICY: u8 = 0x80;

/// Length of the headers of UDP, VXLAN, Geneve and GTP-U.
const FIXED: usize = 8;

/// Why a frame does not come out of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no such tunnel's.
    Other,
    /// That depends on bytes of the frame that are not at hand.
    Deeper,
    /// It contradicts itself, or is not all there.
    Malformed,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Other => "it is no frame of a tunnel",
            Self::Deeper => "its headers are not at hand",
            Self::Malformed => "its headers contradict each other, or are not all there",
        })
    }
}

impl std::error::Error for Refused {}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the outer header says.
    pub meta: Meta,
    /// Where the inner frame begins; 0 of what is for the end of the tunnel itself, and stays as it is.
    pub at: usize,
    /// Where a checksum over all that follows begins, if there is one that is to be checked, and whether it
    /// is that of UDP, with a pseudo header.
    pub checksum: Option<(usize, bool)>,
}

/// Reads the outer header of a frame that begins with `head`, which is behind this IP header.
///
/// # Errors
/// It is none of this kind, or not a good one.
pub fn parse(kind: Kind, envelope: &Envelope, head: &[u8]) -> Result<Found, Refused> {
    if envelope.protocol != kind.protocol() {
        return Err(Refused::Other);
    }
    let mut reader = Reader { envelope, head, at: envelope.at };
    let meta = Meta {
        tos: envelope.tos,
        ttl: envelope.ttl,
        dont_fragment: envelope.dont_fragment,
        ..Meta::new(envelope.source, envelope.destination)
    };
    let mut found = Found { meta, at: 0, checksum: None };
    match kind {
        Kind::Vxlan => reader.vxlan(&mut found),
        Kind::Geneve => reader.geneve(&mut found),
        Kind::Gre => reader.gre(&mut found),
        Kind::Erspan => reader.erspan(&mut found),
        Kind::Gtpu => reader.gtpu(&mut found),
    }?;
    found.at = reader.at;
    Ok(found)
}

struct Reader<'r> {
    envelope: &'r Envelope,
    head: &'r [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next so many bytes.
    fn take(&mut self, count: usize) -> Result<&[u8], Refused> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.envelope.end);
        let end = end.ok_or(Refused::Malformed)?;
        let bytes = self.head.get(self.at..end).ok_or(Refused::Deeper)?;
        self.at = end;
        Ok(bytes)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        self.take(N)?.first_chunk().copied().ok_or(Refused::Malformed)
    }

    /// RFC 768. The datagram has to be all that is in the packet.
    fn udp(&mut self, found: &mut Found) -> Result<(), Refused> {
        let at = self.at;
        let [_, _, _, _, high, low, sum @ ..] = self.chunk::<FIXED>()?;
        if usize::from(u16::from_be_bytes([high, low])) != self.envelope.end.saturating_sub(at) {
            return Err(Refused::Malformed);
        }
        if sum != [0, 0] {
            found.meta.checksum = true;
            found.checksum = Some((at, true));
        }
        Ok(())
    }

    /// RFC 7348, section 5: of flags, I has to be set; what is reserved is passed over, but where that says what
    /// is inside.
    fn vxlan(&mut self, found: &mut Found) -> Result<(), Refused> {
        self.udp(found)?;
        let [flags, more, high, next, a, b, c, _] = self.chunk::<FIXED>()?;
        found.meta.key = Some(u32::from_be_bytes([0, a, b, c]).into());
        if flags & gpe::NEXT != 0 {
            found.meta.inner = gpe::inner(flags, next).ok_or(Refused::Malformed)?;
            found.meta.says_inner = true;
        } else if flags & POLICY != 0 {
            let (group, flags) = (u16::from_be_bytes([high, next]), more & Policy::FLAGS);
            found.meta.policy = Some(Policy { group, flags });
        }
        if flags & 0x08 == 0 { Err(Refused::Malformed) } else { Ok(()) }
    }

    /// RFC 8926, section 3.4.
    fn geneve(&mut self, found: &mut Found) -> Result<(), Refused> {
        self.udp(found)?;
        let [first, flags, high, low, a, b, c, _] = self.chunk::<FIXED>()?;
        if first >> 6 != 0 || [high, low] != ETHERNET {
            return Err(Refused::Malformed);
        }
        let options = self.take(usize::from(first & 0x3F) * 4)?;
        found.meta.options = Options::parse(options).ok_or(Refused::Malformed)?;
        found.meta.oam = flags & 0x80 != 0;
        found.meta.key = Some(u32::from_be_bytes([0, a, b, c]).into());
        Ok(())
    }

    /// RFC 2784, section 2, with the key and the number of RFC 2890, section 2.
    fn gre(&mut self, found: &mut Found) -> Result<(), Refused> {
        const CHECKSUM: u8 = 0x80;
        const KEY: u8 = 0x20;
        const NUMBER: u8 = 0x10;
        let at = self.at;
        let [flags, version, high, low] = self.chunk::<4>()?;
        // What is reserved, and not known, has to be 0, but for the recursion control of old.
        if flags & !(CHECKSUM | KEY | NUMBER) & 0xF8 != 0 || version & 0x07 != 0 {
            return Err(Refused::Malformed);
        }
        found.meta.inner = match u16::from_be_bytes([high, low]) {
            _ if [high, low] == ETHERNET => Inner::Ethernet,
            kind @ LEAST_ETHER_TYPE.. => Inner::Bare(EtherType(kind)),
            _ => return Err(Refused::Other),
        };
        if flags & CHECKSUM != 0 {
            self.chunk::<4>()?;
            found.meta.checksum = true;
            found.checksum = Some((at, false));
        }
        if flags & KEY != 0 {
            found.meta.key = Some(u32::from_be_bytes(self.chunk()?).into());
        }
        if flags & NUMBER != 0 {
            self.chunk::<4>()?;
            found.meta.is_numbered = true;
        }
        Ok(())
    }

    /// The header of GRE has a number, and nothing else.
    fn erspan(&mut self, found: &mut Found) -> Result<(), Refused> {
        let [0x10, 0, high, low, _, _, _, _] = self.chunk::<8>()? else {
            return Err(Refused::Malformed);
        };
        let version = Erspan::announced(u16::from_be_bytes([high, low])).ok_or(Refused::Other)?;
        let base = self.chunk::<BASE>()?;
        Erspan::base(version, base, &mut found.meta).ok_or(Refused::Malformed)?;
        found.meta.is_numbered = true;
        if version == 1 {
            found.meta.erspan = Some(Erspan::first(self.chunk()?));
            return Ok(());
        }
        let half = self.chunk::<8>()?;
        found.meta.erspan = Some(Erspan::second(half));
        let [.., last] = half;
        self.take(if last & HAS_MORE == 0 { 0 } else { 8 })?;
        Ok(())
    }

    /// 3GPP TS 29.281, section 5.
    fn gtpu(&mut self, found: &mut Found) -> Result<(), Refused> {
        self.udp(found)?;
        let [flags, message, high, low, a, b, c, d] = self.chunk::<FIXED>()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        // Version 1, which has no other protocol than this.
        if flags & 0xF0 != Gtpu::PACKET.flags || len > self.envelope.end.saturating_sub(self.at) {
            return Err(Refused::Malformed);
        }
        let gtpu = Gtpu { flags, message };
        found.meta.key = Some(u32::from_be_bytes([a, b, c, d]).into());
        found.meta.gtpu = Some(gtpu);
        if !gtpu.is_packet() {
            // Whoever is told of it finds it as it came.
            self.at = 0;
            return Ok(());
        }
        self.more(flags)?;
        found.meta.is_numbered = flags & Gtpu::NUMBER != 0;
        found.meta.inner = self.version()?;
        Ok(())
    }

    /// What follows GTP-U's header by its flags: four bytes for any of them, the last of which says what is behind
    /// that, and so on; each is as long as it says in its first byte.
    fn more(&mut self, flags: u8) -> Result<(), Refused> {
        const MORE: u8 = 0x04;
        if flags & 7 == 0 {
            return Ok(());
        }
        let [.., mut next] = self.chunk::<4>()?;
        while flags & MORE != 0 && next != 0 {
            let [words] = self.chunk::<1>()?;
            // Each is four bytes at least, so they come to an end.
            let rest = usize::from(words).saturating_mul(4).checked_sub(1);
            let rest = self.take(rest.ok_or(Refused::Malformed)?)?;
            next = rest.last().copied().unwrap_or(0);
        }
        Ok(())
    }

    /// What packet of IP follows.
    fn version(&self) -> Result<Inner, Refused> {
        if self.at >= self.envelope.end {
            return Err(Refused::Malformed);
        }
        match self.head.get(self.at).ok_or(Refused::Deeper)? >> 4 {
            4 => Ok(Inner::Bare(EtherType::IPV4)),
            6 => Ok(Inner::Bare(EtherType::IPV6)),
            _ => Err(Refused::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outer::tests::{LINK, least, meta, outer};
    use crate::{MAX_OPTIONS, Outer};

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(Kind::ALL.to_vec())
    }

    fn read(kind: Kind, frame: &[u8], len: usize) -> Result<Found, Refused> {
        parse(kind, &Envelope::parse(frame, len)?, frame)
    }

    proptest! {
        #[test]
        fn what_is_made_is_read_again(
            kind in kinds(),
            is_v6: bool,
            key in prop::option::of(0..1_u64 << 24),
            flags in any::<[bool; 3]>(),
            (tos, ttl) in any::<(u8, u8)>(),
            options in prop::collection::vec((any::<(u16, u8)>(), 0..4_usize), 0..4),
            inner in 14..2_000_usize,
            (entropy, carried, policy) in any::<(u16, Option<u16>, Option<(u16, u8)>)>(),
        ) {
            let mut meta = least(kind, meta(is_v6));
            // IPv6 has no such flag: routers never fragment.
            meta.dont_fragment = is_v6 || flags[0];
            (meta.tos, meta.ttl) = (tos, ttl);
            meta.key = match kind {
                Kind::Gre => key,
                _ => Some(key.unwrap_or(0) & kind.max_key()),
            };
            if kind == Kind::Geneve {
                meta.oam = flags[1];
                for ((class, kind), words) in options {
                    prop_assert!(meta.options.push(class, kind, &vec![7; words * 4]));
                }
            }
            meta.checksum = flags[2] && kind != Kind::Erspan;
            meta.says_inner = kind == Kind::Vxlan && flags[0];
            meta.is_numbered = match kind {
                Kind::Gre | Kind::Gtpu => flags[1],
                _ => kind == Kind::Erspan,
            };
            meta.gtpu = meta.gtpu.map(|own| Gtpu {
                flags: own.flags | if meta.is_numbered { Gtpu::NUMBER } else { 0 },
                ..own
            });
            if let Some(Erspan { version, index, direction, hardware }) = &mut meta.erspan
                && flags[1]
            {
                (*version, *index) = (1, u32::from(entropy) << 4);
                (*direction, *hardware) = (0, 0);
            }
            meta.policy = policy.filter(|_| kind == Kind::Vxlan && !meta.says_inner)
                .map(|(group, flags)| Policy { group, flags: flags & Policy::FLAGS });
            meta.inner = match carried {
                Some(of) if kind == Kind::Gre && of != u16::from_be_bytes(ETHERNET) => {
                    Inner::Bare(EtherType(of.max(LEAST_ETHER_TYPE)))
                }
                Some(of) if meta.says_inner => gpe::inner(gpe::NEXT, of.to_le_bytes()[0] % 4 + 1).unwrap(),
                Some(of) if kind == Kind::Gtpu && of & 1 != 0 => Inner::Bare(EtherType::IPV6),
                _ => meta.inner,
            };
            let outer = Outer::new(kind, &meta, LINK, kind.port()).unwrap();
            // UDP over IPv6 has one in any case.
            meta.checksum |= kind.is_over_udp() && is_v6;
            prop_assert_eq!(outer.has_checksum(), meta.checksum);
            let mut frame: Vec<u8> = (0..outer.len() + inner).map(|at| at.to_le_bytes()[0]).collect();
            frame[outer.len()] = if meta.inner == Inner::Bare(EtherType::IPV6) { 0x60 } else { 0x45 };
            outer.write(&mut frame, inner, entropy);
            outer.number(&mut frame, 0x0102_0304, 5);
            if meta.is_numbered && kind == Kind::Gre {
                prop_assert_eq!(&frame[outer.len() - 4..outer.len()], &[1, 2, 3, 4]);
            }
            let mut sum = packet::checksum::Checksum::new();
            sum.add(&frame[outer.len()..]);
            outer.seal(&mut frame, inner, sum);
            let found = read(kind, &frame, frame.len()).unwrap();
            prop_assert_eq!((found.meta, found.at), (meta, outer.len()));
            prop_assert_eq!(found.checksum.is_some(), meta.checksum);
            if let Some((at, is_udp)) = found.checksum {
                let envelope = Envelope::parse(&frame, frame.len()).unwrap();
                let mut sum = if is_udp { envelope.pseudo_header() } else { Default::default() };
                sum.add(&frame[at..]);
                prop_assert!(sum.is_valid());
            }
        }

        #[test]
        fn no_bytes_are_too_bad(
            kind in kinds(),
            is_v6: bool,
            changes in prop::collection::vec((0..120_usize, any::<u8>()), 0..6),
            (keep, more) in (0..200_usize, 0..200_usize),
        ) {
            let mut frame = outer(kind, is_v6, 60);
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            let whole = read(kind, &frame, frame.len());
            prop_assert_ne!(whole, Err(Refused::Deeper));
            frame.truncate(keep);
            let part = read(kind, &frame, frame.len() + more);
            if let Ok(found) = part {
                prop_assert!(found.at <= frame.len() + more);
                prop_assert!(found.meta.options.as_bytes().len() <= MAX_OPTIONS);
            }
        }

        #[test]
        fn a_part_of_the_head_says_nothing_else(kind in kinds(), is_v6: bool, keep in 0..130_usize) {
            let frame = outer(kind, is_v6, 60);
            let whole = read(kind, &frame, frame.len());
            let part = read(kind, &frame[..keep.min(frame.len())], frame.len());
            prop_assert!(part == whole || part == Err(Refused::Deeper), "{part:?}");
        }
    }

    #[test]
    fn what_is_between_the_header_of_gtpu_and_the_packet_is_passed_over() {
        let read_with = |flags: u8, more: &[u8]| {
            let mut frame = outer(Kind::Gtpu, false, 60);
            frame[42] = 0x30 | flags;
            frame[50..50 + more.len()].copy_from_slice(more);
            read(Kind::Gtpu, &frame, frame.len()).map(|found| (found.at, found.meta.is_numbered))
        };
        assert_eq!(
            read_with(2, &[1, 2, 0, 9, 0x45]),
            Ok((54, true)),
            "nobody has said that 9 follows"
        );
        assert_eq!(read_with(1, &[0, 0, 3, 0, 0x60]), Ok((54, false)));
        let two = [1, 2, 0, 0x85, 1, 0, 0, 0xC0, 2, 0, 0, 0, 0, 0, 0, 0, 0x45];
        assert_eq!(read_with(6, &two), Ok((66, true)));
        // One without a length, and one that is longer than the packet.
        assert_eq!(read_with(4, &[0, 0, 0, 1, 0]), Err(Refused::Malformed));
        assert_eq!(read_with(4, &[0, 0, 0, 1, 255]), Err(Refused::Malformed));
    }

    #[test]
    fn words_between_the_ends_of_a_tunnel_stay_as_they_are() {
        let mut frame = outer(Kind::Gtpu, false, 60);
        frame[43] = 1;
        let found = read(Kind::Gtpu, &frame, frame.len()).unwrap();
        assert_eq!((found.at, found.meta.inner), (0, Inner::Ethernet));
        assert_eq!(found.meta.gtpu, Some(Gtpu { flags: 0x30, message: 1 }));
    }

    /// As Open vSwitch takes it: what is inside says how long it is.
    #[test]
    fn a_packet_of_gtpu_is_all_of_its_datagram_whatever_its_length_says() {
        let frame = outer(Kind::Gtpu, false, 60);
        let told = u16::from_be_bytes([frame[44], frame[45]]);
        for len in [0, 20, told - 1] {
            let mut less = frame.clone();
            less[44..46].copy_from_slice(&len.to_be_bytes());
            assert_eq!(read(Kind::Gtpu, &less, less.len()), read(Kind::Gtpu, &frame, frame.len()));
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let wrong = |kind, (at, byte): (usize, u8)| {
            let mut frame = outer(kind, false, 60);
            frame[at] = byte;
            read(kind, &frame, frame.len()).unwrap_err()
        };
        for (what, why) in [
            ((12, 0x81), Refused::Other),
            ((14, 0x46), Refused::Malformed),
            ((16, 0xFF), Refused::Malformed),
            ((22, 63), Refused::Malformed),
            ((39, 9), Refused::Malformed),
            ((42, 0), Refused::Malformed),
        ] {
            assert_eq!(wrong(Kind::Vxlan, what), why, "{what:?}");
        }
        // A version, options that are longer than the packet, and another payload.
        for what in [(42, 0x40), (42, 0x3F), (44, 0x08)] {
            assert_eq!(wrong(Kind::Geneve, what), Refused::Malformed, "{what:?}");
        }
        // Routing, a version, and another payload.
        for (what, why) in [
            ((34, 0x60), Refused::Malformed),
            ((35, 1), Refused::Malformed),
            ((36, 0x05), Refused::Other),
        ] {
            assert_eq!(wrong(Kind::Gre, what), why, "{what:?}");
        }
        // Another flag of GRE, another version than was announced.
        for what in [(34, 0x30), (42, 0x10)] {
            assert_eq!(wrong(Kind::Erspan, what), Refused::Malformed, "{what:?}");
        }
        assert_eq!(wrong(Kind::Erspan, (36, 0x23)), Refused::Other);
        // Another version, a packet that is longer than the datagram, and one of no version of IP.
        for what in [(42, 0x50), (42, 0x20), (44, 1), (50, 0x55)] {
            assert_eq!(wrong(Kind::Gtpu, what), Refused::Malformed, "{what:?}");
        }
        assert_eq!(read(Kind::Gre, &outer(Kind::Vxlan, false, 60), 110), Err(Refused::Other));
    }
}
