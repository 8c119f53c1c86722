//! Frames against guards.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::sync::LazyLock;

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats};
use packet::{EditRoom, Frame, HEAD_LEN, MacAddr, Segment};
use proptest::prelude::*;

use super::{BpduGuard, Guard, PortGuard, probe};
use crate::bridge::BridgeId;
use crate::datapath::Source;
use crate::limit::PortLimits;

const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
const OWN4: [u8; 4] = [192, 0, 2, 7];
const OTHER4: [u8; 4] = [192, 0, 2, 8];
const NONE4: [u8; 4] = [0; 4];
const ALL4: [u8; 4] = [255; 4];
const NONE6: [u8; 16] = [0; 16];

/// An address in the port's prefix, one outside, and the link-local one of [`OWN`].
const OWN6: [u8; 16] = [0x20, 1, 0xD, 0xB8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const OTHER6: [u8; 16] = [0x20, 1, 0xD, 0xB8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const LOCAL6: [u8; 16] = [0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xFF, 0xFE, 0, 0, 1];

fn ethernet(from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&[0xFF; 6], &from[..], &kind.to_be_bytes(), payload].concat()
}

/// The frame with tags of these kinds.
fn tagged(mut frame: Vec<u8>, kinds: &[u16]) -> Vec<u8> {
    for kind in kinds {
        let [a, b] = kind.to_be_bytes();
        frame.splice(12..12, [a, b, 0, 5]);
    }
    frame
}

/// An IPv4 packet; `fragment` is the word of its flags and offset.
fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    [&packet, &from[..], &to, payload].concat()
}

fn ipv6(from: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], next, 255], &from[..], &[0xFF; 16], payload].concat()
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let words = [from, to, len, 0].map(u16::to_be_bytes).concat();
    [&words, payload].concat()
}

/// A DHCP message; `has` is the address that a client says it has.
fn dhcp(operation: u8, has: [u8; 4], hardware: [u8; 6]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[operation, 1, 6]);
    message[12..16].copy_from_slice(&has);
    message[28..34].copy_from_slice(&hardware);
    message
}

fn arp(operation: u8, mac: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation], &mac[..], &ip, &[0; 6], &OTHER4].concat()
}

/// A message of neighbour discovery with a target, and a link-layer address in an option.
fn discovery(kind: u8, target: [u8; 16], option: Option<(u8, [u8; 6])>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind != 133 {
        message.extend(target);
    }
    message.extend(option.iter().flat_map(|(kind, mac)| [&[*kind, 1], &mac[..]].concat()));
    message
}

fn guard(macs: &[[u8; 6]], ips: &[&str]) -> PortGuard {
    PortGuard {
        allowed_macs: macs.iter().copied().map(MacAddr).collect(),
        allowed_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..PortGuard::default()
    }
}

/// Guards of all kinds: MAC addresses, both kinds of addresses, IP addresses, both guards of
/// servers, and all addresses of a server that is trusted.
fn guards() -> [PortGuard; 5] {
    let ips = ["192.0.2.7", "2001:db8:1::/64"];
    let on = Some(true);
    let off = Some(false);
    [
        guard(&[OWN], &[]),
        guard(&[OWN], &ips),
        guard(&[], &ips),
        PortGuard { dhcp_guard: on, ra_guard: on, ..PortGuard::default() },
        PortGuard { dhcp_guard: off, ra_guard: off, ..guard(&[OWN], &ips) },
    ]
}

const MAC: &str = "mac_spoofed";
const IP: &str = "ip_spoofed";
const ARP: &str = "arp_spoofed";
const ND: &str = "nd_spoofed";
const DHCP: &str = "dhcp_spoofed";
const SERVER: &str = "dhcp_server";
const ROUTER: &str = "router_advertisement";
const MORE: &str = "other_protocol";
const BAD: &str = "malformed";
const YES: &str = "";

/// A frame with its name, and what becomes of it.
type Row = (&'static str, Vec<u8>, [&'static str; 5]);

static TABLE: LazyLock<Vec<Row>> = LazyLock::new(table);

/// Frames, and what becomes of them at each of the [`guards`].
#[allow(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<Row> {
    let v4 = |from, payload: &[u8]| ethernet(OWN, 0x0800, &ipv4(from, OTHER4, 6, 0, payload));
    let udp4 = |from, to, payload: &[u8]| ethernet(OWN, 0x0800, &ipv4(from, to, 17, 0, payload));
    let v6 = |from, next, payload: &[u8]| ethernet(OWN, 0x86DD, &ipv6(from, next, payload));
    let client = |mac, has| udp(68, 67, &dhcp(1, has, mac));
    let arp = |operation, mac, ip| ethernet(OWN, 0x0806, &arp(operation, mac, ip));
    let nd = |from, kind, target, option| v6(from, 58, &discovery(kind, target, option));
    let snap = |code: [u8; 3]| {
        let packet = ipv4(OTHER4, OWN4, 6, 0, &[0; 20]);
        ethernet(OWN, 48, &[&[0xAA, 0xAA, 3], &code[..], &[8, 0], &packet].concat())
    };
    let fragment =
        |word, payload: &[u8]| ethernet(OWN, 0x0800, &ipv4(OWN4, OTHER4, 17, word, payload));
    let chain = |count: usize, next: u8, payload: &[u8]| {
        let mut all = Vec::new();
        for index in 0..count {
            all.extend([if index + 1 == count { next } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        all.extend(payload);
        v6(OWN6, 60, &all)
    };
    let ra = discovery(134, NONE6, None);
    let spoofed_na = discovery(136, OTHER6, None);
    let behind_fragment = |word: u16, next: u8, payload: &[u8]| {
        let [a, b] = word.to_be_bytes();
        v6(OWN6, 44, &[&[next, 0, a, b, 0, 0, 0, 9], payload].concat())
    };
    vec![
        ("tcp", v4(OWN4, &[0; 20]), [YES; 5]),
        (
            "tcp of another mac",
            ethernet(OTHER, 0x0800, &ipv4(OWN4, OTHER4, 6, 0, &[0; 20])),
            [MAC, MAC, YES, YES, MAC],
        ),
        ("tcp of another ip", v4(OTHER4, &[0; 20]), [YES, IP, IP, YES, IP]),
        ("tcp of no ip", v4(NONE4, &[0; 20]), [YES, IP, IP, YES, IP]),
        ("in a vlan", tagged(v4(OTHER4, &[0; 20]), &[0x8100]), [YES, IP, IP, YES, IP]),
        ("in two", tagged(v4(OTHER4, &[0; 20]), &[0x8100, 0x88A8]), [YES, IP, IP, YES, IP]),
        ("in three", tagged(v4(OWN4, &[0; 20]), &[0x8100; 3]), [BAD; 5]),
        ("ends in a tag", tagged(v4(OWN4, &[]), &[0x8100])[..16].to_vec(), [BAD; 5]),
        ("version 5", ethernet(OWN, 0x0800, &[0x55; 40]), [BAD; 5]),
        ("short ip", v4(OWN4, &[])[..33].to_vec(), [BAD; 5]),
        (
            "header longer than packet",
            ethernet(OWN, 0x0800, &[&[0x4F], &ipv4(OWN4, OWN4, 6, 0, &[])[1..]].concat()),
            [BAD; 5],
        ),
        ("no ethernet header", vec![0; 13], [YES; 5]),
        // UDP and DHCP over IPv4.
        ("udp", udp4(OWN4, OTHER4, &udp(9, 9, &[])), [YES; 5]),
        ("short udp", udp4(OWN4, OTHER4, &[0; 7]), [BAD; 5]),
        ("discover", udp4(NONE4, ALL4, &client(OWN, NONE4)), [YES; 5]),
        ("discover to one", udp4(NONE4, OTHER4, &client(OWN, NONE4)), [YES, IP, IP, YES, IP]),
        ("renewal", udp4(OWN4, OTHER4, &client(OWN, OWN4)), [YES; 5]),
        (
            "discover of another",
            udp4(NONE4, ALL4, &client(OTHER, NONE4)),
            [DHCP, DHCP, DHCP, YES, YES],
        ),
        (
            "release of another",
            udp4(OWN4, OTHER4, &client(OWN, OTHER4)),
            [YES, DHCP, DHCP, YES, YES],
        ),
        (
            "of no ip, but not dhcp",
            udp4(NONE4, ALL4, &udp(68, 69, &[0; 300])),
            [YES, IP, IP, YES, IP],
        ),
        ("cut dhcp", udp4(NONE4, ALL4, &udp(68, 67, &[1; 33])), [BAD; 5]),
        ("dhcp of a third kind", udp4(OWN4, ALL4, &udp(68, 67, &dhcp(3, NONE4, OWN))), [BAD; 5]),
        (
            "offer",
            udp4(OWN4, ALL4, &udp(67, 68, &dhcp(2, NONE4, OTHER))),
            [YES, SERVER, SERVER, SERVER, YES],
        ),
        (
            "offer from any port",
            udp4(OWN4, ALL4, &udp(9, 68, &[])),
            [YES, SERVER, SERVER, SERVER, YES],
        ),
        (
            "offer of another ip",
            udp4(OTHER4, ALL4, &udp(67, 68, &dhcp(2, NONE4, OTHER))),
            [YES, IP, IP, SERVER, IP],
        ),
        (
            "reply to a relay",
            udp4(OWN4, OTHER4, &udp(67, 67, &dhcp(2, NONE4, OTHER))),
            [YES, SERVER, SERVER, SERVER, YES],
        ),
        (
            "first fragment of an offer",
            fragment(0x2000, &udp(67, 68, &dhcp(2, NONE4, OTHER))),
            [YES, SERVER, SERVER, SERVER, YES],
        ),
        ("first fragment without ports", fragment(0x2000, &[]), [BAD; 5]),
        ("second fragment", fragment(0x0001, &[0; 8]), [YES; 5]),
        // ARP.
        ("arp request", arp(1, OWN, OWN4), [YES; 5]),
        ("arp reply", arp(2, OWN, OWN4), [YES; 5]),
        ("arp probe", arp(1, OWN, NONE4), [YES; 5]),
        ("arp reply of nobody", arp(2, OWN, NONE4), [YES, ARP, ARP, YES, ARP]),
        ("arp of another mac", arp(1, OTHER, OWN4), [ARP, ARP, ARP, YES, ARP]),
        ("arp of another ip", arp(2, OWN, OTHER4), [YES, ARP, ARP, YES, ARP]),
        ("arp in a vlan", tagged(arp(2, OWN, OTHER4), &[0x8100]), [YES, ARP, ARP, YES, ARP]),
        ("arp of tokens", ethernet(OWN, 0x0806, &[0; 28]), [BAD, BAD, BAD, YES, BAD]),
        ("short arp", arp(1, OWN, OWN4)[..41].to_vec(), [BAD, BAD, BAD, YES, BAD]),
        ("rarp", ethernet(OWN, 0x8035, &arp(3, OWN, NONE4)[14..]), [YES; 5]),
        (
            "rarp of another",
            ethernet(OWN, 0x8035, &arp(3, OTHER, NONE4)[14..]),
            [ARP, ARP, ARP, YES, ARP],
        ),
        // IPv6.
        ("tcp6", v6(OWN6, 6, &[0; 20]), [YES; 5]),
        ("tcp6 of another", v6(OTHER6, 6, &[0; 20]), [YES, IP, IP, YES, IP]),
        ("tcp6 of nobody", v6(NONE6, 6, &[0; 20]), [YES, IP, IP, YES, IP]),
        ("tcp6 link-local", v6(LOCAL6, 6, &[0; 20]), [YES, YES, IP, YES, YES]),
        ("version 4 in ipv6", ethernet(OWN, 0x86DD, &[0x45; 60]), [BAD; 5]),
        ("short ipv6", v6(OWN6, 6, &[])[..53].to_vec(), [BAD; 5]),
        ("eight extensions", chain(8, 6, &[0; 20]), [YES; 5]),
        ("nine extensions", chain(9, 6, &[0; 20]), [BAD; 5]),
        ("extensions without end", v6(OWN6, 60, &[60, 9, 0, 0, 0, 0, 0, 0]), [BAD; 5]),
        ("jumbo payload", v6(OWN6, 0, &[]), [BAD; 5]),
        ("dhcpv6 solicit", v6(LOCAL6, 17, &udp(546, 547, &[1, 0, 0, 0])), [YES, YES, IP, YES, YES]),
        (
            "dhcpv6 advertise",
            v6(OWN6, 17, &udp(547, 546, &[2])),
            [YES, SERVER, SERVER, SERVER, YES],
        ),
        (
            "dhcpv6 relay-reply",
            v6(OWN6, 17, &udp(547, 547, &[13])),
            [YES, SERVER, SERVER, SERVER, YES],
        ),
        (
            "dhcpv6 behind options",
            chain(2, 17, &udp(547, 546, &[7])),
            [YES, SERVER, SERVER, SERVER, YES],
        ),
        ("empty dhcpv6", v6(OWN6, 17, &udp(546, 547, &[])), [BAD; 5]),
        ("short udp6", v6(OWN6, 17, &[0; 7]), [BAD; 5]),
        // ICMPv6 and neighbour discovery.
        ("ping6", v6(OWN6, 58, &[128, 0, 0, 0]), [YES; 5]),
        ("ping6 of nobody", v6(NONE6, 58, &[128, 0, 0, 0]), [YES, IP, IP, YES, IP]),
        ("empty icmpv6", v6(OWN6, 58, &[]), [BAD; 5]),
        ("listener report", v6(NONE6, 58, &[143, 0, 0, 0]), [YES; 5]),
        ("solicitation", nd(OWN6, 135, OTHER6, Some((1, OWN))), [YES; 5]),
        (
            "solicitation of another mac",
            nd(OWN6, 135, OTHER6, Some((1, OTHER))),
            [ND, ND, ND, YES, ND],
        ),
        ("solicitation of another ip", nd(OTHER6, 135, OWN6, None), [YES, IP, IP, YES, IP]),
        ("dad", nd(NONE6, 135, OWN6, None), [YES; 5]),
        ("dad, link-local", nd(NONE6, 135, LOCAL6, None), [YES, YES, ND, YES, YES]),
        ("dad of another", nd(NONE6, 135, OTHER6, None), [YES, ND, ND, YES, ND]),
        ("dad with a mac", nd(NONE6, 135, OWN6, Some((1, OWN))), [ND, ND, ND, YES, ND]),
        ("advertisement", nd(OWN6, 136, OWN6, Some((2, OWN))), [YES; 5]),
        (
            "advertisement of another ip",
            nd(OWN6, 136, OTHER6, Some((2, OWN))),
            [YES, ND, ND, YES, ND],
        ),
        (
            "advertisement of another mac",
            nd(OWN6, 136, OWN6, Some((2, OTHER))),
            [ND, ND, ND, YES, ND],
        ),
        ("advertisement behind options", chain(3, 58, &spoofed_na), [YES, ND, ND, YES, ND]),
        ("advertisement in a fragment", behind_fragment(1, 58, &spoofed_na), [BAD; 5]),
        ("advertisement in an atomic one", behind_fragment(0, 58, &spoofed_na), [BAD; 5]),
        ("second fragment of ipv6", behind_fragment(0x0009, 58, &[0; 8]), [YES; 5]),
        ("chain that goes on in a second", behind_fragment(1, 60, &[58, 2]), [BAD; 5]),
        ("solicitation of a router", nd(NONE6, 133, NONE6, None), [YES; 5]),
        ("the same of another mac", nd(OWN6, 133, NONE6, Some((1, OTHER))), [ND, ND, ND, YES, ND]),
        ("router advertisement", v6(OWN6, 58, &ra), [YES, ROUTER, ROUTER, ROUTER, YES]),
        ("of a link-local router", v6(LOCAL6, 58, &ra), [YES, ROUTER, IP, ROUTER, YES]),
        ("behind options", chain(8, 58, &ra), [YES, ROUTER, ROUTER, ROUTER, YES]),
        ("in a vlan", tagged(v6(OWN6, 58, &ra), &[0x8100]), [YES, ROUTER, ROUTER, ROUTER, YES]),
        (
            "redirect",
            v6(OWN6, 58, &discovery(137, NONE6, None)),
            [YES, ROUTER, ROUTER, ROUTER, YES],
        ),
        (
            "option without length",
            v6(OWN6, 58, &[&discovery(135, OTHER6, None)[..], &[1, 0]].concat()),
            [BAD, BAD, BAD, YES, BAD],
        ),
        (
            "option that goes on",
            v6(OWN6, 58, &[&discovery(135, OTHER6, None)[..], &[1, 2]].concat()),
            [BAD, BAD, BAD, YES, BAD],
        ),
        (
            "half an option",
            v6(OWN6, 58, &[&discovery(135, OTHER6, None)[..], &[1]].concat()),
            [BAD, BAD, BAD, YES, BAD],
        ),
        (
            "short solicitation",
            v6(OWN6, 58, &discovery(135, OTHER6, None)[..23]),
            [BAD, BAD, BAD, YES, BAD],
        ),
        // What is neither.
        ("lldp", ethernet(OWN, 0x88CC, &[0; 40]), [YES, MORE, MORE, YES, MORE]),
        ("pppoe", ethernet(OWN, 0x8864, &[0; 40]), [YES, MORE, MORE, YES, MORE]),
        ("stp", ethernet(OWN, 38, &[0x42; 40]), [YES, MORE, MORE, YES, MORE]),
        ("snap", snap([0, 0, 0]), [MORE; 5]),
        ("snap of 802.1H", snap([0, 0, 0xF8]), [MORE; 5]),
        ("snap in a vlan", tagged(snap([0, 0, 0]), &[0x8100]), [MORE; 5]),
        ("snap of somebody", snap([0, 0, 0xC]), [YES, MORE, MORE, YES, MORE]),
        ("short llc", ethernet(OWN, 2, &[0xAA; 2]), [BAD, MORE, MORE, BAD, MORE]),
    ]
}

/// What becomes of a frame whose first [`HEAD_LEN`] bytes are private.
fn admit(guard: &PortGuard, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut guard = Guard::of(guard, &PortLimits::default(), None, 1).remove(0).unwrap();
    let stats = QueueStats::default();
    let source = Source::new((BridgeId::DEFAULT, 0), &stats, 0);
    let (head, rest) = bytes.split_at(bytes.len().min(HEAD_LEN));
    let body = [Segment::from_bytes(rest)];
    let body = if rest.is_empty() { &[] } else { &body[..] };
    let frame = Frame::from_parts(head, body).unwrap();
    let mut room = EditRoom::default();
    let mut kept = ArrayVec::new();
    let frames = [frame];
    match guard.admit(&frames, &source, &mut room.begin(), &mut kept) {
        [frame] => {
            assert_eq!(stats.snapshot().dropped(), 0);
            Ok(frame.to_vec())
        }
        _ => {
            let dropped = stats.snapshot();
            assert_eq!(dropped.dropped(), 1);
            let reasons = DropReason::ALL.into_iter();
            Err(reasons.clone().find(|reason| dropped.dropped_for(*reason) == 1).unwrap())
        }
    }
}

#[test]
fn each_frame_meets_what_it_should_at_each_guard() {
    for (name, bytes, expected) in &*TABLE {
        for (index, guard) in guards().iter().enumerate() {
            let expected = Some(expected[index]).filter(|reason| !reason.is_empty());
            assert_eq!(probe(guard, bytes), expected, "{name}, guard {index}");
            let admitted = admit(guard, bytes);
            assert_eq!(admitted.as_ref().err().map(|e| e.name()), expected, "{name}, {index}");
            assert!(admitted.is_err() || admitted.unwrap() == *bytes, "{name}, {index}");
        }
        let none = Guard::of(&PortGuard::default(), &PortLimits::default(), None, 2);
        assert!(none.len() == 2 && none.iter().all(Option::is_none));
    }
}

#[test]
fn what_was_checked_is_what_goes_on() {
    // A guest that changes its memory after the check: the option's address, behind the first line.
    let bytes = ethernet(OWN, 0x86DD, &ipv6(OWN6, 58, &discovery(136, OWN6, Some((2, OWN)))));
    let mut guard = Guard::of(&guards()[1], &PortLimits::default(), None, 1).remove(0).unwrap();
    let stats = QueueStats::default();
    let source = Source::new((BridgeId::DEFAULT, 0), &stats, 0);
    let body = [Segment::from_bytes(&bytes[HEAD_LEN..])];
    let frames = [Frame::from_parts(&bytes[..HEAD_LEN], &body).unwrap()];
    let mut room = EditRoom::default();
    let mut kept = ArrayVec::new();
    let [admitted] = guard.admit(&frames, &source, &mut room.begin(), &mut kept) else {
        panic!("it is dropped");
    };
    assert_eq!((admitted.head(), admitted.body().len()), (&bytes[..], 0));
}

#[test]
fn messages_of_spanning_tree_are_told_by_where_they_go() {
    let guard = PortGuard { bpdu_guard: BpduGuard::Drop, ..PortGuard::default() };
    let to = |to: [u8; 6]| {
        let mut bytes = ethernet(OTHER, 38, &[0x42; 40]);
        bytes[..6].copy_from_slice(&to);
        probe(&guard, &bytes)
    };
    for bpdu in [[1, 0x80, 0xC2, 0, 0, 0], [1, 0x80, 0xC2, 0, 0, 8], [1, 0, 0xC, 0xCC, 0xCC, 0xCD]]
    {
        assert_eq!(to(bpdu), Some("bpdu"));
    }
    assert_eq!((to([1, 0x80, 0xC2, 0, 0, 0xE]), to([0xFF; 6])), (None, None));
    // What else the port sends is nobody's business.
    let strange = tagged(ethernet(OTHER, 0x0800, &[0x55; 9]), &[0x8100; 3]);
    assert_eq!(probe(&guard, &strange), None);
}

#[test]
fn a_guest_of_many_addresses_may_use_each() {
    let ips = ["10.0.0.0/24", "10.0.2.0/24", "10.1.0.1", "fe80::/64", "2001:db8::5"];
    let guard = guard(&[OWN, OTHER], &ips);
    let v4 = |mac, from| probe(&guard, &ethernet(mac, 0x0800, &ipv4(from, ALL4, 6, 0, &[])));
    for mac in [OWN, OTHER] {
        for good in [[10, 0, 0, 0], [10, 0, 0, 255], [10, 0, 2, 9], [10, 1, 0, 1]] {
            assert_eq!(v4(mac, good), None, "{good:?}");
        }
        for bad in [[10, 0, 1, 0], [10, 0, 3, 0], [9, 255, 255, 255], [10, 1, 0, 2]] {
            assert_eq!(v4(mac, bad), Some(IP), "{bad:?}");
        }
        // One of its stations may speak for another.
        let bytes = ethernet(mac, 0x0806, &arp(1, OWN, [10, 0, 0, 9]));
        assert_eq!(probe(&guard, &bytes), None);
    }
    assert_eq!(v4([2; 6], [10, 0, 0, 0]), Some(MAC));
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Own,
    Other,
    Nobody,
}

impl Whose {
    fn v4(self) -> [u8; 4] {
        match self {
            Self::Own => OWN4,
            Self::Other => OTHER4,
            Self::Nobody => NONE4,
        }
    }

    fn v6(self) -> [u8; 16] {
        match self {
            Self::Own => OWN6,
            Self::Other => OTHER6,
            Self::Nobody => NONE6,
        }
    }

    fn mac(self) -> [u8; 6] {
        if self == Self::Own { OWN } else { OTHER }
    }
}

fn whose() -> impl Strategy<Value = Whose> {
    prop::sample::select(vec![Whose::Own, Whose::Other, Whose::Nobody])
}

/// What a frame is about.
#[derive(Clone, Copy, Debug)]
enum About {
    Tcp,
    Tcp6,
    /// Whether it asks, and whose addresses it names.
    Arp(bool, Whose, Whose),
    /// Whose hardware address, and which address it says it has.
    Dhcp(Whose, Whose),
    Offer,
    Solicit(Whose, Option<Whose>),
    Advertise(Whose, Option<Whose>),
    Router,
    Unknown,
}

fn about() -> impl Strategy<Value = About> {
    prop_oneof![
        Just(About::Tcp),
        Just(About::Tcp6),
        (any::<bool>(), whose(), whose()).prop_map(|(asks, mac, ip)| About::Arp(asks, mac, ip)),
        (whose(), whose()).prop_map(|(mac, ip)| About::Dhcp(mac, ip)),
        Just(About::Offer),
        (whose(), prop::option::of(whose())).prop_map(|(ip, mac)| About::Solicit(ip, mac)),
        (whose(), prop::option::of(whose())).prop_map(|(ip, mac)| About::Advertise(ip, mac)),
        Just(About::Router),
        Just(About::Unknown),
    ]
}

/// The frame from these addresses, and the reason for which a guard of both kinds of addresses
/// drops it, in words rather than in bytes.
fn say(mac: Whose, ip: Whose, about: About) -> (Vec<u8>, &'static str) {
    use Whose::{Nobody, Own};
    let is_own = |mac: Option<Whose>| mac.is_none_or(|mac| mac == Own);
    let v4 = |to, protocol, payload: &[u8]| (0x0800, ipv4(ip.v4(), to, protocol, 0, payload));
    let v6 = |next, payload: &[u8]| (0x86DD, ipv6(ip.v6(), next, payload));
    let known = if ip == Own { YES } else { IP };
    let either = |allowed, reason| if allowed { YES } else { reason };
    let ((kind, payload), reason) = match about {
        About::Tcp => (v4(OTHER4, 6, &[0; 20]), known),
        About::Tcp6 => (v6(6, &[0; 20]), known),
        About::Arp(asks, hardware, ip) => {
            let payload = arp(if asks { 1 } else { 2 }, hardware.mac(), ip.v4());
            let may = hardware == Own && (ip == Own || (asks && ip == Nobody));
            ((0x0806, payload), either(may, ARP))
        }
        About::Dhcp(hardware, has) => {
            let message = udp(68, 67, &dhcp(1, has.v4(), hardware.mac()));
            let may = hardware == Own && has != Whose::Other;
            let reason = if ip == Whose::Other { IP } else { either(may, DHCP) };
            (v4(ALL4, 17, &message), reason)
        }
        About::Offer => {
            let reason = if ip == Own { SERVER } else { IP };
            (v4(ALL4, 17, &udp(67, 68, &dhcp(2, NONE4, OTHER))), reason)
        }
        About::Solicit(target, hardware) => {
            let option = hardware.map(|hardware| (1, hardware.mac()));
            let is_new = ip == Nobody;
            let may = if is_new { target == Own && hardware.is_none() } else { is_own(hardware) };
            let reason = if ip == Whose::Other { IP } else { either(may, ND) };
            (v6(58, &discovery(135, target.v6(), option)), reason)
        }
        About::Advertise(target, hardware) => {
            let option = hardware.map(|hardware| (2, hardware.mac()));
            let may = target == Own && is_own(hardware);
            let reason = if ip == Own { either(may, ND) } else { IP };
            (v6(58, &discovery(136, target.v6(), option)), reason)
        }
        About::Router => {
            let reason = if ip == Own { ROUTER } else { IP };
            (v6(58, &discovery(134, NONE6, None)), reason)
        }
        About::Unknown => ((0x9999, vec![0; 50]), MORE),
    };
    let reason = if mac == Own { reason } else { MAC };
    (ethernet(mac.mac(), kind, &payload), reason)
}

proptest! {
    #[test]
    fn a_model_drops_the_same_frames(
        mac in whose(),
        ip in whose(),
        about in about(),
        tags in prop::collection::vec(prop::sample::select(vec![0x8100_u16, 0x88A8]), 0..3),
        padding in 0..100_usize,
    ) {
        let (bytes, reason) = say(mac, ip, about);
        let mut bytes = tagged(bytes, &tags);
        bytes.resize(bytes.len() + padding, 0);
        let expected = Some(reason).filter(|reason| !reason.is_empty());
        let admitted = admit(&guards()[1], &bytes);
        prop_assert_eq!(admitted.as_ref().err().map(|e| e.name()), expected);
        if let Ok(admitted) = admitted {
            prop_assert_eq!(admitted, bytes);
        }
    }

    #[test]
    fn no_bytes_are_too_strange(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        start in 0..200_usize,
        which in 0..5_usize,
        at in 14..80_usize,
        byte in any::<u8>(),
    ) {
        let guard = &guards()[which];
        let _ = admit(guard, &bytes);
        let mut frame = TABLE[start % TABLE.len()].1.clone();
        if let Some(place) = frame.get_mut(at) {
            *place = byte;
        }
        if let Ok(admitted) = admit(guard, &frame) {
            prop_assert_eq!(admitted, frame);
        }
    }
}
