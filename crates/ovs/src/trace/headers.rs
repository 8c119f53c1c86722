//! What differs between the headers of two frames, as actions of a datapath that make one of the
//! other.

use std::fmt::{Display, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use packet::MacAddr;
use packet::headers::ethernet::TAG_LEN;

/// What a frame has behind its addresses and tags: its type, and the rest.
fn inner(frame: &[u8], tags: usize) -> Option<(u16, &[u8])> {
    let at = TAG_LEN.checked_mul(tags)?.checked_add(12)?;
    let (kind, rest) = frame.get(at..)?.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*kind), rest))
}

/// `N` bytes of a header.
fn bytes<const N: usize>(header: &[u8], at: usize) -> Option<[u8; N]> {
    header.get(at..)?.first_chunk().copied()
}

/// The fields of a header that differ, each with what it becomes.
#[derive(Default)]
struct Fields(String);

impl Fields {
    fn add<T: PartialEq + Display>(&mut self, name: &str, from: Option<T>, to: Option<T>) {
        if let (Some(from), Some(to)) = (from, to)
            && from != to
        {
            let comma = if self.0.is_empty() { "" } else { "," };
            let _ = write!(self.0, "{comma}{name}={to}");
        }
    }

    /// As an action, if there are any.
    fn put(self, header: &str, actions: &mut Vec<String>) {
        if !self.0.is_empty() {
            actions.push(format!("set({header}({}))", self.0));
        }
    }
}

/// A type of service, of which the lower two bits are a matter of their own.
#[derive(PartialEq)]
struct Class(u8);

impl Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}/0xfc", self.0 & 0xFC)
    }
}

/// Adds what makes the headers of `after`, a frame with so many tags, of those of `before`.
pub(super) fn change(before: (&[u8], usize), after: (&[u8], usize), actions: &mut Vec<String>) {
    let mut ethernet = Fields::default();
    let mac = |frame: &[u8], at| bytes(frame, at).map(MacAddr);
    ethernet.add("src", mac(before.0, 6), mac(after.0, 6));
    ethernet.add("dst", mac(before.0, 0), mac(after.0, 0));
    ethernet.put("eth", actions);
    let (Some((kind, before)), Some((same, after))) =
        (inner(before.0, before.1), inner(after.0, after.1))
    else {
        return;
    };
    match kind {
        _ if kind != same => {}
        0x0800 => ipv4(before, after, actions),
        0x86DD => ipv6(before, after, actions),
        _ => {}
    }
}

fn ipv4(before: &[u8], after: &[u8], actions: &mut Vec<String>) {
    let mut fields = Fields::default();
    let address = |header: &[u8], at| bytes::<4>(header, at).map(Ipv4Addr::from);
    let byte = |header: &[u8], at: usize| header.get(at).copied();
    fields.add("src", address(before, 12), address(after, 12));
    fields.add("dst", address(before, 16), address(after, 16));
    fields.add("tos", byte(before, 1).map(Class), byte(after, 1).map(Class));
    fields.add("ttl", byte(before, 8), byte(after, 8));
    fields.put("ipv4", actions);
    let len = byte(before, 0).map_or(0, |first| usize::from(first & 0x0F) * 4);
    let proto = byte(before, 9).unwrap_or_default();
    ports(proto, before.get(len..), after.get(len..), actions);
}

fn ipv6(before: &[u8], after: &[u8], actions: &mut Vec<String>) {
    let mut fields = Fields::default();
    let address = |header: &[u8], at| bytes::<16>(header, at).map(Ipv6Addr::from);
    let byte = |header: &[u8], at: usize| header.get(at).copied();
    let class = |header: &[u8]| {
        bytes::<2>(header, 0).map(|[first, second]| Class(first << 4 | second >> 4))
    };
    fields.add("src", address(before, 8), address(after, 8));
    fields.add("dst", address(before, 24), address(after, 24));
    fields.add("tclass", class(before), class(after));
    fields.add("hlimit", byte(before, 7), byte(after, 7));
    fields.put("ipv6", actions);
    let proto = byte(before, 6).unwrap_or_default();
    ports(proto, before.get(40..), after.get(40..), actions);
}

fn ports(proto: u8, before: Option<&[u8]>, after: Option<&[u8]>, actions: &mut Vec<String>) {
    let name = match proto {
        6 => "tcp",
        17 => "udp",
        _ => return,
    };
    let (Some(before), Some(after)) = (before, after) else { return };
    let mut fields = Fields::default();
    let port = |header: &[u8], at| bytes(header, at).map(u16::from_be_bytes);
    fields.add("src", port(before, 0), port(after, 0));
    fields.add("dst", port(before, 2), port(after, 2));
    fields.put(name, actions);
}

#[cfg(test)]
mod tests {
    use packet::builder::FrameBuilder;
    use packet::headers::TcpFlags;

    use super::*;

    /// What Open vSwitch 3.1 says of the same changes.
    #[test]
    fn changes_are_told_as_open_vswitch_tells_them() {
        let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let build = |source: [u8; 4], to: [u8; 4], ports| {
            let builder = FrameBuilder::new(a, b).ip(source, to);
            builder.tcp(ports, 0, 0, TcpFlags::default()).build().unwrap()
        };
        let told = |before: &[u8], after: &[u8]| {
            let mut actions = Vec::new();
            change((before, 0), (after, 0), &mut actions);
            actions.join(",")
        };
        let before = build([10, 0, 0, 1], [10, 0, 0, 2], (80, 81));
        let mut after = build([9, 9, 9, 9], [1, 2, 3, 4], (7, 81));
        after[..6].copy_from_slice(&[0, 0, 0, 0, 0, 1]);
        (after[15], after[22]) = (8, 63);
        assert_eq!(
            told(&before, &after),
            "set(eth(dst=00:00:00:00:00:01)),set(ipv4(src=9.9.9.9,dst=1.2.3.4,tos=0x8/0xfc,ttl=63)),\
             set(tcp(src=7))"
        );
        assert_eq!(told(&before, &before), "");
        assert_eq!(told(&before[..15], &after[..15]), "set(eth(dst=00:00:00:00:00:01))");
    }
}
