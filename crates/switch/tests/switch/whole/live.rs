//! What changes under traffic: ports, queues and workers that come and go.

use super::*;

#[test]
fn nothing_is_lost_while_other_ports_come_and_go() {
    const FRAMES: u32 = 60_000;
    let switch = start(2);
    let peers = [add(&switch, "a", 2), add(&switch, "b", 2)];
    announce(&switch, &peers);
    std::thread::scope(|scope| {
        for (from, to) in [(0, 1), (1, 0)] {
            let (sender, receiver) = (&peers[from], &peers[to]);
            let (from, to) = (u16::try_from(from).unwrap(), u16::try_from(to).unwrap());
            scope.spawn(move || {
                for chunk in 0..FRAMES / 100 {
                    let frames = (0..100).map(|i| frame(mac(to), mac(from), chunk * 100 + i));
                    sender.send((chunk % 2) as usize, frames);
                    // Not faster than the switch, so that memory stays bounded.
                    wait_until("the switch catches up", || sender.pending() < 2_000);
                }
            });
            scope.spawn(move || {
                let mut seen = vec![false; FRAMES as usize];
                let mut count = 0;
                while count < FRAMES {
                    let numbered = |frame: &Vec<u8>| number(frame) != u32::MAX;
                    for frame in receiver.receive(1).into_iter().filter(numbered) {
                        let place = &mut seen[number(&frame) as usize];
                        assert!(!std::mem::replace(place, true), "a frame came twice");
                        count += 1;
                    }
                }
            });
        }
        // A third port comes, floods, is sent to, and goes, again and again.
        for _ in 0..40 {
            let guest = add(&switch, "guest", 2);
            guest.send(1, [frame(mac(900), mac(800), u32::MAX)]);
            wait_until("its frame is taken", || guest.pending() == 0);
            // Looking and flushing disturb nobody either.
            assert_eq!((switch.ports().len(), switch.workers().len()), (3, 2));
            assert!(switch.fdb_flush(Some("guest")).unwrap() <= 1 && switch.fdb().len() <= 3);
            let report = switch.remove_port("guest").unwrap();
            assert_eq!(report.stats.rx_total().packets, 1);
            assert!(guest.closed.load(SeqCst));
        }
    });
    for name in ["a", "b"] {
        let stats = switch.port(name).unwrap().stats;
        let (rx, tx) = (stats.rx_total(), stats.tx_total());
        assert_eq!((rx.dropped(), tx.dropped()), (0, 0), "{name}");
        assert_eq!(rx.packets, u64::from(FRAMES) + 1);
    }
    assert_eq!(switch.ports().len(), 2);
    assert_eq!(switch.fdb().len(), 2);
}

#[test]
fn many_workers_share_one_transmit_queue() {
    const FRAMES: u32 = 20_000;
    let switch = start(4);
    let peers: Vec<_> = ["a", "b", "c", "sink"].map(|name| add(&switch, name, 1)).into();
    let workers: Vec<_> = switch.ports().iter().map(|port| port.rx_workers[0]).collect();
    assert_eq!(workers, [0, 1, 2, 3]);
    announce(&switch, &peers);
    for (sender, peer) in (0..3).zip(&peers) {
        let frames = (0..FRAMES).map(|n| frame(mac(3), mac(sender), n));
        peer.send(0, frames);
    }
    let mut next = [0; 3];
    let mut count = 0;
    while count < 3 * FRAMES {
        for frame in peers[3].receive(1) {
            // Each sender's frames stay in order.
            let next = &mut next[usize::from(frame[11])];
            assert_eq!(number(&frame), *next);
            *next += 1;
            count += 1;
        }
    }
    let sent = || switch.port("sink").unwrap().stats.tx_total().packets;
    wait_until("all are counted", || sent() == u64::from(3 * FRAMES) + 3);
}

#[test]
fn transmit_queues_come_and_go_under_traffic() {
    let time = Time::stopped();
    let config = SwitchConfig { workers: 2, ..SwitchConfig::default() };
    let switch = Switch::start_with(&config, time.clone()).unwrap();
    let (sink, a, b) = (add(&switch, "sink", 4), add(&switch, "a", 1), add(&switch, "b", 1));
    let on = |worker| PortOptions { workers: vec![worker], ..PortOptions::default() };
    switch.set_port("a", &on(0)).unwrap();
    switch.set_port("b", &on(1)).unwrap();
    announce(&switch, &[Arc::clone(&sink), Arc::clone(&a), Arc::clone(&b)]);
    let (mut next, mut came) = (0, [Vec::new(), Vec::new()]);
    let mut send = |enabled| {
        sink.enabled.store(enabled, SeqCst);
        for (sender, peer) in [(1, &a), (2, &b)] {
            peer.send(0, (next..next + 40).map(|n| frame(mac(0), mac(sender), n)));
        }
        next += 40;
        // Workers get their own queues, or use them in turns again, while they send.
        time.warp(Duration::from_secs(1));
        let counted = || switch.workers().iter().map(|worker| worker.packets).sum::<u64>();
        wait_until("all is dealt with", || counted() == 3 + 2 * u64::from(next));
        for frame in sink.receive(0) {
            came[usize::from(frame[11]) - 1].push(number(&frame));
        }
    };
    // Each worker keeps one at least.
    [4, 4, 4, 3, 3, 4, 4, 4, 2, 2, 2, 3, 3, 3, 4, 2, 3, 4, 4, 4].into_iter().for_each(&mut send);
    // Worker 1 loses its own, and whatever it sends until it may use the other's.
    [1, 1, 1, 2, 2, 2, 1, 1, 4, 4, 4].into_iter().for_each(&mut send);
    let stats = switch.port("sink").unwrap().stats.tx_total();
    assert_eq!(stats.dropped(), stats.dropped_for(DropReason::LinkDown));
    let lossless: Vec<u32> = (0..20 * 40).collect();
    let everything: Vec<u32> = (0..next).collect();
    assert_eq!(came[0], everything);
    assert!(came[1].is_sorted() && came[1].starts_with(&lossless));
    assert_eq!(came[1].len() as u64 + stats.dropped(), u64::from(next));
    assert!(came[1].ends_with(&everything[everything.len() - 40..]), "it found others");
}

#[test]
fn a_port_changes_workers_and_retries_and_loses_nothing() {
    let switch = start(3);
    let (a, b) = (add(&switch, "a", 4), add(&switch, "b", 2));
    announce(&switch, &[Arc::clone(&a), Arc::clone(&b)]);
    let mut sent = 0;
    for round in 0..60 {
        let workers = if round % 7 == 6 { Vec::new() } else { vec![round % 3, (round / 3) % 3] };
        let frames = |queue: u32| (0..40).map(move |i| frame(mac(1), mac(0), queue * 1_000 + i));
        (0..4).for_each(|queue| a.send(queue as usize, frames(queue)));
        sent += 160;
        let tx_retries = u32::try_from(round % 4).unwrap();
        let options = PortOptions { workers: workers.clone(), tx_retries, ..Default::default() };
        switch.set_port("a", &options).unwrap();
        switch.set_port("b", &PortOptions { tx_retries, ..Default::default() }).unwrap();
        let report = switch.port("a").unwrap();
        if let [first, second] = workers[..] {
            assert_eq!(report.rx_workers, [first, second, first, second]);
        }
        wait_until("all is received", || a.pending() == 0);
    }
    wait_until("all has come", || b.arrived() == sent);
    // Each queue of a port is still where its number says.
    a.send(3, [frame(mac(1), mac(0), 7)]);
    wait_until("it has come", || b.arrived() == sent + 1);
    let counted = || switch.port("a").unwrap().stats.rx[3].packets;
    wait_until("it is counted", || counted() == 60 * 40 + 1);
}

#[test]
fn workers_come_and_go_under_traffic_and_nothing_is_lost() {
    let switch = start(1);
    let peers = [add(&switch, "a", 3), add(&switch, "b", 2)];
    let quiet = add(&switch, "quiet", 2);
    announce(&switch, &[Arc::clone(&peers[0]), Arc::clone(&peers[1]), Arc::clone(&quiet)]);
    let disabled = PortOptions { disabled: true, ..PortOptions::default() };
    switch.set_port("quiet", &disabled).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (peers, is_over, start) = (&peers, &is_over, std::time::Instant::now());
        let traffic = move |from: u16, to: u16| {
            let (sender, receiver) = (&peers[usize::from(from)], &peers[usize::from(to)]);
            let (mut sent, mut came) = (0, 0);
            while !is_over.load(SeqCst) || came < sent {
                if !is_over.load(SeqCst) && sent < came + 500 {
                    sender.send(1, (sent..sent + 50).map(|n| frame(mac(to), mac(from), n)));
                    sent += 50;
                }
                for frame in receiver.receive(0) {
                    assert_eq!(number(&frame), came, "each comes once, in order");
                    came += 1;
                }
                assert!(start.elapsed() < 2 * PATIENCE, "{came} of {sent} frames came");
                std::thread::yield_now();
            }
            assert!(sent > 0);
        };
        let flows = [scope.spawn(move || traffic(0, 1)), scope.spawn(move || traffic(1, 0))];
        let all_cores = eal::cores::CoreList::available().unwrap();
        for round in 0..48 {
            let count = [2, 3, 1, 4, 2, 1][round % 6];
            let on_cores = &all_cores.as_slice()[..count.min(all_cores.len())];
            let cores = if round % 4 == 3 { on_cores } else { &[] };
            switch.set_workers(cores, count).unwrap();
            let workers = switch.workers();
            let found: Vec<_> = workers.iter().filter_map(|worker| worker.core).collect();
            assert_eq!(found, cores);
            assert!(workers.iter().all(|worker| worker.alive));
            let queues: usize = workers.iter().map(|worker| worker.queues.len()).sum();
            assert_eq!(queues, 7, "each queue has a worker");
            let most = workers.iter().map(|worker| worker.queues.len()).max().unwrap();
            assert!(most <= 7_usize.div_ceil(workers.len()), "{workers:?}");
            assert!(flows.iter().all(|flow| !flow.is_finished()), "a frame was lost");
        }
        is_over.store(true, SeqCst);
    });
    for name in ["a", "b"] {
        let stats = switch.port(name).unwrap().stats;
        assert_eq!((stats.rx_total().dropped(), stats.tx_total().dropped()), (0, 0));
    }
    // What was out of service is there for the workers that are there now.
    switch.set_port("quiet", &PortOptions::default()).unwrap();
    quiet.receive(0);
    quiet.send(1, [frame(mac(0), mac(2), 1)]);
    assert_eq!(number(&peers[0].receive(1)[0]), 1);
    peers[0].send(0, [frame(mac(2), mac(0), 2)]);
    assert_eq!(number(&quiet.receive(1)[0]), 2);
}

#[test]
fn workers_that_cannot_be_are_refused_and_nothing_changes() {
    let switch = start(3);
    let a = add(&switch, "a", 2);
    let on = |worker| PortOptions { workers: vec![worker], ..PortOptions::default() };
    switch.set_port("a", &on(2)).unwrap();
    let threads = || switch.workers().iter().map(|worker| worker.core).collect::<Vec<_>>();
    let before = threads();
    let core = eal::cores::CoreList::available().unwrap().as_slice()[0];
    for (cores, workers, expected) in [
        (&[][..], 0, "number of workers is 0: expected 1 to 128"),
        (&[], 2, "there is no worker 2: the switch has 2"),
        (&[core, 9_998, 9_999], 1, "9998"),
        (&[core, core, core], 1, "already belongs to worker"),
    ] {
        let error = switch.set_workers(cores, workers).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!((threads(), switch.port("a").unwrap().rx_workers), (before.clone(), vec![2, 2]));
    }
    switch.set_port("a", &on(0)).unwrap();
    switch.set_workers(&[core], 7).unwrap();
    assert_eq!(threads(), [Some(core)]);
    assert_eq!(switch.port("a").unwrap().rx_workers, [0, 0]);
    switch.shutdown();
    assert!(a.closed.load(SeqCst));
}
