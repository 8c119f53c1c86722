//! Tests against the host kernel, each in a network namespace of its own, which goes away with
//! the test's thread. They need root; without it they are skipped with a note.

mod offload;

use std::thread;
use std::time::Duration;

use ethdev::{DropReason, PortEvent, RxQueue};
use packet::{BURST, Capabilities, Frame, MacAddr, Segment};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;
use crate::testing::{
    Elsewhere, PATIENCE, PEER, check_quiet, detail, events_of, host_socket, in_namespace, ip,
    is_readable_within, namespace, open, open_port, refusal, wait_for, wait_for_link,
};

/// A UDP datagram from 10.9.0.2 to the host's socket (RFC 791, RFC 768).
fn datagram(to: MacAddr, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).unwrap();
    let ip_len = (20 + udp_len).to_be_bytes();
    let mut ip = vec![0x45, 0, ip_len[0], ip_len[1], 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend([10, 9, 0, 2, 10, 9, 0, 1]);
    let mut sum: u32 =
        ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !u16::try_from(sum).unwrap();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = [&to.0[..], &PEER.0[..], &[0x08, 0x00], &ip].concat();
    frame.extend(4001_u16.to_be_bytes());
    frame.extend(4000_u16.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    // No checksum.
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// Receives, sleeping while there is nothing, until `count` UDP payloads have come. Whatever
/// else the host sends, such as IPv6 router solicitations, is left out.
fn receive_payloads(queue: &mut RxQueue, count: usize) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let burst = queue.rx_burst(BURST);
        let frames: Vec<Vec<u8>> = burst.frames().iter().map(Frame::to_vec).collect();
        drop(burst);
        let is_udp = |frame: &&Vec<u8>| frame[12..14] == [0x08, 0x00] && frame[23] == 17;
        payloads.extend(frames.iter().filter(is_udp).map(|frame| frame[42..].to_vec()));
        if frames.is_empty() && queue.arm() {
            assert!(is_readable_within(queue, PATIENCE), "only {} of {count} came", payloads.len());
            queue.disarm();
        }
    }
    payloads
}

#[test]
fn what_the_host_sends_is_received() {
    in_namespace(|| {
        let mut tap = open_port("tap:rw0,mtu=9000");
        let host = host_socket("rw0");
        let payloads: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; 20 + usize::from(n)]).collect();
        for payload in &payloads {
            host.send_to(payload, "10.9.0.2:4001").unwrap();
        }
        host.send_to(&[0xAA; 8900], "10.9.0.2:4001").unwrap();
        let received = receive_payloads(&mut tap.rx[0], 101);
        assert_eq!(received[..100], payloads);
        assert_eq!(received[100], [0xAA; 8900], "a large frame comes in one piece");
        let stats = tap.port.stats().rx_total();
        assert!(stats.packets >= 101);
        assert_eq!((stats.sizes[7], stats.dropped()), (1, 0));
    });
}

#[test]
fn what_is_sent_arrives_at_the_host() {
    in_namespace(|| {
        let mut tap = open_port("tap:rw0,mtu=65521");
        let host = host_socket("rw0");
        let mac = tap.port.control().mac();
        let mut buffer = vec![0; 65_536];
        for len in [0, 1, 100, 1472, 8000, 60_000] {
            let payload = vec![u8::try_from(len % 251).unwrap(); len];
            let bytes = datagram(mac, &payload);
            // In one piece, in few, and in more than one system call takes.
            for pieces in [1, 3, 40] {
                let (head, body) =
                    bytes.split_at(bytes.len().min(if pieces == 1 { 65_535 } else { 42 }));
                let body = body.chunks(body.len().div_ceil(pieces).max(1));
                let body: Vec<Segment<'_>> = body.map(Segment::from_bytes).collect();
                let frame = Frame::from_parts(head, &body).unwrap();
                assert_eq!(tap.tx[0].tx_burst(&[frame]), 1);
                // At once: the socket has no room for many large ones.
                let (len, from) = host.recv_from(&mut buffer).unwrap();
                assert_eq!(from, "10.9.0.2:4001".parse().unwrap());
                assert_eq!(buffer[..len], payload);
            }
        }
        let stats = tap.port.stats().tx_total();
        assert_eq!((stats.packets, stats.dropped()), (18, 0));
    });
}

#[test]
fn frames_that_the_kernel_refuses_are_dropped_with_a_reason() {
    in_namespace(|| {
        let mut tap = open_port("tap:rw0");
        let mac = tap.port.control().mac();
        let good = datagram(mac, b"hello");
        let (short, good) = (Frame::from_bytes(&[1; 13]), Frame::from_bytes(&good));
        assert_eq!(tap.tx[0].tx_burst(&[short, good, short]), 3);
        assert!(tap.port.control().link().up);
        ip("link set rw0 down");
        assert_eq!(tap.tx[0].tx_burst(&[good]), 1);
        let seen = |up, changes| {
            move |tap: &OpenPort| {
                let link = tap.port.control().link();
                (link.up, link.changes) == (up, changes)
            }
        };
        wait_until(&tap, "the link goes down", seen(false, 1));
        ip("link set rw0 up");
        assert_eq!(tap.tx[0].tx_burst(&[good]), 1);
        wait_until(&tap, "the link goes up", seen(true, 2));
        let stats = tap.port.stats().tx_total();
        assert_eq!(stats.packets, 2);
        assert_eq!(stats.dropped_for(DropReason::TooShort), 2);
        assert_eq!(stats.dropped_for(DropReason::LinkDown), 1);
    });
}

#[test]
fn the_interface_is_set_up_as_asked() {
    in_namespace(|| {
        let mut tap = open_port("tap:rw0,mtu=1400,mac=02:00:00:00:00:42,queues=3,up=off");
        let control = tap.port.control();
        assert_eq!((control.mtu(), control.mac().to_string()), (1400, "02:00:00:00:00:42".into()));
        assert_eq!((control.info().rx_queues, tap.rx.len(), tap.tx.len()), (3, 3, 3));
        assert!(!control.link().up);
        ip("link set rw0 up");
        wait_until(&tap, "the link goes up", |tap| tap.port.control().link().up);

        let control = tap.port.control_mut();
        control.set_mtu(9000).unwrap();
        control.set_mac("02:00:00:00:00:43".parse().unwrap()).unwrap();
        let shown = ip("-o link show rw0");
        assert!(shown.contains("mtu 9000") && shown.contains("02:00:00:00:00:43"), "{shown}");
        let error = control.set_mtu(u16::MAX).unwrap_err().to_string();
        assert!(error.contains("'rw0': the MTU is at most 65521, not 65535"), "{error}");
        assert!(control.set_mac(MacAddr::BROADCAST).is_err());

        ip("link set rw0 down");
        ip("link set rw0 name rw1");
        assert!(tap.port.control().details().contains(&("interface".into(), "rw1".into())));
        assert_eq!(tap.port.control().mtu(), 9000);
    });
}

#[test]
fn every_queue_sends_and_receives() {
    in_namespace(|| {
        let mut tap = open_port("tap:rw0,queues=2");
        let host = host_socket("rw0");
        let mac = tap.port.control().mac();
        for (index, queue) in tap.tx.iter_mut().enumerate() {
            let bytes = datagram(mac, &[u8::try_from(index).unwrap(); 10]);
            assert_eq!(queue.tx_burst(&[Frame::from_bytes(&bytes)]), 1);
            let mut buffer = [0; 100];
            assert_eq!(host.recv(&mut buffer).unwrap(), 10);
            assert_eq!(usize::from(buffer[0]), index);
        }
        // The kernel spreads flows over the queues: with many of them, both get some.
        for port in 5000..5200 {
            host.send_to(b"x", ("10.9.0.2", port)).unwrap();
        }
        let mut received = [0, 0];
        while received.iter().sum::<usize>() < 200 {
            for (count, queue) in received.iter_mut().zip(&mut tap.rx) {
                let burst = queue.rx_burst(BURST);
                let udp = |frame: &&Frame<'_>| frame.len() == 43;
                *count += burst.frames().iter().filter(udp).count();
            }
        }
        assert!(received.iter().all(|count| *count > 0), "{received:?}");
    });
}

/// Opens a port whose interface a program that is just starting may have open still.
fn open_again(device: &str) -> OpenPort {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match open(device) {
            Ok(port) => return port,
            Err(error) if std::time::Instant::now() < deadline => {
                assert!(error.to_string().contains("in use by another process"), "{error}");
                thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_name_that_is_taken_is_refused() {
    in_namespace(|| {
        let first = open_port("tap:rw0,queues=2");
        let error = refusal("tap:rw0");
        assert!(error.contains("'rw0': it is in use by another process"), "{error}");
        drop(first);
        drop(open_again("tap:rw0"));
        let error = refusal("tap:lo");
        assert!(error.contains("'lo': an interface of this name exists and is no TAP"), "{error}");
    });
}

#[test]
fn an_interface_made_beforehand_is_used_and_left_behind() {
    in_namespace(|| {
        ip("tuntap add dev one mode tap");
        ip("tuntap add dev many mode tap multi_queue");
        let error = refusal("tap:one,queues=2");
        assert!(error.contains("no TAP interface with several queues"), "{error}");
        for device in ["tap:one", "tap:many", "tap:many,queues=4"] {
            let open = open_again(device);
            let error = refusal(device);
            assert!(error.contains("in use by another process"), "{device}: {error}");
            drop(open);
        }
        assert!(ip("-o link").contains("one"));
    });
}

/// That a UDP datagram passes each way between the host and a port on `rw0`.
fn check_passing(tap: &mut OpenPort) {
    let host = host_socket("rw0");
    host.send_to(b"there", "10.9.0.2:4001").unwrap();
    assert_eq!(receive_payloads(&mut tap.rx[0], 1), [b"there"]);
    let bytes = datagram(tap.port.control().mac(), b"back");
    assert_eq!(tap.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
    let mut buffer = [0; 100];
    assert_eq!(host.recv(&mut buffer).unwrap(), 4);
}

/// Has a worker sleep on the first queue.
fn fall_asleep(tap: &mut OpenPort) {
    while !tap.rx[0].arm() {
        tap.rx[0].rx_burst(BURST);
    }
}

/// What a sleeping worker does about the interface's end, which another thread may have seen first.
fn notice_the_end(tap: &mut OpenPort) {
    if is_readable_within(&tap.rx[0], Duration::from_millis(10)) {
        for queue in &mut tap.rx {
            queue.disarm();
            queue.rx_burst(BURST);
        }
    }
}

#[test]
fn an_interface_of_the_ports_own_is_made_again_when_it_is_deleted() {
    in_namespace(|| {
        let mut tap = open_port("tap:rw0,queues=2,mtu=1400");
        let (events, mac) = (events_of(&tap), tap.port.control().mac());
        for _ in 0..2 {
            fall_asleep(&mut tap);
            ip("link delete rw0");
            notice_the_end(&mut tap);
            wait_for_link(&tap, &events, true);
            let control = tap.port.control();
            assert_eq!((control.mtu(), control.mac()), (1400, mac));
            check_passing(&mut tap);
        }
        let removed = events.try_iter().filter(|event| *event == PortEvent::Removed).count();
        assert!(removed <= 2, "each end is told once");
    });
}

#[test]
fn an_interface_that_was_made_beforehand_is_waited_for() {
    in_namespace(|| {
        ip("tuntap add dev rw0 mode tap");
        let mut tap = open_port("tap:rw0");
        let events = events_of(&tap);
        for _ in 0..2 {
            fall_asleep(&mut tap);
            ip("link delete rw0");
            notice_the_end(&mut tap);
            wait_for_link(&tap, &events, false);
            wait_until(&tap, "it waits", |tap| {
                detail(tap, "interface").starts_with("waiting for 'rw0': there is no such")
            });
            check_quiet(&mut tap.rx[0]);
            assert_eq!(tap.tx[0].tx_burst(&[Frame::from_bytes(&[0; 60])]), 0);
            assert!(!tap.tx[0].is_ready());
            assert!(!ip("-o link").contains("rw0"));
            ip("tuntap add dev rw0 mode tap");
            wait_for_link(&tap, &events, true);
            assert_eq!(detail(&tap, "interface"), "rw0");
            tap.rx[0].disarm();
            check_passing(&mut tap);
        }
    });
}

/// Waits until the port's control side says so; it looks once a second at what is elsewhere.
fn wait_until(tap: &OpenPort, what: &str, is_so: impl Fn(&OpenPort) -> bool) {
    wait_for(what, || is_so(tap));
}

/// A TAP interface in another network namespace, called `eth0` there, while there is another
/// `eth0` here.
fn moved_tap(device: &str) -> (OpenPort, Elsewhere) {
    let tap = open_port(device);
    ip("link add eth0 mtu 600 address 02:00:00:00:00:77 type veth peer name eth1");
    ip("link set eth0 up");
    ip("link set eth1 up");
    let elsewhere = Elsewhere::new();
    ip(&format!("link set rw0 netns {}", elsewhere.path()));
    elsewhere.ip("link set rw0 name eth0");
    (tap, elsewhere)
}

#[test]
fn an_interface_in_another_namespace_is_not_taken_for_one_of_its_name_here() {
    in_namespace(|| {
        let (mut tap, elsewhere) = moved_tap("tap:rw0,mtu=1400,mac=02:00:00:00:00:42");
        assert_eq!(detail(&tap, "interface"), "eth0");
        let number = std::fs::metadata(elsewhere.path()).unwrap();
        let number = std::os::unix::fs::MetadataExt::ino(&number);
        assert_eq!(detail(&tap, "namespace"), format!("net:[{number}]"));
        let control = tap.port.control();
        assert_eq!((control.mtu(), control.mac().to_string()), (1400, "02:00:00:00:00:42".into()));
        assert!(!control.link().up, "an interface that moves is switched off");
        elsewhere.ip("link set eth0 mtu 9000 up");
        wait_until(&tap, "the link goes up", |tap| tap.port.control().link().up);
        assert_eq!(tap.port.control().mtu(), 9000);
        let frame = datagram(tap.port.control().mac(), &[1; 4000]);
        assert_eq!(tap.tx[0].tx_burst(&[Frame::from_bytes(&frame)]), 1);
        assert!(elsewhere.ip("-s -o link show eth0").contains(&frame.len().to_string()));

        let error = tap.port.control_mut().set_mtu(1300).unwrap_err().to_string();
        assert!(error.contains("it is in another network namespace, as 'eth0'"), "{error}");
        assert!(tap.port.control_mut().set_mac(PEER).is_err());
        assert!(ip("-o link show eth0").contains("mtu 600"), "the one here is left alone");

        // It comes back under a name and a number that it did not have.
        elsewhere.ip("link set eth0 down");
        elsewhere.ip("link set eth0 name rw5");
        ip("link add rw6 index 4000 type veth peer name rw7");
        elsewhere.ip(&format!("link set rw5 netns {}", namespace()));
        ip("link set rw5 up");
        wait_until(&tap, "the link goes up", |tap| tap.port.control().link().up);
        assert_eq!(detail(&tap, "interface"), "rw5");
        tap.port.control_mut().set_mtu(1300).unwrap();
        assert!(ip("-o link show rw5").contains("mtu 1300"));
    });
}

#[test]
fn an_interface_whose_namespace_ends_is_made_again() {
    in_namespace(|| {
        let (mut tap, elsewhere) = moved_tap("tap:rw0");
        let events = events_of(&tap);
        elsewhere.ip("link set eth0 up");
        wait_until(&tap, "the link goes up", |tap| tap.port.control().link().up);
        fall_asleep(&mut tap);
        drop(elsewhere);
        notice_the_end(&mut tap);
        // The kernel ends a namespace when it has the time.
        wait_until(&tap, "it is made again", |tap| detail(tap, "interface") == "rw0");
        wait_for_link(&tap, &events, true);
        check_passing(&mut tap);
    });
}

#[test]
fn without_rights_the_descriptor_tells_of_an_interface_elsewhere() {
    in_namespace(|| {
        let (tap, elsewhere) = moved_tap("tap:rw0,mtu=1400,mac=02:00:00:00:00:42");
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        // Of this thread only.
        set_capabilities(None, sets).unwrap();
        assert_eq!(detail(&tap, "interface"), "eth0");
        assert_eq!(detail(&tap, "namespace"), "another one");
        let control = tap.port.control();
        assert_eq!((control.mtu(), control.mac().to_string()), (1400, "02:00:00:00:00:42".into()));
        assert!(!control.link().up);
        elsewhere.ip("link set eth0 up");
        wait_until(&tap, "the link goes up", |tap| tap.port.control().link().up);
    });
}

#[test]
fn a_closed_port_carries_nothing_and_its_interface_goes_with_the_queues() {
    in_namespace(|| {
        let OpenPort { port, mut rx, mut tx } = open_port("tap:rw0");
        let frame = datagram(port.control().mac(), b"x");
        drop(port);
        assert_eq!(tx[0].tx_burst(&[Frame::from_bytes(&frame)]), 0);
        assert_eq!(rx[0].rx_burst(BURST).frames().len(), 0);
        drop((rx, tx));
        wait_for("the interface goes", || !ip("-o link").contains("rw0"));
    });
}

#[test]
fn without_permission_the_way_out_is_named() {
    in_namespace(|| {
        ip("tuntap add dev mine mode tap user 12345");
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        // Of this thread only.
        set_capabilities(None, sets).unwrap();
        let error = refusal("tap:rw0");
        assert!(error.contains("'rw0': making it needs CAP_NET_ADMIN"), "{error}");
        assert!(error.contains("ip tuntap add dev rw0 mode tap multi_queue user USER"), "{error}");
        let error = refusal("tap:mine");
        assert!(error.contains("'mine': it belongs to another user"), "{error}");
    });
}

#[test]
fn names_and_numbers_are_checked_before_anything_is_opened() {
    for (device, part) in [
        ("tap:", "expected the name of an interface"),
        ("tap:sixteen-letters-", "at most 15 bytes, not 16"),
        ("tap:a/b", "'a/b' cannot be the name of an interface"),
        ("tap:tap%d", "cannot be the name"),
        ("tap:a b", "cannot be the name"),
        ("tap:x,queues=65", "queues=65: expected a number from 1 to 64"),
        ("tap:x,mtu=67", "mtu=67: expected a number from 68 to 65521"),
        ("tap:x,mac=1:2", "mac=1:2: expected an address such as"),
        ("tap:x,up=2", "up=2: expected on or off"),
        ("tap:x,color=red", "unknown option 'color'; tap takes queues, mtu, mac, up and offloads"),
    ] {
        let error = refusal(device);
        assert!(error.contains(part), "{device}: {error}");
    }
}
