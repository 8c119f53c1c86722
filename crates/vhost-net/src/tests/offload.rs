//! Frames with offloads, from guest to guest.

use ethdev::TxQueue;
use packet::builder::FrameBuilder;
use packet::headers::{Ethernet, Ipv4, Tcp, TcpFlags};
use packet::{Capabilities, MacAddr};
use virtio::net_header::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM};

use super::*;
use crate::NetDevice;
use crate::command::Command;
use vhost::backend::Backend;

const SENDS: Features = Features::CSUM.union(Features::HOST_TSO4);
const TAKES: Features = Features::GUEST_CSUM.union(Features::GUEST_TSO4);

fn tcp(payload: &[u8]) -> Vec<u8> {
    let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
    let builder = FrameBuilder::new(mac(1), mac(2)).ip([10, 0, 0, 1], [10, 0, 0, 2]);
    let builder = builder.tcp((1, 2), 0, 0, TcpFlags::ACK | TcpFlags::PSH);
    let mut frame = builder.payload(payload).build().unwrap();
    // As a guest begins it: the sum of the pseudo header.
    let len = u16::try_from(frame.len() - 34).unwrap();
    let begun = packet::checksum::Checksum::pseudo_v4([10, 0, 0, 1], [10, 0, 0, 2], 6, len);
    frame[50..52].copy_from_slice(&begun.partial().to_be_bytes());
    frame
}

fn tso() -> NetHeader {
    NetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 7,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    }
}

fn post(guest: &mut Guest, header: NetHeader, frame: &[u8], pieces: &[usize]) {
    guest.post(&[&header.encode()[..], frame].concat(), pieces);
}

/// The TCP payload of a frame whose checksums are right.
fn payload(frame: &[u8]) -> Vec<u8> {
    let ip = Ipv4::parse(Ethernet::parse(frame).unwrap().payload()).unwrap();
    assert!(ip.checksum_is_valid());
    assert!(ip.is_complete());
    let mut sum = ip.pseudo_header();
    sum.add(ip.payload());
    assert!(sum.is_valid());
    Tcp::parse(ip.payload()).unwrap().payload().to_vec()
}

/// Sends all that `from` has posted to `to`, and returns the frames that `to` gets, each with its
/// header, from the buffers that it has offered.
fn forward(
    from: &mut Guest,
    to: &mut Guest,
    buffers: &[Vec<DmaMemory>],
) -> Vec<(NetHeader, Vec<u8>)> {
    let _ = (from.ring.publish(), to.ring.publish());
    let mut receiver = NetReceiver::new(Arc::clone(&from.slot));
    let transmitter = NetTransmitter::new(Arc::clone(&to.slot));
    let mut queue = TxQueue::new(Box::new(transmitter), Arc::default());
    receiver.receive(BURST, &from.stats);
    let frames = receiver.batch().frames();
    assert_eq!(queue.tx_burst(frames), frames.len());
    let mut pieces = buffers.iter().zip(to.used());
    let mut got = Vec::new();
    while let Some((memory, len)) = pieces.next() {
        let mut bytes = Guest::read(memory, len as usize);
        let header = NetHeader::decode(*bytes.first_chunk().unwrap());
        for _ in 1..header.num_buffers {
            let (memory, len) = pieces.next().unwrap();
            bytes.extend(Guest::read(memory, len as usize));
        }
        got.push((header, bytes.split_off(NET_HEADER_LEN)));
    }
    got
}

#[test]
fn a_large_segment_passes_uncut_between_guests_that_take_it() {
    let mut from = Guest::new(SENDS);
    let mut to = Guest::new(TAKES | Features::MRG_RXBUF);
    let frame = tcp(&pattern(60_000));
    post(&mut from, tso(), &frame, &[12, 40, 4096, 9000, 20_000]);
    post(&mut from, tso(), &frame, &[12]);
    let buffers: Vec<_> = (0..100).map(|_| to.offer(&[1526])).collect();
    let got = forward(&mut from, &mut to, &buffers);
    let num_buffers = u16::try_from((frame.len() + 12).div_ceil(1526)).unwrap();
    let header = NetHeader { hdr_len: 54, num_buffers, ..tso() };
    assert_eq!(got, vec![(header, frame); 2]);
    assert_eq!((from.slot.large_segments.get(), to.slot.large_segments.get()), (2, 2));
}

#[test]
fn a_guest_without_offloads_gets_frames_that_are_complete() {
    let mut from = Guest::new(SENDS);
    let mut to = Guest::new(Features::empty());
    let data = pattern(20_000);
    post(&mut from, tso(), &tcp(&data), &[12, 30]);
    let csum = NetHeader { gso_type: 0, gso_size: 0, ..tso() };
    post(&mut from, csum, &tcp(&data[..1000]), &[]);
    post(&mut from, NetHeader::default(), &pattern(60), &[]);
    let buffers: Vec<_> = (0..40).map(|_| to.offer(&[1526])).collect();
    let mut got = forward(&mut from, &mut to, &buffers);
    let plain = NetHeader { num_buffers: 1, ..NetHeader::default() };
    assert!(got.iter().all(|(header, frame)| *header == plain && frame.len() <= 1514));
    assert_eq!(got.pop(), Some((plain, pattern(60))));
    assert_eq!(payload(&got.pop().unwrap().1), &data[..1000]);
    assert_eq!(got.len(), 14);
    let together: Vec<u8> = got.iter().flat_map(|(_, frame)| payload(frame)).collect();
    assert_eq!(together, data);
    assert_eq!((from.slot.large_segments.get(), to.slot.large_segments.get()), (1, 0));
}

#[test]
fn a_guest_that_takes_checksums_only_gets_parts_with_begun_checksums() {
    let mut from = Guest::new(SENDS);
    let mut to = Guest::new(Features::GUEST_CSUM);
    post(&mut from, tso(), &tcp(&pattern(5000)), &[]);
    let buffers: Vec<_> = (0..4).map(|_| to.offer(&[1526])).collect();
    let got = forward(&mut from, &mut to, &buffers);
    let expected = NetHeader { gso_type: 0, gso_size: 0, hdr_len: 0, num_buffers: 1, ..tso() };
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|(header, _)| *header == expected));
}

#[test]
fn what_was_not_negotiated_or_is_not_true_is_dropped() {
    let all = SENDS | Features::HOST_TSO6 | Features::HOST_USO;
    let bad = [
        // Not negotiated.
        (Features::empty(), NetHeader { gso_type: 0, ..tso() }),
        (Features::CSUM, tso()),
        (Features::HOST_TSO4, tso()),
        (SENDS, NetHeader { gso_type: GSO_TCPV4 | GSO_ECN, ..tso() }),
        // Not true.
        (all, NetHeader { gso_size: 0, ..tso() }),
        (all, NetHeader { gso_type: GSO_TCPV6, ..tso() }),
        (all, NetHeader { gso_type: GSO_UDP_L4, ..tso() }),
        (all, NetHeader { gso_type: 3, ..tso() }),
        (all, NetHeader { gso_type: GSO_ECN, ..tso() }),
        (all, NetHeader { flags: 0, ..tso() }),
        (all, NetHeader { csum_start: 35, ..tso() }),
        (all, NetHeader { csum_start: u16::MAX, gso_type: 0, ..tso() }),
        (all, NetHeader { csum_offset: u16::MAX, gso_type: 0, ..tso() }),
        (all, NetHeader { csum_start: 0, csum_offset: 4, gso_type: 0, ..tso() }),
    ];
    for (features, header) in bad {
        let mut guest = Guest::new(features);
        let mut receiver = NetReceiver::new(Arc::clone(&guest.slot));
        post(&mut guest, header, &tcp(&pattern(3000)), &[]);
        post(&mut guest, header, &tcp(&pattern(3000)), &[3, 20]);
        post(&mut guest, NetHeader::default(), &pattern(60), &[]);
        let _ = guest.ring.publish();
        assert_eq!(guest.receive(&mut receiver), [pattern(60)], "{header:?}");
        receiver.release();
        assert_eq!((guest.used().len(), guest.drops(DropReason::BadHeader)), (3, 2));
    }
}

#[test]
fn a_guest_that_has_just_switched_offloads_off_gets_its_frames_another_way() {
    let mut from = Guest::new(SENDS);
    let mut to = Guest::new(TAKES);
    post(&mut from, tso(), &tcp(&pattern(5000)), &[]);
    let _ = from.ring.publish();
    (0..8).for_each(|_| drop(to.offer(&[1526])));
    let _ = to.ring.publish();
    let mut receiver = NetReceiver::new(Arc::clone(&from.slot));
    receiver.receive(BURST, &from.stats);
    let mut transmitter = NetTransmitter::new(Arc::clone(&to.slot));
    to.slot.edit(|ring| ring.as_mut().unwrap().takes = Capabilities::empty());
    let sent = transmitter.transmit_offloaded(receiver.batch().frames(), &to.stats);
    assert_eq!(sent, Sent::NONE);
    assert_eq!(transmitter.takes(), Capabilities::empty());
    let mut queue = TxQueue::new(Box::new(transmitter), Arc::default());
    assert_eq!(queue.tx_burst(receiver.batch().frames()), 1);
    assert_eq!(to.used().len(), 4);
}

#[test]
fn a_driver_switches_what_it_takes_within_what_it_negotiated() {
    let mut device = NetDevice::new("test", 1).unwrap();
    let offered = Features::from_bits_truncate(device.features());
    assert!(offered.contains(Features::HOST_OFFLOADS | Features::GUEST_OFFLOADS));
    let wanted = |bits| Command::GuestOffloads(bits);
    assert!(!device.execute(wanted(Features::GUEST_CSUM)), "nothing is negotiated");
    let features = TAKES | Features::CTRL_GUEST_OFFLOADS;
    device.set_features(features.bits()).unwrap();
    assert_eq!(device.guest_takes(), Capabilities::CSUM | Capabilities::TSO4);
    assert!(device.execute(wanted(Features::GUEST_CSUM)));
    assert_eq!(device.guest_takes(), Capabilities::CSUM);
    assert!(!device.execute(wanted(TAKES | Features::GUEST_TSO6)));
    assert!(!device.execute(wanted(TAKES | Features::CSUM)), "no receive offload");
    assert!(device.execute(wanted(Features::empty())));
    assert_eq!(device.guest_takes(), Capabilities::empty());
    device.set_status(0).unwrap();
    assert_eq!(device.guest_takes(), Capabilities::CSUM | Capabilities::TSO4);

    let device = NetDevice::new("test", 1).unwrap().without_offloads();
    let offered = Features::from_bits_truncate(device.features());
    assert!(!offered.intersects(Features::HOST_OFFLOADS | Features::GUEST_OFFLOADS));
}

proptest! {
    /// Whatever the header says, what comes out is either nothing or lies within the frame.
    #[test]
    fn no_header_does_harm(
        header: [u8; 12],
        near: bool,
        len in 14_usize..4000,
        cut in 1_usize..100,
    ) {
        let mut header = NetHeader::decode(header);
        if near {
            header = NetHeader { gso_type: header.gso_type % 6, gso_size: header.gso_size, ..tso() };
        }
        let mut from = Guest::new(Features::HOST_OFFLOADS);
        let mut to = Guest::new(Features::MRG_RXBUF);
        let frame = &tcp(&pattern(4000))[..len];
        post(&mut from, header, frame, &[]);
        post(&mut from, header, frame, &[cut]);
        let _ = (from.ring.publish(), to.ring.publish());
        (0..100).for_each(|_| drop(to.offer(&[512])));
        let _ = to.ring.publish();
        let mut receiver = NetReceiver::new(Arc::clone(&from.slot));
        let transmitter = NetTransmitter::new(Arc::clone(&to.slot));
        let mut queue = TxQueue::new(Box::new(transmitter), Arc::default());
        receiver.receive(BURST, &from.stats);
        for frame in receiver.batch().frames() {
            prop_assert_eq!(frame.len(), len);
            let _ = queue.tx_burst(&[*frame]);
        }
        receiver.release();
        prop_assert_eq!(from.used().len(), 2);
    }
}
