//! Tests against the host kernel, each in a network namespace of its own, which goes away with
//! the test's thread. They need root; without it they are skipped with a note.

use std::time::Duration;

use ethdev::{DropReason, PortEvent};
use packet::{BURST, Frame};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;
use crate::testing::{
    PATIENCE, check_interface_that_comes_and_goes, detail, events_of, frame, host_socket,
    in_namespace, ip, is_experimental, is_readable_within, is_udp, open_port, receive_where,
    refusal, send_and_compare, veth_pair, veth_pair_of_queues, wait_for, wait_for_link,
};

const ORDINARY: [usize; 9] = [14, 60, 64, 65, 128, 999, 1400, 1514, 1518];

#[test]
fn frames_pass_both_ways_as_they_are() {
    in_namespace(|| {
        veth_pair(1500);
        for (mode, shown) in [("auto", "native, copy"), ("generic", "generic, copy")] {
            let mut one = open_port(&format!("af-xdp:rw0,mode={mode}"));
            let mut other = open_port("af-packet:rw1");
            assert_eq!(detail(&one, "mode"), shown);
            send_and_compare(&mut one, &mut other, &ORDINARY);
            send_and_compare(&mut other, &mut one, &ORDINARY);
        }
    });
}

#[test]
fn two_ports_face_each_other() {
    in_namespace(|| {
        veth_pair(1500);
        let mut one = open_port("af-xdp:rw0,queue_size=64");
        let mut other = open_port("af-xdp:rw1,queue_size=64");
        send_and_compare(&mut one, &mut other, &ORDINARY);
        send_and_compare(&mut other, &mut one, &ORDINARY);
    });
}

#[test]
fn large_frames_pass_in_several_pieces() {
    in_namespace(|| {
        veth_pair(9000);
        let mut one = open_port("af-xdp:rw0,queue_size=256");
        if detail(&one, "multi_buffer") == "off" {
            return println!("skipped: the kernel has no frames of several buffers");
        }
        let mut other = open_port("af-packet:rw1");
        let lengths = [60, 1514, 3840, 3841, 4096, 4097, 7680, 9014, 9018];
        send_and_compare(&mut one, &mut other, &lengths);
        send_and_compare(&mut other, &mut one, &lengths);
        let long = frame(0, 9019);
        assert_eq!(one.tx[0].tx_burst(&[Frame::from_bytes(&long)]), 1);
        assert_eq!(one.port.stats().tx_total().dropped_for(DropReason::TooLong), 1);
    });
}

#[test]
fn frames_of_every_queue_arrive() {
    in_namespace(|| {
        veth_pair_of_queues(1500, 2);
        let mut one = open_port("af-xdp:rw0");
        assert_eq!((one.rx.len(), one.tx.len()), (2, 2));
        let mut other = open_port("af-packet:rw1");
        let bytes = frame(1, 100);
        for queue in &mut one.tx {
            assert_eq!(queue.tx_burst(&[Frame::from_bytes(&bytes)]), 1);
            let received = receive_where(&mut other.rx[0], 1, is_experimental);
            assert_eq!(received, std::slice::from_ref(&bytes));
        }
        let error = refusal("af-xdp:rw1,queues=3");
        assert!(error.contains("'rw1': it has 2 queues, not 3; use queues=2"), "{error}");
        // What comes by the second queue stays with the kernel.
        drop(one);
        let one = open_port("af-xdp:rw0,queues=1");
        assert_eq!(one.rx.len(), 1);
    });
}

#[test]
fn checksums_that_the_peer_has_begun_are_found() {
    in_namespace(|| {
        veth_pair(1500);
        let host = host_socket("rw1");
        for (checksums, begun) in [("auto", true), ("begun", true), ("complete", false)] {
            let mut port = open_port(&format!("af-xdp:rw0,checksums={checksums}"));
            host.send_to(b"hello", "10.9.0.2:4001").unwrap();
            let needs = |frame: &Frame<'_>| {
                let begun_at = frame.offload().csum();
                is_udp(frame) && begun_at == begun.then_some((34, 6))
            };
            let bytes = receive_where(&mut port.rx[0], 1, needs).remove(0);
            assert_eq!(&bytes[42..], b"hello");
        }
    });
}

#[test]
fn a_sleeper_is_woken_by_the_first_frame() {
    in_namespace(|| {
        veth_pair(1500);
        let mut one = open_port("af-xdp:rw0");
        let mut other = open_port("af-packet:rw1");
        for queue in [&mut one.rx[0], &mut other.rx[0]] {
            assert!(queue.arm() && !is_readable_within(queue, Duration::ZERO));
        }
        let bytes = frame(7, 60);
        assert_eq!(other.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
        assert!(is_readable_within(&one.rx[0], PATIENCE));
        assert!(!one.rx[0].arm(), "a frame is waiting");
        one.rx[0].disarm();
        assert_eq!(one.rx[0].rx_burst(BURST).frames()[0].to_vec(), bytes);
        assert!(one.rx[0].arm() && !is_readable_within(&one.rx[0], Duration::ZERO));
    });
}

#[test]
fn with_busy_polling_frames_pass_too() {
    in_namespace(|| {
        veth_pair(1500);
        let mut one = open_port("af-xdp:rw0,busy_poll=on");
        let mut other = open_port("af-packet:rw1");
        send_and_compare(&mut one, &mut other, &ORDINARY);
        send_and_compare(&mut other, &mut one, &ORDINARY);
    });
}

#[test]
fn the_link_is_followed() {
    in_namespace(|| {
        veth_pair(1500);
        let mut port = open_port("af-xdp:rw0");
        let events = events_of(&port);
        wait_for_link(&port, &events, true);
        let before = port.port.control().link().changes;
        ip("link set rw1 down");
        assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::LinkChanged));
        let link = port.port.control().link();
        assert_eq!((link.up, link.changes), (false, before + 1));
        let bytes = frame(1, 60);
        assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
        assert_eq!(port.port.stats().tx_total().dropped_for(DropReason::LinkDown), 1);
        ip("link set rw1 up");
        assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::LinkChanged));
        wait_for_link(&port, &events, true);
        let mut other = open_port("af-packet:rw1");
        assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
        assert_eq!(receive_where(&mut other.rx[0], 1, is_experimental), [bytes]);
    });
}

#[test]
fn a_port_takes_its_interface_up_whenever_there_is_one() {
    in_namespace(|| check_interface_that_comes_and_goes("af-xdp:rw0"));
}

#[test]
fn the_interface_is_as_before_when_the_port_is_closed() {
    in_namespace(|| {
        veth_pair(1500);
        ip("link set rw0 down address 02:00:00:00:00:07");
        let strips = || Interfaces::new().unwrap().strips_tags("rw0").unwrap();
        assert!(strips());
        let before = ip("-d -o link show rw0");
        assert!(before.contains("promiscuity 0"), "{before}");
        let mut port = open_port("af-xdp:rw0,mtu=1400,mac=02:00:00:00:00:42");
        let shown = ip("-d -o link show rw0");
        for part in ["mtu 1400", "02:00:00:00:00:42", "promiscuity 1", "prog/xdp", "UP"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!strips(), "a tag that is taken out is lost");
        let control = port.port.control_mut();
        assert!(control.promiscuous());
        control.set_promiscuous(false).unwrap();
        control.set_mtu(1450).unwrap();
        assert_eq!((control.mtu(), control.promiscuous()), (1450, false));
        wait_for("nobody wants all", || ip("-d -o link show rw0").contains("promiscuity 0"));
        let names = control.extended_stats().into_iter().map(|(name, _)| name);
        assert!(names.into_iter().any(|name| name == "rx_q0_xdp_fill_ring_empty"));

        let OpenPort { port, mut rx, mut tx } = port;
        drop(port);
        assert_eq!(rx[0].rx_burst(BURST).frames().len(), 0);
        assert_eq!(tx[0].tx_burst(&[Frame::from_bytes(&[0; 60])]), 0);
        drop((rx, tx));
        for part in ["mtu 1500", "02:00:00:00:00:07", "promiscuity 0", "state DOWN"] {
            wait_for(part, || ip("-d -o link show rw0").contains(part));
        }
        wait_for("the program is gone", || !ip("-d -o link show rw0").contains("xdp"));
        assert!(strips());
    });
}

#[test]
fn an_interface_that_has_a_program_is_refused() {
    in_namespace(|| {
        veth_pair(1500);
        let first = open_port("af-xdp:rw0");
        for mode in ["auto", "copy", "generic"] {
            let error = refusal(&format!("af-xdp:rw0,mode={mode}"));
            assert!(error.contains("'rw0': it has an XDP program already"), "{error}");
            assert!(error.contains("ip link set dev rw0 xdp off"), "{error}");
        }
        drop(first);
        drop(open_port("af-xdp:rw0"));
        let error = refusal("af-xdp:rw0,mode=zero-copy");
        assert!(error.contains("cannot do zero-copy; use mode=copy"), "{error}");
        wait_for("no program is left over", || !ip("link show rw0").contains("xdp"));
    });
}

#[test]
fn what_is_missing_is_named() {
    in_namespace(|| {
        veth_pair(1500);
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::BPF);
        sets.effective.remove(CapabilitySet::SYS_ADMIN);
        // Of this thread only.
        set_capabilities(None, sets).unwrap();
        // An interface that is not there as yet makes no difference to that.
        for device in ["af-xdp:rw0", "af-xdp:rw2"] {
            let error = refusal(device);
            assert!(error.contains("no permission to load an XDP program"), "{error}");
            assert!(error.contains("CAP_BPF"), "{error}");
        }
    });
}

#[test]
fn names_and_numbers_are_checked_before_anything_is_opened() {
    for (device, part) in [
        ("af-xdp:", "expected the name of an interface"),
        ("af-xdp:a/b", "'a/b' cannot be the name of an interface"),
        ("af-xdp:x,queues=65", "queues=65: expected a number from 1 to 64"),
        ("af-xdp:x,mode=fast", "mode=fast: expected auto, zero-copy, copy or generic"),
        ("af-xdp:x,busy_poll=2", "busy_poll=2: expected on or off"),
        ("af-xdp:x,queue_size=100", "queue_size=100: expected a power of two"),
        ("af-xdp:x,queue_size=32", "queue_size=32: expected a number from 64 to 32768"),
        ("af-xdp:x,checksums=no", "checksums=no: expected auto, complete or begun"),
        ("af-xdp:x,color=red", "unknown option 'color'; af-xdp takes queues, mode"),
    ] {
        let error = refusal(device);
        assert!(error.contains(part), "{device}: {error}");
    }
}
