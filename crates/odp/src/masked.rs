//! A flow's packets in the words of a datapath: what it is found by, and which bits of that count.

use std::fmt::{self, Formatter, Write as _};

use flow::walk::labels;
use flow::{Key, OptionField, Slot, TAG_PRESENT, slot};

use crate::header::label;
use crate::kind::{Kind, is_discovery, is_later, is_tagged};
use crate::value::{Fields, Style, hex};

/// A packet of a flow, and its mask.
#[derive(Clone, Copy, Debug)]
pub struct Masked<'m> {
    /// The packet.
    pub key: &'m Key,
    /// Which of its bits count; `None`: all, without saying so.
    pub mask: Option<&'m Key>,
    /// The port where it comes in, as it is to be called.
    pub port: &'m str,
    /// The fields of its bridge for options of tunnels.
    pub options: &'m [OptionField],
    /// Whether headers are told of which no bits count.
    pub is_full: bool,
}

/// How many bits of a field count where it is told: those of ICMP are in a field of 16 here.
type Line = (&'static str, Slot, Style, u8);

const ETHERNET: &[Line] =
    &[("src", slot::ETH_SRC, Style::Mac, 48), ("dst", slot::ETH_DST, Style::Mac, 48)];

const IPV4: &[Line] = &[
    ("src", slot::IPV4_SRC, Style::Ipv4, 32),
    ("dst", slot::IPV4_DST, Style::Ipv4, 32),
    ("proto", slot::IP_PROTO, Style::Decimal, 8),
    ("tos", slot::IP_TOS, Style::Hex, 8),
    ("ttl", slot::IP_TTL, Style::Decimal, 8),
];

const IPV6: &[Line] = &[
    ("src", slot::IPV6_SRC, Style::Ipv6, 128),
    ("dst", slot::IPV6_DST, Style::Ipv6, 128),
    ("label", slot::IPV6_LABEL, Style::Hex, 20),
    ("proto", slot::IP_PROTO, Style::Decimal, 8),
    ("tclass", slot::IP_TOS, Style::Hex, 8),
    ("hlimit", slot::IP_TTL, Style::Decimal, 8),
];

const ARP: &[Line] = &[
    ("sip", slot::IPV4_SRC, Style::Ipv4, 32),
    ("tip", slot::IPV4_DST, Style::Ipv4, 32),
    ("op", slot::IP_PROTO, Style::Decimal, 8),
    ("sha", slot::ARP_SHA, Style::Mac, 48),
    ("tha", slot::ARP_THA, Style::Mac, 48),
];

const PORTS: &[Line] =
    &[("src", slot::TP_SRC, Style::Decimal, 16), ("dst", slot::TP_DST, Style::Decimal, 16)];

const TYPE_AND_CODE: &[Line] =
    &[("type", slot::TP_SRC, Style::Decimal, 8), ("code", slot::TP_DST, Style::Decimal, 8)];

const ND: &[Line] = &[
    ("target", slot::ND_TARGET, Style::Ipv6, 128),
    ("sll", slot::ARP_SHA, Style::Mac, 48),
    ("tll", slot::ARP_THA, Style::Mac, 48),
];

const ND_EXTENSIONS: &[Line] = &[
    ("nd_reserved", slot::ND_RESERVED, Style::Hex, 32),
    ("nd_options_type", slot::ND_OPTIONS_TYPE, Style::Decimal, 8),
];

/// Bits of the state of a connection.
const CT_STATE_BITS: u128 = 0xFF;

const CT_STATES: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];

/// Flags of TCP, the lowest bit first.
const TCP_FLAGS: [&str; 12] =
    ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"];

impl fmt::Display for Masked<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        self.beside(&mut parts);
        self.link(&mut parts);
        f.write_str(&parts.join(","))
    }
}

impl Masked<'_> {
    fn bits(&self, slot: Slot) -> u128 {
        self.mask.map_or_else(|| slot.ones(), |mask| mask.get(slot))
    }

    /// A header that is a number.
    fn number(&self, name: &str, slot: Slot, parts: &mut Vec<String>) {
        let bits = self.bits(slot);
        if bits != 0 || self.is_full {
            let text = Style::Hex.show(self.key.get(slot), bits, slot.width());
            parts.push(format!("{name}({text})"));
        }
    }

    /// What is known beside what is in the frame.
    fn beside(&self, parts: &mut Vec<String>) {
        self.number("skb_priority", slot::SKB_PRIORITY, parts);
        if crate::tunnel::is_tunnelled(self.key) {
            parts.push(crate::tunnel::masked(self.key, self.mask, self.options, self.is_full));
        }
        self.number("skb_mark", slot::PKT_MARK, parts);
        self.connection(parts);
        let words = [
            ("ct_zone", slot::CT_ZONE),
            ("ct_mark", slot::CT_MARK),
            ("ct_label", slot::CT_LABEL),
            ("recirc_id", slot::RECIRC_ID),
            ("dp_hash", slot::DP_HASH),
        ];
        words.into_iter().for_each(|(name, slot)| self.number(name, slot, parts));
        parts.push(format!("in_port({})", self.port));
        let packet_type = self.key.get_u32(slot::PACKET_TYPE);
        let (space, id) = (packet_type >> 16, packet_type & 0xFFFF);
        let sign = if id == 0 { "" } else { "0x" };
        parts.push(format!("packet_type(ns={space},id={sign}{id:x})"));
    }

    fn connection(&self, parts: &mut Vec<String>) {
        let state = self.key.get(slot::CT_STATE);
        let bits = self.bits(slot::CT_STATE) & CT_STATE_BITS;
        let text = match self.mask {
            None => hex(state),
            Some(_) if self.is_full => format!("{}/{}", hex(state), hex(bits)),
            Some(_) if bits == 0 => return,
            Some(_) => signed(state, bits, &CT_STATES),
        };
        parts.push(format!("ct_state({text})"));
    }

    /// The frame, from its addresses on.
    fn link(&self, parts: &mut Vec<String>) {
        if self.key.is_ethernet() {
            self.header("eth", ETHERNET, None, parts);
        }
        if !is_tagged(self.key) {
            return self.network(parts);
        }
        parts.push(format!("eth_type({:#06x})", self.key.get_u16(slot::VLAN_TPID)));
        self.tag(slot::VLAN_TCI, parts);
        let mut inner = Vec::new();
        if self.key.get_u16(slot::INNER_TCI) & TAG_PRESENT == 0 {
            self.network(&mut inner);
        } else {
            inner.push(format!("eth_type({:#06x})", self.key.get_u16(slot::INNER_TPID)));
            self.tag(slot::INNER_TCI, &mut inner);
            let mut innermost = Vec::new();
            self.network(&mut innermost);
            inner.push(format!("encap({})", innermost.join(",")));
        }
        parts.push(format!("encap({})", inner.join(",")));
    }

    fn tag(&self, slot: Slot, parts: &mut Vec<String>) {
        let (tci, bits) = (self.key.get(slot), self.bits(slot));
        if bits == 0 && !self.is_full {
            return;
        }
        let mut fields = Fields::default();
        for (name, shift, ones) in [("vid", 0, 0xFFF), ("pcp", 13, 7)] {
            let (value, bits) = (tci >> shift & ones, bits >> shift & ones);
            if self.is_full || value | bits != 0 {
                let mask = if bits == ones { String::new() } else { format!("/{bits:#x}") };
                fields.add(name, format!("{value}{mask}"));
            }
        }
        parts.push(format!("vlan({})", fields.0));
    }

    fn network(&self, parts: &mut Vec<String>) {
        let kind = self.key.get_u16(slot::ETH_TYPE);
        // A frame with a length has none.
        if kind < 0x0600 {
            return;
        }
        if self.bits(slot::ETH_TYPE) != 0 || self.is_full {
            parts.push(format!("eth_type({kind:#06x})"));
        }
        match Kind::of(self.key) {
            Kind::Ipv4 => self.header("ipv4", IPV4, self.fragment(), parts),
            Kind::Ipv6 => self.header("ipv6", IPV6, self.fragment(), parts),
            Kind::Arp => return self.header("arp", ARP, None, parts),
            Kind::Mpls => return self.mpls(parts),
            Kind::Nsh => return self.nsh(parts),
            Kind::Other => return,
        }
        if !is_later(self.key) {
            self.transport(parts);
        }
    }

    fn nsh(&self, parts: &mut Vec<String>) {
        let fields = crate::nsh::masked(self.key, |slot| self.bits(slot));
        if !fields.is_empty() || self.is_full {
            parts.push(format!("nsh({fields})"));
        }
    }

    fn mpls(&self, parts: &mut Vec<String>) {
        let places = [slot::MPLS_LSE, slot::MPLS_LSE1, slot::MPLS_LSE2];
        // One is there in any case.
        let shown = places.into_iter().take(labels(self.key).len().max(1));
        let shown: Vec<(u32, u32)> =
            shown.map(|place| (self.key.get_u32(place), low(self.bits(place)))).collect();
        if shown.iter().all(|(_, bits)| *bits == 0) && !self.is_full {
            return;
        }
        let is_whole = shown.iter().all(|(_, bits)| *bits == u32::MAX);
        let texts = shown.iter().map(|(entry, bits)| match is_whole {
            true => label(&outermost(*entry), None),
            false => {
                let of = |from: u32| [from >> 12, from >> 9 & 7, from & 0xFF, from >> 8 & 1];
                let ([label, tc, ttl, bos], [a, b, c, d]) = (of(*entry), of(*bits));
                format!("label={label}/{a:#x},tc={tc}/{b:x},ttl={ttl}/{c:#x},bos={bos}/{d:x}")
            }
        });
        parts.push(format!("mpls({})", texts.collect::<Vec<_>>().join(",")));
    }

    fn fragment(&self) -> Option<&'static str> {
        if self.bits(slot::IP_FRAG) == 0 {
            return None;
        }
        let bits = self.key.get_u8(slot::IP_FRAG);
        Some(match (bits & flow::FRAG_ANY != 0, bits & flow::FRAG_LATER != 0) {
            (false, _) => "no",
            (true, false) => "first",
            (true, true) => "later",
        })
    }

    fn transport(&self, parts: &mut Vec<String>) {
        match (Kind::of(self.key), self.key.get_u8(slot::IP_PROTO)) {
            (_, 6) => {
                self.header("tcp", PORTS, None, parts);
                self.tcp_flags(parts);
            }
            (_, 17) => self.header("udp", PORTS, None, parts),
            (_, 132) => self.header("sctp", PORTS, None, parts),
            (Kind::Ipv4, 1) => self.header("icmp", TYPE_AND_CODE, None, parts),
            (Kind::Ipv6, 58) => {
                self.header("icmpv6", TYPE_AND_CODE, None, parts);
                if is_discovery(self.key) {
                    self.header("nd", ND, None, parts);
                    if ND_EXTENSIONS.iter().any(|(_, slot, ..)| self.key.get(*slot) != 0) {
                        self.header("nd_ext", ND_EXTENSIONS, None, parts);
                    }
                }
            }
            _ => {}
        }
    }

    fn tcp_flags(&self, parts: &mut Vec<String>) {
        let (flags, bits) = (self.key.get(slot::TCP_FLAGS), self.bits(slot::TCP_FLAGS));
        let text = match bits {
            0 if !self.is_full || flags == 0 => return,
            0 => "0/0".to_owned(),
            bits if bits != slot::TCP_FLAGS.ones() => signed(flags, bits, &TCP_FLAGS),
            _ if flags == 0 && self.mask.is_none() => return,
            _ => named(flags, &TCP_FLAGS),
        };
        parts.push(format!("tcp_flags({text})"));
    }

    /// A header of several fields, of which the last one may be about fragments.
    fn header(&self, name: &str, lines: &[Line], fragment: Option<&str>, parts: &mut Vec<String>) {
        let mut fields = Fields::default();
        for (name, slot, style, width) in lines {
            let ones = openflow::field::ones((*width).into());
            let bits = self.mask.map_or(ones, |mask| mask.get(*slot) & ones);
            if bits != 0 || self.is_full {
                fields.add(name, style.show(self.key.get(*slot), bits, *width));
            }
        }
        if let Some(fragment) = fragment {
            fields.add("frag", fragment);
        }
        if !fields.0.is_empty() {
            parts.push(format!("{name}({})", fields.0));
        }
    }
}

/// A packet with this label alone.
fn outermost(entry: u32) -> Key {
    let mut key = Key::default();
    key.set(slot::MPLS_LSE, entry.into());
    key
}

fn low(bits: u128) -> u32 {
    u32::try_from(bits & u128::from(u32::MAX)).unwrap_or_default()
}

/// Flags of which some count: with a sign before each of those.
pub(crate) fn signed(flags: u128, bits: u128, names: &[&str]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate().filter(|(at, _)| bits >> at & 1 != 0) {
        let sign = if flags >> at & 1 != 0 { '+' } else { '-' };
        let _ = write!(text, "{sign}{name}");
    }
    text
}

/// Flags that are set.
fn named(flags: u128, names: &[&str]) -> String {
    let set = names.iter().enumerate().filter(|(at, _)| flags >> at & 1 != 0);
    let text = set.map(|(_, name)| *name).collect::<Vec<_>>().join("|");
    if text.is_empty() { "0".to_owned() } else { text }
}

/// The flags of TCP of a flow's packets, as a datapath shows them beside what it has counted.
pub(crate) fn letters(flags: u16) -> String {
    let letters = [(1, "S"), (0, "F"), (3, "P"), (2, "R"), (5, "U"), (4, "."), (6, "E"), (7, "C")];
    let others = [(8, "N"), (9, "[200]"), (10, "[400]"), (11, "[800]")];
    let all = letters.into_iter().chain(others);
    all.filter(|(bit, _)| flags >> bit & 1 != 0).map(|(_, letter)| letter).collect()
}
