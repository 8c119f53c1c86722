use super::{Case, May};
use crate::attack::{OWN_MAC, Scene, WITNESS_MAC};
use crate::frontend::{BUFFER, NET_HEADER, SPARE, Setup};
use crate::message::feature;
use crate::ring::Desc;

/// `flags`: the checksum is begun only.
const NEEDS_CSUM: u8 = 1;
/// Kinds of segments.
const TCP4: u8 = 1;
const UDP: u8 = 3;
const TCP6: u8 = 4;
const UDP_L4: u8 = 5;
const ECN: u8 = 0x80;

/// With all offloads that a guest may use.
fn offloads(setup: Setup) -> Setup {
    setup.needing(feature::CSUM).with(feature::HOST_OFFLOADS)
}

fn plain(setup: Setup) -> Setup {
    setup
}

/// A net header (virtio 1.3 section 5.1.6).
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    flags: u8,
    kind: u8,
    header_len: u16,
    segment: u16,
    start: u16,
    offset: u16,
    buffers: u16,
}

impl Header {
    fn bytes(self) -> [u8; NET_HEADER] {
        let mut bytes = [0; NET_HEADER];
        (bytes[0], bytes[1]) = (self.flags, self.kind);
        let words = [self.header_len, self.segment, self.start, self.offset, self.buffers];
        for (word, to) in words.iter().zip(bytes[2..].chunks_exact_mut(2)) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// A TCP or UDP segment over IPv4 of `payload` bytes that is right in all but its checksums.
fn ipv4(protocol: u8, payload: usize) -> Vec<u8> {
    let transport = if protocol == 6 { 20 } else { 8 };
    let total = u16::try_from(20 + transport + payload).unwrap_or(u16::MAX);
    let mut frame = [&WITNESS_MAC[..], &OWN_MAC, &[8, 0]].concat();
    let mut ip = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    frame.extend(ip);
    frame.extend([4, 0, 4, 1]);
    if protocol == 6 {
        frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    } else {
        frame.extend(u16::try_from(8 + payload).unwrap_or(u16::MAX).to_be_bytes());
        frame.extend([0, 0]);
    }
    frame.resize(frame.len() + payload, 0x77);
    frame
}

/// What a header for [`ipv4`] with TCP says when it is right.
const RIGHT: Header = Header {
    flags: NEEDS_CSUM,
    kind: TCP4,
    header_len: 54,
    segment: 500,
    start: 34,
    offset: 16,
    buffers: 0,
};

/// Sends one frame with this header.
fn send(scene: &mut Scene, header: Header, frame: &[u8]) {
    let bytes = [&header.bytes()[..], frame].concat();
    if bytes.len() <= BUFFER {
        let buffer = scene.buffer(&bytes);
        scene.tx().offer_chain(&[buffer]);
    } else {
        scene.frontend.memory.write(SPARE, &bytes);
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        scene.tx().offer_chain(&[Desc::new(SPARE as u64, len, 0)]);
    }
    scene.tx().kick();
}

/// Sends a large segment with each of these headers.
fn segments(scene: &mut Scene, headers: &[Header]) {
    for header in headers {
        send(scene, *header, &ipv4(6, 1700));
        send(scene, *header, &ipv4(6, 20_000));
        send(scene, *header, &ipv4(6, 0));
    }
}

pub const CASES: &[Case] = &[
    Case::rings(
        "header/segment-size-0",
        May::Drop,
        "large segments to be cut to 0 bytes",
        offloads,
        |s| {
            let zero = Header { segment: 0, ..RIGHT };
            let kinds = [TCP4, TCP6, UDP, UDP_L4, TCP4 | ECN];
            segments(s, &kinds.map(|kind| Header { kind, ..zero }));
        },
    ),
    Case::rings(
        "header/segment-size-1",
        May::Drop,
        "the same to 1 byte, and to 65,535",
        offloads,
        |s| {
            segments(s, &[1, 7, 8, 65_535].map(|segment| Header { segment, ..RIGHT }));
        },
    ),
    Case::rings(
        "header/segment-of-64KiB",
        May::Drop,
        "64 KiB to be cut to 1 byte each",
        offloads,
        |s| {
            for _ in 0..4 {
                send(s, Header { segment: 1, ..RIGHT }, &ipv4(6, 65_000));
            }
        },
    ),
    Case::rings(
        "header/kind-unknown",
        May::Drop,
        "every kind of segment from 0 to 255",
        offloads,
        |s| {
            for kind in 0..=255 {
                send(s, Header { kind, ..RIGHT }, &ipv4(6, 1700));
            }
        },
    ),
    Case::rings(
        "header/flags-unknown",
        May::Drop,
        "every bit of the header's flags",
        offloads,
        |s| {
            for flags in 0..=255 {
                send(s, Header { flags, ..RIGHT }, &ipv4(6, 1000));
            }
        },
    ),
    Case::rings(
        "header/kind-of-another",
        May::Drop,
        "TCP called UDP, IPv4 called IPv6",
        offloads,
        |s| {
            for kind in [TCP4, UDP, TCP6, UDP_L4] {
                for protocol in [6, 17, 1, 255] {
                    send(s, Header { kind, ..RIGHT }, &ipv4(protocol, 1700));
                }
            }
        },
    ),
    Case::rings(
        "header/header-length",
        May::Drop,
        "header lengths from 0 to 65,535",
        offloads,
        |s| {
            segments(
                s,
                &[0, 1, 13, 14, 53, 55, 1000, 1753, 1754, 65_535]
                    .map(|header_len| Header { header_len, ..RIGHT }),
            );
        },
    ),
    Case::rings(
        "header/checksum-start",
        May::Drop,
        "checksums that start past the end",
        offloads,
        |s| {
            for start in [0, 13, 33, 100, 152, 153, 154, 155, 1754, 0x7fff, 0xfffe, 0xffff] {
                let header = Header { start, kind: 0, ..RIGHT };
                send(s, header, &ipv4(6, 100));
                send(s, Header { start, ..RIGHT }, &ipv4(6, 1700));
            }
        },
    ),
    Case::rings(
        "header/checksum-offset",
        May::Drop,
        "checksums stored past the end",
        offloads,
        |s| {
            for offset in [0, 1, 17, 118, 119, 120, 1718, 0x7fff, 0xffdd, 0xfffe, 0xffff] {
                send(s, Header { offset, kind: 0, ..RIGHT }, &ipv4(6, 100));
                send(s, Header { offset, ..RIGHT }, &ipv4(6, 1700));
            }
        },
    ),
    Case::rings(
        "header/checksum-of-nothing",
        May::Drop,
        "a checksum in a frame too short for it",
        offloads,
        |s| {
            for len in 0..40 {
                send(s, Header { kind: 0, ..RIGHT }, &ipv4(6, 0)[..len]);
                send(s, Header { kind: 0, start: 0, offset: 0, ..RIGHT }, &ipv4(6, 0)[..len]);
            }
        },
    ),
    Case::rings(
        "header/ip-cut",
        May::Drop,
        "IP and TCP headers cut after every byte",
        offloads,
        |s| {
            for len in 14..60 {
                send(s, RIGHT, &ipv4(6, 0)[..len.min(54)]);
            }
        },
    ),
    Case::rings(
        "header/ip-lengths",
        May::Drop,
        "IP header lengths and totals that lie",
        offloads,
        |s| {
            for (first, total) in
                [(0x40, 20), (0x41, 0), (0x4f, 65_535), (0x45, 0), (0x45, 19), (0x65, 9)]
            {
                let mut frame = ipv4(6, 1700);
                frame[14] = first;
                frame[16..18].copy_from_slice(&u16::to_be_bytes(total));
                send(s, RIGHT, &frame);
            }
        },
    ),
    Case::rings("header/tcp-offset", May::Drop, "TCP data offsets from 0 to 15", offloads, |s| {
        for offset in 0..16_u8 {
            let mut frame = ipv4(6, 1700);
            frame[46] = offset << 4;
            send(s, RIGHT, &frame);
            send(s, RIGHT, &frame[..60]);
        }
    }),
    Case::rings(
        "header/ipv6-extensions",
        May::Drop,
        "IPv6 extension headers without end",
        offloads,
        |s| {
            for next in [0, 43, 44, 60, 51, 135] {
                let mut frame = [&WITNESS_MAC[..], &OWN_MAC, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
                frame.extend([6, 0xa4, next, 64]);
                frame.extend([0x20; 32]);
                frame.extend([next, 0].repeat(850));
                send(s, Header { kind: TCP6, start: 54, ..RIGHT }, &frame);
                send(s, Header { kind: UDP_L4, start: 54, ..RIGHT }, &frame);
            }
        },
    ),
    Case::rings(
        "header/vlan-tower",
        May::Drop,
        "hundreds of VLAN tags before the segment",
        offloads,
        |s| {
            let mut frame = [&WITNESS_MAC[..], &OWN_MAC].concat();
            frame.extend([0x81, 0, 0, 1].repeat(400));
            frame.extend([8, 0]);
            frame.extend(&ipv4(6, 100)[14..]);
            send(s, RIGHT, &frame);
            send(s, Header { start: 1634, header_len: 1654, ..RIGHT }, &frame);
        },
    ),
    Case::rings(
        "header/buffers",
        May::Serve,
        "numbers of merged buffers, from the sender",
        offloads,
        |s| {
            for buffers in [1, 2, 256, 65_535] {
                send(s, Header { buffers, ..RIGHT }, &ipv4(6, 1000));
            }
        },
    ),
    Case::rings(
        "header/not-negotiated",
        May::Drop,
        "offloads that were not agreed on",
        plain,
        |s| {
            segments(s, &[TCP4, TCP6, UDP, UDP_L4, 77].map(|kind| Header { kind, ..RIGHT }));
        },
    ),
    Case::rings("header/noise", May::Drop, "headers and frames of chance bytes", offloads, |s| {
        let mut random = crate::random::Random::named("header/noise");
        for _ in 0..400 {
            let len = random.below(1800);
            let mut bytes = random.bytes(NET_HEADER + len);
            if len >= 12 {
                bytes[NET_HEADER..NET_HEADER + 6].copy_from_slice(&WITNESS_MAC);
                bytes[NET_HEADER + 6..NET_HEADER + 12].copy_from_slice(&OWN_MAC);
            }
            let buffer = s.buffer(&bytes);
            s.tx().offer_chain(&[buffer]);
        }
        s.tx().kick();
    }),
    Case::rings("frame/too-short", May::Drop, "frames of 0 to 13 bytes", plain, |s| {
        for len in 0..14 {
            send(s, Header::default(), &ipv4(6, 0)[..len]);
        }
    }),
    Case::rings("frame/too-long", May::Drop, "frames from 1,515 to 65,550 bytes", plain, |s| {
        for len in [1515, 1519, 1600, 9019, 16_384, 60_000, 65_484] {
            send(s, Header::default(), &ipv4(6, len - 54));
        }
    }),
    Case::rings(
        "frame/group-source",
        May::Drop,
        "sources that are groups, zero or the receiver",
        plain,
        |s| {
            for source in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0; 6], WITNESS_MAC] {
                let mut frame = ipv4(6, 100);
                frame[6..12].copy_from_slice(&source);
                send(s, Header::default(), &frame);
            }
        },
    ),
    Case::rings("frame/many-sources", May::Drop, "300 frames from 300 addresses", plain, |s| {
        for number in 0..300_u16 {
            let mut frame = ipv4(6, 20);
            frame[8..10].copy_from_slice(&number.to_be_bytes());
            send(s, Header::default(), &frame);
            // Not more than the ring holds.
            for _ in 0..50 {
                if s.tx().used().is_some() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        }
    }),
];
