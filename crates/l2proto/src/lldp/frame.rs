//! Frames of the protocol: a list of values, each with its type and length (IEEE 802.1AB-2016 clause 8).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use packet::MacAddr;

use super::Neighbour;

/// Where they go: to the nearest bridge (IEEE 802.1AB-2016 table 7-1).
pub const GROUP: MacAddr = MacAddr([0x01, 0x80, 0xC2, 0, 0, 0x0E]);

/// Their EtherType.
pub const ETHERTYPE: u16 = 0x88CC;

/// The longest frame, without frame check sequence.
pub const MAX_LEN: usize = 1514;

/// The shortest frame.
const MIN_LEN: usize = 60;

/// Bytes of the Ethernet header.
const HEADER: usize = 14;

/// The longest name of a station or port, and the longest description.
const MAX_TEXT: usize = 255;

/// The most addresses of one neighbour that are kept.
const MAX_ADDRESSES: usize = 4;

/// Types of values.
const END: u8 = 0;
const CHASSIS_ID: u8 = 1;
const PORT_ID: u8 = 2;
const TTL: u8 = 3;
const PORT_DESCRIPTION: u8 = 4;
const SYSTEM_NAME: u8 = 5;
const SYSTEM_DESCRIPTION: u8 = 6;
const CAPABILITIES: u8 = 7;
const MANAGEMENT_ADDRESS: u8 = 8;
const ORGANISATION: u8 = 127;

/// What a value of Avaya's begins with that assigns services to VLANs (auto-attach,
/// draft-unbehagen-lldp-spb), and how long it is at least: with its digest.
const ASSIGNMENTS: [u8; 4] = [0, 0x04, 0x0D, 12];
const MIN_ASSIGNMENTS: usize = 36;

/// What stations do, lowest bit first (table 8-4).
const ROLES: [&str; 11] = [
    "other",
    "repeater",
    "bridge",
    "wlan-access-point",
    "router",
    "telephone",
    "docsis-cable-device",
    "station",
    "c-vlan-bridge",
    "s-vlan-bridge",
    "two-port-mac-relay",
];

/// That it is a bridge.
pub const BRIDGE: u16 = 1 << 2;

/// The name of a station or port: its kind (tables 8-2 and 8-3), and its bytes, of which there are 1
/// to 255.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// What kind of name it is, by a number.
    pub kind: u8,
    /// The name.
    pub bytes: Vec<u8>,
}

/// Kinds of names of stations that are used here: a MAC address.
pub const CHASSIS_MAC: u8 = 4;

/// Of ports: the name of an interface.
pub const PORT_NAME: u8 = 5;

/// How a name is to be read.
enum Spelling {
    Text,
    Mac,
    Network,
}

impl Id {
    fn parse(value: &[u8]) -> Option<Self> {
        let (&kind, bytes) = value.split_first()?;
        let is_right = (1..=MAX_TEXT).contains(&bytes.len());
        is_right.then(|| Self { kind, bytes: bytes.to_vec() })
    }

    fn value(&self) -> Vec<u8> {
        [&[self.kind], self.bytes.as_slice()].concat()
    }

    /// The kind in a word, and the name, of a station.
    fn chassis(&self) -> (&'static str, String) {
        let (word, spelling) = match self.kind {
            1 => ("component", Spelling::Text),
            2 => ("interface-alias", Spelling::Text),
            3 => ("port-component", Spelling::Text),
            4 => ("mac", Spelling::Mac),
            5 => ("address", Spelling::Network),
            6 => ("interface", Spelling::Text),
            7 => ("local", Spelling::Text),
            _ => ("reserved", Spelling::Text),
        };
        (word, self.spell(&spelling))
    }

    /// The same of a port.
    fn port(&self) -> (&'static str, String) {
        let (word, spelling) = match self.kind {
            1 => ("interface-alias", Spelling::Text),
            2 => ("port-component", Spelling::Text),
            3 => ("mac", Spelling::Mac),
            4 => ("address", Spelling::Network),
            5 => ("interface", Spelling::Text),
            6 => ("agent-circuit", Spelling::Text),
            7 => ("local", Spelling::Text),
            _ => ("reserved", Spelling::Text),
        };
        (word, self.spell(&spelling))
    }

    fn spell(&self, spelling: &Spelling) -> String {
        let special = match spelling {
            Spelling::Text => std::str::from_utf8(&self.bytes).ok().map(str::to_owned),
            Spelling::Mac => self.bytes.first_chunk().map(|bytes| MacAddr(*bytes).to_string()),
            Spelling::Network => {
                self.bytes.split_first().and_then(|(family, bytes)| address(*family, bytes))
            }
        };
        special.unwrap_or_else(|| hex(&self.bytes))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An address of a family (IANA's "Address Family Numbers"), if it is one of IP.
fn address(family: u8, bytes: &[u8]) -> Option<String> {
    match family {
        1 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
        2 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
        _ => None,
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The station.
    pub chassis: Id,
    /// Its port.
    pub port: Id,
    /// How long it holds, in seconds; 0: no more.
    pub ttl: u16,
    /// What it says of its port.
    pub port_description: Option<String>,
    /// The station's name.
    pub system_name: Option<String>,
    /// What it says of itself.
    pub system_description: Option<String>,
    /// What the station can do, and what it does, as bits.
    pub capabilities: Option<[u16; 2]>,
    /// Where it can be managed; only read.
    pub addresses: Vec<String>,
}

impl Unit {
    /// The frame, from a port with this address. Texts are cut to what there is room for.
    pub fn frame(&self, from: MacAddr) -> Vec<u8> {
        let mut frame = Vec::with_capacity(MIN_LEN);
        frame.extend(GROUP.0);
        frame.extend(from.0);
        frame.extend(ETHERTYPE.to_be_bytes());
        push(&mut frame, CHASSIS_ID, &self.chassis.value());
        push(&mut frame, PORT_ID, &self.port.value());
        push(&mut frame, TTL, &self.ttl.to_be_bytes());
        for (kind, text) in [
            (PORT_DESCRIPTION, &self.port_description),
            (SYSTEM_NAME, &self.system_name),
            (SYSTEM_DESCRIPTION, &self.system_description),
        ] {
            if let Some(text) = text {
                push(&mut frame, kind, cut(text).as_bytes());
            }
        }
        if let Some([can, does]) = self.capabilities {
            push(&mut frame, CAPABILITIES, &[can.to_be_bytes(), does.to_be_bytes()].concat());
        }
        push(&mut frame, END, &[]);
        frame.resize(frame.len().max(MIN_LEN), 0);
        frame
    }

    /// What is told of whoever says this, of which so much time is left.
    pub fn neighbour(&self, left: Duration) -> Neighbour {
        let does = self.capabilities.map_or(0, |[_, does]| does);
        let roles = ROLES.iter().enumerate().filter(|(bit, _)| does >> bit & 1 != 0);
        Neighbour {
            chassis: self.chassis.chassis(),
            port: self.port.port(),
            ttl: Duration::from_secs(u64::from(self.ttl)),
            left,
            port_description: self.port_description.clone(),
            system_name: self.system_name.clone(),
            system_description: self.system_description.clone(),
            capabilities: roles.map(|(_, role)| *role).collect(),
            addresses: self.addresses.clone(),
        }
    }
}

/// As much of a text as there is room for.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Adds a value, of 511 bytes at most.
fn push(frame: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let len = u16::try_from(value.len().min(0x1FF)).unwrap_or(0x1FF);
    frame.extend((u16::from(kind) << 9 | len).to_be_bytes());
    frame.extend(value.iter().take(usize::from(len)));
}

/// Takes a value from the front: its type, and its bytes.
fn take<'b>(rest: &mut &'b [u8]) -> Option<(u8, &'b [u8])> {
    let (head, behind) = rest.split_first_chunk()?;
    let head = u16::from_be_bytes(*head);
    let (value, behind) = behind.split_at_checked(usize::from(head & 0x1FF))?;
    *rest = behind;
    Some((u8::try_from(head >> 9).ok()?, value))
}

/// Reads a frame; `None` for what is none, or breaks the rules of clause 9.2.8.7: the first three values
/// are in their places and make sense, none of them comes again, and no value goes beyond the
/// frame. Of others those that make no sense are passed over.
pub fn parse(frame: &[u8]) -> Option<Unit> {
    let (header, mut rest) = frame.split_at_checked(HEADER)?;
    if header.get(..6)? != GROUP.0 || header.get(12..)? != ETHERTYPE.to_be_bytes() {
        return None;
    }
    let mut next = |wanted: u8| take(&mut rest).filter(|(kind, _)| *kind == wanted);
    let chassis = Id::parse(next(CHASSIS_ID)?.1)?;
    let port = Id::parse(next(PORT_ID)?.1)?;
    let ttl = u16::from_be_bytes(*next(TTL)?.1.first_chunk()?);
    let mut unit = Unit {
        chassis,
        port,
        ttl,
        port_description: None,
        system_name: None,
        system_description: None,
        capabilities: None,
        addresses: Vec::new(),
    };
    while !rest.is_empty() {
        match take(&mut rest)? {
            (END, _) => break,
            (CHASSIS_ID | PORT_ID | TTL, _) => return None,
            (ORGANISATION, value) if is_short(value) => return None,
            (kind, value) => unit.read(kind, value),
        }
    }
    Some(unit)
}

/// Whether a value assigns services to VLANs and has no room for that.
fn is_short(value: &[u8]) -> bool {
    value.starts_with(&ASSIGNMENTS) && value.len() < MIN_ASSIGNMENTS
}

/// What is wrong with a frame, where there are words for it: as Open vSwitch's log has them.
pub fn flaw(frame: &[u8]) -> Option<&'static str> {
    let mut rest = frame.get(HEADER..)?;
    while let Some((kind, value)) = take(&mut rest) {
        match kind {
            END => break,
            ORGANISATION if is_short(value) => return Some("ISID_VLAN_ASGNS TLV too short"),
            _ => {}
        }
    }
    None
}

impl Unit {
    /// Notes a value that need not be there; the first of a kind counts.
    fn read(&mut self, kind: u8, value: &[u8]) {
        let text = || {
            let value = value.get(..MAX_TEXT).unwrap_or(value);
            Some(String::from_utf8_lossy(value).into_owned()).filter(|text| !text.is_empty())
        };
        let place = match kind {
            PORT_DESCRIPTION => &mut self.port_description,
            SYSTEM_NAME => &mut self.system_name,
            SYSTEM_DESCRIPTION => &mut self.system_description,
            CAPABILITIES => return self.read_capabilities(value),
            MANAGEMENT_ADDRESS => return self.read_address(value),
            _ => return,
        };
        *place = place.take().or_else(text);
    }

    fn read_capabilities(&mut self, value: &[u8]) {
        if let Some([a, b, c, d]) = value.first_chunk() {
            let both = [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])];
            self.capabilities = self.capabilities.or(Some(both));
        }
    }

    fn read_address(&mut self, value: &[u8]) {
        let found = value.split_first().and_then(|(len, rest)| {
            let (family, bytes) = rest.get(..usize::from(*len))?.split_first()?;
            address(*family, bytes)
        });
        self.addresses.extend(found.filter(|_| self.addresses.len() < MAX_ADDRESSES));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    pub fn sample(number: u8) -> Unit {
        Unit {
            chassis: Id { kind: CHASSIS_MAC, bytes: vec![2, 0, 0, 0, 0, number] },
            port: Id { kind: PORT_NAME, bytes: b"up0".to_vec() },
            ttl: 120,
            port_description: Some("up0, bridge default".to_owned()),
            system_name: Some("host".to_owned()),
            system_description: None,
            capabilities: Some([BRIDGE, BRIDGE]),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn assignments_of_auto_attach_that_are_cut_off_are_named() {
        let with = |len: usize| {
            let mut frame = sample(1).frame(OWN);
            frame.truncate(33);
            let mut value = ASSIGNMENTS.to_vec();
            value.resize(len, 0);
            push(&mut frame, ORGANISATION, &value);
            push(&mut frame, END, &[]);
            frame
        };
        assert!(parse(&with(36)).is_some() && flaw(&with(36)).is_none());
        assert!(parse(&with(35)).is_none());
        assert_eq!(flaw(&with(5)), Some("ISID_VLAN_ASGNS TLV too short"));
        assert!(parse(&with(3)).is_some(), "what that is nobody knows");
    }

    #[test]
    fn frames_are_as_the_standard_has_them() {
        let frame = sample(1).frame(OWN);
        assert_eq!(frame[..14], [1, 0x80, 0xC2, 0, 0, 14, 2, 0, 0, 0, 0, 1, 0x88, 0xCC]);
        assert_eq!(frame[14..23], [2, 7, 4, 2, 0, 0, 0, 0, 1]);
        assert_eq!(frame[23..33], [4, 4, 5, b'u', b'p', b'0', 6, 2, 0, 120]);
        assert_eq!(frame[33..35], [8, 19]);
        assert_eq!(frame[54..60], [10, 4, b'h', b'o', b's', b't']);
        assert_eq!(frame[60..], [14, 4, 0, 4, 0, 4, 0, 0]);
        assert_eq!(parse(&frame), Some(sample(1)));
        let short = Unit { port_description: None, system_name: None, ..sample(1) };
        assert_eq!(short.frame(OWN).len(), MIN_LEN);
        assert_eq!(parse(&short.frame(OWN)), Some(short));
    }

    #[test]
    fn names_are_spelt_by_their_kind() {
        let spelt = |kind, bytes: &[u8]| {
            let id = Id { kind, bytes: bytes.to_vec() };
            (id.chassis().1, id.port().1)
        };
        let mac = "02:00:00:00:00:01".to_owned();
        assert_eq!(spelt(4, &[2, 0, 0, 0, 0, 1]).0, mac);
        assert_eq!(spelt(3, &[2, 0, 0, 0, 0, 1]).1, mac);
        assert_eq!(spelt(5, &[1, 192, 0, 2, 7]).0, "192.0.2.7");
        assert_eq!(spelt(4, &[1, 192, 0, 2, 7]).1, "192.0.2.7");
        assert_eq!(spelt(7, b"core"), ("core".into(), "core".into()));
        assert_eq!(spelt(4, &[2, 0]), ("0200".into(), "0200".into()), "too short for an address");
        assert_eq!(spelt(7, &[0xFF, 0xFE]).0, "fffe");
    }

    #[test]
    fn addresses_and_what_a_station_does_are_read() {
        let mut frame = sample(1).frame(OWN);
        frame.truncate(66);
        push(&mut frame, MANAGEMENT_ADDRESS, &[5, 1, 192, 0, 2, 7, 2, 0, 0, 0, 1, 0]);
        push(&mut frame, MANAGEMENT_ADDRESS, &[200, 1, 192]);
        push(&mut frame, 127, &[0, 0x80, 0xC2, 1, 0, 1]);
        push(&mut frame, SYSTEM_NAME, b"other");
        let unit = parse(&frame).unwrap();
        assert_eq!(unit.addresses, ["192.0.2.7"]);
        assert_eq!(unit.system_name.as_deref(), Some("host"), "the first one counts");
        assert_eq!(unit.neighbour(Duration::ZERO).capabilities, ["bridge"]);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let frame = sample(1).frame(OWN);
        let changed = |at: usize, byte: u8| {
            let mut frame = frame.clone();
            frame[at] = byte;
            parse(&frame)
        };
        assert_eq!(changed(5, 0), None, "another group");
        assert_eq!(changed(13, 0xCD), None, "another protocol");
        assert_eq!(changed(14, 4), None, "in another order");
        assert_eq!(changed(15, 1), None, "a name without bytes");
        assert_eq!(changed(30, 1), None, "a time that is too short");
        assert_eq!(changed(33, 2), None, "a second station");
        assert_eq!(changed(61, 255), None, "a value beyond the end");
        for len in 0..33 {
            assert_eq!(parse(&frame[..len]), None, "{len}");
        }
    }

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("[a-zäß日 ]{1,60}")
    }

    prop_compose! {
        fn any_unit()(
            chassis in (1_u8..8, proptest::collection::vec(any::<u8>(), 1..=255)),
            port in (1_u8..8, proptest::collection::vec(any::<u8>(), 1..=255)),
            ttl: u16,
            texts in (text(), text(), text()),
            capabilities in proptest::option::of(any::<[u16; 2]>()),
        ) -> Unit {
            let id = |(kind, bytes)| Id { kind, bytes };
            let (port_description, system_name, system_description) = texts;
            Unit {
                chassis: id(chassis),
                port: id(port),
                ttl,
                port_description,
                system_name,
                system_description,
                capabilities,
                addresses: Vec::new(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(unit in any_unit()) {
            let frame = unit.frame(OWN);
            prop_assert!((MIN_LEN..=MAX_LEN).contains(&frame.len()));
            prop_assert_eq!(parse(&frame), Some(unit));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(
            begins in any::<bool>(),
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut frame = sample(1).frame(OWN);
            frame.truncate(if begins { 33 } else { 14 });
            frame.extend(rest);
            let Some(unit) = parse(&frame) else { return Ok(()) };
            let found = unit.neighbour(Duration::ZERO);
            prop_assert!(found.addresses.len() <= MAX_ADDRESSES);
            // What is not UTF-8 becomes longer by its replacement.
            prop_assert!(found.system_name.is_none_or(|name| name.len() <= 3 * MAX_TEXT));
        }
    }
}
