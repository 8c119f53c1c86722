use std::collections::BTreeMap;

use openflow::testing::Random;
use openflow::{Field, Match};
use packet::checksum::{Checksum, checksum};
use packet::headers::Nsh;

use super::values::{kind, usual};

/// A packet that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The port, by its OpenFlow number.
    pub port: u16,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// What its fields are.
type Values = BTreeMap<Field, u128>;

/// What all packets have.
const ALL: [Field; 5] =
    [Field::InPortOxm, Field::EthSrc, Field::EthDst, Field::EthType, Field::VlanTci];

/// A packet that may well be one that a rule is for; a `plain` one has no tag, is whole, and is from a
/// station.
pub fn packet(random: &mut Random, rules: &[Match], plain: bool) -> Packet {
    let mut values = Values::new();
    for field in ALL {
        values.insert(field, usual(random, field));
    }
    for (field, value) in kind(random) {
        values.insert(openflow::matching::home(*field), *value);
    }
    let rule = rules.get(random.place(rules.len().max(1)));
    for entry in rule.into_iter().flat_map(Match::iter) {
        let before = values.entry(entry.field).or_insert_with(|| usual(random, entry.field));
        *before = *before & !entry.mask | entry.value;
    }
    if plain {
        values.insert(Field::VlanTci, 0);
        values.insert(Field::EthSrc, 0x0200_0000_0001 + u128::from(random.below(3)));
    }
    let port = values.get(&Field::InPortOxm).copied().unwrap_or(1);
    let port = u16::try_from(port).unwrap_or(1).clamp(1, super::values::PORTS);
    let mut frame = Frame { random, values, bytes: Vec::new() };
    frame.link();
    let mut bytes = frame.bytes;
    if !plain {
        let whole = bytes.clone();
        damage(random, &mut bytes);
        if ends_in_labels(&bytes) {
            bytes = whole;
        }
    }
    Packet { port, bytes }
}

/// Labels that Open vSwitch knows of a packet, at most.
const LABELS: usize = 3;

/// Whether a packet ends before the last of its labels, and before as many as Open vSwitch knows: it has one
/// flow for those and for packets with more labels than that.
fn ends_in_labels(bytes: &[u8]) -> bool {
    let known = labels_before_last(bytes);
    known.is_some_and(|(labels, is_all)| labels < LABELS && !is_all)
}

/// Whether a packet has more labels than Open vSwitch knows.
pub fn has_many_labels(bytes: &[u8]) -> bool {
    labels_before_last(bytes).is_some_and(|(labels, is_all)| labels >= LABELS && !is_all)
}

/// Behind tags: how many labels there are, of those that Open vSwitch knows, and whether one of them is the last.
fn labels_before_last(bytes: &[u8]) -> Option<(usize, bool)> {
    let at = 12 + tags(bytes) * 4;
    let kind = bytes.get(at..at + 2)?.first_chunk()?;
    let [0x88, 0x47 | 0x48] = kind else { return None };
    let mut labels = bytes.get(at + 2..)?.chunks_exact(4).take(LABELS);
    let count = labels.len();
    Some((count, labels.any(|label| label[2] & 1 != 0)))
}

/// How many labels of MPLS it has, as far as Open vSwitch knows.
pub fn labels(bytes: &[u8]) -> usize {
    labels_before_last(bytes).map_or(0, |(count, _)| count)
}

/// Whether its network service header is none: it ends before that does, or says what cannot be.
pub fn has_wrong_nsh(bytes: &[u8]) -> bool {
    let rest = bytes.get(12 + tags(bytes) * 4..).unwrap_or_default();
    let Some((&[0x89, 0x4F], header)) = rest.split_first_chunk() else { return false };
    header.first_chunk().is_none_or(|first| Nsh::read(*first, header.len()).is_none())
}

/// Whether it is a later fragment with more than seven bytes, which Open vSwitch takes for a header with a checksum.
fn is_long_later_fragment(bytes: &[u8]) -> bool {
    let rest = bytes.get(12 + tags(bytes) * 4..).unwrap_or_default();
    let word = |at: usize| {
        rest.get(at..at + 2).map_or(0, |word| u16::from(word[0]) << 8 | u16::from(word[1]))
    };
    let (offset, header) = match word(0) {
        0x0800 => (word(8) & 0x1FFF, usize::from(word(2) >> 8 & 0xF) * 4),
        0x86DD if word(8) >> 8 == 44 => (word(44) & 0xFFF8, 48),
        _ => return false,
    };
    offset != 0 && rest.len() > 2 + header + 7
}

/// How many tags a packet has.
pub fn tags(bytes: &[u8]) -> usize {
    let is_tag = |at: &usize| {
        let kind = bytes.get(12 + at * 4..14 + at * 4);
        kind.is_some_and(|kind| [[0x81, 0x00], [0x88, 0xA8]].iter().any(|tag| tag == kind))
    };
    (0..).take_while(is_tag).count()
}

/// Sometimes it is cut, or longer than its headers say, or wrong.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    if random.once_in(12) {
        bytes.truncate((14 + random.place(60)).min(bytes.len()));
    } else if random.once_in(12) {
        bytes.resize(bytes.len() + 1 + random.place(40), 0);
    }
    if random.once_in(20) {
        let at = 12 + random.place(bytes.len().saturating_sub(12).max(1));
        let before = bytes.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
        if is_long_later_fragment(bytes) {
            *bytes = before;
        }
    }
    // Open vSwitch forgets that a packet may be dropped before others where it writes a tag.
    for tag in 0..tags(bytes) {
        if let Some(byte) = bytes.get_mut(14 + tag * 4) {
            *byte &= !0x10;
        }
    }
}

struct Frame<'f> {
    random: &'f mut Random,
    values: Values,
    bytes: Vec<u8>,
}

impl Frame<'_> {
    fn get(&mut self, field: Field) -> u128 {
        let random = &mut *self.random;
        *self.values.entry(field).or_insert_with(|| usual(random, field))
    }

    /// Appends the lowest `N` bytes of a number.
    fn put<const N: usize>(&mut self, value: u128) {
        self.bytes.extend_from_slice(&value.to_be_bytes()[16 - N..]);
    }

    fn field<const N: usize>(&mut self, field: Field) {
        let value = self.get(field);
        self.put::<N>(value);
    }

    fn payload(&mut self, most: u64) {
        for _ in 0..1 + self.random.below(most) {
            let byte = self.random.bits() & 0xFF;
            self.put::<1>(byte.into());
        }
    }

    fn link(&mut self) {
        self.field::<6>(Field::EthDst);
        self.field::<6>(Field::EthSrc);
        let tci = self.get(Field::VlanTci);
        if tci & 0x1000 != 0 {
            self.tag(tci & 0xEFFF);
            while self.random.once_in(4) {
                let inner = usual(self.random, Field::VlanTci);
                self.tag(inner & 0xEFFF);
            }
        }
        let kind = self.get(Field::EthType);
        match kind {
            0x05FF => {
                // LLC, sometimes with SNAP.
                let snap = [0xAA, 0xAA, 3, 0, 0, 0, 0x08, 0];
                let is_snap = self.random.once_in(3);
                self.put::<2>(40);
                self.bytes.extend_from_slice(if is_snap { &snap } else { &[0x42, 0x42, 3] });
                self.payload(60);
            }
            _ => {
                self.put::<2>(kind);
                self.network(kind);
            }
        }
    }

    fn tag(&mut self, tci: u128) {
        let kind = if self.random.once_in(4) { 0x88A8 } else { 0x8100 };
        self.put::<2>(kind);
        self.put::<2>(tci);
    }

    fn network(&mut self, kind: u128) {
        match kind {
            0x0800 => self.ipv4(),
            0x86DD => self.ipv6(),
            0x0806 | 0x8035 => self.arp(),
            0x8847 | 0x8848 => self.mpls(),
            0x894F => self.nsh(),
            _ => self.payload(60),
        }
    }

    fn arp(&mut self) {
        self.put::<6>(0x0001_0800_0604);
        // The operation shares its place with the protocol of IP.
        let operation = self.values.get(&Field::IpProto).copied();
        let operation = operation.unwrap_or_else(|| usual(self.random, Field::ArpOp));
        self.put::<2>(operation);
        self.field::<6>(Field::ArpSha);
        self.field::<4>(Field::IpSrc);
        self.field::<6>(Field::ArpTha);
        self.field::<4>(Field::IpDst);
        self.payload(20);
    }

    fn mpls(&mut self) {
        let mut more = self.random.below(4);
        let bottom = self.values.get(&Field::MplsBos).copied();
        loop {
            let bos = bottom.unwrap_or(u128::from(more == 0));
            let label = self.get(Field::MplsLabel) << 12 | self.get(Field::MplsTc) << 9 | bos << 8;
            let entry = label | self.get(Field::MplsTtl);
            self.put::<4>(entry);
            if bos == 1 || more == 0 {
                break;
            }
            more -= 1;
        }
        if self.random.once_in(4) { self.ipv6() } else { self.ipv4() }
    }

    /// A network service header, and what it says to be behind it.
    fn nsh(&mut self) {
        let (flags, ttl) = (self.get(Field::NshFlags) & 3, self.get(Field::NshTtl) & 0x3F);
        let md_type = self.get(Field::NshMdtype);
        let (next, path) = (self.get(Field::NshNp), self.get(Field::NshSpi) << 8);
        let path = path | self.get(Field::NshSi);
        let words = if md_type == 1 { 4 } else { self.random.below(9) };
        self.put::<2>(flags << 12 | ttl << 6 | u128::from(2 + words));
        self.put::<1>(md_type);
        self.put::<1>(next);
        self.put::<4>(path);
        let context = [Field::NshC1, Field::NshC2, Field::NshC3, Field::NshC4];
        for word in 0..words {
            match context.get(usize::try_from(word).unwrap_or(9)) {
                Some(field) => self.field::<4>(*field),
                None => self.put::<4>(0x0102_0304),
            }
        }
        match next {
            1 => self.ipv4(),
            2 => self.ipv6(),
            // Another such header, by the same fields; what is behind that is not what it says.
            4 if self.bytes.len() < 100 => self.nsh(),
            3 => {
                self.put::<12>(0x0200_0000_0002_0200_0000_0009);
                self.put::<2>(0x0800);
                self.ipv4();
            }
            _ => self.payload(40),
        }
    }

    fn tos(&mut self) -> u128 {
        self.get(Field::NwTos) & 0xFC | self.get(Field::IpEcn)
    }

    fn ipv4(&mut self) {
        let start = self.bytes.len();
        let options = if self.random.once_in(8) { self.random.below(4) } else { 0 };
        self.put::<1>(u128::from(0x45 + options));
        let tos = self.tos();
        self.put::<1>(tos);
        self.put::<4>(0x1234);
        let protocol = self.get(Field::IpProto);
        if protocol == 1 && self.get(Field::IpFrag) & 2 != 0 {
            // In later fragments Open vSwitch takes payload for what kind of message it is, and writes to it.
            self.values.insert(Field::IpFrag, 1);
        }
        let fragment = match self.get(Field::IpFrag) {
            0 => usual(self.random, Field::MplsBos) << 14,
            1 => 0x2000,
            _ => 0x0010 + (usual(self.random, Field::MplsBos) << 13),
        };
        self.put::<2>(fragment);
        self.field::<1>(Field::NwTtl);
        self.put::<1>(protocol);
        self.put::<2>(0);
        let addresses = self.bytes.len();
        self.field::<4>(Field::IpSrc);
        self.field::<4>(Field::IpDst);
        (0..options).for_each(|_| self.put::<4>(0x0101_0101));
        let mut pseudo = Checksum::new();
        pseudo.add(&self.bytes[addresses..addresses + 8]);
        let header = self.bytes.len();
        self.above(protocol, pseudo);
        let length = self.bytes.len() - start;
        self.patch(start + 2, length);
        let sum = checksum(&self.bytes[start..header]);
        self.patch(start + 10, sum.into());
    }

    fn ipv6(&mut self) {
        let start = self.bytes.len();
        let first = 6 << 28 | self.tos() << 20 | self.get(Field::Ipv6Label);
        self.put::<4>(first);
        let protocol = self.get(Field::IpProto);
        let fragment = self.get(Field::IpFrag);
        let extension = [0, 60][self.random.place(2)];
        let has_extension = self.random.once_in(8);
        let next = match (has_extension, fragment) {
            (true, _) => extension,
            (_, 0) => protocol,
            _ => 44,
        };
        self.put::<2>(0);
        self.put::<1>(next);
        self.field::<1>(Field::NwTtl);
        let addresses = self.bytes.len();
        self.field::<16>(Field::Ipv6Src);
        self.field::<16>(Field::Ipv6Dst);
        if has_extension {
            self.put::<1>(if fragment == 0 { protocol } else { 44 });
            self.put::<1>(0);
            self.put::<6>(0x0104_0000_0000);
        }
        if fragment != 0 {
            let offset = if fragment == 1 { 1 } else { 0x0010 };
            self.put::<1>(protocol);
            self.put::<1>(0);
            self.put::<2>(offset);
            self.put::<4>(7);
        }
        let mut pseudo = Checksum::new();
        pseudo.add(&self.bytes[addresses..addresses + 32]);
        self.above(protocol, pseudo);
        let length = self.bytes.len() - start - 40;
        self.patch(start + 4, length);
    }

    /// Puts the low two bytes of a number at a place.
    fn patch(&mut self, at: usize, value: usize) {
        let [.., high, low] = value.to_be_bytes();
        self.bytes[at..at + 2].copy_from_slice(&[high, low]);
    }

    /// What is behind the network header. Later fragments have little: Open vSwitch takes it for a header
    /// when it writes addresses, and mends a checksum that is none.
    fn above(&mut self, protocol: u128, pseudo: Checksum) {
        if self.get(Field::IpFrag) & 2 != 0 {
            self.payload(6);
        } else {
            self.transport(protocol, pseudo);
        }
    }

    /// The header of the transport layer and its payload, with a checksum, which is mostly right.
    fn transport(&mut self, protocol: u128, mut pseudo: Checksum) {
        let start = self.bytes.len();
        let sum_at = match protocol {
            6 => self.tcp(),
            17 => self.udp(),
            132 => self.sctp(),
            1 | 2 => self.icmp(),
            58 => self.icmpv6(),
            _ => None,
        };
        self.payload(40);
        let length = self.bytes.len() - start;
        if protocol == 17 {
            self.patch(start + 4, length);
        }
        let Some(at) = sum_at.filter(|_| !self.random.once_in(10)) else { return };
        if ![1, 2].contains(&protocol) {
            let [.., high, low] = length.to_be_bytes();
            pseudo.add(&[0, u8::try_from(protocol).unwrap_or(0), high, low]);
        } else {
            pseudo = Checksum::new();
        }
        pseudo.add(&self.bytes[start..]);
        self.patch(at, pseudo.finish().into());
    }

    fn ports(&mut self) {
        self.field::<2>(Field::TcpSrc);
        self.field::<2>(Field::TcpDst);
    }

    fn tcp(&mut self) -> Option<usize> {
        self.ports();
        self.put::<8>(0x0102_0304_0506_0708);
        let flags = self.get(Field::TcpFlags);
        self.put::<2>(0x5000 | flags & 0x0FFF);
        self.put::<2>(0x2000);
        self.put::<4>(0);
        Some(self.bytes.len() - 4)
    }

    fn udp(&mut self) -> Option<usize> {
        self.ports();
        self.put::<4>(0);
        Some(self.bytes.len() - 2)
    }

    fn sctp(&mut self) -> Option<usize> {
        self.ports();
        self.put::<8>(0x0102_0304_0506_0708);
        None
    }

    fn icmp(&mut self) -> Option<usize> {
        let kind = self.values.get(&Field::TcpSrc).copied();
        let kind = kind.unwrap_or_else(|| usual(self.random, Field::IcmpType));
        let code = self.values.get(&Field::TcpDst).copied();
        let code = code.unwrap_or_else(|| usual(self.random, Field::IcmpCode));
        self.put::<1>(kind & 0xFF);
        self.put::<1>(code & 0xFF);
        self.put::<2>(0);
        self.put::<4>(0x0001_0001);
        Some(self.bytes.len() - 6)
    }

    fn icmpv6(&mut self) -> Option<usize> {
        let kind = self.values.get(&Field::TcpSrc).copied();
        let kind = kind.unwrap_or_else(|| usual(self.random, Field::Icmpv6Type));
        let code = self.values.get(&Field::TcpDst).copied();
        let code = code.unwrap_or_else(|| usual(self.random, Field::Icmpv6Code));
        self.put::<1>(kind & 0xFF);
        self.put::<1>(code & 0xFF);
        self.put::<2>(0);
        let sum_at = self.bytes.len() - 2;
        self.field::<4>(Field::NdReserved);
        if matches!((kind, code), (135 | 136, 0)) {
            self.field::<16>(Field::NdTarget);
            let option = self.get(Field::NdOptionsType);
            if option != 0 {
                self.put::<1>(option);
                self.put::<1>(1);
                self.field::<6>(if option == 1 { Field::ArpSha } else { Field::ArpTha });
            }
        }
        Some(sum_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_fragments_with_much_in_them_are_found() {
        let v4 = |offset: u8, len: usize| {
            let ip = [0x45, 0, 0, 40, 0, 0, 0x20, offset, 9, 17, 0, 0];
            [&[0; 12][..], &[0x08, 0], &ip, &vec![0; 8 + len]].concat()
        };
        assert!(is_long_later_fragment(&v4(1, 8)) && !is_long_later_fragment(&v4(1, 7)));
        assert!(!is_long_later_fragment(&v4(0, 8)) && !is_long_later_fragment(&[0; 14]));
        let v6 = |offset: u8, len: usize| {
            let ip = [0x60, 0, 0, 0, 0, 0, 44, 9];
            [&[0; 12][..], &[0x86, 0xDD], &ip, &[0; 32], &[17, 0, 0, offset], &vec![0; 4 + len]]
                .concat()
        };
        assert!(is_long_later_fragment(&v6(8, 8)) && !is_long_later_fragment(&v6(1, 8)));
    }

    #[test]
    fn packets_that_end_in_labels_are_found() {
        let packet = |tags: &[u8], labels: &[u8]| [&[0; 12], tags, &[0x88, 0x47], labels].concat();
        let (label, last) = ([0, 1, 0x0E, 2], [0, 1, 0x0F, 2]);
        let tag = [0x88, 0xA8, 0, 1];
        for tags in [&[][..], &tag] {
            assert!(ends_in_labels(&packet(tags, &[])));
            assert!(ends_in_labels(&packet(tags, &label)));
            assert!(ends_in_labels(&packet(tags, &[label, label].concat())));
            assert!(!ends_in_labels(&packet(tags, &[label, last].concat())));
            let more = [label, label, label, last].concat();
            assert!(!ends_in_labels(&packet(tags, &more)) && has_many_labels(&packet(tags, &more)));
            assert!(!has_many_labels(&packet(tags, &more[4..])));
        }
        assert!(!ends_in_labels(&[0; 12]) && !has_many_labels(&[0; 12]));
    }
}
