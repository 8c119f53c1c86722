//! Large segments inside tunnels, compared with a model that makes every part from nothing: it
//! knows how a packet is built, and nothing of how one is cut.

use std::ptr::NonNull;

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{push, split, sum};
use super::*;
use crate::frame::{FrameBatch, RawSegment};
use crate::offload::layers::MAX_HEADERS;
use crate::offload::{Gso, OffloadRequest};

/// An IP header.
#[derive(Clone, Debug)]
struct Ip {
    is_v6: bool,
    id: u16,
    /// Segments of a routing header that are left, 0 for no such header; IPv6 only.
    segments_left: u8,
}

/// What goes between the UDP header of a tunnel and what is in it.
#[derive(Clone, Debug)]
enum Shim {
    Nothing,
    Vxlan,
    VxlanGpe,
    Geneve { option_words: u8, ethernet: bool },
}

#[derive(Clone, Debug)]
enum Tunnel {
    Direct,
    Gre { key: bool, checksum: bool, ethernet: bool },
    Udp { shim: Shim, checksum: bool },
}

/// A large segment, or one of its parts.
#[derive(Clone, Debug)]
struct Packet {
    /// Outermost first.
    tunnels: Vec<(Ip, Tunnel)>,
    inner: Ip,
    is_tcp: bool,
    tag: bool,
    tcp_option_words: u8,
    flags: u8,
    sequence: u32,
    payload: Vec<u8>,
    /// Checksums are only begun.
    begun: bool,
}

/// Puts a checksum over `bytes`, which starts with the sum `pseudo`, into its field.
fn fill_in(bytes: &mut [u8], pseudo: u16, field: usize, begun: bool, is_udp: bool) {
    bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    if !begun {
        let value = match !sum(bytes) {
            0 if is_udp => 0xFFFF,
            value => value,
        };
        bytes[field..field + 2].copy_from_slice(&value.to_be_bytes());
    }
}

impl Ip {
    /// The destination in the header, and the one that checksums are about.
    fn destinations(&self) -> (Vec<u8>, Vec<u8>) {
        match (self.is_v6, self.segments_left) {
            (false, _) => (vec![192, 168, 7, 9], vec![192, 168, 7, 9]),
            (true, 0) => (vec![0xFD; 16], vec![0xFD; 16]),
            (true, _) => (vec![0xFC; 16], vec![0xFD; 16]),
        }
    }

    fn source(&self) -> Vec<u8> {
        if self.is_v6 { vec![0x20; 16] } else { vec![10, 0, 0, 1] }
    }

    fn pseudo(&self, protocol: u8, len: usize) -> u16 {
        let mut bytes = [self.source(), self.destinations().1].concat();
        bytes.extend([0, protocol]);
        bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
        sum(&bytes)
    }

    /// The packet with `payload`.
    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let destination = self.destinations().0;
        if self.is_v6 {
            let mut extension = vec![];
            if self.segments_left > 0 {
                // As SRv6 has it (RFC 8754): the last stop comes first.
                let units = 2 * (self.segments_left + 1);
                extension =
                    vec![protocol, units, 4, self.segments_left, self.segments_left, 0, 0, 0];
                extension.extend([0xFD; 16]);
                extension.extend(vec![0xFC; 16 * usize::from(self.segments_left)]);
            }
            let len = u16::try_from(extension.len() + payload.len()).unwrap().to_be_bytes();
            let next = if self.segments_left > 0 { 43 } else { protocol };
            let head = vec![0x6A, 0xB1, 0x23, 0x45, len[0], len[1], next, 63];
            return [head, self.source(), destination, extension, payload.to_vec()].concat();
        }
        let [high, low] = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let [id_high, id_low] = self.id.to_be_bytes();
        let mut ip = vec![0x45, 0x2A, high, low, id_high, id_low, 0x40, 0, 61, protocol, 0, 0];
        ip.extend([self.source(), destination].concat());
        let checksum = !sum(&ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        [ip, payload.to_vec()].concat()
    }
}

fn ether_type(is_v6: bool) -> [u8; 2] {
    if is_v6 { [0x86, 0xDD] } else { [0x08, 0x00] }
}

/// An Ethernet frame around `packet`.
fn ethernet(packet: &[u8], is_v6: bool, tag: bool) -> Vec<u8> {
    let tag: &[u8] = if tag { &[0x81, 0x00, 0x20, 0x05] } else { &[] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], tag, &ether_type(is_v6), packet].concat()
}

impl Shim {
    fn around(&self, packet: &[u8], is_v6: bool, tag: bool) -> Vec<u8> {
        match self {
            Self::Nothing => packet.to_vec(),
            Self::Vxlan => {
                [&[0x08, 0, 0, 0, 0, 0, 5, 0][..], &ethernet(packet, is_v6, tag)].concat()
            }
            Self::VxlanGpe => {
                let next = if is_v6 { 2 } else { 1 };
                [&[0x0C, 0, 0, next, 0, 0, 5, 0], packet].concat()
            }
            Self::Geneve { option_words, ethernet: inside } => {
                let kind = if *inside { [0x65, 0x58] } else { ether_type(is_v6) };
                let mut head = vec![*option_words, 0, kind[0], kind[1], 0, 0, 5, 0];
                head.extend(vec![0x55; usize::from(*option_words) * 4]);
                let rest = if *inside { ethernet(packet, is_v6, tag) } else { packet.to_vec() };
                [head, rest].concat()
            }
        }
    }
}

impl Packet {
    fn around(&self, (ip, tunnel): &(Ip, Tunnel), packet: &[u8], is_v6: bool) -> Vec<u8> {
        match tunnel {
            Tunnel::Direct => ip.packet(if is_v6 { 41 } else { 4 }, packet),
            Tunnel::Gre { key, checksum, ethernet: inside } => {
                let kind = if *inside { [0x65, 0x58] } else { ether_type(is_v6) };
                let flags = u8::from(*checksum) << 7 | u8::from(*key) << 5;
                let mut gre = vec![flags, 0, kind[0], kind[1]];
                gre.extend(vec![0; if *checksum { 4 } else { 0 }]);
                gre.extend(vec![7; if *key { 4 } else { 0 }]);
                let inside =
                    if *inside { ethernet(packet, is_v6, self.tag) } else { packet.to_vec() };
                gre.extend(inside);
                if *checksum {
                    fill_in(&mut gre, 0, 4, self.begun, false);
                }
                ip.packet(47, &gre)
            }
            Tunnel::Udp { shim, checksum } => {
                let inside = shim.around(packet, is_v6, self.tag);
                let len = 8 + inside.len();
                let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
                let mut udp = [&[0xC0, 0, 0x12, 0xB5, high, low, 0, 0], &inside[..]].concat();
                if *checksum {
                    fill_in(&mut udp, ip.pseudo(17, len), 6, self.begun, true);
                }
                ip.packet(17, &udp)
            }
        }
    }

    /// The frame, and where its transport header is.
    fn frame(&self) -> (Vec<u8>, usize) {
        let mut transport = vec![0x12, 0x34, 0x00, 0x50];
        if self.is_tcp {
            transport.extend(self.sequence.to_be_bytes());
            let words = (5 + self.tcp_option_words) << 4;
            transport.extend([1, 2, 3, 4, words, self.flags, 0xFF, 0xF0, 0, 0, 0, 0]);
            transport.extend(vec![1; usize::from(self.tcp_option_words) * 4]);
        } else {
            let len = u16::try_from(8 + self.payload.len()).unwrap();
            transport.extend([&len.to_be_bytes()[..], &[0, 0]].concat());
        }
        transport.extend(&self.payload);
        let (protocol, field) = if self.is_tcp { (6, 16) } else { (17, 6) };
        let pseudo = self.inner.pseudo(protocol, transport.len());
        fill_in(&mut transport, pseudo, field, self.begun, !self.is_tcp);
        let mut packet = self.inner.packet(protocol, &transport);
        let mut is_v6 = self.inner.is_v6;
        for tunnel in self.tunnels.iter().rev() {
            packet = self.around(tunnel, &packet, is_v6);
            is_v6 = tunnel.0.is_v6;
        }
        let frame = ethernet(&packet, is_v6, self.tag);
        let at = frame.len() - transport.len();
        (frame, at)
    }

    fn request(&self, gso_size: u16) -> OffloadRequest {
        OffloadRequest {
            needs_csum: true,
            gso: Some(match (self.is_tcp, self.inner.is_v6) {
                (true, false) => Gso::TcpV4,
                (true, true) => Gso::TcpV6,
                (false, _) => Gso::Udp,
            }),
            gso_size,
            csum_start: u16::try_from(self.frame().1).unwrap(),
            csum_offset: if self.is_tcp { 16 } else { 6 },
            ..OffloadRequest::default()
        }
    }

    /// The parts, made one by one.
    fn parts(&self, gso_size: usize) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(gso_size).max(1);
        let part = |index: usize| {
            let mut part = Self { begun: false, ..self.clone() };
            part.payload = self.payload.chunks(gso_size).nth(index).unwrap_or_default().to_vec();
            part.sequence = self.sequence.wrapping_add(u32::try_from(index * gso_size).unwrap());
            part.flags &= if index + 1 == count { 0xFF } else { !0x09 };
            part.flags &= if index == 0 { 0xFF } else { 0x7F };
            let ips = part.tunnels.iter_mut().map(|(ip, _)| ip);
            for ip in ips.chain([&mut part.inner]) {
                ip.id = ip.id.wrapping_add(u16::try_from(index).unwrap());
            }
            part.frame().0
        };
        (0..count).map(part).collect()
    }

    fn is_covered(&self) -> bool {
        self.tunnels.iter().any(|(_, tunnel)| {
            matches!(
                tunnel,
                Tunnel::Gre { checksum: true, .. } | Tunnel::Udp { checksum: true, .. }
            )
        })
    }
}

fn ip() -> impl Strategy<Value = Ip> {
    let routed = prop_oneof![3 => Just(0_u8), 1 => 1_u8..8];
    (any::<bool>(), any::<u16>(), routed).prop_map(|(is_v6, id, segments_left)| Ip {
        is_v6,
        id,
        segments_left,
    })
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    let shim = prop_oneof![
        Just(Shim::Nothing),
        Just(Shim::Vxlan),
        Just(Shim::VxlanGpe),
        (0_u8..16, any::<bool>())
            .prop_map(|(option_words, ethernet)| Shim::Geneve { option_words, ethernet }),
    ];
    prop_oneof![
        Just(Tunnel::Direct),
        any::<(bool, bool, bool)>().prop_map(|(key, checksum, ethernet)| Tunnel::Gre {
            key,
            checksum,
            ethernet
        }),
        (shim, any::<bool>()).prop_map(|(shim, checksum)| Tunnel::Udp { shim, checksum }),
    ]
}

prop_compose! {
    fn packet()(
        tunnels in vec((ip(), tunnel()), 0..3),
        inner in ip(),
        is_tcp: bool,
        tag: bool,
        tcp_option_words in 0_u8..=10,
        flags: u8,
        sequence: u32,
        payload in vec(any::<u8>(), 0..97),
        repeat in 1_usize..60,
    ) -> Packet {
        let payload = payload.repeat(repeat);
        let begun = true;
        Packet { tunnels, inner, is_tcp, tag, tcp_option_words, flags, sequence, payload, begun }
    }
}

/// Those that all receivers have features for.
fn kind(packet: &Packet) -> Capabilities {
    match (packet.is_tcp, packet.inner.is_v6) {
        (true, false) => Capabilities::TSO4,
        (true, true) => Capabilities::TSO6,
        (false, false) => Capabilities::USO4,
        (false, true) => Capabilities::USO6,
    }
}

proptest! {
    #[test]
    fn parts_are_as_if_each_had_been_sent_alone(
        packet in packet(), gso_size in 20_u16..1500, cuts in vec(0_usize..300, 0..8),
    ) {
        let (bytes, at) = packet.frame();
        let headers = at + if packet.is_tcp { 20 + usize::from(packet.tcp_option_words) * 4 } else { 8 };
        let gso_size = gso_size.max(u16::try_from(packet.payload.len() / 1000).unwrap());
        let mut batch = FrameBatch::with_segments(64);
        let pushed = push(&mut batch, &bytes, &cuts, &packet.request(gso_size));
        if headers > MAX_HEADERS {
            prop_assert!(pushed.is_err());
            return Ok(());
        }
        prop_assert_eq!(pushed, Ok(()));
        let frame = batch.frames()[0];
        let needs = frame.offload().needs();
        let tunnel = if packet.tunnels.is_empty() { Capabilities::empty() } else { Capabilities::TUNNEL };
        prop_assert_eq!(needs, Capabilities::CSUM | kind(&packet) | tunnel);
        prop_assert_eq!(usize::from(frame.offload().hdr_len()), headers);
        let whole = split(&frame, Capabilities::all()).unwrap();
        prop_assert_eq!(whole, [(bytes.clone(), frame.offload())], "uncut where it is taken");
        let expected = packet.parts(gso_size.into());
        let parts = split(&frame, Capabilities::empty()).unwrap();
        prop_assert!(parts.iter().all(|(_, offload)| offload.is_none()));
        let parts: Vec<_> = parts.into_iter().map(|(part, _)| part).collect();
        prop_assert_eq!(parts.len(), expected.len());
        for (index, (part, expected)) in parts.iter().zip(&expected).enumerate() {
            let at = part.iter().zip(expected).position(|(one, other)| one != other);
            prop_assert_eq!((part.len(), at), (expected.len(), None), "part {}", index);
        }
        // What every guest takes is no tunnel.
        let parts = split(&frame, Capabilities::VIRTIO - kind(&packet)).unwrap();
        prop_assert_eq!(parts.len(), expected.len());
        for ((part, offload), expected) in parts.into_iter().zip(expected) {
            prop_assert_eq!(offload.csum().is_some(), !packet.is_covered());
            let frame = Frame::from_bytes(&part).with_offload(offload);
            let completed = split(&frame, Capabilities::empty()).unwrap();
            prop_assert_eq!(&completed[0].0, &expected);
        }
    }

    #[test]
    fn noise_in_tunnels_is_refused_or_harmless(
        packet in packet(),
        noise in vec((0_usize..400, any::<u8>()), 0..5),
        later in vec((0_usize..400, any::<u8>()), 0..3),
        shift in -9_i32..9,
        cut in 0_usize..600,
        takes: u8,
    ) {
        let (mut bytes, at) = packet.frame();
        for (at, byte) in noise {
            if let Some(place) = bytes.get_mut(at) { *place = byte }
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let start = u16::try_from(i32::try_from(at).unwrap() + shift).unwrap();
        let request = OffloadRequest { csum_start: start, ..packet.request(1000) };
        let len = u32::try_from(bytes.len()).unwrap();
        let shared = NonNull::from(&mut bytes[..]).cast::<u8>();
        let mut batch = FrameBatch::with_segments(64);
        // SAFETY: `bytes` outlives the batch, and is used only through `shared` from here on.
        let pushed = unsafe {
            batch.push_shared_with_head(&[RawSegment::new(shared, len).get()], HEAD_CAPACITY)
        };
        prop_assert!(pushed);
        if batch.set_offload(&request, Capabilities::all()).is_err() { return Ok(()) }
        // Whoever owns the rest of the headers changes them while the frame is on its way.
        for (at, byte) in later {
            if at < len as usize {
                // SAFETY: `at` is within the bytes.
                unsafe { shared.add(at).write(byte) };
            }
        }
        let frame = batch.frames()[0];
        let limit = frame.wire_len();
        let Ok(parts) = split(&frame, Capabilities::from_bits_truncate(takes)) else { return Ok(()) };
        let uncut = parts.len() == 1;
        prop_assert!(parts.iter().all(|(part, _)| part.len() <= limit || uncut));
    }
}

/// A large segment in the middle of a tunnel, and what is said about it.
fn refusal(change: impl FnOnce(&mut Packet), spoil: impl FnOnce(&mut Vec<u8>)) -> BadOffload {
    let ip = Ip { is_v6: false, id: 1, segments_left: 0 };
    let gre = Tunnel::Gre { key: false, checksum: false, ethernet: false };
    let mut packet = Packet {
        tunnels: vec![(ip.clone(), gre)],
        inner: ip,
        is_tcp: true,
        tag: false,
        tcp_option_words: 0,
        flags: 0x10,
        sequence: 1,
        payload: vec![7; 3000],
        begun: true,
    };
    change(&mut packet);
    let (mut bytes, _) = packet.frame();
    spoil(&mut bytes);
    let mut batch = FrameBatch::with_segments(64);
    push(&mut batch, &bytes, &[], &packet.request(1000)).unwrap_err()
}

#[test]
fn what_cannot_be_cut_is_refused_by_name() {
    let named =
        |error: BadOffload, part: &str| assert!(error.to_string().contains(part), "{error}");
    named(refusal(|_| {}, |bytes| bytes[34] = 0x10), "GRE with sequence numbers");
    named(refusal(|_| {}, |bytes| bytes[34] = 0x40), "GRE of another version, or with routing");
    named(refusal(|_| {}, |bytes| bytes[35] = 1), "GRE of another version");
    named(refusal(|_| {}, |bytes| bytes[23] = 50), "ESP");
    named(refusal(|_| {}, |bytes| bytes[23] = 51), "authentication");
    let deep = |packet: &mut Packet| {
        packet.tunnels = vec![(packet.inner.clone(), Tunnel::Direct); 8];
    };
    named(refusal(deep, |_| {}), "so many tunnels");
    let unknown = |packet: &mut Packet| {
        let udp = Tunnel::Udp { shim: Shim::Vxlan, checksum: false };
        packet.tunnels = vec![(packet.inner.clone(), udp)];
    };
    named(refusal(unknown, |bytes| bytes[42] = 0xC0), "unknown tunnel over UDP");
    let gso = BadOffload::Mismatch(Gso::TcpV4);
    // A fragment, and another protocol, outside.
    assert_eq!(refusal(|_| {}, |bytes| bytes[21] = 1), gso);
    assert_eq!(refusal(|_| {}, |bytes| bytes[23] = 89), gso);
}
