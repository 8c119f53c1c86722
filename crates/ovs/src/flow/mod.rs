//! Frames in Open vSwitch's words: `in_port(1),eth(src=..,dst=..),eth_type(0x0800),ipv4(..)` as of
//! its datapath, `in_port=1,dl_src=..` as of OpenFlow, and hexadecimal digits.
//!
//! - `compose`: from fields to the bytes of a frame
//! - `openflow`: the words of OpenFlow

mod compose;
mod openflow;

use std::str::FromStr;

use packet::MacAddr;

pub use self::compose::compose;
pub use self::openflow::parse as parse_openflow;

/// The most tags of a frame.
const MAX_TAGS: usize = 8;

/// What is said of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Where it comes in, as it is written: a number, `LOCAL` or a name.
    pub in_port: Option<String>,
    /// Its addresses.
    pub(crate) src: MacAddr,
    /// Where it is to go.
    pub(crate) dst: MacAddr,
    /// Its tags, outermost first: type and content.
    pub(crate) tags: Vec<(u16, u16)>,
    /// The type of what is in it.
    pub(crate) ethertype: Option<u16>,
    /// What is in it.
    pub(crate) body: Body,
    /// What is in that.
    pub(crate) upper: Upper,
}

/// What is in a frame, as far as it is known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Body {
    /// Nothing that is known.
    #[default]
    None,
    /// A request or an answer of ARP: operation; addresses of sender and target.
    Arp { op: u16, from: (MacAddr, [u8; 4]), to: (MacAddr, [u8; 4]) },
    /// IPv4: addresses, protocol, type of service, time to live, and whether it is a fragment.
    V4 { src: [u8; 4], dst: [u8; 4], proto: u8, tos: u8, ttl: u8, frag: Fragment },
    /// IPv6: addresses, protocol, traffic class, hop limit and flow label.
    V6 { src: [u8; 16], dst: [u8; 16], proto: u8, tos: u8, ttl: u8, label: u32 },
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fragment {
    /// It is not.
    #[default]
    No,
    /// It is the first one.
    First,
    /// It is another one.
    Later,
}

/// What is in a packet of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Upper {
    /// Ports, or type and code of ICMP.
    pub(crate) src: u16,
    /// The other one.
    pub(crate) dst: u16,
    /// The flags of TCP.
    pub(crate) flags: u16,
}

/// Reads hexadecimal digits as the bytes of a frame; `None` where there is anything else.
#[must_use]
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| digit.try_into().ok()))
        .collect();
    let digits = digits.filter(|digits| !digits.is_empty())?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Reads the words of a datapath.
///
/// # Errors
/// Names the part that is not understood.
pub fn parse_datapath(text: &str) -> Result<Flow, String> {
    let mut flow = Flow::default();
    let mut below = text;
    // Each time one frame's inside is inside of another's.
    for _ in 0..=MAX_TAGS {
        let Some(inner) = flow.read(below)? else { return Ok(flow) };
        below = inner;
    }
    Err(format!("syntax error at {below}"))
}

impl Flow {
    /// Reads one level of it; returns what is inside of `encap(..)`.
    fn read<'t>(&mut self, text: &'t str) -> Result<Option<&'t str>, String> {
        let (mut inner, mut rest) = (None, text.trim());
        while !rest.is_empty() {
            let (key, arguments, after) = item(rest)?;
            match key {
                "encap" => inner = Some(arguments),
                _ => self.set(key, arguments).map_err(|()| format!("syntax error at {rest}"))?,
            }
            rest = after;
        }
        Ok(inner)
    }

    fn set(&mut self, key: &str, text: &str) -> Result<(), ()> {
        let args = Arguments(text);
        match key {
            "in_port" => self.in_port = Some(text.to_owned()),
            "eth" => (self.src, self.dst) = (args.or_default("src")?, args.or_default("dst")?),
            "eth_type" => self.ethertype = Some(number(text)?),
            "vlan" => {
                let (vid, pcp): (u16, u16) = (args.number("vid")?, args.number("pcp")?);
                let kind = self.ethertype.take().unwrap_or(0x8100);
                self.tags.push((kind, pcp.checked_mul(1 << 13).ok_or(())? | vid & 0xfff));
            }
            "arp" => {
                self.body = Body::Arp {
                    op: args.number("op")?,
                    from: (args.or_default("sha")?, args.v4("sip")?),
                    to: (args.or_default("tha")?, args.v4("tip")?),
                };
            }
            "ipv4" => {
                self.body = Body::V4 {
                    src: args.v4("src")?,
                    dst: args.v4("dst")?,
                    proto: args.number("proto")?,
                    tos: args.number("tos")?,
                    ttl: args.number("ttl")?,
                    frag: match args.get("frag") {
                        None | Some("no") => Fragment::No,
                        Some("first") => Fragment::First,
                        Some("later") => Fragment::Later,
                        Some(_) => return Err(()),
                    },
                };
            }
            "ipv6" => {
                self.body = Body::V6 {
                    src: args.v6("src")?,
                    dst: args.v6("dst")?,
                    proto: args.number("proto")?,
                    tos: args.number("tclass")?,
                    ttl: args.number("hlimit")?,
                    label: args.number("label")?,
                };
            }
            "tcp" | "udp" | "sctp" => {
                (self.upper.src, self.upper.dst) = (args.number("src")?, args.number("dst")?);
            }
            "icmp" | "icmpv6" => {
                (self.upper.src, self.upper.dst) = (args.number("type")?, args.number("code")?);
            }
            "tcp_flags" => self.upper.flags = flags(text)?,
            // What says nothing about the frame itself.
            "recirc_id" | "skb_priority" | "skb_mark" | "packet_type" | "ct_state" | "ct_zone"
            | "ct_mark" | "ct_label" | "dp_hash" => {}
            _ => return Err(()),
        }
        Ok(())
    }
}

/// The first item of a list: its name, what is in its brackets, and what comes behind it.
fn item(text: &str) -> Result<(&str, &str, &str), String> {
    let wrong = || format!("syntax error at {text}");
    let (key, rest) = text.split_once('(').ok_or_else(wrong)?;
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
            return Ok((key.trim(), inside, after));
        }
    }
    Err(wrong())
}

/// `key=value,..`; a value may have a mask, which is left out.
#[derive(Clone, Copy)]
struct Arguments<'t>(&'t str);

impl<'t> Arguments<'t> {
    fn get(self, key: &str) -> Option<&'t str> {
        let mut pairs = self.0.split(',').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.trim() == key)?;
        value.split('/').next().map(str::trim)
    }

    /// Nothing is zero.
    fn number<T: TryFrom<u64> + Default>(self, key: &str) -> Result<T, ()> {
        self.get(key).map_or(Ok(T::default()), number)
    }

    fn or_default<T: FromStr + Default>(self, key: &str) -> Result<T, ()> {
        self.get(key).map_or(Ok(T::default()), |text| text.parse().map_err(|_| ()))
    }

    fn v4(self, key: &str) -> Result<[u8; 4], ()> {
        let address = self.get(key).map(str::parse::<std::net::Ipv4Addr>).transpose();
        address.map_err(|_| ()).map(|address| address.map_or([0; 4], |address| address.octets()))
    }

    fn v6(self, key: &str) -> Result<[u8; 16], ()> {
        let address = self.get(key).map(str::parse::<std::net::Ipv6Addr>).transpose();
        address.map_err(|_| ()).map(|address| address.map_or([0; 16], |address| address.octets()))
    }
}

/// The flags of TCP in the order of their bits, the lowest first.
const FLAGS: [&str; 9] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"];

/// Flags of TCP: a number, or names.
fn flags(text: &str) -> Result<u16, ()> {
    number(text).or_else(|()| {
        text.split(['|', ',']).try_fold(0, |flags, name| {
            let bit = FLAGS.iter().position(|flag| *flag == name.trim()).ok_or(())?;
            Ok(flags | 1 << bit)
        })
    })
}

/// A number in either base; a mask behind it is left out.
fn number<T: TryFrom<u64>>(text: &str) -> Result<T, ()> {
    let text = text.split('/').next().unwrap_or_default().trim();
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.ok().and_then(|number| T::try_from(number).ok()).ok_or(())
}

#[cfg(test)]
mod tests;
