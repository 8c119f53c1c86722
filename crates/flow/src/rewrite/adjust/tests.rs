use conntrack::{Adjustment, Replacement, Skew};
use packet::{Capabilities, EditRoom, Frame, Offload, OffloadRequest, Segment};
use proptest::prelude::*;

use super::*;

const ETHER: usize = 14;

/// A packet of TCP.
#[derive(Clone, Debug)]
struct Packet {
    is_v6: bool,
    sequence: u32,
    acknowledgment: u32,
    /// Where parts are that are acknowledged, behind so many bytes without a meaning.
    sack: Option<(usize, Vec<u32>)>,
    payload: Vec<u8>,
}

impl Packet {
    fn options(&self) -> Vec<u8> {
        let Some((before, edges)) = &self.sack else { return Vec::new() };
        let mut options = vec![1; *before];
        options.extend([SACK, u8::try_from(2 + 4 * edges.len()).unwrap()]);
        options.extend(edges.iter().flat_map(|edge| edge.to_be_bytes()));
        options.resize(options.len().next_multiple_of(4), 0);
        options
    }

    fn network_len(&self) -> usize {
        if self.is_v6 { 40 } else { 20 }
    }

    /// Its frame, all of it right.
    fn frame(&self) -> Vec<u8> {
        let options = self.options();
        let mut tcp = [21_u16, 5000].map(u16::to_be_bytes).concat();
        tcp.extend([self.sequence, self.acknowledgment].map(u32::to_be_bytes).concat());
        tcp.extend([u8::try_from((20 + options.len()) * 4).unwrap(), 0x18, 0x10, 0, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.extend(&self.payload);
        let len = u16::try_from(tcp.len()).unwrap();
        let mut frame = vec![2; 12];
        let mut sum = if self.is_v6 {
            frame.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([6, 64]);
            frame.extend([0xFD; 32]);
            Checksum::pseudo_v6([0xFD; 16], [0xFD; 16], 6, len.into())
        } else {
            frame.extend([8, 0]);
            let mut ip = vec![0x45, 0];
            ip.extend((len + 20).to_be_bytes());
            ip.extend([0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = packet::checksum::checksum(&ip).to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
            frame.extend(ip);
            Checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 6, len)
        };
        sum.add(&tcp);
        tcp[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.finish().to_be_bytes());
        frame.extend(tcp);
        frame
    }
}

fn adjusted(frame: &Frame<'_>, how: &Adjustment) -> Option<(Vec<u8>, Offload)> {
    let mut room = EditRoom::default();
    let mut open = room.begin().open_deep(frame)?;
    adjust(how, &mut open).then(|| open.frame().map(|frame| (frame.to_vec(), frame.offload())))?
}

fn packet() -> impl Strategy<Value = Packet> {
    let sack = (0..4_usize, prop::collection::vec(any::<u32>(), 2..7));
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (any::<bool>(), any::<[u32; 2]>(), prop::option::of(sack), payload).prop_map(
        |(is_v6, [sequence, acknowledgment], sack, payload)| Packet {
            is_v6,
            sequence,
            acknowledgment,
            sack: sack.map(|(before, edges)| (before, edges[..edges.len() / 2 * 2].to_vec())),
            payload,
        },
    )
}

proptest! {
    /// A changed packet is the one that its sender would have made so, whoever makes its checksum.
    #[test]
    fn a_changed_packet_is_as_if_it_was_made_so(
        packet in packet(),
        sequence in -50..50_i32,
        [at, before, behind] in any::<[u32; 3]>(),
        place in prop::option::of((0..40_usize, 0..16_usize, prop::collection::vec(any::<u8>(), 0..16))),
        is_begun: bool,
        cut in 0..300_usize,
    ) {
        let acknowledged = Skew { at, before, behind };
        let place = place.map(|(start, len, text)| {
            let start = start.min(packet.payload.len());
            Replacement { place: start..(start + len).min(packet.payload.len()), text }
        });
        let sequence = sequence.cast_unsigned();
        let how = Adjustment { sequence, acknowledged, replacement: place.clone() };
        let mut expected = Packet {
            sequence: packet.sequence.wrapping_add(sequence),
            acknowledgment: acknowledged.back(packet.acknowledgment),
            ..packet.clone()
        };
        if let Some((_, edges)) = &mut expected.sack {
            edges.iter_mut().for_each(|edge| *edge = acknowledged.back(*edge));
        }
        if let Some(Replacement { place, text }) = place.clone() {
            expected.payload.splice(place, text);
        }
        let mut bytes = packet.frame();
        let start = ETHER + packet.network_len();
        let mut wanted = expected.frame();
        if is_begun {
            for (frame, is_v6) in [(&mut bytes, packet.is_v6), (&mut wanted, packet.is_v6)] {
                let len = u16::try_from(frame.len() - start).unwrap();
                let sum = match is_v6 {
                    true => Checksum::pseudo_v6([0xFD; 16], [0xFD; 16], 6, len.into()),
                    false => Checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 6, len),
                };
                let at = start + CHECKSUM;
                frame[at..at + 2].copy_from_slice(&sum.partial().to_be_bytes());
            }
        }
        let cut = cut.clamp(start + 20, bytes.len());
        let (head, body) = bytes.split_at(cut);
        let body = [Segment::from_bytes(body)];
        let frame = Frame::from_parts(head, &body).unwrap();
        let request = OffloadRequest {
            needs_csum: true,
            csum_start: u16::try_from(start).unwrap(),
            csum_offset: 16,
            ..OffloadRequest::default()
        };
        let offload = Offload::check(&request, Capabilities::all(), head, bytes.len()).unwrap();
        let frame = if is_begun { frame.with_offload(offload) } else { frame };
        let last = place.map_or(0, |by| by.place.end) + start + 20 + packet.options().len();
        match adjusted(&frame, &how) {
            Some((got, after)) => {
                // Two sums are one and the same number.
                prop_assert!(same(&got, &wanted, start + CHECKSUM), "{:?}\n{:?}", got, wanted);
                prop_assert_eq!(after, frame.offload());
            }
            None => prop_assert!(last > packet::frame::HEAD_CAPACITY),
        }
    }

    #[test]
    fn no_frame_is_too_much(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        packet in packet(),
        at in prop::collection::vec((0..120_usize, any::<u8>()), 0..6),
        place in 0..400_usize,
        is_any: bool,
    ) {
        let mut frame = if is_any { bytes } else { packet.frame() };
        for (at, byte) in at {
            frame.get_mut(at).into_iter().for_each(|place| *place = byte);
        }
        let replacement = Some(Replacement { place: place..place + 3, text: b"10,0,0,99".to_vec() });
        let acknowledged = Skew { at: 5, before: 6, behind: 7 };
        let how = Adjustment { sequence: 3, acknowledged, replacement };
        let len = frame.len();
        if let Some((after, _)) = adjusted(&Frame::from_bytes(&frame), &how) {
            prop_assert_eq!(after.len(), len + 6);
        }
    }
}

/// Whether frames are the same; a checksum may be 0 in either way.
fn same(one: &[u8], other: &[u8], sum: usize) -> bool {
    let plain = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        if let Some(place) = frame.get_mut(sum..sum + 2).filter(|place| place == &[0xFF, 0xFF]) {
            place.fill(0);
        }
        frame
    };
    plain(one) == plain(other)
}
