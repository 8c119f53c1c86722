//! Tests against the host kernel, each in a network namespace of its own, which goes away with
//! the test's thread. They need root; without it they are skipped with a note.

use std::sync::mpsc;
use std::time::Duration;

use ethdev::{DropReason, PortEvent};
use packet::{BURST, Frame, Gso, MacAddr, OffloadRequest, Segment};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::testing::{
    PATIENCE, check_interface_that_comes_and_goes, frame, host_socket, in_namespace, ip,
    is_experimental, is_readable_within, is_udp, open_port, open_port_with_link, receive_where,
    refusal, send_and_compare, veth_pair,
};

#[test]
fn frames_pass_both_ways_as_they_are() {
    in_namespace(|| {
        veth_pair(1500);
        let mut one = open_port("af-packet:rw0");
        let mut other = open_port("af-packet:rw1,queue_size=64");
        let lengths = [14, 60, 64, 65, 128, 999, 1400, 1514, 1518];
        send_and_compare(&mut one, &mut other, &lengths);
        send_and_compare(&mut other, &mut one, &lengths);
        let long = frame(0, 1519);
        assert_eq!(one.tx[0].tx_burst(&[Frame::from_bytes(&long)]), 1);
        assert_eq!(one.port.stats().tx_total().dropped_for(DropReason::TooLong), 1);
    });
}

/// Past the queueing discipline, only whoever is at the other end sees what is sent.
#[test]
fn other_sockets_see_what_is_sent_through_the_queueing_discipline() {
    in_namespace(|| {
        veth_pair(1500);
        let flags = SocketFlags::NONBLOCK;
        let all = Some(eth::ALL);
        let watcher = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, all).unwrap();
        // It sees what comes in at the other end anyway.
        for (device, count) in [("af-packet:rw0", 1), ("af-packet:rw0,qdisc=on", 2)] {
            let mut one = open_port(device);
            let mut other = open_port("af-packet:rw1");
            let sent = frame(7, 777);
            assert_eq!(one.tx[0].tx_burst(&[Frame::from_bytes(&sent)]), 1);
            receive_where(&mut other.rx[0], 1, is_experimental);
            let mut bytes = [0; 2048];
            let seen = std::iter::from_fn(|| {
                let (len, _) = recv(&watcher, &mut bytes[..], RecvFlags::empty()).ok()?;
                Some(bytes[..len] == sent)
            });
            assert_eq!(seen.filter(|is_it| *is_it).count(), count, "{device}");
        }
    });
}

#[test]
fn frames_longer_than_a_slot_pass_too() {
    in_namespace(|| {
        veth_pair(1500);
        let mut one = open_port("af-packet:rw0");
        let mut other = open_port("af-packet:rw1");
        // The slots are made for the MTU that there was.
        ip("link set rw0 mtu 40000");
        ip("link set rw1 mtu 40000");
        one.port.control_mut().set_mtu(65_000).unwrap();
        other.port.control_mut().set_mtu(65_000).unwrap();
        let lengths = [60, 1972, 2000, 2048, 9000, 30_000, 65_000, 64];
        send_and_compare(&mut one, &mut other, &lengths);
        send_and_compare(&mut other, &mut one, &lengths);
    });
}

#[test]
fn a_frame_of_many_pieces_is_sent_whole() {
    in_namespace(|| {
        veth_pair(9000);
        let mut one = open_port("af-packet:rw0");
        let mut other = open_port("af-packet:rw1");
        let bytes = frame(3, 9000);
        for pieces in [1, 3, 40] {
            let (head, body) = bytes.split_at(42);
            let body = body.chunks(body.len().div_ceil(pieces));
            let body: Vec<Segment<'_>> = body.map(Segment::from_bytes).collect();
            let whole = Frame::from_parts(head, &body).unwrap();
            assert_eq!(one.tx[0].tx_burst(&[whole]), 1);
            let received = receive_where(&mut other.rx[0], 1, is_experimental);
            assert!(received == std::slice::from_ref(&bytes));
        }
    });
}

#[test]
fn flows_are_spread_over_queues_and_no_frame_comes_twice() {
    in_namespace(|| {
        veth_pair(1500);
        let mut port = open_port("af-packet:rw0,queues=2");
        let host = host_socket("rw1");
        for to in 5000..5200 {
            host.send_to(b"x", ("10.9.0.2", to)).unwrap();
        }
        let mut received = [0, 0];
        while received.iter().sum::<usize>() < 200 {
            for (count, queue) in received.iter_mut().zip(&mut port.rx) {
                *count +=
                    queue.rx_burst(BURST).frames().iter().filter(|frame| is_udp(frame)).count();
            }
        }
        assert!(received.iter().all(|count| *count > 0), "{received:?}");
        assert!(port.rx.iter_mut().all(|queue| queue.rx_burst(BURST).frames().is_empty()));
    });
}

#[test]
fn begun_checksums_and_tags_arrive_with_the_frame() {
    in_namespace(|| {
        veth_pair(1500);
        let mut port = open_port("af-packet:rw0");
        let host = host_socket("rw1");
        host.send_to(b"hello", "10.9.0.2:4001").unwrap();
        let needs = |frame: &Frame<'_>| is_udp(frame) && frame.offload().csum() == Some((34, 6));
        let bytes = receive_where(&mut port.rx[0], 1, needs).remove(0);
        assert_eq!(&bytes[42..], b"hello");
        // The kernel takes tags out of frames that arrive, and tells of them beside.
        let mut other = open_port("af-packet:rw1");
        let plain = frame(1, 60);
        for tag in [[0x81, 0, 0x20, 5], [0x88, 0xA8, 0x0F, 0xFE]] {
            let tagged = [&plain[..12], &tag, &plain[12..]].concat();
            assert_eq!(other.tx[0].tx_burst(&[Frame::from_bytes(&tagged)]), 1);
            let is_tagged = |frame: &Frame<'_>| frame.head().get(16..18) == Some(&[0x88, 0xB5]);
            assert_eq!(receive_where(&mut port.rx[0], 1, is_tagged), [tagged]);
        }
    });
}

/// A UDP datagram to 10.9.0.1 whose checksum is begun, as a large segment of pieces of 1000.
fn large_datagram(mac: MacAddr, payload: &[u8]) -> (Vec<u8>, OffloadRequest) {
    let udp_len = u16::try_from(8 + payload.len()).unwrap();
    let (from, to) = ([10, 9, 0, 2], [10, 9, 0, 1]);
    let mut bytes = [&mac.0[..], &[2, 0, 0, 0, 0, 0x99, 8, 0, 0x45, 0]].concat();
    bytes.extend((20 + udp_len).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend([from, to].concat());
    let sum = packet::checksum::checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes.extend([0x0F, 0xA1, 0x0F, 0xA0]);
    bytes.extend(udp_len.to_be_bytes());
    let begun = packet::checksum::Checksum::pseudo_v4(from, to, 17, udp_len).partial();
    bytes.extend(begun.to_be_bytes());
    bytes.extend(payload);
    let request = OffloadRequest {
        needs_csum: true,
        gso: (payload.len() > 1000).then_some(Gso::Udp),
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 6,
        ..OffloadRequest::default()
    };
    (bytes, request)
}

#[test]
fn what_is_not_complete_is_completed_by_the_kernel() {
    in_namespace(|| {
        veth_pair(1500);
        let mut port = open_port("af-packet:rw0");
        let host = host_socket("rw1");
        let mac = open_port("af-packet:rw1").port.control().mac();
        let payload: Vec<u8> = (0..3500_u32).map(|n| n.to_le_bytes()[0]).collect();
        for len in [5, 1000, 3500] {
            let (bytes, request) = large_datagram(mac, &payload[..len]);
            let all = packet::Capabilities::all();
            let head = &bytes[..bytes.len().min(100)];
            let offload = packet::Offload::check(&request, all, head, bytes.len()).unwrap();
            let frame = Frame::from_bytes(&bytes).with_offload(offload);
            assert_eq!(port.tx[0].tx_burst(&[frame]), 1);
            let mut buffer = vec![0; 65_536];
            for piece in payload[..len].chunks(1000) {
                let len = host.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], piece);
            }
        }
        assert_eq!(port.port.stats().tx_total().dropped(), 0);
    });
}

#[test]
fn what_the_host_sends_itself_is_not_received() {
    in_namespace(|| {
        veth_pair(1500);
        let mut port = open_port("af-packet:rw1");
        let mut other = open_port("af-packet:rw0");
        let host = host_socket("rw1");
        host.send_to(b"out", "10.9.0.2:4001").unwrap();
        let seen = receive_where(&mut other.rx[0], 1, is_udp);
        assert_eq!(&seen[0][42..], b"out");
        assert!(port.rx[0].rx_burst(BURST).frames().is_empty());
    });
}

#[test]
fn a_link_that_goes_down_wakes_a_sleeper_once() {
    in_namespace(|| {
        veth_pair(1500);
        let mut port = open_port("af-packet:rw0");
        let (sender, events) = mpsc::channel();
        assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
        assert!(port.rx[0].arm());
        ip("link set rw0 down");
        assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::LinkChanged));
        port.rx[0].disarm();
        assert!(port.rx[0].rx_burst(BURST).frames().is_empty());
        assert!(port.rx[0].arm() && !is_readable_within(&port.rx[0], Duration::ZERO));
        let bytes = frame(1, 60);
        assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
        assert_eq!(port.port.stats().tx_total().dropped_for(DropReason::LinkDown), 1);
        ip("link set rw0 up");
        assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::LinkChanged));
        let mut other = open_port_with_link("af-packet:rw1");
        assert_eq!(other.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
        assert_eq!(receive_where(&mut port.rx[0], 1, is_experimental), [bytes]);
    });
}

#[test]
fn a_port_takes_its_interface_up_whenever_there_is_one() {
    in_namespace(|| check_interface_that_comes_and_goes("af-packet:rw0"));
}

#[test]
fn the_right_to_raw_sockets_is_enough() {
    in_namespace(|| {
        veth_pair(1500);
        let mut other = open_port("af-packet:rw1");
        let mut sets = capabilities(None).unwrap();
        sets.effective = CapabilitySet::NET_RAW;
        // Of this thread only.
        set_capabilities(None, sets).unwrap();
        let mut port = open_port("af-packet:rw0");
        send_and_compare(&mut port, &mut other, &[60, 1514]);
        let error = port.port.control_mut().set_mtu(1400).unwrap_err().to_string();
        assert!(error.contains("run with CAP_NET_ADMIN"), "{error}");
        drop(port);
        sets.effective = CapabilitySet::empty();
        set_capabilities(None, sets).unwrap();
        // An interface that is not there as yet makes no difference to that.
        for device in ["af-packet:rw0", "af-packet:rw2"] {
            let error = refusal(device);
            assert!(error.contains("run as root, or with CAP_NET_RAW"), "{error}");
        }
    });
}

#[test]
fn names_and_numbers_are_checked_before_anything_is_opened() {
    for (device, part) in [
        ("af-packet:", "expected the name of an interface"),
        ("af-packet:sixteen-letters-", "at most 15 bytes, not 16"),
        ("af-packet:x,queues=0", "queues=0: expected a number from 1 to 64"),
        ("af-packet:x,queue_size=100", "queue_size=100: expected a power of two"),
        ("af-packet:x,mtu=67", "mtu=67: expected a number from 68 to 65513"),
        ("af-packet:x,color=red", "unknown option 'color'; af-packet takes queues"),
    ] {
        let error = refusal(device);
        assert!(error.contains(part), "{device}: {error}");
    }
}
