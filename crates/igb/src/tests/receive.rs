//! Receiving: buffers, frames of several, hostile descriptors, queues, interrupts.

use arrayvec::ArrayVec;
use ethdev::DropReason;
use packet::{MacAddr, Packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::descriptors::Received;
use crate::registers::{ICR, IMS, RxRegisters};

fn is_readable(queue: &RxQueue, seconds: i64) -> bool {
    let fd = queue.wait_fd().unwrap();
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() > 0
}

#[test]
fn frames_are_borrowed_from_buffers_that_go_round_the_ring() {
    let (device, mut port) = opened(",queue_size=128");
    for round in 0..100_u16 {
        let frames: Vec<_> = (0..7).map(|n| datagram(round, n, 60 + usize::from(n))).collect();
        frames.iter().for_each(|frame| device.inject(frame));
        assert_eq!(received(&mut port.rx[0]), frames, "round {round}");
        assert_eq!(received(&mut port.rx[0]).len(), 0);
    }
    let stats = port.port.stats().rx_total();
    assert_eq!((stats.packets, stats.dropped()), (700, 0));
    let state = device.lock();
    assert_eq!(state.faults, 0);
    // Once at the start (two writes), then for 16 descriptors or more at a time.
    assert!(state.announcements <= 2 + 700 / 16, "{}", state.announcements);
}

#[test]
fn a_burst_has_as_many_frames_as_were_asked_for() {
    let (device, mut port) = opened("");
    (0..40).for_each(|n| device.inject(&datagram(n, 1, 64)));
    assert_eq!(port.rx[0].rx_burst(3).frames().len(), 3);
    assert_eq!(port.rx[0].rx_burst(BURST).frames().len(), 32);
    assert_eq!(port.rx[0].rx_burst(BURST).frames().len(), 5);
    assert_eq!(port.rx[0].rx_burst(0).frames().len(), 0);
}

#[test]
fn heads_can_be_rewritten_in_place() {
    let (device, mut port) = opened("");
    device.inject(&datagram(1, 2, 100));
    let mut burst = port.rx[0].rx_burst(BURST);
    burst.head_mut(0).unwrap()[0] = 0x77;
    assert_eq!(burst.frames()[0].head()[0], 0x77);
    assert!(burst.head_mut(1).is_none());
}

#[test]
fn long_frames_span_buffers() {
    let (device, mut port) = opened(",mtu=9000,queue_size=128");
    for len in [2048, 2049, 4096, 9022, 9014, 60] {
        let frame = datagram(1, 2, len);
        device.inject(&frame);
        assert_eq!(received(&mut port.rx[0]), [frame], "{len}");
    }
    // In one burst with short ones, until the ring has been round.
    for round in 0..20 {
        let frames: Vec<_> = [60, 9000, 61, 3000].map(|len| datagram(round, 2, len)).into();
        frames.iter().for_each(|frame| device.inject(frame));
        assert_eq!(received(&mut port.rx[0]), frames);
    }
    // One byte too many for the device.
    device.inject(&datagram(1, 2, 9023));
    assert_eq!(received(&mut port.rx[0]).len(), 0);
}

#[test]
fn a_frame_waits_for_its_last_buffer() {
    let (device, mut port) = opened(",mtu=9000");
    let part = Received::DONE | 2048 << 32;
    device.inject_descriptor(0, part);
    device.inject_descriptor(0, part);
    assert_eq!(received(&mut port.rx[0]).len(), 0);
    device.inject_descriptor(0, Received::DONE | Received::END | 100 << 32);
    let frames = received(&mut port.rx[0]);
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [2 * 2048 + 100]);
}

#[test]
fn packets_are_given_away_and_others_take_their_place() {
    let (device, mut port) = opened(",mtu=9000,queue_size=128");
    let pool = packet::Pool::new("elsewhere", 4, 2048).unwrap();
    let mut cache = pool.cache();
    let mut kept = Vec::new();
    for round in 0..30_u16 {
        let frames: Vec<_> = [64, 5000, 1514].map(|len| datagram(round, 9, len)).into();
        frames.iter().for_each(|frame| device.inject(frame));
        let mut packets = ArrayVec::<Packet, BURST>::new();
        let mut burst = port.rx[0].rx_burst(BURST);
        burst.head_mut(0).unwrap()[5] = 0x99;
        burst.into_packets(&mut packets, &mut cache);
        assert_eq!(packets.len(), 3);
        assert_eq!(packets[0].data()[5], 0x99);
        assert_eq!(packets[1].segment_count(), 3);
        assert_eq!(packets[1].as_frame().to_vec(), frames[1]);
        assert_eq!(packets[2].as_frame().to_vec(), frames[2]);
        assert!(packets[2].offload().is_data_valid());
        kept.extend(packets);
    }
    // The first round's packets are as they were.
    assert_eq!(kept[2].as_frame().to_vec(), datagram(0, 9, 1514));
    assert_eq!((device.lock().faults, pool.available()), (0, 4));
}

#[test]
fn without_packets_frames_are_dropped_and_the_ring_goes_on() {
    let (device, mut port) = opened(",queue_size=128");
    let mut cache = packet::Pool::new("elsewhere", 1, 2048).unwrap().cache();
    let mut kept = Vec::new();
    for _ in 0..100 {
        (0..32).for_each(|n| device.inject(&datagram(n, 1, 64)));
        let mut packets = ArrayVec::<Packet, BURST>::new();
        port.rx[0].rx_burst(BURST).into_packets(&mut packets, &mut cache);
        kept.extend(packets);
    }
    let stats = port.port.stats().rx_total();
    assert_eq!(stats.packets, 3200);
    assert_eq!(stats.dropped_for(DropReason::NoBuffer), 3200 - kept.len() as u64);
    assert!(kept.len() >= 64, "{}", kept.len());
    drop(kept);
    device.inject(&datagram(1, 1, 64));
    let mut packets = ArrayVec::<Packet, BURST>::new();
    port.rx[0].rx_burst(BURST).into_packets(&mut packets, &mut cache);
    assert_eq!(packets.len(), 1);
}

#[test]
fn what_a_hostile_device_writes_is_a_counted_drop() {
    let (device, mut port) = opened("");
    let whole = Received::DONE | Received::END;
    for (status, reason) in [
        (whole | 2049 << 32, DropReason::BadDescriptor),
        (whole | 0xFFFF << 32, DropReason::BadDescriptor),
        (whole | 13 << 32, DropReason::TooShort),
        (whole, DropReason::TooShort),
        (whole | Received::RECEIVE_ERROR | 64 << 32, DropReason::DeviceError),
    ] {
        let before = port.port.stats().rx_total();
        device.inject_descriptor(0, status);
        assert_eq!(received(&mut port.rx[0]).len(), 0);
        let stats = port.port.stats().rx_total().since(&before);
        assert_eq!((stats.dropped(), stats.dropped_for(reason)), (1, 1), "{status:x}");
    }
    device.inject_descriptor(0, Received::DONE | 4000 << 32);
    device.inject_descriptor(0, whole | 64 << 32);
    assert_eq!(received(&mut port.rx[0]).len(), 0);
    device.inject(&datagram(1, 2, 64));
    assert_eq!(received(&mut port.rx[0]), [datagram(1, 2, 64)]);
}

#[test]
fn a_frame_without_end_is_given_up_and_the_next_is_received() {
    let (device, mut port) = opened(",queue_size=128");
    for _ in 0..200 {
        device.inject_descriptor(0, Received::DONE | 2048 << 32);
        assert_eq!(received(&mut port.rx[0]).len(), 0);
    }
    device.inject_descriptor(0, Received::DONE | Received::END | 64 << 32);
    assert_eq!(received(&mut port.rx[0]).len(), 0, "the end of the long one");
    device.inject(&datagram(1, 2, 64));
    assert_eq!(received(&mut port.rx[0]), [datagram(1, 2, 64)]);
    let stats = port.port.stats().rx_total();
    assert_eq!((stats.dropped(), stats.dropped_for(DropReason::BadDescriptor)), (1, 1));
}

#[test]
fn descriptors_that_claim_to_be_done_before_they_are_end_nothing() {
    let (device, mut port) = opened(",queue_size=128");
    for _ in 0..10 {
        for index in 0..128 {
            let status = Received::DONE | Received::END | 60 << 32;
            device.overwrite_descriptor(0, index, status);
        }
        let frames = received(&mut port.rx[0]).len();
        assert!(frames <= 32, "{frames}");
    }
}

#[test]
fn checksums_are_vouched_for_or_counted() {
    let (device, mut port) = opened("");
    [9, 10, 11].iter().for_each(|to| device.inject(&datagram(1, *to, 64)));
    let burst = port.rx[0].rx_burst(BURST);
    let valid: Vec<bool> =
        burst.frames().iter().map(|frame| frame.offload().is_data_valid()).collect();
    assert_eq!(valid, [true, false, false]);
    drop(burst);
    let stats = port.port.extended_stats();
    assert!(stats.contains(&("rx_q0_bad_checksums".to_owned(), 1)));
}

#[test]
fn flows_go_to_the_queue_that_was_predicted() {
    let (device, mut port) = opened(",queues=4");
    let spread = Spread::new(rss::DEFAULT_KEY, &[0, 1, 2, 3]);
    let mut expected = vec![Vec::new(); 4];
    for from in 1000..1060 {
        let frame = datagram(from, 2000, 64);
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        expected[usize::from(spread.queue_of(a, b, Some((from, 2000))))].push(frame.clone());
        device.inject(&frame);
    }
    for (queue, frames) in port.rx.iter_mut().zip(&expected) {
        assert!(!frames.is_empty());
        assert_eq!(received(queue), *frames);
    }
}

#[test]
fn an_access_port_takes_its_tag_off_and_leaves_others_out() {
    let (device, mut port) = opened(",vlan=100");
    let plain = datagram(1, 2, 64);
    let tagged = |vlan: u8| {
        let mut frame = plain.clone();
        frame.splice(12..12, [0x81, 0, 0xE0, vlan]);
        frame
    };
    device.inject(&tagged(100));
    device.inject(&tagged(101));
    device.inject(&plain);
    device.inject(&tagged(100));
    assert_eq!(received(&mut port.rx[0]), [plain.clone(), plain.clone()]);
    let stats = port.port.stats().rx_total();
    // The device itself has left the other VLAN out.
    assert_eq!((stats.packets, stats.dropped_for(DropReason::Filtered)), (2, 1));
}

#[test]
fn only_wanted_stations_groups_and_vlans_are_received() {
    let options = ",promiscuous=off,multicast=01:00:5e:00:00:05,vlans=5+6";
    let (device, mut port) = opened(options);
    let to = |address: MacAddr, tag: &[u8]| {
        let mut frame = datagram(1, 2, 64);
        frame[..6].copy_from_slice(&address.0);
        frame.splice(12..12, tag.iter().copied());
        frame
    };
    let own = port.port.control().mac();
    let group = |last| MacAddr([1, 0, 0x5E, 0, 0, last]);
    let wanted =
        [to(own, &[]), to(MacAddr::BROADCAST, &[]), to(group(5), &[]), to(own, &[0x81, 0, 0, 5])];
    let others =
        [to(MacAddr([2, 0, 0, 0, 0, 9]), &[]), to(group(0x55), &[]), to(own, &[0x81, 0, 0, 7])];
    wanted.iter().chain(&others).for_each(|frame| device.inject(frame));
    assert_eq!(received(&mut port.rx[0]), wanted);
    let new = MacAddr([2, 0, 0, 0, 0, 9]);
    port.port.control_mut().set_mac(new).unwrap();
    assert!(port.port.control_mut().set_mac(group(1)).is_err());
    wanted.iter().chain(&others).for_each(|frame| device.inject(frame));
    assert_eq!(received(&mut port.rx[0]), [&wanted[1..3], &others[..1]].concat());
    port.port.control_mut().set_promiscuous(true).unwrap();
    others.iter().for_each(|frame| device.inject(frame));
    assert_eq!(received(&mut port.rx[0]), others[..2]);
}

#[test]
fn a_sleeping_worker_is_woken_by_a_vector_of_its_queue() {
    let (device, mut port) = opened(",queues=2");
    device.inject(&datagram(1, 2, 64));
    while !port.rx[0].arm() {
        port.rx[0].disarm();
        received(&mut port.rx[0]);
        received(&mut port.rx[1]);
    }
    assert!(port.rx[1].arm());
    assert!(!is_readable(&port.rx[0], 0) && !is_readable(&port.rx[1], 0));
    let spread = Spread::new(rss::DEFAULT_KEY, &[0, 1]);
    let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let from = (0..99).find(|from| spread.queue_of(a, b, Some((*from, 2))) == 1).unwrap();
    device.inject(&datagram(from, 2, 64));
    assert!(is_readable(&port.rx[1], 5) && !is_readable(&port.rx[0], 0));
    port.rx[1].disarm();
    assert!(!is_readable(&port.rx[1], 0));
    assert_eq!(received(&mut port.rx[1]).len(), 1);
    // While it polls, nothing is announced.
    device.inject(&datagram(from, 2, 64));
    assert!(!is_readable(&port.rx[1], 0));
    assert!(!port.rx[1].arm(), "a frame is there already");
}

#[test]
fn the_line_wakes_the_workers_of_all_queues() {
    let device = Device::new();
    let mut port = open_with(&device, ",queues=2", 0, true).unwrap();
    assert!(port.rx[0].arm() && port.rx[1].arm());
    device.inject(&datagram(1, 2, 64));
    assert!(is_readable(&port.rx[0], 5) && is_readable(&port.rx[1], 5));
    port.rx.iter_mut().for_each(RxQueue::disarm);
    let count: usize = port.rx.iter_mut().map(|queue| received(queue).len()).sum();
    assert_eq!(count, 1);
    assert_eq!(device.register(ICR), 0);
    // The cause is enabled again by the next worker that sleeps.
    assert_eq!(device.register(IMS) & 0x80, 0);
    assert!(port.rx[1].arm());
    assert_ne!(device.register(IMS) & 0x80, 0);
}

#[test]
fn queues_without_a_vector_can_only_be_polled() {
    let (_device, mut port) = opened(",queues=16");
    let waitable: Vec<bool> = port.rx.iter().map(|queue| queue.wait_fd().is_some()).collect();
    assert_eq!(waitable, [[true; 9].as_slice(), &[false; 7]].concat());
    assert!(!port.rx[15].arm());
    let none = Device::new();
    let port = open_with(&none, "", 0, false).unwrap();
    assert!(port.rx[0].wait_fd().is_none());
}

#[test]
fn a_full_ring_is_announced_before_the_worker_sleeps() {
    let (device, mut port) = opened("");
    device.inject(&datagram(1, 2, 64));
    received(&mut port.rx[0]);
    let tail = RxRegisters::of(0).rdt;
    assert_eq!(device.register(tail), 511);
    assert!(port.rx[0].arm());
    assert_eq!(device.register(tail), 0);
}
