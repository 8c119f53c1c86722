//! Sending: copies, packets as they are, rings that are full, offloads.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use packet::{Capabilities, Gso, Offload, OffloadRequest, Packet, Pool, PoolCache};

use super::*;
use crate::descriptors::tx;
use crate::model::Sent;

fn bytes_of(sent: &[Sent]) -> Vec<Vec<u8>> {
    sent.iter().map(|sent| sent.bytes.clone()).collect()
}

/// Packets of `frames`, made in `cache`.
fn packets(cache: &mut PoolCache, frames: &[Vec<u8>]) -> ArrayVec<Packet, BURST> {
    frames.iter().map(|bytes| cache.copy_frame(&Frame::from_bytes(bytes)).unwrap()).collect()
}

#[test]
fn frames_are_sent_in_order_with_one_write_per_burst() {
    let (device, mut port) = opened(",queue_size=128,mtu=9000");
    let before = device.lock().publications;
    let mut expected = Vec::new();
    for round in 0..100_u16 {
        let frames: Vec<_> = [14, 60, 1514, 2049, 9018]
            .map(|len: usize| datagram(round, 2, len.max(42))[..len].to_vec())
            .into();
        assert_eq!(send(&mut port.tx[0], &frames), 5, "round {round}");
        expected.extend(frames);
    }
    let state = device.lock();
    assert_eq!(bytes_of(&state.sent), expected);
    assert_eq!((state.publications - before, state.faults), (100, 0));
    assert!(state.sent[4].pieces >= 5);
    let report = |sent: &Sent| sent.bits & tx::REPORT != 0;
    assert!(!report(&state.sent[0]), "only the last of a burst is reported");
    drop(state);
    let stats = port.port.stats().tx_total();
    assert_eq!((stats.packets, stats.dropped()), (500, 0));
}

#[test]
fn what_cannot_be_sent_is_dropped_with_a_reason() {
    let (device, mut port) = opened("");
    let frames = [vec![0; 13], datagram(1, 2, 1523), datagram(1, 2, 1522)];
    assert_eq!(send(&mut port.tx[0], &frames), 3);
    let stats = port.port.stats().tx_total();
    assert_eq!(stats.packets, 1);
    assert_eq!(stats.dropped_for(DropReason::TooShort), 1);
    assert_eq!(stats.dropped_for(DropReason::TooLong), 1);
    assert_eq!(bytes_of(&device.lock().sent), frames[2..]);
    port.port.control_mut().set_mtu(9000).unwrap();
    assert_eq!(send(&mut port.tx[0], &[datagram(1, 2, 9022)]), 1);
    assert_eq!(device.lock().sent[1].bytes.len(), 9022);
}

#[test]
fn a_full_ring_takes_no_more_until_the_device_goes_on() {
    let (device, mut port) = opened(",queue_size=128");
    device.lock().stalled = true;
    let frames: Vec<_> = (0..32).map(|n| datagram(n, 2, 60)).collect();
    let taken: usize = (0..5).map(|_| send(&mut port.tx[0], &frames)).sum();
    // All descriptors but one, and another for a context or for each buffer on two pages.
    assert!((110..=126).contains(&taken), "{taken}");
    assert_eq!(send(&mut port.tx[0], &frames), 0);
    device.resume();
    assert_eq!(send(&mut port.tx[0], &frames), 32);
    assert_eq!(device.lock().sent.len(), taken + 32);
}

#[test]
fn packets_that_the_device_reaches_are_sent_where_they_lie() {
    let (device, mut port) = opened(",queue_size=128,mtu=9000");
    let frames: Vec<_> = [60, 5000].map(|len| datagram(1, 2, len)).into();
    let mut cache = Pool::new("elsewhere", 64, 2048).unwrap().cache();
    for round in 0..100 {
        frames.iter().for_each(|frame| device.inject(frame));
        let mut taken = ArrayVec::<Packet, BURST>::new();
        port.rx[0].rx_burst(BURST).into_packets(&mut taken, &mut cache);
        assert_eq!(taken.len(), 2, "round {round}");
        taken[0].data_mut()[0] = 0x42;
        assert_eq!(port.tx[0].tx_packets(&mut taken, &mut cache), 2);
    }
    let state = device.lock();
    assert_eq!((state.sent.len(), state.faults), (200, 0));
    assert_eq!((state.sent[0].bytes[0], &state.sent[1].bytes), (0x42, &frames[1]));
    assert!(state.sent[1].pieces >= 3);
    drop(state);
    assert_eq!(port.port.stats().tx_total().packets, 200);
}

#[test]
fn packets_from_elsewhere_are_copied_and_freed_at_once() {
    let (device, mut port) = opened(",queue_size=128,mtu=9000");
    let pool = Pool::new("elsewhere", 64, 2048).unwrap();
    let mut cache = pool.cache();
    device.lock().stalled = true;
    let frames: Vec<_> =
        [60, 5000, 13, 9500].map(|len: usize| datagram(1, 2, len.max(42))[..len].to_vec()).into();
    let mut waiting = packets(&mut cache, &frames);
    assert_eq!(port.tx[0].tx_packets(&mut waiting, &mut cache), 4);
    drop(cache);
    assert_eq!(pool.available(), 64);
    device.resume();
    assert_eq!(bytes_of(&device.lock().sent), frames[..2]);
    let stats = port.port.stats().tx_total();
    assert_eq!((stats.packets, stats.dropped_for(DropReason::TooShort)), (2, 1));
    assert_eq!(stats.dropped_for(DropReason::TooLong), 1);
}

#[test]
fn packets_without_room_stay_with_the_caller_in_order() {
    let (device, mut port) = opened(",queue_size=128");
    device.lock().stalled = true;
    let mut cache = Pool::new("elsewhere", 256, 2048).unwrap().cache();
    let frames: Vec<_> = (0..32).map(|n| datagram(n, 2, 60)).collect();
    let mut sent = 0;
    let mut waiting = ArrayVec::new();
    while waiting.is_empty() {
        waiting = packets(&mut cache, &frames);
        sent += port.tx[0].tx_packets(&mut waiting, &mut cache);
    }
    assert!((110..=126).contains(&sent), "{sent}");
    let left = waiting.len();
    assert_eq!(waiting[0].as_frame().to_vec(), frames[32 - left]);
    device.resume();
    assert_eq!(port.tx[0].tx_packets(&mut waiting, &mut cache), left);
    let expected = frames.iter().cycle().take(sent + left).cloned().collect::<Vec<_>>();
    assert_eq!(bytes_of(&device.lock().sent), expected);
}

#[test]
fn sent_packets_come_back_when_the_queue_is_flushed() {
    let (device, mut port) = opened(",queue_size=128");
    let mut cache = Pool::new("elsewhere", 8, 2048).unwrap().cache();
    // Packets of the receive pool, so that it would run dry if none came back.
    for _ in 0..100 {
        (0..32).for_each(|n| device.inject(&datagram(n, 2, 60)));
        let mut taken = ArrayVec::<Packet, BURST>::new();
        port.rx[0].rx_burst(BURST).into_packets(&mut taken, &mut cache);
        assert_eq!(taken.len(), 32);
        assert_eq!(port.tx[0].tx_packets(&mut taken, &mut cache), 32);
        port.tx[0].flush();
    }
}

/// A TCP segment over IPv4 or IPv6 with `payload` bytes, whose checksum is begun.
fn segment(is_v6: bool, payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    let tcp_len = u16::try_from(20 + payload).unwrap();
    if is_v6 {
        frame.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
        frame.extend(tcp_len.to_be_bytes());
        frame.extend([6, 64]);
        frame.extend([0xFD; 16]);
        frame.extend([0xFE; 16]);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + tcp_len).to_be_bytes());
        frame.extend([0, 1, 0, 0, 64, 6, 0xAB, 0xCD, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    frame.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0x12, 0x34, 0, 0]);
    frame.resize(frame.len() + payload, 7);
    frame
}

fn offload(frame: &[u8], gso: Option<(Gso, u16)>) -> Offload {
    let csum_start = if frame[12] == 8 { 34 } else { 54 };
    let request = OffloadRequest {
        needs_csum: true,
        gso: gso.map(|(gso, _)| gso),
        gso_size: gso.map_or(0, |(_, size)| size),
        csum_start,
        csum_offset: 16,
        ..OffloadRequest::default()
    };
    Offload::check(&request, Capabilities::all(), frame, frame.len()).unwrap()
}

#[test]
fn begun_checksums_are_left_to_the_device_with_one_context_for_all() {
    let (device, mut port) = opened("");
    let frame = segment(false, 100);
    let offload = offload(&frame, None);
    let frames = [Frame::from_bytes(&frame).with_offload(offload); 3];
    assert_eq!(port.tx[0].tx_burst(&frames), 3);
    let state = device.lock();
    let sent = &state.sent[2];
    assert_eq!((sent.contexts_written, &sent.bytes), (1, &frame));
    // IPv4 header of 20 bytes behind 14; TCP over IPv4.
    assert_eq!(sent.context[0], 20 | 14 << 9);
    assert_eq!(sent.context[1] & 0xFFFF, 1 << 11 | 1 << 10);
    assert_eq!(sent.bits & tx::L4_CHECKSUM, tx::L4_CHECKSUM);
    assert_eq!(sent.bits & (tx::IP_CHECKSUM | tx::SEGMENT | tx::INSERT_TAG), 0);
    assert_eq!(sent.bits >> tx::PAYLOAD_SHIFT, frame.len() as u64);
}

#[test]
fn large_segments_are_left_to_the_device() {
    let (device, mut port) = opened(",queue_size=128");
    for (is_v6, gso, headers) in [(false, Gso::TcpV4, 54), (true, Gso::TcpV6, 74)] {
        let frame = segment(is_v6, 20_000);
        let offload = offload(&frame, Some((gso, 1400)));
        assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&frame).with_offload(offload)]), 1);
        let sent = device.lock().sent.pop().unwrap();
        assert_eq!(sent.context[1] >> 48, 1400);
        assert_eq!(sent.context[1] >> 40 & 0xFF, 20);
        assert_eq!(sent.context[0] & 0xFFFF, u64::from(headers - 34_u16) | 14 << 9);
        assert_eq!(sent.bits >> tx::PAYLOAD_SHIFT, 20_000);
        assert_eq!(sent.bits & (tx::SEGMENT | tx::L4_CHECKSUM), tx::SEGMENT | tx::L4_CHECKSUM);
        assert_eq!(sent.bits & tx::IP_CHECKSUM != 0, !is_v6);
        // Lengths and the checksum of IPv4 are for the device to make.
        let zeroes = if is_v6 { vec![18, 19] } else { vec![16, 17, 24, 25] };
        assert!(zeroes.iter().all(|at| sent.bytes[*at] == 0));
        // The pseudo header without its length: 0xFD..., 0xFE... or the two addresses, and TCP.
        let begun = u16::from_be_bytes([
            sent.bytes[usize::from(headers) - 4],
            sent.bytes[usize::from(headers) - 3],
        ]);
        let expected = if is_v6 {
            packet::checksum::Checksum::pseudo_v6([0xFD; 16], [0xFE; 16], 6, 0).partial()
        } else {
            packet::checksum::Checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 6, 0).partial()
        };
        assert_eq!(begun, expected);
        assert_eq!(sent.bytes[usize::from(headers)..], frame[usize::from(headers)..]);
    }
}

/// With a routing header whose segments are left, the destination is not the one that the
/// checksum is about, so that what the sender began stays, but for its length.
#[test]
fn the_sender_s_checksum_is_taken_on_where_segments_are_left() {
    let (device, mut port) = opened(",queue_size=128");
    let mut frame = segment(true, 20_000);
    frame[20] = 43;
    frame.splice(54..54, [[6, 2, 4, 1, 1, 0, 0, 0].as_slice(), &[0xFC; 16]].concat());
    let begun = packet::checksum::Checksum::pseudo_v6([0xFD; 16], [0xFC; 16], 6, 20_020).partial();
    frame[94..96].copy_from_slice(&begun.to_be_bytes());
    let request = OffloadRequest {
        needs_csum: true,
        gso: Some(Gso::TcpV6),
        gso_size: 1400,
        csum_start: 78,
        csum_offset: 16,
        ..OffloadRequest::default()
    };
    let offload = Offload::check(&request, Capabilities::all(), &frame, frame.len()).unwrap();
    assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&frame).with_offload(offload)]), 1);
    let sent = device.lock().sent.pop().unwrap();
    let expected = packet::checksum::Checksum::pseudo_v6([0xFD; 16], [0xFC; 16], 6, 0).partial();
    assert_eq!(sent.bytes[94..96], expected.to_be_bytes());
    assert_eq!(sent.bits & (tx::SEGMENT | tx::L4_CHECKSUM), tx::SEGMENT | tx::L4_CHECKSUM);
}

#[test]
fn two_contexts_are_remembered() {
    let (device, mut port) = opened("");
    let (four, six) = (segment(false, 10), segment(true, 10));
    let frame = |bytes| Frame::from_bytes(bytes).with_offload(offload(bytes, None));
    for _ in 0..10 {
        assert_eq!(port.tx[0].tx_burst(&[frame(&four), frame(&six)]), 2);
    }
    assert_eq!(device.lock().sent.last().unwrap().contexts_written, 2);
}

#[test]
fn segments_that_no_device_should_see_are_dropped() {
    let (device, mut port) = opened("");
    let frame = segment(false, 1000);
    let tiny = offload(&frame, Some((Gso::TcpV4, 8)));
    assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&frame).with_offload(tiny)]), 1);
    assert_eq!(port.port.stats().tx_total().dropped_for(DropReason::BadHeader), 1);
    assert!(device.lock().sent.is_empty());
}

#[test]
fn a_checksum_that_the_device_cannot_make_is_made_here() {
    let (device, mut port) = opened("");
    // A checksum at an offset that neither TCP nor UDP has.
    let frame = segment(false, 11);
    let request = OffloadRequest {
        needs_csum: true,
        csum_start: 34,
        csum_offset: 12,
        ..OffloadRequest::default()
    };
    let offload = Offload::check(&request, Capabilities::all(), &frame, frame.len()).unwrap();
    assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&frame).with_offload(offload)]), 1);
    let sent = device.lock().sent[0].clone();
    assert_eq!(sent.bits & tx::L4_CHECKSUM, 0);
    // What was begun there, the sum of a pseudo header, is in the sum as well.
    assert_eq!(packet::checksum::checksum(&sent.bytes[34..]), 0x5010);
}

#[test]
fn without_offloads_frames_come_complete() {
    let (device, mut port) = opened(",offloads=off");
    let frame = segment(false, 3000);
    let offload = offload(&frame, Some((Gso::TcpV4, 1400)));
    assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&frame).with_offload(offload)]), 1);
    let state = device.lock();
    assert_eq!(state.sent.len(), 3);
    assert!(state.sent.iter().all(|sent| sent.contexts_written == 0));
}

#[test]
fn an_access_port_puts_its_tag_on() {
    let (device, mut port) = opened(",vlan=100");
    let frame = datagram(1, 2, 60);
    let segment = segment(false, 4000);
    let large = offload(&segment, Some((Gso::TcpV4, 1400)));
    let frames = [Frame::from_bytes(&frame), Frame::from_bytes(&segment).with_offload(large)];
    assert_eq!(port.tx[0].tx_burst(&frames), 2);
    let state = device.lock();
    assert_eq!(state.sent[0].bytes[12..16], [0x81, 0, 0, 100]);
    assert_eq!(state.sent[0].bytes[16..], frame[12..]);
    assert_eq!(state.sent[1].bits & tx::INSERT_TAG, tx::INSERT_TAG);
    assert_eq!(state.sent[1].context[0] >> 16, 100);
}

#[test]
fn what_one_queue_sends_the_port_receives_in_loopback() {
    let (device, mut port) = opened(",queues=2");
    device.lock().loopback = true;
    let frames: Vec<_> = (0..20).map(|n| datagram(n, 2, 100 + usize::from(n))).collect();
    assert_eq!(send(&mut port.tx[1], &frames), 20);
    let mut back: Vec<_> = port.rx.iter_mut().flat_map(received).collect();
    back.sort();
    let mut frames = frames;
    frames.sort();
    assert_eq!(back, frames);
}
