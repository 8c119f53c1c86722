//! Packets that are received and sent where they lie.

use super::*;

/// Receives frames of these lengths, as packets; all of them come in one burst.
fn receive(
    model: &Model,
    port: &mut OpenPort,
    frames: &[Vec<u8>],
    cache: &mut PoolCache,
) -> (Vec<*const u8>, ArrayVec<Packet, BURST>) {
    model.state().inject[0].extend(frames.iter().cloned());
    while model.step() {}
    let burst = port.rx[0].rx_burst(BURST);
    assert!(burst.gives_packets());
    let places = burst.frames().iter().map(|frame| frame.head().as_ptr()).collect();
    let mut packets = ArrayVec::new();
    burst.into_packets(&mut packets, cache);
    (places, packets)
}

#[test]
fn received_frames_leave_as_packets_and_are_sent_from_where_they_came() {
    for (options, legacy) in [
        ("", false),
        (",packed=on,queue_size=32", false),
        (",packed=on,in_order=on", false),
        (",mrg_rxbuf=off", false),
        ("", true),
    ] {
        let shape = Shape { legacy, piece: 2 << 20, size: 64, ..Shape::default() };
        let model = Model::new(&shape);
        let mut port = open(&model, &format!("{options},mtu=9000,ctrl_vq=off")).unwrap();
        let pool = Pool::new("unused", 64, 2048).unwrap();
        let mut cache = pool.cache();
        // More rounds than there are buffers and entries: a lost one would be missed.
        for round in 0..300 {
            let lens = [60, 1514, 14, 5000 * (round % 2) + 100, 64, 2046];
            let frames: Vec<_> = (round..).zip(lens).map(|(n, len)| frame(n, len)).collect();
            let (places, mut packets) = receive(&model, &mut port, &frames, &mut cache);
            assert_eq!(packets.len(), frames.len(), "{options}, round {round}");
            for ((packet, place), frame) in packets.iter().zip(places).zip(&frames) {
                assert_eq!(packet.data().as_ptr(), place, "it is a copy");
                assert!(packet.as_frame().to_vec() == *frame, "{options}, round {round}");
            }
            let ptr = packets[1].data().as_ptr();
            assert_eq!(port.tx[0].tx_packets(&mut packets, &mut cache), frames.len());
            // What is written there now is what is sent.
            // SAFETY: the packet is kept by the transmit ring, and the device does not run.
            unsafe { ptr.cast_mut().add(1000).write(0xA5) };
            while model.step() {}
            let mut expected = frames;
            expected[1][1000] = 0xA5;
            assert!(model.state().sent[0].drain(..).eq(expected), "{options}, round {round}");
        }
        let (rx, tx) = (port.port.rx_queue_stats()[0], port.port.tx_queue_stats()[0]);
        assert_eq!((rx.packets, rx.dropped(), tx.packets, tx.dropped()), (1800, 0, 1800, 0));
        drop((port, cache));
        assert_eq!((pool.available(), model.state().violations), (64, 0), "no copy was made");
    }
}

#[test]
fn what_a_device_says_of_a_frame_goes_along_with_the_packet() {
    let model = Model::new(&Shape::default());
    let mut port = open(&model, ",ctrl_vq=off").unwrap();
    let pool = Pool::new("unused", 64, 2048).unwrap();
    let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]].map(std::net::IpAddr::from);
    let builder = FrameBuilder::new(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let udp = builder.ip(addresses[0], addresses[1]).udp(1, 2).payload(&[7; 300]).build().unwrap();
    // NEEDS_CSUM, from byte 34 on, to byte 6 of what follows.
    model.state().header = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0];
    let (_, packets) = receive(&model, &mut port, std::slice::from_ref(&udp), &mut pool.cache());
    assert_eq!(packets[0].offload().csum(), Some((34, 6)));
    assert_eq!(packets[0].data(), udp);
    // The next use of its buffer, and others, have a header of their own.
    model.state().header = [0; 10];
    for _ in 0..300 {
        let (_, packets) =
            receive(&model, &mut port, std::slice::from_ref(&udp), &mut pool.cache());
        assert!(packets[0].offload().is_none());
    }
    // What does not hold is no frame, and its buffer is not lost.
    for _ in 0..300 {
        model.state().header = [1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 6, 0];
        let (_, packets) =
            receive(&model, &mut port, std::slice::from_ref(&udp), &mut pool.cache());
        assert!(packets.is_empty());
    }
    assert_eq!(port.port.rx_queue_stats()[0].drops[DropReason::BadHeader as usize], 300);
}

#[test]
fn a_ring_whose_packets_are_all_away_goes_on_with_those_it_has() {
    let model = Model::new(&Shape { size: 16, ..Shape::default() });
    let mut port = open(&model, ",ctrl_vq=off").unwrap();
    let pool = Pool::new("unused", 64, 2048).unwrap();
    let mut cache = pool.cache();
    let mut held: Vec<Packet> = Vec::new();
    let frames: Vec<_> = (0..8).map(|n| frame(n, 100)).collect();
    let dropped =
        |port: &OpenPort| port.port.rx_queue_stats()[0].drops[DropReason::NoBuffer as usize];
    while dropped(&port) == 0 {
        held.extend(receive(&model, &mut port, &frames, &mut cache).1);
        assert!(held.len() < 10_000);
    }
    let most = held.len();
    assert!(most > 32, "{most}");
    // Frames are still received, and some that are not kept are still seen.
    let before = dropped(&port);
    assert!(receive(&model, &mut port, &frames, &mut cache).1.is_empty());
    assert_eq!(dropped(&port), before + 8);
    model.state().inject[0].push_back(frames[3].clone());
    while model.step() {}
    assert_eq!(port.rx[0].rx_burst(BURST).frames()[0].to_vec(), frames[3]);
    for (number, packet) in held.drain(..).enumerate() {
        assert_eq!(packet.data(), frames[number % 8], "packet {number}");
    }
    for _ in 0..100 {
        let (_, packets) = receive(&model, &mut port, &frames, &mut cache);
        assert_eq!(packets.len(), 8);
        cache.free_burst(packets);
    }
}

#[test]
fn packets_outlive_the_session_and_frames_become_packets_after_it() {
    let model = Model::new(&Shape::default());
    let mut port = open(&model, ",ctrl_vq=off").unwrap();
    let pool = Pool::new("copies", 64, 2048).unwrap();
    let mut cache = pool.cache();
    let frames: Vec<_> = (0..4).map(|n| frame(n, 700)).collect();
    let (_, held) = receive(&model, &mut port, &frames, &mut cache);
    model.state().inject[0].extend(frames.clone());
    while model.step() {}
    let OpenPort { port, mut rx, tx } = port;
    let burst = rx[0].rx_burst(BURST);
    drop((port, tx));
    let mut late = ArrayVec::new();
    burst.into_packets(&mut late, &mut cache);
    for packets in [&held, &late] {
        assert!(packets.iter().map(Packet::data).eq(&frames));
    }
    assert!(cache.owns(&late[0]) && !cache.owns(&held[0]));
    drop((rx, held));
    assert_eq!(model.state().violations, 0);
}
