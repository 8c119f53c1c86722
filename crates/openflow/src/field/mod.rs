//! Fields: what a packet can be matched on and what of it can be written.
//!
//! - `entry`: fields in messages
//! - `headers`: fields by their numbers
//! - `table`: all of them
//! - `text`: values as ovs-ofctl writes them
//! - `valid`: which values and masks they may have

pub(crate) mod entry;
mod headers;
#[cfg(test)]
mod page;
mod table;
pub(crate) mod text;
mod valid;

use std::fmt;

pub use table::Field;
pub use text::shown;

use crate::Version;

/// A class of numbers of fields (OpenFlow 1.2, A.2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// The class in a field's header.
    pub class: u16,
    /// Whose class it is, for [`EXPERIMENTER`](Self::EXPERIMENTER); 0 for all others.
    pub experimenter: u32,
}

impl Class {
    /// The class whose headers name somebody, whose fields they are.
    pub const EXPERIMENTER: u16 = 0xFFFF;

    const NXM_OF: Self = Self { class: 0, experimenter: 0 };
    const NXM_NX: Self = Self { class: 1, experimenter: 0 };
    pub(crate) const OXM_OF: Self = Self { class: 0x8000, experimenter: 0 };
    const OXM_OF_PKT: Self = Self { class: 0x8001, experimenter: 0 };
    const ERICOXM_OF: Self = Self { class: 0x1000, experimenter: 0 };
    const ONFOXM_ET: Self = Self { class: Self::EXPERIMENTER, experimenter: 0x4F4E_4600 };
    const NXOXM_ET: Self = Self { class: Self::EXPERIMENTER, experimenter: 0x2320 };
    const NXOXM_NSH: Self = Self { class: Self::EXPERIMENTER, experimenter: 0x005A_D650 };
}

/// A number that stands for a field in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The class that it is in.
    pub class: Class,
    /// The number, below 128.
    pub number: u8,
    /// Since which version it is; those of Open vSwitch are in all.
    pub since: Version,
    /// Its name: `OXM_OF_ETH_SRC`.
    pub name: &'static str,
}

/// How people write a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A number in base 10.
    Decimal,
    /// A number in base 16.
    Hex,
    /// Flags of a tracked connection.
    CtState,
    /// A MAC address.
    Ethernet,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A port, 16 bits wide as in OpenFlow 1.0.
    Port,
    /// A port, 32 bits wide.
    PortOxm,
    /// Whether it is a fragment, and which.
    Frag,
    /// Flags of a tunnel.
    TunnelFlags,
    /// Flags of TCP.
    TcpFlags,
    /// A namespace and a type in it.
    PacketType,
}

/// What has to be matched on exactly before a field can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prerequisite {
    /// Nothing.
    Nothing,
    /// Packets with an Ethernet header.
    Ethernet,
    /// ARP or RARP.
    Arp,
    /// A VLAN tag.
    Vlan,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// IPv4 or IPv6.
    Ip,
    /// MPLS.
    Mpls,
    /// A packet that was tracked.
    Tracked,
    /// A network service header.
    Nsh,
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// UDP over IPv4 or IPv6.
    Udp,
    /// SCTP over IPv4 or IPv6.
    Sctp,
    /// ICMP over IPv4.
    Icmpv4,
    /// ICMPv6.
    Icmpv6,
    /// Neighbour discovery, solicitation or advertisement.
    Nd,
    /// Neighbour solicitation.
    NdSolicit,
    /// Neighbour advertisement.
    NdAdvert,
}

/// Which masks a match on a field may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    /// Any.
    Masked,
    /// None.
    Exact,
}

/// Whether actions may write a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Write,
    Fixed,
}

/// What is known of a field.
#[derive(Debug)]
struct Info {
    names: &'static [&'static str],
    bytes: u8,
    bits: u16,
    mask: Mask,
    format: Format,
    needs: Prerequisite,
    access: Access,
    headers: &'static [Header],
}

/// What is known of a field that is not in the table, of which there is none.
static NOTHING: Info = Info {
    names: &[""],
    bytes: 0,
    bits: 0,
    mask: Mask::Exact,
    format: Format::Decimal,
    needs: Prerequisite::Nothing,
    access: Access::Fixed,
    headers: &[],
};

impl Field {
    /// All of them.
    #[must_use]
    pub fn all() -> &'static [Self] {
        table::ALL
    }

    fn info(self) -> &'static Info {
        table::INFO.get(self as usize).unwrap_or(&NOTHING)
    }

    /// The field with this name, or another name of it: `eth_src`, `dl_src`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().iter().copied().find(|field| field.info().names.contains(&name))
    }

    /// The field that a header of this class and number stands for.
    #[must_use]
    pub fn by_header(class: Class, number: u8) -> Option<Self> {
        headers::find(class, number)
    }

    /// The field with a header of this name: `NXM_OF_ETH_SRC`, `OXM_OF_ETH_SRC`.
    #[must_use]
    pub fn by_header_name(name: &str) -> Option<Self> {
        let is_it = |header: &Header| header.name == name;
        Self::all().iter().copied().find(|field| field.info().headers.iter().any(is_it))
    }

    /// Register `n`, if there is one.
    #[must_use]
    pub fn reg(n: u8) -> Option<Self> {
        Self::Reg0.plus(n, 16)
    }

    /// Register `n` of 64 bits, which is two of 32.
    #[must_use]
    pub fn xreg(n: u8) -> Option<Self> {
        Self::Xreg0.plus(n, 8)
    }

    /// Register `n` of 128 bits, which is four of 32.
    #[must_use]
    pub fn xxreg(n: u8) -> Option<Self> {
        Self::Xxreg0.plus(n, 4)
    }

    /// Value `n` of a tunnel's options.
    #[must_use]
    pub fn tun_metadata(n: u8) -> Option<Self> {
        Self::TunMetadata0.plus(n, 64)
    }

    fn plus(self, n: u8, count: u8) -> Option<Self> {
        if n >= count {
            return None;
        }
        Self::all().get((self as usize).saturating_add(usize::from(n))).copied()
    }

    /// Its number in the family that begins with `first`, below `count`.
    pub(crate) fn number_in(self, first: Self, count: u8) -> Option<u8> {
        (self as u8).checked_sub(first as u8).filter(|n| *n < count)
    }

    /// Whether it is one of a tunnel's options, whose size differs.
    #[must_use]
    pub fn is_tun_metadata(self) -> bool {
        self.number_in(Self::TunMetadata0, 64).is_some()
    }

    /// The bit of [`TunOptions`](Self::TunOptions) that says whether there is the option that it stands for; 0 for fields
    /// that stand for none.
    #[must_use]
    pub fn option_bit(self) -> u64 {
        let number = self.number_in(Self::TunMetadata0, 64).map(u32::from);
        number.and_then(|number| 1_u64.checked_shl(number)).unwrap_or_default()
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.names().first().copied().unwrap_or_default()
    }

    /// Its name and its other names.
    #[must_use]
    pub fn names(self) -> &'static [&'static str] {
        self.info().names
    }

    /// How many bytes its value takes in a message; the most, for those whose size differs.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::from(self.info().bytes)
    }

    /// How many bits of it have a meaning.
    #[must_use]
    pub fn bits(self) -> u16 {
        self.info().bits
    }

    /// A mask of all its bits, of the lowest 128 of those that are larger.
    #[must_use]
    pub fn full_mask(self) -> u128 {
        ones(self.bits())
    }

    /// A mask of all bits of its bytes, those without a meaning, too; of the lowest 128 at most.
    #[must_use]
    pub fn byte_mask(self) -> u128 {
        ones(u16::from(self.info().bytes).saturating_mul(8))
    }

    /// Whether a match may have a mask that is neither all nor nothing.
    #[must_use]
    pub fn is_maskable(self) -> bool {
        self.info().mask == Mask::Masked
    }

    /// Whether actions may write it.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.info().access == Access::Write
    }

    /// How people write its values.
    #[must_use]
    pub fn format(self) -> Format {
        self.info().format
    }

    /// What has to be matched on before it.
    #[must_use]
    pub fn prerequisite(self) -> Prerequisite {
        self.info().needs
    }

    /// The numbers that stand for it, the oldest first.
    #[must_use]
    pub fn headers(self) -> &'static [Header] {
        self.info().headers
    }

    /// The number that stands for it in messages of a version: the newest that the version has; or
    /// else the oldest, which Open vSwitch uses there all the same.
    #[must_use]
    pub fn header(self, version: Version) -> Option<&'static Header> {
        let known = self.headers().iter().rev().find(|header| header.since <= version);
        known.or_else(|| self.headers().first())
    }
}

/// `count` ones, at most 128.
#[must_use]
pub const fn ones(count: u16) -> u128 {
    match count {
        0 => 0,
        1..128 => (1 << count) - 1,
        _ => u128::MAX,
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some bits of a field, all of them if they are as many as it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subfield {
    /// The field.
    pub field: Field,
    /// The lowest bit.
    pub offset: u16,
    /// How many bits.
    pub bits: u16,
}

impl Subfield {
    /// All bits of a field.
    #[must_use]
    pub fn whole(field: Field) -> Self {
        Self { field, offset: 0, bits: field.bits() }
    }

    /// Whether these are all bits of the field.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self == Self::whole(self.field)
    }

    /// A mask of these bits in the field.
    #[must_use]
    pub fn mask(self) -> u128 {
        ones(self.bits).checked_shl(u32::from(self.offset)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_numbers_are_of_one_field_each() {
        let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
        for (at, field) in Field::all().iter().enumerate() {
            assert_eq!(*field as usize, at);
            assert_eq!(Field::by_name(field.name()), Some(*field));
            assert!(field.names().iter().all(|name| names.insert(*name)), "{field}");
            assert!(usize::from(field.bits()).div_ceil(8) <= field.bytes(), "{field}");
            for header in field.headers() {
                assert!(numbers.insert((header.class, header.number)), "{field}");
                assert!(header.number < 128, "{field}");
                assert_eq!(Field::by_header_name(header.name), Some(*field));
                assert_eq!(Field::by_header(header.class, header.number), Some(*field));
            }
        }
        assert_eq!(table::INFO.len(), Field::all().len());
        // Each number that is not one of these is none.
        let known = |class| {
            (0..=u8::MAX).filter(|number| Field::by_header(class, *number).is_some()).count()
        };
        assert_eq!(headers::CLASSES.map(known).iter().sum::<usize>(), numbers.len());
        assert_eq!(known(Class { class: 2, experimenter: 0 }), 0);
    }

    #[test]
    fn families_have_numbers() {
        assert_eq!(Field::reg(15), Some(Field::Reg15));
        assert_eq!(Field::reg(16), None);
        assert_eq!(Field::xxreg(3).map(Field::name), Some("xxreg3"));
        let header = Field::TunMetadata63.header(Version::V15);
        assert_eq!(
            header.map(|header| (header.number, header.name)),
            Some((103, "NXM_NX_TUN_METADATA63"))
        );
    }

    #[test]
    fn each_version_has_its_numbers() {
        let name = |field: Field, version| field.header(version).map(|header| header.name);
        assert_eq!(name(Field::EthSrc, Version::V10), Some("NXM_OF_ETH_SRC"));
        assert_eq!(name(Field::EthSrc, Version::V13), Some("OXM_OF_ETH_SRC"));
        assert_eq!(name(Field::TcpFlags, Version::V13), Some("ONFOXM_ET_TCP_FLAGS"));
        assert_eq!(name(Field::TcpFlags, Version::V15), Some("OXM_OF_TCP_FLAGS"));
        assert_eq!(name(Field::Metadata, Version::V10), Some("OXM_OF_METADATA"));
        assert_eq!(name(Field::TunTtl, Version::V15), None);
    }
}
