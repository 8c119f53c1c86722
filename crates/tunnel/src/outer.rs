//! Outer headers, ready to be put in front of frames: what is the same for all frames of one way is made
//! once, and what depends on the frame is written into a copy.

use std::net::IpAddr;

use arrayvec::ArrayVec;
use packet::MacAddr;
use packet::checksum::Checksum;
use packet::headers::{EtherType, ethernet, ipv4, ipv6, udp};

use crate::envelope::pseudo;
use crate::gpe;
use crate::kind::Kind;
use crate::meta::{Gtpu, Inner, MAX_OPTIONS, Meta, Policy};
use crate::parse::{ETHERNET, POLICY};

/// The longest header: Ethernet, IPv6, UDP, and Geneve with its options.
pub const MAX_OUTER: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + 16 + MAX_OPTIONS;

/// How long a number of GRE is (RFC 2890, section 2.2).
const NUMBER_LEN: usize = 4;

/// What is behind GTP-U's header where packets have numbers: one, and nothing else.
const GTPU_NUMBER_LEN: u16 = 4;

/// Between whom an outer frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Where it is from.
    pub source: MacAddr,
    /// The next hop.
    pub destination: MacAddr,
}

/// The outer header of all frames of one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    bytes: ArrayVec<u8, MAX_OUTER>,
    kind: Kind,
    ends: (IpAddr, IpAddr),
    /// Where what follows IP begins.
    at: usize,
    /// The sum of a header of IPv4 without its length.
    sum: Checksum,
    has_checksum: bool,
    is_bare: bool,
    is_numbered: bool,
}

impl Outer {
    /// One of this kind, to this port of UDP; `None` if its ends are not of one family, or it has no way to say
    /// what is inside.
    #[must_use]
    pub fn new(kind: Kind, meta: &Meta, link: Link, port: u16) -> Option<Self> {
        let mut outer = Self {
            bytes: ArrayVec::new(),
            kind,
            ends: (meta.source, meta.destination),
            at: 0,
            sum: Checksum::new(),
            // UDP over IPv6 has one (RFC 8200, section 8.1): who gets none drops the packet, unless it was told
            // to expect that.
            has_checksum: meta.checksum && kind != Kind::Erspan
                || kind.is_over_udp() && meta.destination.is_ipv6(),
            is_bare: meta.inner.is_bare(),
            is_numbered: false,
        };
        outer.put(&link.destination.0)?;
        outer.put(&link.source.0)?;
        match (meta.source, meta.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                outer.v4(meta, from.octets(), to.octets())?;
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                outer.v6(meta, from.octets(), to.octets())?;
            }
            _ => return None,
        }
        outer.at = outer.bytes.len();
        outer.header(meta, port)?;
        Some(outer)
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.bytes.try_extend_from_slice(bytes).ok()
    }

    fn v4(&mut self, meta: &Meta, from: [u8; 4], to: [u8; 4]) -> Option<()> {
        self.put(&EtherType::IPV4.0.to_be_bytes())?;
        let start = self.bytes.len();
        let fragment = if meta.dont_fragment { 0x40 } else { 0 };
        self.put(&[
            0x45,
            meta.tos,
            0,
            0,
            0,
            0,
            fragment,
            0,
            meta.ttl,
            self.kind.protocol().0,
            0,
            0,
        ])?;
        self.put(&from)?;
        self.put(&to)?;
        self.sum.add(self.bytes.get(start..)?);
        Some(())
    }

    fn v6(&mut self, meta: &Meta, from: [u8; 16], to: [u8; 16]) -> Option<()> {
        self.put(&EtherType::IPV6.0.to_be_bytes())?;
        let first = [0x60 | meta.tos >> 4, meta.tos << 4, 0, 0];
        self.put(&first)?;
        self.put(&[0, 0, self.kind.protocol().0, meta.ttl])?;
        self.put(&from)?;
        self.put(&to)
    }

    fn header(&mut self, meta: &Meta, port: u16) -> Option<()> {
        let [_, _, _, _, _, a, b, c] = meta.key.unwrap_or(0).to_be_bytes();
        let [high, low] = port.to_be_bytes();
        let takes_bare = matches!(self.kind, Kind::Gre | Kind::Gtpu) || meta.says_inner;
        if meta.inner.is_bare() && !takes_bare {
            return None;
        }
        match self.kind {
            Kind::Vxlan => {
                self.put(&[0, 0, high, low, 0, 0, 0, 0])?;
                let [more, flags, high, low] = match (meta.says_inner, meta.policy) {
                    (true, _) => [gpe::NEXT, 0, 0, gpe::next(meta.inner)?],
                    (false, Some(Policy { group, flags })) => {
                        let [high, low] = group.to_be_bytes();
                        [POLICY, flags & Policy::FLAGS, high, low]
                    }
                    (false, None) => [0; 4],
                };
                self.put(&[0x08 | more, flags, high, low, a, b, c, 0])
            }
            Kind::Geneve => {
                self.put(&[0, 0, high, low, 0, 0, 0, 0])?;
                let options = meta.options.as_bytes();
                let words = u8::try_from(options.len() / 4).ok()?;
                let critical = meta.options.iter().any(|option| option.is_critical());
                let flags = u8::from(meta.oam) << 7 | u8::from(critical) << 6;
                let [kind_high, kind_low] = ETHERNET;
                self.put(&[words, flags, kind_high, kind_low, a, b, c, 0])?;
                self.put(options)
            }
            Kind::Gre => {
                let flags = u8::from(meta.checksum) << 7
                    | u8::from(meta.key.is_some()) << 5
                    | u8::from(meta.is_numbered) << 4;
                self.is_numbered = meta.is_numbered;
                self.put(&[flags, 0])?;
                match meta.inner {
                    Inner::Ethernet => self.put(&ETHERNET),
                    Inner::Bare(kind) => self.put(&kind.0.to_be_bytes()),
                }?;
                if meta.checksum {
                    self.put(&[0; 4])?;
                }
                if let Some(key) = meta.key {
                    self.put(key.to_be_bytes().get(4..)?)?;
                }
                // The number is the last of it.
                self.put(if meta.is_numbered { &[0; NUMBER_LEN] } else { &[] })
            }
            Kind::Erspan => {
                let erspan = meta.erspan?;
                let (header, len) = erspan.header(meta.key.unwrap_or(0))?;
                let [high, low] = erspan.ether_type()?.to_be_bytes();
                self.is_numbered = true;
                self.put(&[0x10, 0, high, low])?;
                self.put(&[0; NUMBER_LEN])?;
                self.put(header.get(..len)?)
            }
            Kind::Gtpu => self.gtpu(meta, port),
        }
    }

    /// It says nothing of what is inside: that is a packet of IP.
    fn gtpu(&mut self, meta: &Meta, port: u16) -> Option<()> {
        if !matches!(meta.inner, Inner::Bare(EtherType::IPV4 | EtherType::IPV6)) {
            return None;
        }
        let ([high, low], [a, b, c, d]) =
            (port.to_be_bytes(), u32::try_from(meta.key.unwrap_or(0)).ok()?.to_be_bytes());
        let Gtpu { flags, message } = Gtpu::PACKET;
        let flags = if meta.is_numbered { flags | Gtpu::NUMBER } else { flags };
        self.is_numbered = meta.is_numbered;
        self.put(&[0, 0, high, low, 0, 0, 0, 0])?;
        self.put(&[flags, message, 0, 0, a, b, c, d])?;
        self.put(if meta.is_numbered { &[0; GTPU_NUMBER_LEN as usize] } else { &[] })
    }

    /// How long it is.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has a checksum over all of the packet, for which [`seal`](Self::seal) has to be called.
    #[must_use]
    pub const fn has_checksum(&self) -> bool {
        self.has_checksum
    }

    /// Whether it is for packets without a header of Ethernet.
    #[must_use]
    pub const fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// What of it is the same for all frames.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes it to the start of `frame`, in front of `inner` bytes; `entropy` tells flows apart.
    pub fn write(&self, frame: &mut [u8], inner: usize, entropy: u16) {
        if let Some(place) = frame.get_mut(..self.bytes.len()) {
            place.copy_from_slice(&self.bytes);
            self.fit(frame, inner, entropy);
        }
    }

    /// The same where what is the same for all frames is there already.
    #[inline]
    pub fn fit(&self, frame: &mut [u8], inner: usize, entropy: u16) {
        let Some(place) = frame.get_mut(..self.bytes.len()) else { return };
        let transport = field(self.bytes.len().saturating_sub(self.at).saturating_add(inner));
        let network = place.get_mut(ethernet::HEADER_LEN..).unwrap_or_default();
        if self.ends.0.is_ipv4() {
            let total = transport.saturating_add(field(ipv4::HEADER_LEN));
            let mut sum = self.sum;
            sum.add_u16(total);
            put(network, 2, total);
            put(network, 10, sum.finish());
        } else {
            put(network, 4, transport);
        }
        if self.kind.is_over_udp() {
            let datagram = place.get_mut(self.at..).unwrap_or_default();
            put(datagram, 0, entropy);
            put(datagram, 4, transport);
            if self.kind == Kind::Gtpu {
                let more = if self.is_numbered { GTPU_NUMBER_LEN } else { 0 };
                put(datagram, udp::HEADER_LEN + 2, field(inner).saturating_add(more));
            }
        }
    }

    /// Writes the number of the packet, and a time in units of 100 microseconds, where the header has them.
    pub fn number(&self, frame: &mut [u8], number: u32, time: u32) {
        if !self.is_numbered {
            return;
        }
        let Some(own) = frame.get_mut(self.at..self.bytes.len()) else { return };
        let [.., high, low] = number.to_be_bytes();
        let place: &mut [u8] = match (self.kind, &mut *own) {
            (Kind::Gtpu, [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, place @ ..]) => {
                put(place, 0, u16::from_be_bytes([high, low]));
                return;
            }
            (Kind::Erspan, [_, _, _, _, place @ ..]) => {
                // The second version has a time behind what both begin with.
                if let [_, _, _, _, _, _, _, _, stamp @ .., _, _, _, _] = &mut *place
                    && let Some(stamp) = stamp.first_chunk_mut()
                {
                    *stamp = time.to_be_bytes();
                }
                place
            }
            (_, own) => own.last_chunk_mut::<NUMBER_LEN>().map_or(&mut [], |place| place),
        };
        if let Some(place) = place.first_chunk_mut() {
            *place = number.to_be_bytes();
        }
    }

    /// Writes the checksum over all of the packet, with the sum of the `inner` bytes behind the header.
    pub fn seal(&self, frame: &mut [u8], inner: usize, sum: Checksum) {
        let Some(own) = frame.get_mut(self.at..self.bytes.len()).filter(|_| self.has_checksum)
        else {
            return;
        };
        let len = own.len().saturating_add(inner);
        let (mut whole, at) = match self.kind {
            Kind::Gre => (Checksum::new(), 4),
            _ => (pseudo(self.ends, self.kind.protocol(), len), 6),
        };
        put(own, at, 0);
        whole.add(own);
        whole.add_u16(sum.partial());
        // Of UDP, 0 would mean that there is none (RFC 768).
        let value = if self.kind == Kind::Gre { whole.finish() } else { whole.finish_udp() };
        put(own, at, value);
    }

    /// Has the checksum field not be empty, so that whoever cuts a large segment makes one for each part.
    pub fn ask(&self, frame: &mut [u8]) {
        if self.has_checksum && self.kind.is_over_udp() {
            put(frame.get_mut(self.at..).unwrap_or_default(), udp::HEADER_LEN - 2, 1);
        }
    }
}

/// A length as a field has it. One that is too long is that of a large segment, which gets others.
fn field(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = value.to_be_bytes();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::erspan::Erspan;

    pub(crate) const LINK: Link =
        Link { source: MacAddr([2, 0, 0, 0, 0, 1]), destination: MacAddr([2, 0, 0, 0, 0, 2]) };

    pub(crate) fn meta(is_v6: bool) -> Meta {
        match is_v6 {
            false => Meta::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
            true => Meta::new(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::from(2).into()),
        }
    }

    /// What a header of this kind says that has nothing else to say.
    pub(crate) fn least(kind: Kind, meta: Meta) -> Meta {
        let erspan = Erspan { version: 2, index: 0, direction: 1, hardware: 0x17 };
        match kind {
            Kind::Erspan => Meta { erspan: Some(erspan), is_numbered: true, ..meta },
            Kind::Gtpu => {
                let inner = Inner::Bare(EtherType::IPV4);
                Meta { inner, gtpu: Some(Gtpu::PACKET), ..meta }
            }
            Kind::Vxlan | Kind::Geneve | Kind::Gre => meta,
        }
    }

    /// A frame with so many bytes in a tunnel with key 5.
    pub(crate) fn outer(kind: Kind, is_v6: bool, inner: usize) -> Vec<u8> {
        let meta = least(kind, meta(is_v6).with_key(5));
        let outer = Outer::new(kind, &meta, LINK, kind.port()).unwrap();
        let mut frame = vec![0; outer.len() + inner];
        outer.write(&mut frame, inner, 50_000);
        if let Some(first) = frame.get_mut(outer.len()) {
            *first = 0x45;
        }
        frame
    }

    #[test]
    fn headers_are_those_of_the_standards() {
        let frame = outer(Kind::Vxlan, false, 60);
        let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        assert_eq!(frame[..14], ethernet);
        assert_eq!(frame[14..24], [0x45, 0, 0, 96, 0, 0, 0x40, 0, 64, 17]);
        assert_eq!(frame[26..34], [10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(frame[34..42], [0xC3, 0x50, 0x12, 0xB5, 0, 76, 0, 0]);
        assert_eq!(frame[42..50], [8, 0, 0, 0, 0, 0, 5, 0]);
        let geneve = outer(Kind::Geneve, true, 60);
        assert_eq!(geneve[12..22], [0x86, 0xDD, 0x60, 0, 0, 0, 0, 76, 17, 64]);
        assert_eq!(geneve[62..70], [0, 0, 0x65, 0x58, 0, 0, 5, 0]);
        assert_eq!(outer(Kind::Gre, false, 60)[34..42], [0x20, 0, 0x65, 0x58, 0, 0, 0, 5]);
        let gtpu = outer(Kind::Gtpu, false, 60);
        assert_eq!(gtpu[36..42], [0x08, 0x68, 0, 76, 0, 0]);
        assert_eq!(gtpu[42..50], [0x30, 255, 0, 60, 0, 0, 0, 5]);
        let erspan = outer(Kind::Erspan, false, 60);
        assert_eq!(erspan[34..46], [0x10, 0, 0x22, 0xEB, 0, 0, 0, 0, 0x20, 0, 0, 5]);
        assert_eq!(erspan[46..54], [0, 0, 0, 0, 0, 0, 1, 0x78]);
    }

    #[test]
    fn numbers_and_times_are_where_headers_have_them() {
        let numbered = |kind: Kind, meta: Meta| {
            let meta = Meta { is_numbered: true, ..meta };
            let outer = Outer::new(kind, &meta, LINK, kind.port()).unwrap();
            let mut frame = vec![0; outer.len() + 20];
            outer.write(&mut frame, 20, 1);
            outer.number(&mut frame, 0x0102_0304, 0x0506_0708);
            frame[if kind.is_over_udp() { 42.. } else { 34.. }][..outer.len() - 34].to_vec()
        };
        let meta = meta(false).with_key(5);
        assert_eq!(numbered(Kind::Gre, meta)[..12], [0x30, 0, 0x65, 0x58, 0, 0, 0, 5, 1, 2, 3, 4]);
        let gtpu = numbered(Kind::Gtpu, least(Kind::Gtpu, meta));
        assert_eq!(gtpu[..12], [0x32, 255, 0, 24, 0, 0, 0, 5, 3, 4, 0, 0]);
        let two = numbered(Kind::Erspan, least(Kind::Erspan, meta));
        assert_eq!(two[4..16], [1, 2, 3, 4, 0x20, 0, 0, 5, 5, 6, 7, 8]);
        let erspan = Some(Erspan { version: 1, index: 9, ..Erspan::default() });
        let one = numbered(Kind::Erspan, Meta { erspan, ..meta });
        assert_eq!(one[4..16], [1, 2, 3, 4, 0x10, 0, 0, 5, 0, 0, 0, 9]);
    }

    #[test]
    fn headers_say_what_is_inside() {
        let header = |kind: Kind, inner, says_inner| {
            let meta = Meta { inner, says_inner, ..meta(false) };
            let outer = Outer::new(kind, &meta, LINK, kind.port())?;
            Some(outer.as_bytes()[if kind == Kind::Gre { 34.. } else { 42.. }].to_vec())
        };
        let bare = |kind| Inner::Bare(EtherType(kind));
        assert_eq!(header(Kind::Gre, bare(0x8847), false).unwrap(), [0, 0, 0x88, 0x47]);
        let gpe = header(Kind::Vxlan, bare(0x86DD), true).unwrap();
        assert_eq!(gpe, [0x0C, 0, 0, 2, 0, 0, 0, 0]);
        let ethernet = header(Kind::Vxlan, Inner::Ethernet, true).unwrap();
        assert_eq!(ethernet, [0x0C, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(header(Kind::Vxlan, bare(0x8847), true), None, "there is no number for MPLS");
        assert_eq!(header(Kind::Vxlan, bare(0x0800), false), None);
        assert_eq!(header(Kind::Geneve, bare(0x0800), false), None);
    }

    #[test]
    fn ends_are_of_one_family() {
        let mixed = Meta::new([10, 0, 0, 1].into(), Ipv6Addr::LOCALHOST.into());
        assert_eq!(Outer::new(Kind::Gre, &mixed, LINK, 0), None);
    }

    #[test]
    fn large_segments_get_their_lengths_later() {
        let outer = Outer::new(Kind::Vxlan, &meta(false), LINK, 4789).unwrap();
        let mut frame = vec![0; 100];
        outer.write(&mut frame, 65_553, 1);
        assert_eq!(frame[16..18], [0xFF, 0xFF]);
    }
}
