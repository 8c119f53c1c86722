//! The driver against a model of a device.

mod hostile;
mod packets;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use eal::pci::PciDevice as _;
use eal::time::Time;
use ethdev::{DropReason, Error, OpenPort, PortEvent};
use packet::builder::FrameBuilder;
use packet::{BURST, Frame, LINK_HEADERS, MacAddr, Packet, Pool, PoolCache};
use rustix::event::{PollFd, PollFlags, Timespec};
use testkit::{PATIENCE, wait_for};
use virtio::Features;

use super::model::{Model, ModelWindows, Shape};
use super::open_on;
use super::options::Options;

/// What happens next at a port whose clock goes on by seconds until then.
fn next_by(time: &Time, events: &mpsc::Receiver<PortEvent>) -> PortEvent {
    let deadline = Instant::now() + PATIENCE;
    loop {
        time.warp(Duration::from_secs(1));
        match events.recv_timeout(Duration::from_millis(1)) {
            Ok(event) => return event,
            Err(_) => assert!(Instant::now() < deadline, "nothing happens"),
        }
    }
}

fn open(model: &Model, options: &str) -> Result<OpenPort, Error> {
    open_by(model, options, &Time::system())
}

fn open_by(model: &Model, options: &str, time: &Time) -> Result<OpenPort, Error> {
    let text = format!("virtio-pci:01:00.0{options}");
    let options = Options::parse(text.parse().unwrap()).unwrap();
    let windows = Box::new(ModelWindows(model.clone()));
    open_on("p0", &text, options, Arc::new(model.clone()), windows, time)
}

fn refusal(model: &Model, options: &str) -> String {
    open(model, options).unwrap_err().to_string()
}

fn link_is_up(port: &OpenPort) -> bool {
    port.port.control().link().up
}

/// A frame that is different for each number, in length and contents.
fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..len).map(|at| (at ^ number ^ (at >> 8)).to_le_bytes()[0]).collect();
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    bytes[12..14].copy_from_slice(&[0x88, 0xB5]);
    bytes
}

/// Sends frames of the given lengths both ways over queue pair `pair`.
fn transfer(model: &Model, port: &mut OpenPort, pair: usize, lens: &[usize]) {
    let frames: Vec<Vec<u8>> =
        lens.iter().enumerate().map(|(number, len)| frame(number, *len)).collect();
    let (mut sent, mut collected, mut received) = (0, 0, 0);
    model.state().inject[pair].extend(frames.iter().cloned());
    let deadline = Instant::now() + PATIENCE;
    while collected < frames.len() || received < frames.len() {
        let burst: Vec<Frame<'_>> =
            frames[sent..].iter().take(BURST).map(|bytes| Frame::from_bytes(bytes)).collect();
        sent += port.tx[pair].tx_burst(&burst);
        for frame in port.rx[pair].rx_burst(BURST).frames() {
            assert_eq!(frame.to_vec(), frames[received], "received frame {received}");
            received += 1;
        }
        for bytes in model.state().sent[pair].drain(..) {
            assert!(bytes == frames[collected], "sent frame {collected}");
            collected += 1;
        }
        let (all, now) = (frames.len(), Instant::now());
        assert!(now < deadline, "{collected} sent and {received} received of {all}");
    }
    assert_eq!(port.port.rx_queue_stats()[pair].dropped(), 0);
    assert_eq!(port.port.tx_queue_stats()[pair].dropped(), 0);
}

#[test]
fn frames_pass_unchanged_with_every_set_of_features() {
    let small: Vec<usize> = (0..700).map(|number| 14 + number * 31 % 1500).collect();
    let large: Vec<usize> = (0..200).map(|number| 14 + number * 977 % 9000).collect();
    for options in [
        "",
        ",queues=2",
        ",event_idx=on",
        ",indirect=off,queue_size=64",
        ",mrg_rxbuf=off",
        ",packed=on",
        ",packed=on,queues=2,queue_size=100",
        ",packed=on,in_order=on,event_idx=on",
        ",packed=on,mrg_rxbuf=off,indirect=off",
    ] {
        let model = Model::new(&Shape::default());
        let _running = model.run();
        let mut port = open(&model, options).unwrap();
        assert!(link_is_up(&port), "{options}");
        for pair in 0..port.rx.len() {
            transfer(&model, &mut port, pair, &small);
            transfer(&model, &mut port, pair, &large);
        }
        drop(port);
        let state = model.state();
        assert_eq!((state.violations, state.status), (0, 0), "{options}");
    }
}

#[test]
fn a_legacy_device_works_with_its_own_ring_sizes() {
    for (msix, size) in [(0, 256), (8, 1024)] {
        let model =
            Model::new(&Shape { legacy: true, msix, size, piece: 2 << 20, ..Shape::default() });
        let _running = model.run();
        let mut port = open(&model, ",queues=2,mtu=9000,queue_size=64").unwrap();
        let lens: Vec<usize> = (0..700).map(|number| 14 + number * 977 % 9000).collect();
        transfer(&model, &mut port, 0, &lens);
        transfer(&model, &mut port, 1, &lens);
        assert!(port.port.control().details().contains(&("device".into(), "legacy".into())));
        port.port.control_mut().set_mac(MacAddr([2, 0, 0, 0, 0, 9])).unwrap();
        drop(port);
        assert_eq!(model.state().violations, 0);
    }
}

#[test]
fn memory_in_pieces_makes_do_with_fewer_buffers() {
    for options in ["", ",packed=on", ",mrg_rxbuf=off"] {
        let shape = Shape { piece: 2 << 20, size: 1024, ..Shape::default() };
        let model = Model::new(&shape);
        let _running = model.run();
        let mut port = open(&model, options).unwrap();
        let lens: Vec<usize> = (0..2500).map(|number| 14 + number * 977 % 9000).collect();
        transfer(&model, &mut port, 0, &lens);
    }
}

#[test]
fn devices_behind_no_iommu_are_not_given_addresses_of_one() {
    let offered = Shape::default().offered - Features::ACCESS_PLATFORM;
    let model = Model::new(&Shape { offered, ..Shape::default() });
    assert!(refusal(&model, "").contains("ACCESS_PLATFORM"));
    let model = Model::new(&Shape { offered, piece: 2 << 20, ..Shape::default() });
    let _running = model.run();
    assert!(link_is_up(&open(&model, "").unwrap()));
}

#[test]
fn what_does_not_go_together_is_refused_with_a_reason() {
    let offered = Shape::default().offered;
    let refuse = |offered, size, options: &str| {
        refusal(&Model::new(&Shape { offered, size, ..Shape::default() }), options)
    };
    assert!(refuse(offered - Features::VERSION_1, 256, "").contains("VERSION_1"));
    assert!(refuse(offered - Features::RING_PACKED, 256, ",packed=on").contains("packed=off"));
    assert!(refuse(offered, 2, "").contains("2, expected") || refuse(offered, 2, "").contains("4"));
    assert!(refuse(offered, 0, "").contains("room for 0 entries"));
    assert!(refuse(offered, 256, ",mtu=9001").contains("its largest MTU is 9000"));
    let fixed = offered - Features::CTRL_MAC_ADDR;
    assert!(refuse(fixed, 256, ",mac=02:00:00:00:00:05").contains("no way to take address"));
    let legacy =
        Shape { legacy: true, offered: offered - Features::ANY_LAYOUT, ..Shape::default() };
    assert!(refusal(&Model::new(&legacy), "").contains("ANY_LAYOUT"));

    let model = Model::new(&Shape::default());
    model.state().refuses = true;
    assert!(refusal(&model, "").contains("refuses to work with these features"));
    let state = model.state();
    assert_ne!(state.status & 0x80, 0, "FAILED is set");
}

#[test]
fn the_device_hears_of_modes_addresses_vlans_and_queues() {
    let offered = Features::all() - Features::RSS;
    let model = Model::new(&Shape { offered, ..Shape::default() });
    let _running = model.run();
    let mut port = open(&model, ",queues=2,vlans=5+7,mac=02:00:00:00:00:05").unwrap();
    let commands = std::mem::take(&mut model.state().commands);
    let expected: [&[u8]; 6] = [
        &[4, 0, 2, 0],
        &[0, 0, 1],
        &[0, 1, 1],
        &[2, 0, 5, 0],
        &[2, 0, 7, 0],
        &[1, 1, 2, 0, 0, 0, 0, 5],
    ];
    assert_eq!(commands, expected);
    let control = port.port.control_mut();
    assert_eq!((control.mac(), control.mtu()), (MacAddr([2, 0, 0, 0, 0, 5]), 9000));
    assert_eq!((control.info().max_mtu, control.link().speed_mbps), (9000, Some(25_000)));
    control.set_promiscuous(false).unwrap();
    control.set_mac(MacAddr([2, 0, 0, 0, 0, 6])).unwrap();
    assert!(control.set_mac(MacAddr([1, 0, 0, 0, 0, 6])).is_err());
    assert!(control.set_mtu(9001).is_err());
    let commands = std::mem::take(&mut model.state().commands);
    assert_eq!(commands, [&[0, 0, 0][..], &[1, 1, 2, 0, 0, 0, 0, 6]]);
    model.state().ack = 1;
    let error = control.set_promiscuous(true).unwrap_err().to_string();
    assert!(error.contains("refuses"), "{error}");
    assert!(!control.promiscuous());
}

#[test]
fn flows_are_spread_where_the_device_can() {
    let model = Model::new(&Shape { offered: Features::all(), ..Shape::default() });
    let _running = model.run();
    let _port = open(&model, ",queues=2").unwrap();
    let command = model.state().commands[0].clone();
    assert_eq!(command.len(), 2 + 8 + 2 * 128 + 2 + 1 + 40);
    assert_eq!(command[..14], [4, 1, 0x3F, 0, 0, 0, 127, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(command[2 + 8 + 256..][..5], [2, 0, 40, 0x6D, 0x5A]);
}

#[test]
fn notifications_carry_the_position_where_that_is_negotiated() {
    for (with_data, packed) in [(false, ""), (true, ""), (true, ",packed=on")] {
        let mut offered = Shape::default().offered;
        offered.set(Features::NOTIFICATION_DATA, with_data);
        let model = Model::new(&Shape { offered, ..Shape::default() });
        // The device does not run, so that it asks for no silence.
        let mut port = open(&model, &format!("{packed},ctrl_vq=off")).unwrap();
        let bytes = frame(0, 60);
        assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&bytes); 3]), 3);
        let position = match (with_data, packed) {
            (false, _) => 0,
            (true, "") => 3 << 16,
            _ => 0x8003 << 16,
        };
        // A packed ring's device has not said that it wants to hear of anything yet.
        if packed.is_empty() {
            assert_eq!(model.notified(1), position | 1);
        }
    }
}

#[test]
fn the_link_follows_the_device() {
    for line in [false, true] {
        let model = Model::new(&Shape { line, msix: if line { 0 } else { 3 }, ..Shape::default() });
        let _running = model.run();
        let port = open(&model, "").unwrap();
        let (sender, events) = mpsc::channel();
        assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
        for round in 1..=3 {
            model.set_status_word(0);
            assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::LinkChanged));
            assert!(!link_is_up(&port) && !port.tx[0].is_ready());
            model.set_status_word(1);
            assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::LinkChanged));
            assert!(link_is_up(&port) && port.tx[0].is_ready());
            assert_eq!(port.port.control().link().changes, 1 + 2 * round);
        }
    }
}

#[test]
fn a_device_that_asks_for_it_gets_an_announcement() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let port = open(&model, "").unwrap();
    model.set_status_word(3);
    wait_for("the announcement is acknowledged", || model.state().commands.contains(&vec![3, 0]));
    wait_for("the announcement is sent", || !model.state().sent[0].is_empty());
    let frame = model.state().sent[0].pop_front().unwrap();
    assert_eq!(frame[..12], [255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0, 0, 1]);
    assert_eq!((frame.len(), &frame[12..14]), (60, &[0x80, 0x35][..]));
    assert!(link_is_up(&port));
}

#[test]
fn a_worker_sleeps_until_frames_come() {
    let wait = |fd: std::os::fd::BorrowedFd<'_>, timeout: Duration| {
        let timeout = Timespec::try_from(timeout).unwrap();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
    };
    for (line, options) in [(false, ""), (false, ",packed=on,event_idx=on"), (true, "")] {
        let model = Model::new(&Shape { line, msix: if line { 0 } else { 3 }, ..Shape::default() });
        let _running = model.run();
        let mut port = open(&model, options).unwrap();
        let rx = &mut port.rx[0];
        rx.disarm();
        for _ in 0..3 {
            assert!(rx.arm());
            assert!(!wait(rx.wait_fd().unwrap(), Duration::ZERO), "nothing came");
            model.state().inject[0].push_back(frame(0, 60));
            assert!(wait(rx.wait_fd().unwrap(), PATIENCE), "woken by a frame");
            wait_for("a frame waits", || model.state().inject[0].is_empty());
            assert!(!rx.arm(), "a frame waits");
            rx.disarm();
            assert_eq!(rx.rx_burst(BURST).frames().len(), 1);
        }
    }
}

#[test]
fn without_enough_vectors_workers_do_not_sleep() {
    for msix in [0, 1] {
        let model = Model::new(&Shape { msix, ..Shape::default() });
        let _running = model.run();
        let mut port = open(&model, "").unwrap();
        assert!(!port.rx[0].arm());
        transfer(&model, &mut port, 0, &[60, 1500]);
    }
}

#[test]
fn a_device_that_fails_is_reset_and_goes_on() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let time = Time::stopped();
    let mut port = open_by(&model, ",mac=02:00:00:00:00:05", &time).unwrap();
    transfer(&model, &mut port, 0, &[60; 300]);
    let (sender, events) = mpsc::channel();
    assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
    let resets = model.state().resets;
    let changes = port.port.control().link().changes;
    model.state().commands.clear();
    model.need_reset();
    // It tells of that itself, but is not started again before its pause is over.
    assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::LinkChanged));
    assert!(!link_is_up(&port));
    assert_eq!(next_by(&time, &events), PortEvent::LinkChanged);
    let link = port.port.control().link();
    assert_eq!((link.up, link.changes), (true, changes + 2));
    assert!(model.state().resets > resets);
    wait_for("it is told its address again", || {
        model.state().commands.contains(&vec![1, 1, 2, 0, 0, 0, 0, 5])
    });
    transfer(&model, &mut port, 0, &[60, 9000, 1500]);
    let stats = port.port.control().extended_stats();
    assert!(stats.contains(&("device_starts".to_owned(), 2)), "{stats:?}");
    assert_eq!(model.state().violations, 0);
}

#[test]
fn a_larger_mtu_makes_larger_buffers() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let mut port = open(&model, ",mrg_rxbuf=off,mtu=1500").unwrap();
    port.port.control_mut().set_mtu(9000).unwrap();
    wait_for("there is a new session", || {
        port.port.control().link()
            == ethdev::Link { up: true, speed_mbps: Some(25_000), changes: 3 }
    });
    transfer(&model, &mut port, 0, &[9014, 60, 9014]);
}

#[test]
fn a_device_that_is_gone_stays_gone() {
    for legacy in [false, true] {
        let model = Model::new(&Shape { legacy, piece: 2 << 20, ..Shape::default() });
        let _running = model.run();
        let time = Time::stopped();
        let mut port = open_by(&model, "", &time).unwrap();
        let (sender, events) = mpsc::channel();
        assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
        model.state().gone = true;
        assert_eq!(next_by(&time, &events), PortEvent::LinkChanged);
        assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::Removed));
        assert!(!link_is_up(&port));
        let bytes = frame(0, 60);
        assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
        assert_eq!(port.port.tx_queue_stats()[0].dropped(), 1);
        assert_eq!(port.rx[0].rx_burst(BURST).frames().len(), 0);
        assert!(port.port.control_mut().set_promiscuous(false).is_err());
        // It does not come back by itself, even if something else takes its place.
        model.state().gone = false;
        assert!(port.port.control_mut().set_promiscuous(false).is_err());
        drop(port);
        assert_eq!(events.try_iter().count(), 0);
    }
}

#[test]
fn a_device_that_the_kernel_wants_back_is_given_back_at_once() {
    let model = Model::new(&Shape::default());
    let mut port = open(&model, "").unwrap();
    let (sender, events) = mpsc::channel();
    assert!(port.port.on_event(move |event| sender.send(event).unwrap()));
    model.state().inject[0].push_back(frame(0, 60));
    while model.step() {}
    let OpenPort { port, rx, tx } = &mut port;
    // A worker has frames at that moment, and looks at them afterwards.
    let burst = rx[0].rx_burst(BURST);
    model.request.signal().unwrap();
    assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::LinkChanged));
    assert_eq!(events.recv_timeout(PATIENCE), Ok(PortEvent::Removed));
    assert!(model.state().given_back);
    assert_eq!(burst.frames()[0].to_vec(), frame(0, 60));
    drop(burst);
    assert!(!port.control().link().up && port.control_mut().set_promiscuous(false).is_err());
    assert_eq!(rx[0].rx_burst(BURST).frames().len(), 0);
    assert_eq!(tx[0].tx_burst(&[Frame::from_bytes(&frame(0, 60))]), 1);
    assert_eq!(port.tx_queue_stats()[0].drops[DropReason::LinkDown as usize], 1);
    assert_eq!((events.try_iter().count(), model.state().violations), (0, 0));
}

/// Packets of a pool, with frames of these lengths in them.
fn packets(cache: &mut PoolCache, lens: &[usize]) -> ArrayVec<Packet, BURST> {
    lens.iter()
        .enumerate()
        .map(|(number, len)| cache.copy_frame(&Frame::from_bytes(&frame(number, *len))).unwrap())
        .collect()
}

#[test]
fn packets_are_sent_from_where_they_lie() {
    for (options, legacy) in [("", false), (",packed=on,queue_size=32", false), ("", true)] {
        let shape = Shape { legacy, piece: 2 << 20, size: 64, ..Shape::default() };
        let model = Model::new(&shape);
        let mut port = open(&model, &format!("{options},mtu=9000,ctrl_vq=off")).unwrap();
        let space = model.dma().clone();
        let pool = Pool::for_devices("test", 2000, 2048, &space).unwrap();
        let plain = Pool::new("test", 64, 2048).unwrap();
        let (mut cache, mut plain_cache) = (pool.cache(), plain.cache());
        assert!(port.tx[0].keeps_packets());
        // More rounds than there are buffers and entries: a lost one would be missed.
        for round in 0..200 {
            // One over several buffers, and one that the device does not reach, are copied.
            let lens = [60, 1514, 5000, 64, 100];
            let mut burst = packets(&mut cache, &lens);
            burst.push(packets(&mut plain_cache, &[700]).remove(0));
            let ptr = burst[0].data().as_ptr();
            assert_eq!(port.tx[0].tx_packets(&mut burst, &mut cache), 6, "round {round}");
            assert!(burst.is_empty());
            // The frame is where the packet was: what is written there now is what is sent.
            // SAFETY: the packet is kept by the ring, and the device does not run.
            unsafe { ptr.cast_mut().add(20).write(0xA5) };
            while model.step() {}
            let sent = std::mem::take(&mut model.state().sent[0]);
            let expected = lens.iter().enumerate().map(|(number, len)| frame(number, *len));
            let mut expected: Vec<Vec<u8>> = expected.chain([frame(0, 700)]).collect();
            expected[0][20] = 0xA5;
            assert!(sent == expected, "round {round}");
        }
        let stats = port.port.tx_queue_stats()[0];
        assert_eq!((stats.packets, stats.dropped()), (1200, 0));
        assert_eq!(stats.bytes, 200 * (60 + 1514 + 5000 + 64 + 100 + 700));
        port.tx[0].flush();
        // All of them come back, some from the ring when the port is closed.
        let mut burst = packets(&mut cache, &[60; 8]);
        assert_eq!(port.tx[0].tx_packets(&mut burst, &mut cache), 8);
        drop(port);
        drop((cache, plain_cache));
        assert_eq!(pool.available(), pool.capacity());
        assert_eq!(model.state().violations, 0);
    }
}

#[test]
fn packets_without_room_stay_with_the_worker() {
    let model = Model::new(&Shape { size: 16, ..Shape::default() });
    let mut port = open(&model, ",ctrl_vq=off,mtu=1500").unwrap();
    let pool = Pool::for_devices("test", 100, 2048, model.dma()).unwrap();
    let mut cache = pool.cache();
    let mut burst = packets(&mut cache, &[14, 60, 1500 + LINK_HEADERS + 1]);
    assert!(burst[0].trim(1));
    burst.extend(packets(&mut cache, &[64; 20]));
    assert_eq!(port.tx[0].tx_packets(&mut burst, &mut cache), 18);
    assert_eq!(burst.len(), 5);
    assert!(burst.iter().all(|packet| packet.len() == 64));
    let stats = port.port.tx_queue_stats()[0];
    assert_eq!((stats.packets, stats.bytes), (16, 60 + 15 * 64));
    assert_eq!(stats.drops[DropReason::TooShort as usize], 1);
    assert_eq!(stats.drops[DropReason::TooLong as usize], 1);
    while model.step() {}
    assert_eq!(port.tx[0].tx_packets(&mut burst, &mut cache), 5);
    drop(port);
    drop((cache, burst));
    assert_eq!(pool.available(), 100);
}

#[test]
fn queues_outlive_their_port_and_frames_their_session() {
    let model = Model::new(&Shape::default());
    let _running = model.run();
    let OpenPort { port, mut rx, mut tx } = open(&model, "").unwrap();
    let bytes = frame(1, 700);
    model.state().inject[0].extend([bytes.clone(), bytes.clone()]);
    wait_for("the frames are there", || model.state().inject[0].is_empty());
    let held = rx[0].rx_burst(BURST);
    assert!(!held.frames().is_empty());
    drop(port);
    assert_eq!(model.state().status, 0);
    assert!(held.frames().iter().all(|frame| frame.to_vec() == bytes), "their memory is kept");
    drop(held);
    assert_eq!(rx[0].rx_burst(BURST).frames().len(), 0);
    assert_eq!(tx[0].tx_burst(&[Frame::from_bytes(&bytes)]), 1);
    drop((rx, tx));
    assert_eq!(model.state().violations, 0);
}
