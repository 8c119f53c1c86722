//! What an outer header says, or is to say.

use std::net::IpAddr;

use packet::headers::EtherType;

use crate::erspan::Erspan;

/// The most bytes of Geneve's options that are kept, or sent: of eight with values of eight bytes.
pub const MAX_OPTIONS: usize = 96;

/// The most bytes of options that a header has (RFC 8926, section 3.4).
const MOST: usize = 63 * 4;

/// Bytes in front of an option's value (RFC 8926, section 3.5).
const OPTION_HEADER: usize = 4;

/// What is in a tunnel, behind its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Inner {
    /// A frame of Ethernet.
    #[default]
    Ethernet,
    /// A packet without a header of Ethernet, of this EtherType.
    Bare(EtherType),
}

impl Inner {
    /// Whether it is a packet without a header of Ethernet.
    #[must_use]
    pub const fn is_bare(self) -> bool {
        matches!(self, Self::Bare(_))
    }

    /// Whether that begins with a VLAN tag.
    #[must_use]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::Bare(kind) if kind.is_tag())
    }
}

/// What goes around a frame, or around a packet without a header of Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Meta {
    /// The tunnel's key, or the number of the network; `None` where the header has none.
    pub key: Option<u64>,
    /// Where the outer packet is from.
    pub source: IpAddr,
    /// Where it goes, of the same family.
    pub destination: IpAddr,
    /// Type of service, ECN included.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
    /// Whether the outer header has a checksum over all of the packet.
    pub checksum: bool,
    /// Whether it is for the end of the tunnel itself (Geneve's flag O).
    pub oam: bool,
    /// Geneve's options.
    pub options: Options,
    /// What it is around.
    pub inner: Inner,
    /// Whether VXLAN's header says what that is (VXLAN-GPE).
    pub says_inner: bool,
    /// Whether GRE's header has a number, of which each packet has another one.
    pub is_numbered: bool,
    /// The group whose policy is for it, where VXLAN's header has one.
    pub policy: Option<Policy>,
    /// What ERSPAN says of it.
    pub erspan: Option<Erspan>,
    /// What GTP-U's header has beside its key.
    pub gtpu: Option<Gtpu>,
}

/// What a header of GTP-U has beside its key (3GPP TS 29.281, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gtpu {
    /// Its version, and what follows.
    pub flags: u8,
    /// What kind of message it is.
    pub message: u8,
}

impl Gtpu {
    /// A packet of a user, and nothing between the header and it.
    pub const PACKET: Self = Self { flags: 0x30, message: 255 };

    /// The packet has a number.
    pub(crate) const NUMBER: u8 = 0x02;

    /// Whether it is a packet of a user, and no word between the ends of the tunnel.
    #[must_use]
    pub const fn is_packet(self) -> bool {
        self.message == Self::PACKET.message
    }
}

/// Whose policy a packet is under (VXLAN Group Policy option, draft-smith-vxlan-group-policy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The group that it is from.
    pub group: u16,
    /// That its source is not to be learnt (0x40), and that the policy was applied (0x08).
    pub flags: u8,
}

impl Policy {
    /// The flags that there are.
    pub const FLAGS: u8 = 0x48;
}

impl Meta {
    /// Between these addresses, with what is usual beside.
    #[must_use]
    pub const fn new(source: IpAddr, destination: IpAddr) -> Self {
        Self {
            key: None,
            source,
            destination,
            tos: 0,
            ttl: 64,
            dont_fragment: true,
            checksum: false,
            oam: false,
            options: Options::NONE,
            inner: Inner::Ethernet,
            says_inner: false,
            is_numbered: false,
            policy: None,
            erspan: None,
            gtpu: None,
        }
    }

    /// The same with this key.
    #[must_use]
    pub const fn with_key(self, key: u64) -> Self {
        Self { key: Some(key), ..self }
    }
}

/// An option of Geneve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelOption<'o> {
    /// Who has defined it.
    pub class: u16,
    /// What it is, with the bit that says that it must not be passed over.
    pub kind: u8,
    /// Its value, of up to 124 bytes.
    pub value: &'o [u8],
}

impl TunnelOption<'_> {
    /// Whether a receiver that does not know it must drop the packet (RFC 8926, section 3.5).
    #[must_use]
    pub const fn is_critical(&self) -> bool {
        self.kind & 0x80 != 0
    }
}

/// Options of Geneve, as they are in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    bytes: [u8; MAX_OPTIONS],
    len: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self::NONE
    }
}

impl Options {
    /// None of them.
    pub const NONE: Self = Self { bytes: [0; MAX_OPTIONS], len: 0 };

    /// Those of a header: of more than there is room for, the first ones. `None` if the last one is not all there, or if one
    /// that there is no room for must not be passed over.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut options = Self::NONE;
        let mut whole = 0;
        for option in each(bytes.get(..bytes.len().min(MOST))?) {
            whole += OPTION_HEADER + option.value.len();
            match bytes.get(..whole).filter(|_| whole <= MAX_OPTIONS) {
                Some(kept) => options.keep(kept),
                None if option.is_critical() => return None,
                None => {}
            }
        }
        (whole == bytes.len()).then_some(options)
    }

    /// Is these, as far as there is room.
    fn keep(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
            self.len = u8::try_from(bytes.len()).unwrap_or_default();
        }
    }

    /// Adds an option; returns whether there was room, and the length is one that options have.
    pub fn push(&mut self, class: u16, kind: u8, value: &[u8]) -> bool {
        let at = usize::from(self.len);
        let end = at + OPTION_HEADER + value.len();
        let words = u8::try_from(value.len() / 4).unwrap_or(u8::MAX);
        let Some(place) = self.bytes.get_mut(at..end) else { return false };
        if !value.len().is_multiple_of(4) || words > 31 {
            return false;
        }
        let ([high, low], (header, room)) =
            (class.to_be_bytes(), place.split_at_mut(OPTION_HEADER));
        header.copy_from_slice(&[high, low, kind, words]);
        room.copy_from_slice(value);
        self.len = u8::try_from(end).unwrap_or(self.len);
        true
    }

    /// As they are in a header.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Each of them, up to one that is not all there.
    pub fn iter(&self) -> impl Iterator<Item = TunnelOption<'_>> {
        each(self.as_bytes())
    }
}

/// Each option, up to one that is not all there.
fn each(mut left: &[u8]) -> impl Iterator<Item = TunnelOption<'_>> {
    std::iter::from_fn(move || {
        let ([high, low, kind, words], rest) = left.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(words & 0x1F) * 4)?;
        left = rest;
        Some(TunnelOption { class: u16::from_be_bytes([*high, *low]), kind: *kind, value })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_are_what_was_put_in() {
        let mut options = Options::NONE;
        assert!(options.push(0x0102, 0x80, &[1, 2, 3, 4]) && options.push(7, 1, &[]));
        assert!(!options.push(1, 1, &[0; 3]), "not a multiple of four");
        assert!(!options.push(1, 1, &[0; MAX_OPTIONS]));
        assert_eq!(options.as_bytes(), [1, 2, 0x80, 1, 1, 2, 3, 4, 0, 7, 1, 0]);
        let all: Vec<_> = options.iter().collect();
        let first = TunnelOption { class: 0x0102, kind: 0x80, value: &[1, 2, 3, 4] };
        assert_eq!((all[0], all.len()), (first, 2));
        assert!(all[0].is_critical() && !all[1].is_critical());
    }

    #[test]
    fn options_that_there_is_no_room_for_are_passed_over_if_they_may_be() {
        let long = |kind: u8| [&[0, 1, kind, 20][..], &[7; 80]].concat();
        let bytes = [long(1), long(2), vec![0, 1, 3, 0]].concat();
        let options = Options::parse(&bytes).unwrap();
        assert_eq!(options.as_bytes(), &bytes[..84], "what is behind it is not kept either");
        assert_eq!(Options::parse(&[long(1), long(0x82)].concat()), None);
        assert_eq!(Options::parse(&bytes[..170]), None);
    }

    proptest! {
        #[test]
        fn options_are_whole_or_none(bytes in prop::collection::vec(any::<u8>(), 0..MAX_OPTIONS)) {
            if let Some(options) = Options::parse(&bytes) {
                prop_assert_eq!(options.as_bytes(), &bytes[..]);
                let mut again = Options::NONE;
                for option in options.iter() {
                    prop_assert!(again.push(option.class, option.kind, option.value));
                }
                prop_assert_eq!(again.iter().count(), options.iter().count());
            }
        }
    }
}
