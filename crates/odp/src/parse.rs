//! Packets in the words of a datapath: `in_port(1),eth(src=..,dst=..),eth_type(0x0800),ipv4(..)`; and
//! hexadecimal digits.

use std::net::{Ipv4Addr, Ipv6Addr};

use flow::{Key, Slot, TAG_PRESENT, slot};
use packet::MacAddr;
use tunnel::Meta;

/// The most tags of a frame that are understood.
const MAX_TAGS: usize = 2;

/// A packet as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Where it comes in, as it is written: a number of the datapath, or a name.
    pub in_port: Option<String>,
    /// The tunnel that it has come by.
    pub tunnel: Option<Meta>,
    /// All else.
    pub key: Key,
}

/// Reads hexadecimal digits, with blanks between them or without, as the bytes of a frame; `None` where
/// there is anything else.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|letter| !letter.is_whitespace())
        .map(|digit| digit.to_digit(16).and_then(|digit| digit.try_into().ok()))
        .collect();
    let digits = digits.filter(|digits| !digits.is_empty())?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Reads the words of a datapath. Masks behind values are left out.
///
/// # Errors
/// Names the part that is not understood.
pub fn parse(text: &str) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut below = without_name(text);
    // Each time one frame's inside is inside of another's.
    for level in 0..=MAX_TAGS {
        match parsed.read(below, level)? {
            Some(inner) => below = inner,
            None => return Ok(parsed),
        }
    }
    Err(format!("syntax error at {below}"))
}

/// What comes behind the name of a flow, as flows are dumped with it.
fn without_name(text: &str) -> &str {
    let Some(rest) = text.trim_start().strip_prefix("ufid:") else { return text };
    rest.trim_start_matches(|sign: char| sign.is_ascii_hexdigit() || sign == '-')
        .trim_start_matches([',', ' '])
}

/// A field: its name, where it is, and how it is read.
type Line = (&'static str, Slot, fn(&str) -> Option<u128>);

/// What is said to be in brackets.
type Lines = &'static [Line];

/// Headers, each with its fields.
static HEADERS: &[(&str, Lines)] = &[
    ("eth", &[("src", slot::ETH_SRC, mac), ("dst", slot::ETH_DST, mac)]),
    (
        "ipv4",
        &[
            ("src", slot::IPV4_SRC, v4),
            ("dst", slot::IPV4_DST, v4),
            ("proto", slot::IP_PROTO, number),
            ("tos", slot::IP_TOS, number),
            ("ttl", slot::IP_TTL, number),
            ("frag", slot::IP_FRAG, fragment),
        ],
    ),
    (
        "ipv6",
        &[
            ("src", slot::IPV6_SRC, v6),
            ("dst", slot::IPV6_DST, v6),
            ("label", slot::IPV6_LABEL, number),
            ("proto", slot::IP_PROTO, number),
            ("tclass", slot::IP_TOS, number),
            ("hlimit", slot::IP_TTL, number),
            ("frag", slot::IP_FRAG, fragment),
        ],
    ),
    (
        "arp",
        &[
            ("sip", slot::IPV4_SRC, v4),
            ("tip", slot::IPV4_DST, v4),
            ("op", slot::IP_PROTO, number),
            ("sha", slot::ARP_SHA, mac),
            ("tha", slot::ARP_THA, mac),
        ],
    ),
    ("tcp", PORTS),
    ("udp", PORTS),
    ("sctp", PORTS),
    ("icmp", TYPE_AND_CODE),
    ("icmpv6", TYPE_AND_CODE),
    (
        "nd",
        &[
            ("target", slot::ND_TARGET, v6),
            ("sll", slot::ARP_SHA, mac),
            ("tll", slot::ARP_THA, mac),
        ],
    ),
    (
        "nd_ext",
        &[
            ("nd_reserved", slot::ND_RESERVED, number),
            ("nd_options_type", slot::ND_OPTIONS_TYPE, number),
        ],
    ),
    (
        "mpls",
        &[
            ("label", slot::MPLS_LABEL, number),
            ("tc", slot::MPLS_TC, number),
            ("ttl", slot::MPLS_TTL, number),
            ("bos", slot::MPLS_BOS, number),
        ],
    ),
    (
        "nsh",
        &[
            ("flags", slot::NSH_FLAGS, number),
            ("ttl", slot::NSH_TTL, number),
            ("mdtype", slot::NSH_MDTYPE, number),
            ("np", slot::NSH_NP, number),
            ("spi", slot::NSH_SPI, number),
            ("si", slot::NSH_SI, number),
            ("c1", slot::NSH_C1, number),
            ("c2", slot::NSH_C2, number),
            ("c3", slot::NSH_C3, number),
            ("c4", slot::NSH_C4, number),
        ],
    ),
    (
        "ct_tuple4",
        &[
            ("src", slot::CT_NW_SRC, v4),
            ("dst", slot::CT_NW_DST, v4),
            ("proto", slot::CT_NW_PROTO, number),
            ("tp_src", slot::CT_TP_SRC, number),
            ("tp_dst", slot::CT_TP_DST, number),
        ],
    ),
    (
        "ct_tuple6",
        &[
            ("src", slot::CT_IPV6_SRC, v6),
            ("dst", slot::CT_IPV6_DST, v6),
            ("proto", slot::CT_NW_PROTO, number),
            ("tp_src", slot::CT_TP_SRC, number),
            ("tp_dst", slot::CT_TP_DST, number),
        ],
    ),
];

const PORTS: Lines = &[("src", slot::TP_SRC, number), ("dst", slot::TP_DST, number)];
const TYPE_AND_CODE: Lines = &[("type", slot::TP_SRC, number), ("code", slot::TP_DST, number)];

/// What has a single value.
static SINGLE: Lines = &[
    ("recirc_id", slot::RECIRC_ID, number),
    ("skb_priority", slot::SKB_PRIORITY, number),
    ("skb_mark", slot::PKT_MARK, number),
    ("dp_hash", slot::DP_HASH, number),
    ("ct_state", slot::CT_STATE, ct_state),
    ("ct_zone", slot::CT_ZONE, number),
    ("ct_mark", slot::CT_MARK, number),
    ("ct_label", slot::CT_LABEL, number),
    ("tcp_flags", slot::TCP_FLAGS, tcp_flags),
    ("eth_type", slot::ETH_TYPE, number),
];

impl Parsed {
    /// Reads one level of it; returns what is inside of `encap(..)`.
    fn read<'t>(&mut self, text: &'t str, level: usize) -> Result<Option<&'t str>, String> {
        let (mut inner, mut rest) = (None, text.trim());
        while !rest.is_empty() {
            let (name, arguments, after) = item(rest)?;
            match name {
                "encap" => inner = Some(arguments),
                _ => {
                    let set = self.set(name, arguments, level);
                    set.ok_or_else(|| format!("syntax error at {rest}"))?;
                }
            }
            rest = after;
        }
        Ok(inner)
    }

    fn set(&mut self, name: &str, text: &str, level: usize) -> Option<()> {
        match name {
            "in_port" => self.in_port = Some(text.split('/').next()?.trim().to_owned()),
            "vlan" => return self.tag(text, level),
            "tunnel" => self.tunnel = Some(crate::tunnel::parse(text)?),
            "packet_type" => self.packet_type(text)?,
            "ufid" => {}
            _ => {
                if let Some((_, slot, read)) = SINGLE.iter().find(|(known, ..)| *known == name) {
                    return self.put(*slot, read(unmasked(text))?);
                }
                let (_, lines) = HEADERS.iter().find(|(known, _)| *known == name)?;
                // What it is, is said by that where nothing else says it.
                let packet_type = self.key.get_u32(slot::PACKET_TYPE);
                let ether_type = match name {
                    _ if packet_type >> 16 == 1 => u128::from(packet_type & 0xFFFF),
                    "ipv4" => 0x0800,
                    "ipv6" => 0x86DD,
                    "arp" => 0x0806,
                    _ => 0,
                };
                if self.key.get(slot::ETH_TYPE) == 0 {
                    self.key.set(slot::ETH_TYPE, ether_type);
                }
                for pair in pairs(text) {
                    let (field, value) = pair?;
                    let (_, slot, read) = lines.iter().find(|(known, ..)| *known == field)?;
                    self.put(*slot, read(value)?)?;
                }
            }
        }
        Some(())
    }

    /// What the packet begins with: a name space, and a number in it.
    fn packet_type(&mut self, text: &str) -> Option<()> {
        let (mut space, mut id) = (0, 0);
        for pair in pairs(text) {
            match pair? {
                ("ns", value) => space = u16::try_from(number(value)?).ok()?,
                ("id", value) => id = u16::try_from(number(value)?).ok()?,
                _ => return None,
            }
        }
        let packet_type = u32::from(space) << 16 | u32::from(id);
        self.put(slot::PACKET_TYPE, packet_type.into())
    }

    /// Puts a value where there is room for it.
    fn put(&mut self, slot: Slot, value: u128) -> Option<()> {
        (value <= slot.ones()).then(|| self.key.set(slot, value))
    }

    fn tag(&mut self, text: &str, level: usize) -> Option<()> {
        let mut tci = TAG_PRESENT;
        for pair in pairs(text) {
            let (field, value) = pair?;
            let value = u16::try_from(number(value)?).ok()?;
            match field {
                "vid" if value <= 0xFFF => tci |= value,
                "pcp" if value <= 7 => tci |= value << 13,
                "cfi" if value <= 1 => tci = tci & !TAG_PRESENT | value << 12,
                "tci" => tci = value,
                _ => return None,
            }
        }
        let (tpid_slot, tci_slot) = match level {
            0 => (slot::VLAN_TPID, slot::VLAN_TCI),
            _ => (slot::INNER_TPID, slot::INNER_TCI),
        };
        // The type of what is around is the tag's.
        let tpid = self.key.get(slot::ETH_TYPE);
        self.key.set(slot::ETH_TYPE, 0);
        self.key.set(tpid_slot, if tpid == 0 { 0x8100 } else { tpid });
        self.key.set(tci_slot, tci.into());
        Some(())
    }
}

/// The first item of a list: its name, what is in its brackets, and what comes behind it.
fn item(text: &str) -> Result<(&str, &str, &str), String> {
    let wrong = || format!("syntax error at {text}");
    let (name, rest) = text.split_once('(').ok_or_else(wrong)?;
    let mut depth = 1_usize;
    for (at, sign) in rest.char_indices() {
        match sign {
            '(' => depth = depth.saturating_add(1),
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            let (inside, after) = rest.split_at_checked(at).ok_or_else(wrong)?;
            let after = after.trim_start_matches(')').trim_start_matches([',', ' ']);
            return Ok((name.trim(), inside, after));
        }
    }
    Err(wrong())
}

/// What is before a mask.
fn unmasked(text: &str) -> &str {
    text.split('/').next().unwrap_or_default().trim()
}

/// `name=value,..`, without masks; `None` for what is no pair.
fn pairs(text: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').map(|(name, value)| (name.trim(), unmasked(value))))
}

/// A number in either base.
fn number(text: &str) -> Option<u128> {
    match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// An address of which parts can have one digit, as Open vSwitch takes them.
fn mac(text: &str) -> Option<u128> {
    let padded = |part: &str| if part.len() == 1 { format!("0{part}") } else { part.to_owned() };
    let parts: Vec<String> = text.splitn(7, ':').map(padded).collect();
    let MacAddr([a, b, c, d, e, f]) = parts.join(":").parse().ok()?;
    Some(u64::from_be_bytes([0, 0, a, b, c, d, e, f]).into())
}

fn v4(text: &str) -> Option<u128> {
    Some(u32::from(text.parse::<Ipv4Addr>().ok()?).into())
}

fn v6(text: &str) -> Option<u128> {
    Some(u128::from(text.parse::<Ipv6Addr>().ok()?))
}

fn fragment(text: &str) -> Option<u128> {
    Some(match text {
        "no" => 0,
        "first" => flow::FRAG_ANY.into(),
        "later" => (flow::FRAG_ANY | flow::FRAG_LATER).into(),
        _ => return None,
    })
}

/// The flags of TCP in the order of their bits, the lowest first.
const TCP_FLAGS: &[&str] = &["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"];

/// What is known of connections, in the same way.
const CT_STATE: &[&str] = &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];

fn tcp_flags(text: &str) -> Option<u128> {
    flags(text, TCP_FLAGS)
}

fn ct_state(text: &str) -> Option<u128> {
    flags(text, CT_STATE)
}

/// Flags: a number, or names with lines between them or signs before them.
fn flags(text: &str, names: &[&str]) -> Option<u128> {
    if let Some(number) = number(text) {
        return Some(number);
    }
    let text = text.replace('+', "|").replace('-', "|-");
    let words = text.split(['|', ',']).map(str::trim).filter(|word| !word.is_empty());
    words.filter(|word| !word.starts_with('-')).try_fold(0, |flags, name| {
        let bit = names.iter().position(|flag| *flag == name)?;
        Some(flags | 1 << bit)
    })
}

#[cfg(test)]
mod tests;
