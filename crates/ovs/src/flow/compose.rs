//! From fields to the bytes of a frame.

use packet::checksum::{Checksum, checksum};

use super::{Body, Flow, Fragment, Upper};

/// What is behind the header of TCP, UDP, SCTP and ICMP, unless a length is asked for: bytes that
/// count up.
const PAYLOAD: usize = 64;

/// The longest payload that is made.
const MAX_PAYLOAD: usize = 9_000;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// The frame of a flow; with `length`, as long as that where its payload can be.
#[must_use]
pub fn compose(flow: &Flow, length: Option<usize>) -> Vec<u8> {
    let payload = match length {
        None => PAYLOAD,
        Some(length) => length.saturating_sub(frame(flow, 0).len()).min(MAX_PAYLOAD),
    };
    frame(flow, payload)
}

fn frame(flow: &Flow, payload: usize) -> Vec<u8> {
    let mut frame = [flow.dst.0, flow.src.0].concat();
    for (kind, content) in &flow.tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(content.to_be_bytes());
    }
    // Where no type is given, there is the length, of the header alone.
    let kind = flow.ethertype.unwrap_or(14);
    frame.extend(kind.to_be_bytes());
    frame.extend(body(flow, payload));
    frame
}

fn body(flow: &Flow, payload: usize) -> Vec<u8> {
    match &flow.body {
        Body::None => Vec::new(),
        Body::Arp { op, from: (sha, spa), to: (tha, tpa) } => {
            // Ethernet and IPv4 (RFC 826).
            let head = [0, 1, 8, 0, 6, 4];
            [&head[..], &op.to_be_bytes(), &sha.0, spa, &tha.0, tpa].concat()
        }
        Body::V4 { src, dst, proto, tos, ttl, frag } => {
            let offset: u16 = match frag {
                Fragment::No => 0,
                Fragment::First => 0x2000,
                Fragment::Later => 0x2000 | 100,
            };
            let sum = |len| Checksum::pseudo_v4(*src, *dst, *proto, short(len));
            let upper = match frag {
                Fragment::Later => Vec::new(),
                _ => upper(*proto, &flow.upper, payload, &sum),
            };
            let len = short(upper.len().saturating_add(20));
            let mut head = vec![0x45, *tos];
            head.extend(len.to_be_bytes());
            head.extend([0, 0]);
            head.extend(offset.to_be_bytes());
            head.extend([*ttl, *proto, 0, 0]);
            head.extend(src);
            head.extend(dst);
            patch(&mut head, 10, checksum);
            [head, upper].concat()
        }
        Body::V6 { src, dst, proto, tos, ttl, label } => {
            let sum = |len: usize| {
                Checksum::pseudo_v6(*src, *dst, *proto, u32::try_from(len).unwrap_or_default())
            };
            let upper = upper(*proto, &flow.upper, payload, &sum);
            let first = 6 << 28 | u32::from(*tos) << 20 | label & 0xf_ffff;
            let mut head = first.to_be_bytes().to_vec();
            head.extend(short(upper.len()).to_be_bytes());
            head.extend([*proto, *ttl]);
            head.extend(src);
            head.extend(dst);
            [head, upper].concat()
        }
    }
}

fn short(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// What is above IP, with its checksum, which `pseudo` begins given its length.
fn upper(proto: u8, fields: &Upper, payload: usize, pseudo: &dyn Fn(usize) -> Checksum) -> Vec<u8> {
    let Upper { src, dst, flags } = *fields;
    let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    let low = |word: u16| word.to_be_bytes()[1];
    let (mut head, at): (Vec<u8>, usize) = match proto {
        // Header length 5 words, and the flags.
        TCP => ([&ports[..], &[0; 8], &(0x5000 | flags).to_be_bytes(), &[0; 6]].concat(), 16),
        UDP => {
            let len = short(payload.saturating_add(8));
            ([&ports[..], &len.to_be_bytes(), &[0, 0]].concat(), 6)
        }
        ICMP | ICMPV6 => (vec![low(src), low(dst), 0, 0, 0, 0, 0, 0], 2),
        SCTP => ([&ports[..], &[0; 8]].concat(), usize::MAX),
        _ => return Vec::new(),
    };
    head.extend((0..=u8::MAX).cycle().take(payload));
    let len = head.len();
    patch(&mut head, at, |bytes| {
        if proto == ICMP {
            return checksum(bytes);
        }
        let mut sum = pseudo(len);
        sum.add(bytes);
        match (proto, sum.finish()) {
            // No checksum at all is another matter (RFC 768).
            (UDP, 0) => u16::MAX,
            (_, sum) => sum,
        }
    });
    head
}

/// Puts the checksum of `bytes`, whose field for it is zero, at place `at`.
fn patch(bytes: &mut [u8], at: usize, sum: impl FnOnce(&[u8]) -> u16) {
    let sum = sum(bytes).to_be_bytes();
    let field = at.checked_add(2).and_then(|end| bytes.get_mut(at..end));
    if let Some(field) = field {
        field.copy_from_slice(&sum);
    }
}
