//! From an outer header to what it says.

use packet::headers::EtherType;

use crate::envelope::Envelope;
use crate::gpe;
use crate::kind::Kind;
use crate::meta::{Inner, Meta, Options, Policy};

/// The least EtherType (IEEE 802.3, section 3.2.6).
const LEAST_ETHER_TYPE: u16 = 0x600;

/// What carries Ethernet (RFC 8926, section 3.4; RFC 7637 for GRE).
pub(crate) const ETHERNET: [u8; 2] = [0x65, 0x58];

/// The flag G of VXLAN: there is a group.
pub(crate) const POLICY: u8 = 0x80;

/// Length of the headers of UDP, VXLAN and Geneve.
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
    /// Where the inner frame begins.
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outer::tests::{LINK, meta, outer};
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
            let mut meta = meta(is_v6);
            // IPv6 has no such flag: routers never fragment.
            meta.dont_fragment = is_v6 || flags[0];
            (meta.tos, meta.ttl) = (tos, ttl);
            meta.key = if kind == Kind::Gre { key } else { Some(key.unwrap_or(0)) };
            if kind == Kind::Geneve {
                meta.oam = flags[1];
                for ((class, kind), words) in options {
                    prop_assert!(meta.options.push(class, kind, &vec![7; words * 4]));
                }
            }
            meta.checksum = flags[2];
            meta.says_inner = kind == Kind::Vxlan && flags[0];
            meta.is_numbered = kind == Kind::Gre && flags[1];
            meta.policy = policy.filter(|_| kind == Kind::Vxlan && !meta.says_inner)
                .map(|(group, flags)| Policy { group, flags: flags & Policy::FLAGS });
            meta.inner = match carried {
                Some(of) if kind == Kind::Gre && of != u16::from_be_bytes(ETHERNET) => {
                    Inner::Bare(EtherType(of.max(LEAST_ETHER_TYPE)))
                }
                Some(of) if meta.says_inner => gpe::inner(gpe::NEXT, of.to_le_bytes()[0] % 4 + 1).unwrap(),
                _ => Inner::Ethernet,
            };
            let outer = Outer::new(kind, &meta, LINK, kind.port()).unwrap();
            // UDP over IPv6 has one in any case.
            meta.checksum |= kind != Kind::Gre && is_v6;
            prop_assert_eq!(outer.has_checksum(), meta.checksum);
            let mut frame: Vec<u8> = (0..outer.len() + inner).map(|at| at.to_le_bytes()[0]).collect();
            outer.write(&mut frame, inner, entropy);
            outer.number(&mut frame, 0x0102_0304);
            if meta.is_numbered {
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
        assert_eq!(read(Kind::Gre, &outer(Kind::Vxlan, false, 60), 110), Err(Refused::Other));
    }
}
