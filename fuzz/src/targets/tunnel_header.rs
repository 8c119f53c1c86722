//! Frames that come out of tunnels, or say that they do.

use packet::MacAddr;
use packet::checksum::checksum;
use packet::headers::EtherType;
use tunnel::{Envelope, Gtpu, Inner, Kind, Link, Meta, Outer, Refused, parse, told};

use crate::input::Input;

/// Who sends what is made of what was found.
const LINK: Link =
    Link { source: MacAddr([2, 0, 0, 0, 0, 1]), destination: MacAddr([2, 0, 0, 0, 0, 2]) };

/// Bytes of a frame that goes into a tunnel.
const INNER: usize = 60;

/// Plays one input: a frame, which mostly has a good IP header.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let frame = frame(&mut input);
    let _ = told(&frame);
    let Ok(envelope) = Envelope::parse(&frame, frame.len()) else { return };
    assert!(envelope.at <= envelope.end && envelope.end <= frame.len(), "{envelope:?}");
    for kind in Kind::ALL {
        let found = parse(kind, &envelope, &frame);
        assert_ne!(found, Err(Refused::Deeper), "all of it is at hand");
        // With less of it at hand it is the same, or that is said.
        for len in 0..frame.len() {
            let head = frame.get(..len).unwrap_or_default();
            let less = parse(kind, &envelope, head);
            assert!(less == found || less == Err(Refused::Deeper), "{len}: {less:?}, {found:?}");
        }
        let Ok(found) = found else { continue };
        assert!(found.at <= envelope.end, "{found:?}");
        let options = found.meta.options.iter().map(|option| 4 + option.value.len());
        assert_eq!(options.sum::<usize>(), found.meta.options.as_bytes().len());
        // A word between the ends of a tunnel is not sent.
        if found.meta.gtpu.is_none_or(Gtpu::is_packet) {
            comes_again(kind, &found.meta);
        }
    }
}

/// What was found can be sent, and is found again.
fn comes_again(kind: Kind, meta: &Meta) {
    let Some(outer) = Outer::new(kind, meta, LINK, kind.port()) else {
        panic!("of two families: {meta:?}");
    };
    let mut frame = vec![0; outer.len() + INNER];
    // What is inside is said by its first bits, if by nothing else.
    let is_six = meta.inner == Inner::Bare(EtherType::IPV6);
    if let Some(first) = frame.get_mut(outer.len()) {
        *first = if is_six { 0x60 } else { 0x45 };
    }
    outer.write(&mut frame, INNER, 50_000);
    let mut sum = packet::checksum::Checksum::new();
    sum.add(frame.get(outer.len()..).unwrap_or_default());
    outer.seal(&mut frame, INNER, sum);
    let again = Envelope::parse(&frame, frame.len())
        .and_then(|envelope| parse(kind, &envelope, &frame))
        .map(|found| found.meta);
    // What goes over IPv6 by UDP always has a checksum (RFC 8200, section 8.1).
    let has_checksum = meta.checksum || kind.is_over_udp() && meta.source.is_ipv6();
    // What is between the header and the packet does not go along, but for a number.
    let flags = Gtpu::PACKET.flags | u8::from(meta.is_numbered) << 1;
    let gtpu = meta.gtpu.map(|_| Gtpu { flags, ..Gtpu::PACKET });
    assert_eq!(again, Ok(Meta { checksum: has_checksum, gtpu, ..*meta }));
}

/// A frame of IPv4 or IPv6 whose header says what is there, but where the input says something else.
fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let bits = input.byte();
    let protocol = input.pick(&[17, 17, 47, 6]);
    let body = input.bytes();
    let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut frame = vec![2; 12];
    if bits & 1 == 0 {
        frame.extend([8, 0]);
        let mut header =
            [0x45, input.byte(), 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        header[2..4].copy_from_slice(&(len + 20).to_be_bytes());
        header[6] = bits & 0x40;
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend([[0xFD; 16], [0xFE; 16]].concat());
    }
    let at = frame.len();
    frame.extend(body);
    // A datagram of UDP is as long as it says.
    if bits & 2 == 0 && protocol == 17 && body.len() >= 8 {
        frame[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
    }
    input.spoil(&mut frame, (bits & 0xC0 == 0xC0, false));
    frame
}
