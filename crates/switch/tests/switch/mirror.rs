//! Mirrors of a running switch.

use std::sync::Arc;

use crate::common::{BROADCAST, Peer, frame, mac, port, wait_until};
use capture::pcapng::{Block, Blocks};
use ethdev::DropReason::MirrorPort;
use switch::{BridgeOptions, Mirror, PortOptions, Switch, SwitchConfig};

fn start(workers: usize) -> Switch {
    Switch::start(&SwitchConfig { workers, ..SwitchConfig::default() }).unwrap()
}

fn add(switch: &Switch, name: &str, bridge: Option<&str>) -> Arc<Peer> {
    let (open, peer) = port(name, 1);
    let bridge = bridge.map(str::to_owned);
    switch.add_port(open, &PortOptions { bridge, ..PortOptions::default() }).unwrap();
    peer
}

/// What comes in on `src` goes to `to`.
fn mirror(src: &str, to: &str) -> Mirror {
    let select_src_port = [src.to_owned()].into();
    Mirror { select_src_port, output_port: Some(to.to_owned()), ..Mirror::default() }
}

#[test]
fn mirrors_come_and_go_with_their_ports() {
    for workers in [1, 3] {
        let switch = start(workers);
        switch.set_mirror("m", &mirror("a", "w")).unwrap();
        let [a, b] = ["a", "b"].map(|name| add(&switch, name, None));
        assert!(!switch.mirrors()[0].is_active);
        // From its first moment on the port gets copies and nothing else.
        let watcher = add(&switch, "w", None);
        assert!(switch.mirrors()[0].is_active);
        let [first, second] = [1, 2].map(|number| frame(BROADCAST, mac(1), number));
        b.send(0, [frame(BROADCAST, mac(2), 9)]);
        a.receive(1);
        a.send(0, [first.clone()]);
        assert_eq!((watcher.receive(1), b.receive(1)), (vec![first.clone()], vec![first]));
        watcher.send(0, [frame(BROADCAST, mac(3), 9)]);
        let dropped = || switch.port("w").unwrap().stats.rx_total().dropped_for(MirrorPort);
        wait_until("it is dropped", || dropped() == 1);
        let report = switch.mirrors().remove(0);
        assert_eq!((report.packets, report.bytes), (1, 60));
        // Another port has the number of one that was selected.
        switch.remove_port("a").unwrap();
        let c = add(&switch, "c", None);
        c.send(0, [second.clone()]);
        b.receive(1);
        assert_eq!(watcher.arrived(), 0);
        // The same mirror otherwise; it goes on counting.
        switch.set_mirror("m", &mirror("c", "w")).unwrap();
        c.send(0, [second.clone()]);
        assert_eq!(watcher.receive(1), std::slice::from_ref(&second));
        wait_until("it is counted", || switch.mirrors()[0].packets == 2);
        assert!(switch.remove_mirror("m") && !switch.remove_mirror("m"));
        b.receive(1);
        watcher.send(0, [frame(BROADCAST, mac(3), 9)]);
        assert_eq!((b.receive(1).len(), c.receive(1).len()), (1, 1));
    }
}

#[test]
fn a_mirror_is_about_the_ports_of_its_bridge() {
    let switch = start(2);
    switch.add_bridge("green", &BridgeOptions::default()).unwrap();
    let other = add(&switch, "a", None);
    let [b, c, watcher] = ["b", "c", "w"].map(|name| add(&switch, name, Some("green")));
    let all = Mirror {
        bridge: Some("green".to_owned()),
        select_all: true,
        output_port: Some("w".to_owned()),
        ..Mirror::default()
    };
    switch.set_mirror("m", &all).unwrap();
    other.send(0, [frame(BROADCAST, mac(1), 1)]);
    b.send(0, [frame(BROADCAST, mac(2), 2)]);
    assert_eq!((c.receive(1).len(), watcher.receive(1).len()), (1, 1));
    // Moved away, the watcher is a port like any other.
    switch.set_port("w", &PortOptions::default()).unwrap();
    assert!(!switch.mirrors()[0].is_active);
    watcher.send(0, [frame(BROADCAST, mac(3), 3)]);
    other.receive(1);
    let bridge = Some("green".to_owned());
    switch.set_port("w", &PortOptions { bridge, ..PortOptions::default() }).unwrap();
    c.send(0, [frame(BROADCAST, mac(4), 4)]);
    assert_eq!((b.receive(1).len(), watcher.receive(1).len()), (1, 1));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let switch = start(1);
    let error =
        |name: &str, mirror: &Mirror| switch.set_mirror(name, mirror).unwrap_err().to_string();
    assert_eq!(
        error("m", &Mirror::default()),
        "mirror 'm': give output-port, output-vlan or output-file"
    );
    assert!(error("m m", &mirror("a", "w")).contains("a name like a port's"));
    for number in 0..switch::MAX_MIRRORS {
        switch.set_mirror(&format!("m{number}"), &mirror("a", "w")).unwrap();
    }
    assert!(error("more", &mirror("a", "w")).contains("32 mirrors already"));
}

/// A mirror of what comes in on `src` to a file.
fn to_file(src: &str, file: &std::path::Path) -> Mirror {
    let (output_port, output_file) = (None, Some(file.to_owned()));
    Mirror { output_port, output_file, ..mirror(src, "w") }
}

/// The frames in a capture file, by their bytes and lengths.
fn frames_in(file: &std::path::Path) -> Vec<(Vec<u8>, u32)> {
    let Ok(bytes) = std::fs::read(file) else { return Vec::new() };
    let mut blocks = Blocks::new(bytes.as_slice());
    let mut frames = Vec::new();
    while let Ok(Some((_, block))) = blocks.next_block() {
        if let Block::Packet(packet) = block {
            frames.push((packet.bytes.to_vec(), packet.len));
        }
    }
    frames
}

#[test]
fn copies_are_written_to_a_file_and_nothing_is_lost_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.pcapng");
    for workers in [1, 3] {
        let _ = std::fs::remove_file(&file);
        let switch = start(workers);
        let [a, b] = ["a", "b"].map(|name| add(&switch, name, None));
        let cut = Mirror { snaplen: Some(20), ..to_file("a", &file) };
        switch.set_mirror("m", &cut).unwrap();
        let first = frame(BROADCAST, mac(1), 1);
        a.send(0, [first.clone()]);
        b.send(0, [frame(BROADCAST, mac(2), 2)]);
        b.receive(1);
        wait_until("it is written", || !frames_in(&file).is_empty());
        // Other workers go on with it, and another file behind what is there.
        switch.set_workers(&[], 2).unwrap();
        switch.set_mirror("m", &to_file("a", &file)).unwrap();
        let more: Vec<_> = (0..100).map(|number| frame(BROADCAST, mac(1), number)).collect();
        a.send(0, more.clone());
        b.receive(100);
        wait_until("all are copied", || switch.mirrors()[0].packets == 101);
        let report = switch.mirrors().remove(0);
        assert_eq!((report.missed, report.trouble), (0, None));
        switch.remove_mirror("m");
        a.send(0, [frame(BROADCAST, mac(1), 7)]);
        b.receive(1);
        let length = |frame: &Vec<u8>| u32::try_from(frame.len()).unwrap();
        let mut expected = vec![(first[..20].to_vec(), length(&first))];
        expected.extend(more.into_iter().map(|frame| (frame.clone(), length(&frame))));
        assert_eq!(frames_in(&file), expected);
    }
}

#[test]
fn a_file_that_cannot_be_written_stops_nothing_and_is_told() {
    let switch = start(2);
    let [a, b] = ["a", "b"].map(|name| add(&switch, name, None));
    let dir = tempfile::tempdir().unwrap();
    switch.set_mirror("m", &to_file("a", &dir.path().join("none/m.pcapng"))).unwrap();
    let of = |name: &str| switch.mirrors().into_iter().find(|one| one.name == name).unwrap();
    wait_until("it is told", || of("m").trouble.is_some());
    assert!(!of("m").is_active);
    // A disk that is full when something is written, not when the file is made.
    let full = std::path::Path::new("/dev/full");
    switch.set_mirror("full", &to_file("a", full)).unwrap();
    wait_until("it is no file", || of("full").trouble.is_some_and(|why| why.contains("no file")));
    a.send(0, (0..50).map(|number| frame(BROADCAST, mac(1), number)));
    b.receive(50);
    wait_until("they are counted", || of("m").missed == 50 && of("full").missed == 50);
    wait_until("they are copies", || of("m").packets == 50);
}

#[test]
fn a_file_that_was_removed_is_made_again() {
    let switch = start(1);
    let [a, b] = ["a", "b"].map(|name| add(&switch, name, None));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.pcapng");
    switch.set_mirror("m", &to_file("a", &file)).unwrap();
    wait_until("it is there", || file.exists());
    std::fs::remove_file(&file).unwrap();
    wait_until("it is there again", || file.exists());
    a.send(0, [frame(BROADCAST, mac(1), 1)]);
    b.receive(1);
    wait_until("it is written", || frames_in(&file).len() == 1);
    std::fs::remove_dir_all(dir.path()).unwrap();
    wait_until("it is told", || switch.mirrors()[0].trouble.is_some());
}
