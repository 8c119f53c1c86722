//! Connections that are to end, by what they have (NXT_CT_FLUSH), and how `ovs-ofctl ct-flush` and
//! `dpctl/flush-conntrack` write them.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, Ipv6Addr};

use super::Message;

use crate::action::wire::{property, unknown_property};
use crate::error::ErrorCode;
use crate::field::text::{Hex, Ip6};
use crate::wire::{Reader, Writer as _};

/// What there is in a message.
const ORIGINAL: u16 = 0;
const REPLY: u16 = 1;
const ZONE: u16 = 2;
const MARK: u16 = 3;
const MARK_MASK: u16 = 4;
const LABEL: u16 = 5;
const LABEL_MASK: u16 = 6;

/// What there is of one direction.
const SOURCE: u16 = 0;
const DESTINATION: u16 = 1;
const FROM: u16 = 2;
const TO: u16 = 3;
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMP_CODE: u16 = 6;

/// Numbers of ICMP and ICMPv6.
const ICMP: [u8; 2] = [1, 58];

/// What packets that go one way have; what is zero may be anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtEnds {
    /// Where they come from.
    pub source: Option<IpAddr>,
    /// Where they go.
    pub destination: Option<IpAddr>,
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Of ICMP, identifier, type and code; if there is an address, zero means zero.
    pub icmp: (u16, u8, u8),
}

impl CtEnds {
    /// Whether it may be anything.
    #[must_use]
    pub fn is_any(&self, protocol: u8) -> bool {
        let has_address = self.source.is_some() || self.destination.is_some();
        !has_address && (is_icmp(protocol) || self.ports == (0, 0))
    }

    /// Whether it is one connection's.
    #[must_use]
    pub fn is_whole(&self, protocol: u8) -> bool {
        let has_ports = self.ports.0 != 0 && self.ports.1 != 0;
        self.source.is_some() && self.destination.is_some() && (is_icmp(protocol) || has_ports)
    }
}

/// Whether a protocol is one with identifiers in place of ports.
#[must_use]
pub fn is_icmp(protocol: u8) -> bool {
    ICMP.contains(&protocol)
}

/// Which connections are to end: those that have all of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtFlush {
    /// The protocol; 0: any.
    pub protocol: u8,
    /// What their first packets have.
    pub original: CtEnds,
    /// What the packets that come back have.
    pub reply: CtEnds,
    /// The zone.
    pub zone: Option<u16>,
    /// Bits of the mark, and which.
    pub mark: (u32, u32),
    /// Bits of the label, and which.
    pub label: (u128, u128),
}

impl CtFlush {
    /// Whether all are meant, or all of the zone.
    #[must_use]
    pub fn is_any(&self) -> bool {
        let Self { protocol, original, reply, mark, label, .. } = self;
        let is_any = |ends: &CtEnds| ends.is_any(*protocol);
        *protocol == 0 && is_any(original) && is_any(reply) && mark.1 == 0 && label.1 == 0
    }

    /// Whether one connection is meant.
    #[must_use]
    pub fn is_one(&self) -> bool {
        let Self { protocol, original, reply, mark, label, .. } = self;
        let is_bare = mark.1 == 0 && label.1 == 0 && reply.is_any(*protocol);
        is_bare && original.is_whole(*protocol)
    }

    /// Whether the addresses are those of IPv4; `None`: there are none.
    #[must_use]
    pub fn is_v4(&self) -> Option<bool> {
        let Self { original, reply, .. } = self;
        let all = [original.source, original.destination, reply.source, reply.destination];
        all.into_iter().flatten().next().map(|address| address.is_ipv4())
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it is broken; the error to answer with.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let mut flush = Self { protocol: reader.u8()?, ..Self::default() };
        if reader.bytes::<7>()? != [0; 7] {
            return Err(ErrorCode::NxbrcMustBeZero);
        }
        let mut masks = (None, None);
        while !reader.is_empty() {
            let (kind, mut value) = property(&mut reader)?;
            let bad_len = |_| ErrorCode::BpcBadLen;
            match kind {
                ORIGINAL => flush.original.read(&mut value)?,
                REPLY => flush.reply.read(&mut value)?,
                ZONE => flush.zone = Some(number(&mut value)?),
                // Without a mask, all bits count.
                MARK => flush.mark = (value.u32().map_err(bad_len)?, u32::MAX),
                MARK_MASK => masks.0 = Some(value.u32().map_err(bad_len)?),
                LABEL => flush.label = (long(&mut value)?, u128::MAX),
                LABEL_MASK => masks.1 = Some(long(&mut value)?),
                _ => return Err(unknown_property(kind)),
            }
            if !value.is_empty() {
                return Err(ErrorCode::BpcBadLen);
            }
        }
        flush.mark.1 = masks.0.unwrap_or(flush.mark.1);
        flush.label.1 = masks.1.unwrap_or(flush.label.1);
        flush.check()?;
        Ok(flush)
    }

    /// Addresses are of one family.
    fn check(&self) -> Result<(), ErrorCode> {
        let Self { original, reply, .. } = self;
        let all = [original.source, original.destination, reply.source, reply.destination];
        let is_v4 = self.is_v4();
        let is_right = all.into_iter().flatten().all(|address| Some(address.is_ipv4()) == is_v4);
        if is_right { Ok(()) } else { Err(ErrorCode::BpcBadValue) }
    }

    /// Writes it into a message.
    pub fn write(&self, message: &mut Message) {
        let out = message.body();
        out.u8(self.protocol);
        out.zeroes(7);
        for (kind, ends) in [(ORIGINAL, &self.original), (REPLY, &self.reply)] {
            let nested = ends.written(self.protocol);
            if !nested.is_empty() {
                put(out, kind, &[&[0; 4], &nested[..]].concat());
            }
        }
        if let Some(zone) = self.zone {
            put(out, ZONE, &wide(zone));
        }
        if self.mark.1 != 0 {
            put(out, MARK, &self.mark.0.to_be_bytes());
            put(out, MARK_MASK, &self.mark.1.to_be_bytes());
        }
        if self.label.1 != 0 {
            put(out, LABEL, &self.label.0.to_be_bytes());
            put(out, LABEL_MASK, &self.label.1.to_be_bytes());
        }
    }
}

fn long(value: &mut Reader<'_>) -> Result<u128, ErrorCode> {
    value.u128().map_err(|_| ErrorCode::BpcBadLen)
}

/// A number of 16 bits; as in Open vSwitch, what is behind it is nothing.
fn number(value: &mut Reader<'_>) -> Result<u16, ErrorCode> {
    let number = value.u16().map_err(|_| ErrorCode::BpcBadLen);
    value.rest();
    number
}

/// The same of 8 bits.
fn byte(value: &mut Reader<'_>) -> Result<u8, ErrorCode> {
    let byte = value.u8().map_err(|_| ErrorCode::BpcBadLen);
    value.rest();
    byte
}

/// Four bytes that begin with a number of 16 bits.
const fn wide(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [high, low, 0, 0]
}

/// Writes a property.
fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let start = out.position();
    out.u16(kind);
    out.u16(u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX));
    out.bytes(value);
    out.pad8(start);
}

impl CtEnds {
    fn read(&mut self, value: &mut Reader<'_>) -> Result<(), ErrorCode> {
        let bad_len = |_| ErrorCode::BpcBadLen;
        value.skip(4).map_err(bad_len)?;
        while !value.is_empty() {
            let (kind, mut part) = property(value)?;
            match kind {
                SOURCE => self.source = address(long(&mut part)?),
                DESTINATION => self.destination = address(long(&mut part)?),
                FROM => self.ports.0 = number(&mut part)?,
                TO => self.ports.1 = number(&mut part)?,
                ICMP_ID => self.icmp.0 = number(&mut part)?,
                ICMP_TYPE => self.icmp.1 = byte(&mut part)?,
                ICMP_CODE => self.icmp.2 = byte(&mut part)?,
                _ => return Err(unknown_property(kind)),
            }
            if !part.is_empty() {
                return Err(ErrorCode::BpcBadLen);
            }
        }
        Ok(())
    }

    fn written(&self, protocol: u8) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, address) in [(SOURCE, self.source), (DESTINATION, self.destination)] {
            if let Some(address) = address {
                put(&mut out, kind, &mapped(address).to_be_bytes());
            }
        }
        if is_icmp(protocol) {
            put(&mut out, ICMP_ID, &wide(self.icmp.0));
            put(&mut out, ICMP_TYPE, &[self.icmp.1]);
            put(&mut out, ICMP_CODE, &[self.icmp.2]);
        } else {
            for (kind, port) in [(FROM, self.ports.0), (TO, self.ports.1)] {
                if port != 0 {
                    put(&mut out, kind, &wide(port));
                }
            }
        }
        out
    }

    /// As it is shown.
    fn show(&self, f: &mut Formatter<'_>, protocol: u8, is_v4: bool) -> fmt::Result {
        let kind = if is_v4 { "nw" } else { "ipv6" };
        for (name, address) in [("src", self.source), ("dst", self.destination)] {
            write!(f, "ct_{kind}_{name}=")?;
            match address {
                Some(IpAddr::V4(address)) => write!(f, "{address},")?,
                Some(IpAddr::V6(address)) => write!(f, "{},", Ip6(address.to_bits()))?,
                None => f.write_str("::,")?,
            }
        }
        let ((from, to), (id, kind, code)) = (self.ports, self.icmp);
        if is_icmp(protocol) {
            write!(f, "icmp_id={id},icmp_type={kind},icmp_code={code}")
        } else {
            write!(f, "ct_tp_src={from},ct_tp_dst={to}")
        }
    }
}

/// An address of IPv6, in which one of IPv4 may be; all zeroes are none.
fn address(bits: u128) -> Option<IpAddr> {
    (bits != 0).then(|| Ipv6Addr::from_bits(bits).to_canonical())
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Display for CtFlush {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { protocol, original, reply, mark, label, .. } = *self;
        let mark = ("mark", u128::from(mark.0), u128::from(mark.1), u128::from(u32::MAX));
        for (name, value, mask, all) in [mark, ("labels", label.0, label.1, u128::MAX)] {
            if mask != 0 {
                write!(f, "{name}={}", Hex(value))?;
                if mask != all {
                    write!(f, "/{}", Hex(mask))?;
                }
                f.write_str(" ")?;
            }
        }
        let is_v4 = self.is_v4() == Some(true);
        f.write_str("'")?;
        original.show(f, protocol, is_v4)?;
        write!(f, ",ct_nw_proto={protocol}' '")?;
        reply.show(f, protocol, is_v4)?;
        f.write_str("'")
    }
}

impl CtFlush {
    /// Reads it as it is written: `zone=5`, `mark=1/1`, `labels=1/1`, and up to two directions, as
    /// `ct_nw_src=10.0.0.1,ct_nw_proto=17,ct_tp_dst=53`.
    ///
    /// # Errors
    /// What is wrong, in Open vSwitch's words.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let mut flush = Self::default();
        let mut words = words;
        if let Some(zone) = next(&mut words, "zone=") {
            flush.zone = Some(zone.parse().map_err(|_| "failed to parse zone".to_owned())?);
        }
        if let Some(mark) = next(&mut words, "mark=") {
            let (value, mask) = masked(mark).ok_or("failed to parse mark")?;
            let half = |value: u128| u32::try_from(value).ok();
            let mask = if mask == u128::MAX { u128::from(u32::MAX) } else { mask };
            flush.mark = half(value).zip(half(mask)).ok_or("failed to parse mark")?;
        }
        if let Some(label) = next(&mut words, "labels=") {
            flush.label = masked(label).ok_or("failed to parse labels")?;
        }
        for is_reply in [false, true] {
            let Some((word, rest)) = words.split_first() else { break };
            flush.parse_ends(is_reply, word)?;
            words = rest;
        }
        if !words.is_empty() {
            return Err("invalid arguments".to_owned());
        }
        Ok(flush)
    }

    fn parse_ends(&mut self, is_reply: bool, text: &str) -> Result<(), String> {
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if value.is_empty() {
                return Err(format!("field {key} missing value"));
            }
            if let "ct_nw_src" | "ct_nw_dst" | "ct_ipv6_src" | "ct_ipv6_dst" = key {
                self.parse_address(is_reply, key, value)?;
                continue;
            }
            let wrong = || format!("failed to parse field {key}");
            let byte = || value.parse::<u8>().map_err(|_| wrong());
            let number = || value.parse::<u16>().map_err(|_| wrong());
            if key.starts_with("icmp_") && !is_icmp(self.protocol) {
                return Err("invalid L4 fields".to_owned());
            }
            let ends = if is_reply { &mut self.reply } else { &mut self.original };
            match key {
                "ct_nw_proto" => self.protocol = byte()?,
                "ct_tp_src" => ends.ports.0 = number()?,
                "ct_tp_dst" => ends.ports.1 = number()?,
                "icmp_id" => ends.icmp.0 = number()?,
                "icmp_type" => ends.icmp.1 = byte()?,
                "icmp_code" => ends.icmp.2 = byte()?,
                _ => return Err(format!("invalid conntrack tuple field: {key}")),
            }
        }
        let ends = if is_reply { &self.reply } else { &self.original };
        if self.protocol == 0 && ends.ports != (0, 0) {
            return Err("port is set without protocol".to_owned());
        }
        Ok(())
    }

    fn parse_address(&mut self, is_reply: bool, key: &str, value: &str) -> Result<(), String> {
        let wants_v4 = key.starts_with("ct_nw");
        if self.is_v4().is_some_and(|is_v4| is_v4 != wants_v4) {
            return Err(format!("the L3 protocol does not match {value}"));
        }
        let ends = if is_reply { &mut self.reply } else { &mut self.original };
        let place = if key.ends_with("src") { &mut ends.source } else { &mut ends.destination };
        if place.is_some() {
            return Err(format!("{key} is set multiple times"));
        }
        let address: Option<IpAddr> = value.parse().ok();
        let address = address.filter(|address| address.is_ipv4() == wants_v4);
        *place = Some(address.ok_or_else(|| format!("failed to parse field {key}"))?);
        Ok(())
    }
}

/// The rest of the next word, if it begins so.
fn next<'w>(words: &mut &[&'w str], begin: &str) -> Option<&'w str> {
    let (word, rest) = words.split_first()?;
    let behind = word.strip_prefix(begin)?;
    *words = rest;
    Some(behind)
}

/// A number, and which of its bits count.
fn masked(text: &str) -> Option<(u128, u128)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u128::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Kind, Raw};
    use crate::version::Version;

    fn read(words: &[&str]) -> CtFlush {
        CtFlush::parse(words).unwrap()
    }

    #[test]
    fn it_is_shown_as_by_open_vswitch() {
        let there = "ct_nw_src=10.1.1.1,ct_nw_dst=10.1.1.2,ct_nw_proto=17,ct_tp_src=1";
        assert_eq!(
            read(&["zone=5", there]).to_string(),
            "'ct_nw_src=10.1.1.1,ct_nw_dst=10.1.1.2,ct_tp_src=1,ct_tp_dst=0,ct_nw_proto=17' \
             'ct_nw_src=::,ct_nw_dst=::,ct_tp_src=0,ct_tp_dst=0'"
        );
        let marked = read(&["mark=0xabc/0xdef", "labels=25", "", "ct_ipv6_dst=fd00::1"]);
        assert_eq!(
            marked.to_string(),
            "mark=0xabc/0xdef labels=0x19 'ct_ipv6_src=::,ct_ipv6_dst=::,ct_tp_src=0,ct_tp_dst=0,\
             ct_nw_proto=0' 'ct_ipv6_src=::,ct_ipv6_dst=fd00::1,ct_tp_src=0,ct_tp_dst=0'"
        );
        assert!(read(&["zone=6", "mark=30/0", "labels=30/0"]).is_any() && read(&[]).is_any());
        assert!(!read(&[there]).is_one() && !read(&[there]).is_any());
        let one = format!("{there},ct_tp_dst=2");
        assert!(read(&[&one]).is_one() && !read(&["mark=1", &one]).is_one());
    }

    #[test]
    fn a_ping_is_written_as_by_ovs_ofctl() {
        let ping = "ct_nw_src=10.1.1.2,ct_nw_dst=10.1.1.1,ct_nw_proto=1,icmp_id=756,icmp_type=8";
        let mut message = Message::new(Version::V13, Kind::CtFlush, 7);
        read(&[ping]).write(&mut message);
        let message = message.finish();
        let mut body = Raw::read(&message).unwrap().body.to_vec();
        // A type takes one byte, and zeroes up to the next eight.
        let place = body.windows(5).position(|part| part == [0, 5, 0, 5, 8]).unwrap();
        assert_eq!(body[place..place + 8], [0, 5, 0, 5, 8, 0, 0, 0]);
        assert_eq!(CtFlush::decode(&body), Ok(read(&[ping])));
        // Numbers may be longer.
        body[place + 3] = 8;
        assert_eq!(CtFlush::decode(&body), Ok(read(&[ping])));
    }

    #[test]
    fn slips_of_the_pen_are_named() {
        let error = |words: &[&str]| CtFlush::parse(words).unwrap_err();
        for (word, expected) in [
            ("zone=x", "failed to parse zone"),
            ("mark=0x100000000", "failed to parse mark"),
            ("labels=z", "failed to parse labels"),
            ("ct_nw_src", "field ct_nw_src missing value"),
            ("ct_nw_src=1.2.3", "failed to parse field ct_nw_src"),
            ("ct_nw_src=fd00::1", "failed to parse field ct_nw_src"),
            ("ct_nw_src=1.2.3.4,ct_nw_src=1.2.3.4", "ct_nw_src is set multiple times"),
            ("ct_nw_src=1.2.3.4,ct_ipv6_dst=::1", "the L3 protocol does not match ::1"),
            ("icmp_id=1", "invalid L4 fields"),
            ("ct_tp_src=1", "port is set without protocol"),
            ("nw_src=1", "invalid conntrack tuple field: nw_src"),
        ] {
            assert_eq!(error(&[word]), expected, "{word}");
        }
        assert_eq!(error(&["", "", ""]), "invalid arguments");
    }

    fn ends(is_v4: bool, protocol: u8) -> impl Strategy<Value = CtEnds> {
        let address = move || {
            prop::option::of(1..u32::MAX).prop_map(move |bits| {
                let mapped = if is_v4 { 0xFFFF_0000_0000 } else { 0xFD00_u128 << 112 };
                bits.and_then(|bits| address(mapped | u128::from(bits)))
            })
        };
        let icmp = (any::<u16>(), any::<u8>(), any::<u8>());
        (address(), address(), any::<(u16, u16)>(), icmp).prop_map(
            move |(source, destination, ports, icmp)| {
                let is_icmp = is_icmp(protocol);
                let ports = if is_icmp { (0, 0) } else { ports };
                CtEnds { source, destination, ports, icmp: if is_icmp { icmp } else { (0, 0, 0) } }
            },
        )
    }

    fn flush() -> impl Strategy<Value = CtFlush> {
        (any::<bool>(), prop_oneof![Just(0), Just(1), Just(6), Just(58)]).prop_flat_map(
            |(is_v4, protocol)| {
                let masks = (any::<(u32, u32)>(), any::<(u128, u128)>(), any::<Option<u16>>());
                (ends(is_v4, protocol), ends(is_v4, protocol), masks).prop_map(
                    move |(original, reply, (mark, label, zone))| {
                        let mark = if mark.1 == 0 { (0, 0) } else { mark };
                        CtFlush { protocol, original, reply, zone, mark, label }
                    },
                )
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(flush in flush().prop_filter("has a mask", |f| f.label.1 != 0)) {
            let mut message = Message::new(Version::V13, Kind::CtFlush, 7);
            flush.write(&mut message);
            let message = message.finish();
            prop_assert_eq!(CtFlush::decode(Raw::read(&message).unwrap().body), Ok(flush));
        }

        #[test]
        fn no_bytes_are_too_much(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = CtFlush::decode(&bytes);
            bytes.get_mut(1..8).into_iter().for_each(|zeroes| zeroes.fill(0));
            let _ = CtFlush::decode(&bytes);
        }
    }
}
