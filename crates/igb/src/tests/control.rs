//! Start, link, statistics, and every way in which a port ends.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use ethdev::{DropReason, PortEvent};
use packet::{MacAddr, Packet};

use super::*;
use crate::model::MAC;
use crate::registers::{CTRL_EXT, MTA, RCTL, RLPML, RxRegisters, TCTL, VFTA, ctrl_ext, rctl, tctl};
use crate::watcher::PERIOD;

/// How long anything may take on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_device_is_started() {
    let open = || (Instant::now(), opened(",queues=3,mtu=9216"));
    // Nothing is waited for. Once in a few tries: what else the machine does may take as long.
    assert!((0..5).any(|_| open().0.elapsed() < Duration::from_secs(2)));
    let (device, port) = opened(",queues=3,mtu=9216");
    let control = port.port.control();
    assert_eq!((control.mac(), control.mtu(), control.promiscuous()), (MAC, 9216, true));
    let link = control.link();
    assert_eq!((link.up, link.speed_mbps, link.changes), (true, Some(1000), 0));
    assert_eq!((control.info().rx_queues, port.rx.len(), port.tx.len()), (3, 3, 3));
    assert!(port.tx[2].is_ready() && port.tx[0].keeps_packets());
    let wanted = rctl::EN | rctl::UPE | rctl::MPE | rctl::LPE | rctl::BAM | rctl::SECRC;
    assert_eq!(device.register(RCTL), wanted);
    assert_eq!(device.register(TCTL) & tctl::EN, tctl::EN);
    assert_eq!(device.register(CTRL_EXT), ctrl_ext::PFRSTD | ctrl_ext::DRV_LOAD);
    assert_eq!(device.register(RLPML), 9216 + 26);
    assert_eq!(device.lock().phy_restarts(), 1);
    assert!(device.lock().has_bus_master());
    assert!(control.details().contains(&("interrupts".into(), "MSI-X, 4 vectors".into())));
}

#[test]
fn opening_waits_for_the_link_but_not_for_ever() {
    let device = Device::new();
    // Questions, with pauses in between that are a small part of the time that there is.
    device.lock().negotiation_takes = 5;
    let port = open_on(&device, "").unwrap();
    let link = port.port.control().link();
    assert_eq!((link.up, link.changes), (true, 0));
    drop(port);
    device.lock().cable_out = true;
    let start = Instant::now();
    let port = open_on(&device, "").unwrap();
    assert!(start.elapsed() < LIMIT);
    let link = port.port.control().link();
    assert_eq!((link.up, link.speed_mbps, link.changes), (false, None, 0));
}

#[test]
fn the_address_comes_from_registers_the_nvm_or_the_user() {
    let device = Device::new();
    device.lock().without_address = true;
    assert_eq!(open_on(&device, "").unwrap().port.control().mac(), MAC);
    device.lock().erased_nvm = true;
    let error = open_on(&device, "").unwrap_err().to_string();
    assert!(error.contains("no MAC address") && error.contains("mac=MAC"), "{error}");
    let port = open_on(&device, ",mac=02:00:00:00:00:77").unwrap();
    assert_eq!(port.port.control().mac(), MacAddr([2, 0, 0, 0, 0, 0x77]));
}

#[test]
fn more_queues_than_there_are_are_refused() {
    let device = Device::new();
    let text = "igb:0000:01:00.0,queues=3";
    let options = Options::parse(text.parse().unwrap()).unwrap();
    let i211 = devices::find(0x8086, 0x1539).unwrap();
    let error =
        start("p0", text, options, device.pci(0, false), device.clone(), i211, &Time::system());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("queues=3: an Intel I211 has 2"), "{error}");
}

#[test]
fn the_tables_are_filled() {
    let (device, _port) = opened(",vlans=0+33,multicast=01:00:5e:00:00:05");
    assert_eq!((device.register(VFTA), device.register(VFTA.at(1))), (1, 2));
    // Hash of the last bytes 00 05: 0x050.
    assert_eq!(device.register(MTA.at(2)), 1 << 0x10);
}

#[test]
fn link_changes_are_announced_by_vector_line_and_polling() {
    for (vectors, line) in [(10, false), (0, true), (0, false)] {
        let (device, time) = (Device::new(), Time::stopped());
        let mut port = open_by(&time, &device, "", vectors, line).unwrap();
        let (sender, events) = mpsc::channel();
        assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
        // Where nothing interrupts, the clock has to go on for it to be noticed.
        let polled = vectors == 0 && !line;
        let next = || {
            let tries = if polled { 20_000 } else { 1 };
            let patience = if polled { Duration::from_millis(1) } else { LIMIT };
            (0..tries).find_map(|_| {
                time.warp(if polled { PERIOD } else { Duration::ZERO });
                events.recv_timeout(patience).ok()
            })
        };
        device.plug(false);
        assert_eq!(next(), Some(PortEvent::LinkChanged));
        let link = port.port.control().link();
        assert_eq!((link.up, link.changes), (false, 1));
        assert!(!port.tx[0].is_ready());
        assert_eq!(send(&mut port.tx[0], &[datagram(1, 2, 60)]), 1);
        assert_eq!(port.port.stats().tx_total().dropped_for(DropReason::LinkDown), 1);
        device.plug(true);
        assert_eq!(next(), Some(PortEvent::LinkChanged));
        assert_eq!(port.port.control().link().changes, 2);
        assert_eq!(send(&mut port.tx[0], &[datagram(1, 2, 60)]), 1);
        assert_eq!(device.lock().sent.len(), 1);
    }
}

#[test]
fn counters_add_up_what_reading_clears() {
    let (device, port) = opened("");
    let value = |name: &str| {
        let all = port.port.extended_stats();
        all.iter().find(|(other, _)| other == name).unwrap().1
    };
    device.count(0x4010, 5);
    device.count(0x4088, 7);
    device.count(0x408C, 1);
    assert_eq!(value("rx_missed_packets"), 5);
    assert_eq!(value("rx_wire_good_bytes"), 1 << 32 | 7);
    device.count(0x4010, 6);
    assert_eq!(value("rx_missed_packets"), 11);
    assert_eq!(value("rx_wire_good_bytes"), 1 << 32 | 7);
}

#[test]
fn an_mtu_is_within_bounds() {
    let (device, mut port) = opened("");
    let control = port.port.control_mut();
    assert!(control.set_mtu(67).is_err() && control.set_mtu(9217).is_err());
    control.set_mtu(2000).unwrap();
    assert_eq!((control.mtu(), device.register(RLPML)), (2000, 2026));
}

#[test]
fn a_device_that_goes_away_takes_its_port_down() {
    let (device, mut port) = opened(",queues=2");
    let (sender, events) = mpsc::channel();
    assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
    device.inject(&datagram(1, 2, 60));
    assert!(port.rx[1].arm());
    device.lock().gone = true;
    assert_eq!(events.recv_timeout(LIMIT), Ok(PortEvent::Removed));
    assert!(!port.port.control().link().up && !port.tx[0].is_ready());
    for queue in &mut port.rx {
        queue.disarm();
        assert_eq!(received(queue).len(), 0);
        assert!(queue.arm());
    }
    assert_eq!(send(&mut port.tx[0], &[datagram(1, 2, 60)]), 1);
    assert_eq!(port.port.stats().tx_total().dropped_for(DropReason::LinkDown), 1);
    assert!(port.port.control_mut().set_mac(MAC).is_err());
    assert!(port.port.control_mut().set_promiscuous(false).is_err());
    let _ = port.port.extended_stats();
    assert_eq!(events.try_iter().count(), 0, "it is announced once");
}

#[test]
fn a_device_that_the_kernel_wants_back_is_given_back_at_once() {
    let (device, mut port) = opened("");
    let (sender, events) = mpsc::channel();
    assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
    device.inject(&datagram(1, 2, 60));
    device.lock().request.as_ref().unwrap().signal().unwrap();
    assert_eq!(events.recv_timeout(LIMIT), Ok(PortEvent::Removed));
    let state = device.lock();
    assert!(state.given_back);
    assert_eq!((state.mapped_bytes(), state.violations), (0, 0));
    drop(state);
    assert!(!port.port.control().link().up && !port.tx[0].is_ready());
    assert_eq!(received(&mut port.rx[0]).len(), 0);
    assert_eq!(send(&mut port.tx[0], &[datagram(1, 2, 60)]), 1);
    drop(port);
    assert_eq!(events.try_iter().count(), 0);
}

#[test]
fn a_device_that_is_not_there_cannot_be_opened() {
    let device = Device::new();
    device.lock().gone = true;
    let error = open_on(&device, "").unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
    assert_eq!(device.left_behind(), (0, 0));
}

#[test]
fn a_closed_port_leaves_the_device_without_memory_and_can_be_opened_again() {
    let device = Device::new();
    for round in 0..3 {
        let mut open = open_on(&device, ",queues=2").unwrap();
        let frame = datagram(round, 2, 60);
        device.lock().stalled = true;
        assert_eq!(send(&mut open.tx[0], std::slice::from_ref(&frame)), 1);
        device.resume();
        device.inject(&frame);
        assert_eq!(open.rx.iter_mut().flat_map(received).collect::<Vec<_>>(), [frame]);
        drop(open);
        let state = device.lock();
        assert_eq!((state.violations, state.mapped_bytes(), state.faults), (0, 0, 0));
        assert!(!state.has_bus_master());
        assert_eq!(state.sent.len(), usize::from(round) + 1);
    }
}

#[test]
fn queues_that_outlive_their_port_carry_nothing() {
    let device = Device::new();
    let OpenPort { port, mut rx, mut tx } = open_on(&device, "").unwrap();
    (0..3).for_each(|n| device.inject(&datagram(n, 2, 60)));
    assert_eq!(rx[0].rx_burst(1).frames().len(), 1);
    drop(port);
    assert_eq!(device.left_behind(), (0, 0));
    assert_eq!(received(&mut rx[0]).len(), 0);
    assert_eq!(send(&mut tx[0], &[datagram(1, 2, 60)]), 1);
    assert_eq!(tx[0].stats().snapshot().dropped_for(DropReason::LinkDown), 1);
    assert!(rx[0].arm());
    // The next port has nothing to do with the old queues.
    let mut next = open_on(&device, "").unwrap();
    device.inject(&datagram(1, 2, 60));
    assert_eq!(received(&mut rx[0]).len(), 0);
    assert_eq!(received(&mut next.rx[0]).len(), 1);
    drop((rx, tx));
    device.inject(&datagram(1, 2, 60));
    assert_eq!(received(&mut next.rx[0]).len(), 1);
}

#[test]
fn queues_that_go_first_leave_the_device_its_memory() {
    let device = Device::new();
    let OpenPort { port, rx, tx } = open_on(&device, "").unwrap();
    drop((rx, tx));
    let frame = datagram(1, 2, 60);
    device.inject(&frame);
    assert_eq!(device.lock().faults, 0);
    assert_eq!(device.lock().violations, 0);
    drop(port);
    assert_eq!(device.left_behind(), (0, 0));
}

#[test]
fn a_port_waits_with_its_end_for_the_burst_of_a_worker() {
    let device = Device::new();
    let OpenPort { port, mut rx, .. } = open_on(&device, "").unwrap();
    let frame = datagram(1, 2, 60);
    device.inject(&frame);
    let (begun, told) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let burst = rx[0].rx_burst(BURST);
            begun.send(()).unwrap();
            wait.recv().unwrap();
            // The memory is there, whatever the control side is about.
            assert_eq!(burst.frames()[0].to_vec(), frame);
        });
        told.recv().unwrap();
        let closing = scope.spawn(move || drop(port));
        assert!(!closing.is_finished());
        assert_ne!(device.lock().mapped_bytes(), 0);
        go_on.send(()).unwrap();
    });
    assert_eq!(device.left_behind(), (0, 0));
}

#[test]
fn packets_outlive_their_port() {
    let device = Device::new();
    let mut open = open_on(&device, "").unwrap();
    let frame = datagram(1, 2, 60);
    device.inject(&frame);
    let mut cache = packet::Pool::new("elsewhere", 1, 64).unwrap().cache();
    let mut packets = ArrayVec::<Packet, BURST>::new();
    open.rx[0].rx_burst(BURST).into_packets(&mut packets, &mut cache);
    drop(open);
    assert_eq!(packets[0].data(), frame);
    assert_ne!(device.lock().mapped_bytes(), 0);
    drop(packets);
    assert_eq!(device.left_behind(), (0, 0));
}

#[test]
fn memory_of_a_queue_that_does_not_stop_is_given_up() {
    let device = Device::new();
    let hardware = Arc::new(Hardware::new(device.clone(), devices::find(0x8086, 0x10C9).unwrap()));
    let pci = device.pci(0, false);
    pci.set_bus_master(true).unwrap();
    let mut rings = RingMemory::allocate("test", 2, 128, pci.dma()).unwrap();
    let config = RxConfig { access_vlan: None, drop_when_empty: false };
    let ring = rings.ring().unwrap();
    let rx = RxRing::start(&hardware, "test-rx", 0, ring, config, pci.dma()).unwrap();
    rx.offer();
    drop(rings);
    device.lock().stuck = true;
    drop(rx);
    assert_ne!(device.lock().mapped_bytes(), 0);
    assert_eq!(device.lock().violations, 0);
    assert_ne!(device.register(RxRegisters::of(0).rxdctl), 0);
}
