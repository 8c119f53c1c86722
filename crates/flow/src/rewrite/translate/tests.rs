use conntrack::dissect;
use packet::builder::FrameBuilder;
use packet::headers::{EtherType, TcpFlags};
use packet::{EditRoom, Frame, MacAddr, Segment};
use proptest::prelude::*;

use super::*;

/// What a packet is of: 0 is TCP, 1 UDP, 2 a question of ICMP.
#[derive(Clone, Copy, Debug)]
struct Facts {
    is_v6: bool,
    kind: u8,
    source: (u8, u16),
    destination: (u8, u16),
}

fn address(is_v6: bool, host: u8) -> IpAddr {
    let text = if is_v6 { format!("fd00::{host:x}:7") } else { format!("10.0.{host}.7") };
    text.parse().unwrap()
}

impl Facts {
    fn ends(&self) -> (IpAddr, IpAddr) {
        (address(self.is_v6, self.source.0), address(self.is_v6, self.destination.0))
    }

    fn tuple(&self) -> Tuple {
        let (source, destination) = self.ends();
        let (protocol, numbers) = match (self.kind, self.is_v6) {
            (0, _) => (IpProtocol::TCP, (self.source.1, self.destination.1)),
            (1, _) => (IpProtocol::UDP, (self.source.1, self.destination.1)),
            (_, false) => (IpProtocol::ICMP, (self.source.1, 8)),
            (_, true) => (IpProtocol::ICMPV6, (self.source.1, 128)),
        };
        Tuple::new(protocol, (source, numbers.0), (destination, numbers.1), 0).unwrap()
    }

    /// The other way round.
    fn reversed(&self) -> Self {
        Self { source: self.destination, destination: self.source, ..*self }
    }

    fn frame(&self, tags: usize, payload: &[u8]) -> Vec<u8> {
        let (source, destination) = self.ends();
        let mut builder = FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6]));
        for _ in 0..tags {
            builder = builder.tag(EtherType::VLAN, 5);
        }
        let builder = builder.ip(source, destination);
        let (from, to) = (self.source.1, self.destination.1);
        let builder = match self.kind {
            0 => builder.tcp((from, to), 1, 2, TcpFlags::ACK),
            1 => builder.udp(from, to),
            _ => builder.echo(false, from, 9),
        };
        builder.payload(payload).build().unwrap()
    }

    /// An error about it, that a router tells whoever has sent it, with so many of its bytes.
    fn error(&self, payload: &[u8], len: usize) -> Vec<u8> {
        let about = self.frame(0, payload);
        let about = &about[14..about.len().min(14 + len)];
        let router = address(self.is_v6, 250);
        let frame = FrameBuilder::new(MacAddr([2; 6]), MacAddr([4; 6]));
        let frame = frame.ip(router, self.ends().0).echo(false, 0, 0).payload(about);
        let mut frame = frame.build().unwrap();
        let at = if self.is_v6 { 54 } else { 34 };
        let kind: [u8; 2] = if self.is_v6 { [1, 4] } else { [3, 3] };
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let sum = update(word(at + 2), word(at), u16::from_be_bytes(kind));
        frame[at..at + 2].copy_from_slice(&kind);
        frame[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

fn translated(frame: &Frame<'_>, how: &Translation) -> Option<Vec<u8>> {
    let mut room = EditRoom::default();
    let mut open = room.begin().open_deep(frame).unwrap();
    translate(how, &mut open).then(|| open.frame().unwrap().to_vec())
}

fn facts() -> impl Strategy<Value = (Facts, Facts)> {
    let end = || (1..200_u8, 1..=u16::MAX);
    (any::<bool>(), 0..3_u8, end(), end(), end(), end()).prop_map(|(is_v6, kind, a, b, c, d)| {
        let facts = Facts { is_v6, kind, source: a, destination: b };
        (facts, Facts { source: c, destination: d, ..facts })
    })
}

proptest! {
    #[test]
    fn a_translated_frame_is_one_that_was_built_so(
        (one, other) in facts(),
        tags in 0..2_usize,
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let how = Translation { before: one.tuple(), after: other.tuple(), is_error: false };
        let [before, after] = [one, other].map(|facts| facts.frame(tags, &payload));
        let got = translated(&Frame::from_bytes(&before), &how);
        prop_assert_eq!(got, Some(after));
        // Both directions invert each other.
        let back = Translation { before: how.after, after: how.before, ..how };
        let after = other.frame(tags, &payload);
        prop_assert_eq!(translated(&Frame::from_bytes(&after), &back), Some(before));
    }

    #[test]
    fn an_error_is_about_the_packet_as_it_was(
        (one, other) in facts(),
        payload in prop::collection::vec(any::<u8>(), 0..60),
        // No half of a checksum.
        len in (4..30_usize).prop_map(|half| half * 2),
        head in 64..200_usize,
        // Behind the packet: no part of it.
        padding in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let len = len + if one.is_v6 { 40 } else { 20 };
        // The router is who it is: only the end that the packet came from is another one.
        let other = Facts { destination: one.destination, ..other };
        let padded = |error: Vec<u8>| [&error[..], &padding].concat();
        let before = padded(one.error(&payload, len));
        let (kind, at) = if one.is_v6 { (0x86DD, 14) } else { (0x0800, 14) };
        let seen = dissect(kind, &before[at..], before.len() - at, 0);
        let expected = one.tuple().reversed();
        prop_assert_eq!(seen.as_ref().map(conntrack::Seen::tuple), Some(&expected));
        let how = Translation { before: expected, after: other.tuple().reversed(), is_error: true };
        let (near, far) = before.split_at(head.min(before.len()));
        let body = [Segment::from_bytes(far)];
        let frame = Frame::from_parts(near, &body).unwrap();
        prop_assert_eq!(translated(&frame, &how), Some(padded(other.error(&payload, len))));
    }

    #[test]
    fn no_bytes_are_translated_past_what_is_there(
        mut bytes in prop::collection::vec(any::<u8>(), 14..160),
        kind in prop_oneof![Just(0x0800_u16), Just(0x86DD), any::<u16>()],
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        (one, other) in facts(),
        is_error: bool,
    ) {
        bytes[12..14].copy_from_slice(&kind.to_be_bytes());
        bytes.get_mut(14).into_iter().for_each(|byte| *byte = first);
        let how = Translation { before: one.tuple(), after: other.tuple(), is_error };
        let got = translated(&Frame::from_bytes(&bytes), &how);
        prop_assert!(got.is_none_or(|got| got.len() == bytes.len()));
    }
}

#[test]
fn checksums_that_are_only_begun_stay_so() {
    use packet::checksum::Checksum;
    use packet::{Capabilities, Offload, OffloadRequest};
    let one = Facts { is_v6: false, kind: 0, source: (1, 1000), destination: (2, 80) };
    let other = Facts { source: (3, 2000), ..one };
    let begun = |facts: &Facts| {
        let mut frame = facts.frame(0, b"hello");
        let from = [10, 0, facts.source.0, 7];
        let sum = Checksum::pseudo_v4(from, [10, 0, 2, 7], 6, 25).partial();
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    let before = begun(&one);
    let request = OffloadRequest {
        needs_csum: true,
        csum_start: 34,
        csum_offset: 16,
        ..OffloadRequest::default()
    };
    let offload = Offload::check(&request, Capabilities::CSUM, &before, before.len()).unwrap();
    let how = Translation { before: one.tuple(), after: other.tuple(), is_error: false };
    let frame = Frame::from_bytes(&before).with_offload(offload);
    assert_eq!(translated(&frame, &how), Some(begun(&other)));
    let back = Translation {
        before: other.reversed().tuple(),
        after: one.reversed().tuple(),
        is_error: false,
    };
    let answer = other.reversed().frame(0, b"hi");
    let got = translated(&Frame::from_bytes(&answer), &back);
    assert_eq!(got, Some(one.reversed().frame(0, b"hi")));
}

/// CRC32c by the book.
fn crc32c(message: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 != 0 { 0x82F6_3B78 } else { 0 };
    let each = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !message.iter().fold(u32::MAX, each)
}

/// A packet of SCTP with these ends, as one of UDP is, but for what is behind its ports.
fn sctp(facts: &Facts, payload: &[u8]) -> Vec<u8> {
    let mut frame = Facts { kind: 1, ..*facts }.frame(0, &[&[0; 4], payload].concat());
    let transport = if facts.is_v6 {
        frame[20] = 132;
        54
    } else {
        let sum = u16::from_be_bytes([frame[24], frame[25]]);
        let word = u16::from_be_bytes([frame[22], frame[23]]);
        frame[23] = 132;
        let sum = update(sum, word, word & 0xFF00 | 132);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        34
    };
    frame[transport + 4..transport + 12].copy_from_slice(&[1, 2, 3, 4, 0, 0, 0, 0]);
    let sum = crc32c(&frame[transport..]).to_le_bytes();
    frame[transport + 8..transport + 12].copy_from_slice(&sum);
    // Padding is no part of the packet.
    [&frame[..], &[0xFF; 3]].concat()
}

proptest! {
    #[test]
    fn packets_of_sctp_have_the_checksum_of_all_of_them(
        (one, other) in facts(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let tuple = |facts: &Facts| {
            let ((from, to), ports) = (facts.ends(), (facts.source.1, facts.destination.1));
            Tuple::new(IpProtocol::SCTP, (from, ports.0), (to, ports.1), 0).unwrap()
        };
        let how = Translation { before: tuple(&one), after: tuple(&other), is_error: false };
        let mut before = sctp(&one, &payload);
        let kind = if one.is_v6 { 0x86DD } else { 0x0800 };
        let seen = dissect(kind, &before[14..], before.len() - 14, 0);
        prop_assert_eq!(seen.as_ref().map(conntrack::Seen::tuple), Some(&how.before));
        let got = translated(&Frame::from_bytes(&before), &how);
        prop_assert_eq!(got, Some(sctp(&other, &payload)));
        // How long all of the packet is, its first fragment does not say.
        if !one.is_v6 && one.source.1 != other.source.1 {
            before[20] = 0x20;
            prop_assert_eq!(translated(&Frame::from_bytes(&before), &how), None);
        }
    }
}
