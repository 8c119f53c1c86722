//! Large segments are cut and compared with a plain model, which knows nothing of the code
//! under test: it works on vectors, word by word.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::{FrameBatch, Segment};
use crate::offload::{Gso, Offload, OffloadRequest};

/// A large frame and what is known about it.
#[derive(Clone, Debug)]
struct Large {
    tags: Vec<[u8; 4]>,
    is_v6: bool,
    is_tcp: bool,
    /// IPv4 options or IPv6 extension headers.
    ip_options: Vec<u8>,
    first_extension: u8,
    tcp_options: Vec<u8>,
    flags: u8,
    sequence: u32,
    id: u16,
    payload: Vec<u8>,
}

impl Large {
    fn network_at(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    fn transport_at(&self) -> usize {
        self.network_at() + if self.is_v6 { 40 } else { 20 } + self.ip_options.len()
    }

    fn headers(&self) -> usize {
        self.transport_at() + if self.is_tcp { 20 + self.tcp_options.len() } else { 8 }
    }

    fn protocol(&self) -> u8 {
        if self.is_tcp { 6 } else { 17 }
    }

    fn ip(&self) -> Vec<u8> {
        let len = self.headers() - self.network_at() + self.payload.len();
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        if self.is_v6 {
            let [high, low] = u16::try_from(len - 40).unwrap().to_be_bytes();
            let next =
                if self.ip_options.is_empty() { self.protocol() } else { self.first_extension };
            let mut ip = vec![0x6A, 0xB1, 0x23, 0x45, high, low, next, 63];
            ip.extend([0x20; 16]);
            ip.extend([0xFD; 16]);
            ip.extend(&self.ip_options);
            return ip;
        }
        let words = u8::try_from(5 + self.ip_options.len() / 4).unwrap();
        let [id_high, id_low] = self.id.to_be_bytes();
        let mut ip = vec![0x40 | words, 0x2A, high, low, id_high, id_low, 0x40, 0, 61];
        ip.push(self.protocol());
        // The checksum of a frame that is to be cut means nothing.
        ip.extend([0xDE, 0xAD, 10, 0, 0, 1, 192, 168, 7, 9]);
        ip.extend(&self.ip_options);
        ip
    }

    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(self.tags.concat());
        frame.extend(if self.is_v6 { [0x86, 0xDD] } else { [0x08, 0x00] });
        frame.extend(self.ip());
        frame.extend([0x12, 0x34, 0x00, 0x50]);
        if self.is_tcp {
            frame.extend(self.sequence.to_be_bytes());
            let words = u8::try_from(5 + self.tcp_options.len() / 4).unwrap();
            frame.extend([1, 2, 3, 4, words << 4, self.flags, 0xFF, 0xF0, 0xBE, 0xEF, 0, 0]);
            frame.extend(&self.tcp_options);
        } else {
            let len = u16::try_from(8 + self.payload.len()).unwrap();
            frame.extend(len.to_be_bytes());
            frame.extend([0xBE, 0xEF]);
        }
        frame.extend(&self.payload);
        frame
    }

    fn request(&self, gso_size: u16) -> OffloadRequest {
        OffloadRequest {
            needs_csum: true,
            gso: Some(match (self.is_tcp, self.is_v6) {
                (true, false) => Gso::TcpV4,
                (true, true) => Gso::TcpV6,
                (false, _) => Gso::Udp,
            }),
            gso_size,
            csum_start: u16::try_from(self.transport_at()).unwrap(),
            csum_offset: if self.is_tcp { 16 } else { 6 },
            ..OffloadRequest::default()
        }
    }

    /// Part `index` of `count`, with all but the checksums, which are zero.
    fn part(&self, index: usize, count: usize, gso_size: usize) -> Vec<u8> {
        let last = index + 1 == count;
        let mut part = self.clone();
        part.payload = self.payload.chunks(gso_size).nth(index).unwrap_or_default().to_vec();
        part.id = self.id.wrapping_add(u16::try_from(index).unwrap());
        part.sequence = self.sequence.wrapping_add(u32::try_from(index * gso_size).unwrap());
        part.flags &= if last { 0xFF } else { !0x09 } & if index == 0 { 0xFF } else { 0x7F };
        let mut bytes = part.frame();
        self.clear_checksums(&mut bytes);
        bytes
    }

    fn clear_checksums(&self, bytes: &mut [u8]) {
        if !self.is_v6 {
            bytes[self.network_at() + 10..][..2].fill(0);
        }
        let field = self.transport_at() + if self.is_tcp { 16 } else { 6 };
        bytes[field..field + 2].fill(0);
    }

    /// What a correct IP and transport checksum sum up to: 0xFFFF both.
    fn sums(&self, bytes: &[u8]) -> (u16, u16) {
        let (network, transport) = (self.network_at(), self.transport_at());
        let ip = if self.is_v6 { 0xFFFF } else { sum(&bytes[network..transport]) };
        let addresses = if self.is_v6 { 8..40 } else { 12..20 };
        let mut covered = bytes[network..][addresses].to_vec();
        covered.extend([0, self.protocol()]);
        covered.extend(u16::try_from(bytes.len() - transport).unwrap().to_be_bytes());
        covered.extend(&bytes[transport..]);
        (ip, sum(&covered))
    }
}

/// The one's complement sum, as RFC 1071 has it.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Extension headers that end in `protocol`, and the number of the first.
fn extensions(kinds: &[(u8, u8)], protocol: u8) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for (index, (_, units)) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).map_or(protocol, |(kind, _)| *kind);
        let mut extension = vec![0; (usize::from(*units) + 1) * 8];
        (extension[0], extension[1]) = (next, *units);
        bytes.extend(extension);
    }
    (kinds.first().map_or(protocol, |(kind, _)| *kind), bytes)
}

prop_compose! {
    fn large(max_payload: usize)(
        tags in vec((prop::sample::select(vec![[0x81, 0x00], [0x88, 0xA8]]), any::<[u8; 2]>()), 0..3),
        is_v6: bool,
        is_tcp: bool,
        option_words in 0_usize..=10,
        kinds in vec((prop::sample::select(vec![0_u8, 43, 60]), 0_u8..2), 0..3),
        tcp_words in 0_usize..=10,
        flags: u8,
        sequence: u32,
        id: u16,
        payload in vec(any::<u8>(), 0..97),
        repeat in prop_oneof![Just(1_usize), 1..30_usize, Just(680)],
    ) -> Large {
        let (first_extension, ip_options) = if is_v6 {
            extensions(&kinds, if is_tcp { 6 } else { 17 })
        } else {
            (0, vec![1; option_words * 4])
        };
        let mut payload = payload.repeat(repeat);
        payload.truncate(max_payload);
        Large {
            tags: tags.into_iter().map(|([a, b], [c, d])| [a, b, c, d]).collect(),
            is_v6, is_tcp, ip_options, first_extension, tcp_options: vec![1; tcp_words * 4],
            flags, sequence, id, payload,
        }
    }
}

/// `bytes` as a chain of pieces with the lengths that `cuts` tell.
fn chain<'b>(bytes: &'b [u8], cuts: &[usize]) -> Vec<Segment<'b>> {
    let mut rest = bytes;
    let mut segments = Vec::new();
    for cut in cuts {
        let (piece, later) = rest.split_at((*cut).min(rest.len()));
        segments.push(Segment::from_bytes(piece));
        rest = later;
    }
    segments.push(Segment::from_bytes(rest));
    segments
}

/// Pushes `bytes`, cut into pieces, with an offload.
pub(super) fn push(
    batch: &mut FrameBatch,
    bytes: &[u8],
    cuts: &[usize],
    request: &OffloadRequest,
) -> Result<(), BadOffload> {
    // SAFETY: every test keeps the bytes longer than the batch.
    assert!(unsafe { batch.push_shared_with_head(&chain(bytes, cuts), HEAD_CAPACITY) });
    batch.set_offload(request, Capabilities::all())
}

/// All frames that `frame` becomes.
pub(super) fn split(
    frame: &Frame<'_>,
    takes: Capabilities,
) -> Result<Vec<(Vec<u8>, Offload)>, BadOffload> {
    let mut scratch = vec![0; SCRATCH];
    let mut parts = Parts::new(frame, takes)?;
    let mut all = Vec::new();
    loop {
        let mut burst = ArrayVec::new();
        let done = parts.fill(&mut &mut scratch[..], &mut burst);
        assert!(done || !burst.is_empty(), "no progress with all the room there is");
        all.extend(burst.iter().map(|frame| (frame.to_vec(), frame.offload())));
        if done {
            return Ok(all);
        }
    }
}

proptest! {
    #[test]
    fn parts_are_those_of_the_model(
        large in large(65_300),
        gso_size in prop_oneof![1_u16..100, 500..1500_u16, 1500..u16::MAX],
        cuts in vec(0_usize..2000, 0..20),
    ) {
        let bytes = large.frame();
        let count = large.payload.len().div_ceil(gso_size.into()).max(1);
        let mut batch = FrameBatch::with_segments(64);
        let pushed = push(&mut batch, &bytes, &cuts, &large.request(gso_size));
        if count > 1024 {
            prop_assert_eq!(pushed, Err(BadOffload::TooManySegments(count)));
            prop_assert!(batch.frames().is_empty() && batch.has_room(64));
            return Ok(());
        }
        prop_assert_eq!(pushed, Ok(()));
        let frame = batch.frames()[0];
        let longest = large.headers() + large.payload.len().min(gso_size.into());
        prop_assert_eq!(frame.wire_len(), longest);
        let parts = split(&frame, Capabilities::empty()).unwrap();
        prop_assert_eq!(parts.len(), count);
        for (index, (mut part, offload)) in parts.into_iter().enumerate() {
            prop_assert!(offload.is_none());
            prop_assert_eq!(large.sums(&part), (0xFFFF, 0xFFFF), "part {}", index);
            let field = large.transport_at() + 6;
            prop_assert!(large.is_tcp || part[field..field + 2] != [0, 0]);
            large.clear_checksums(&mut part);
            prop_assert_eq!(part, large.part(index, count, gso_size.into()), "part {}", index);
        }
    }

    #[test]
    fn a_receiver_of_begun_checksums_gets_parts_with_them(
        large in large(3000), gso_size in 100_u16..1500, cuts in vec(0_usize..2000, 0..5),
    ) {
        let bytes = large.frame();
        let mut batch = FrameBatch::with_segments(64);
        push(&mut batch, &bytes, &cuts, &large.request(gso_size)).unwrap();
        let all = Capabilities::all();
        let unsplit = split(&batch.frames()[0], all).unwrap();
        prop_assert_eq!(unsplit, [(bytes, batch.frames()[0].offload())]);
        for (part, offload) in split(&batch.frames()[0], Capabilities::CSUM).unwrap() {
            prop_assert_eq!(offload.needs(), Capabilities::CSUM);
            let frame = Frame::from_bytes(&part).with_offload(offload);
            let again = split(&frame, Capabilities::empty()).unwrap();
            prop_assert_eq!(again.len(), 1);
            prop_assert_eq!(large.sums(&again[0].0), (0xFFFF, 0xFFFF));
        }
    }

    #[test]
    fn begun_checksums_are_completed(large in large(9000), cuts in vec(0_usize..2000, 0..5)) {
        let mut bytes = large.frame();
        let field = large.transport_at() + if large.is_tcp { 16 } else { 6 };
        // As a sender begins it: the sum of the pseudo header, which is that of the whole with
        // everything from the transport header on left out.
        bytes[field..field + 2].fill(0);
        let (_, whole) = large.sums(&bytes);
        let part = sum(&bytes[large.transport_at()..]);
        let begun = whole - part.min(whole) + if part > whole { 0xFFFF - (part - whole) } else { 0 };
        bytes[field..field + 2].copy_from_slice(&begun.to_be_bytes());
        let mut batch = FrameBatch::with_segments(64);
        let request = OffloadRequest { gso: None, ..large.request(0) };
        push(&mut batch, &bytes, &cuts, &request).unwrap();
        let frames = split(&batch.frames()[0], Capabilities::empty()).unwrap();
        prop_assert_eq!(frames.len(), 1);
        let (frame, offload) = &frames[0];
        prop_assert!(offload.is_none());
        prop_assert_eq!(large.sums(frame).1, 0xFFFF);
        prop_assert!(large.is_tcp || frame[field..field + 2] != [0, 0]);
        let mut rest = frame.clone();
        rest[field..field + 2].copy_from_slice(&bytes[field..field + 2]);
        prop_assert_eq!(rest, bytes, "nothing else changes");
    }

    #[test]
    fn hostile_requests_are_refused_or_harmless(
        large in large(3000),
        noise in vec((0_usize..200, any::<u8>()), 0..4),
        len in 0_usize..4000,
        fields in any::<(bool, bool, bool, u16, u16, u16)>(),
        kind in 0_u8..8,
        near in any::<bool>(),
        takes in 0_u8..64,
    ) {
        let mut bytes = large.frame();
        for (at, byte) in noise {
            if let Some(place) = bytes.get_mut(at) { *place = byte }
        }
        bytes.truncate(len);
        let (needs_csum, data_valid, ecn, gso_size, csum_start, csum_offset) = fields;
        let gso = [None, Some(Gso::TcpV4), Some(Gso::TcpV6), Some(Gso::Udp)];
        let gso = if kind < 4 { gso[usize::from(kind)] } else { large.request(1).gso };
        let csum = if near { large.request(1) } else {
            OffloadRequest { csum_start, csum_offset, ..OffloadRequest::default() }
        };
        let request = OffloadRequest {
            needs_csum, data_valid, gso, ecn, gso_size,
            csum_start: csum.csum_start, csum_offset: csum.csum_offset,
        };
        let mut batch = FrameBatch::with_segments(64);
        if push(&mut batch, &bytes, &[], &request).is_err() { return Ok(()) }
        let frame = batch.frames()[0];
        let takes = Capabilities::from_bits_truncate(takes);
        let parts = split(&frame, takes).unwrap();
        prop_assert!(parts.len() <= 1024);
        prop_assert!(parts.iter().all(|(part, _)| part.len() <= bytes.len()));
        // Addresses and VLAN tags are what they were, as far as there are any.
        let head = &bytes[..bytes.len().min(14)];
        prop_assert!(parts.iter().all(|(part, _)| part.starts_with(head)));
    }

    #[test]
    fn a_head_that_was_changed_is_noticed_or_harmless(
        large in large(3000),
        noise in vec((0_usize..200, any::<u8>()), 0..6),
        takes in 0_u8..64,
    ) {
        let bytes = large.frame();
        let mut batch = FrameBatch::with_segments(64);
        push(&mut batch, &bytes, &[], &large.request(1000)).unwrap();
        let head = batch.head_mut(0).unwrap();
        for (at, byte) in noise {
            if let Some(place) = head.get_mut(at) { *place = byte }
        }
        let _ = split(&batch.frames()[0], Capabilities::from_bits_truncate(takes));
    }
}

#[test]
fn the_first_part_alone_has_cwr_and_the_last_alone_fin_and_push() {
    let large = Large {
        tags: vec![],
        is_v6: false,
        is_tcp: true,
        ip_options: vec![],
        first_extension: 0,
        tcp_options: vec![],
        flags: 0xFF,
        sequence: u32::MAX - 5,
        id: u16::MAX,
        payload: vec![7; 250],
    };
    let bytes = large.frame();
    let mut batch = FrameBatch::with_segments(64);
    push(&mut batch, &bytes, &[], &large.request(100)).unwrap();
    let parts = split(&batch.frames()[0], Capabilities::CSUM | Capabilities::TSO6).unwrap();
    let fields: Vec<_> = parts
        .iter()
        .map(|(part, _)| {
            let id = u16::from_be_bytes([part[18], part[19]]);
            (part.len(), id, u32::from_be_bytes(part[38..42].try_into().unwrap()), part[47])
        })
        .collect();
    let expected = [(154, 0xFFFF, u32::MAX - 5, 0xF6), (154, 0, 94, 0x76), (104, 1, 194, 0x7F)];
    assert_eq!(fields, expected);
}
