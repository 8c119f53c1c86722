//! Samples of a running switch.

use openflow::{Action, Field, Instructions, Match, PortNo};
use switch::{
    BridgeFlows, BridgeOptions, DEFAULT_BRIDGE, Mirror, Onward, PortOptions, PortVlan, SampleLoss,
    SampleReader, Sampled, Sampling, Sides, Switch, SwitchConfig, VlanMode,
};

const BROADCAST: [u8; 6] = [0xff; 6];

fn station(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

fn frame(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &[0x12, 0x34]].concat();
    frame.resize(60, 7);
    frame
}

fn tagged(tci: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tci.to_be_bytes(), &frame[12..]].concat()
}

/// A switch with three ports, whose frames are all sampled, as long as 64 bytes.
fn all() -> (Switch, SampleReader) {
    let switch = Switch::start(&SwitchConfig::default()).unwrap();
    for name in ["a", "b", "c"] {
        switch.open_port(name, "null:", &PortOptions::default()).unwrap();
    }
    let reader = switch.sample(&of(DEFAULT_BRIDGE)).unwrap();
    (switch, reader)
}

fn of(bridge: &str) -> Sampling {
    let what = Sampled::Frames { rate: 1, sides: Sides::IN };
    Sampling { bridge: bridge.to_owned(), what, bytes: 64 }
}

/// Where frames came in, out on how many ports they went, and what the first one was.
fn read(switch: &Switch, reader: &mut SampleReader) -> Vec<(String, u32, String)> {
    let name = |port| switch.port_named(port).unwrap_or_default();
    let mut all = Vec::new();
    reader.read(|sample| {
        let Onward { count, port, .. } = sample.onward;
        let port = if count == 0 { String::new() } else { name(port) };
        all.push((name(sample.port), count, port));
    });
    all
}

fn seen(from: &str, count: u32, to: &str) -> (String, u32, String) {
    (from.to_owned(), count, to.to_owned())
}

#[test]
fn it_is_told_where_frames_come_in_and_go_out() {
    let (switch, mut reader) = all();
    switch.receive("a", &[frame(BROADCAST, station(1))]).unwrap();
    switch.receive("b", &[frame(station(1), station(2)), frame(station(2), station(2))]).unwrap();
    let told = [seen("a", 2, "b"), seen("b", 1, "a"), seen("b", 0, "")];
    assert_eq!(read(&switch, &mut reader), told);
    assert_eq!((read(&switch, &mut reader), reader.lost()), (vec![], SampleLoss::default()));
    // All went where they belong.
    let sent = |name| switch.port(name).unwrap().stats.tx_total().packets;
    assert_eq!((sent("a"), sent("b"), sent("c")), (1, 1, 1));
    // Nobody reads any more.
    drop(reader);
    switch.receive("a", &[frame(station(2), station(1))]).unwrap();
    assert_eq!(sent("b"), 2);
}

#[test]
fn samples_have_what_came_in_and_the_tag_that_goes_out() {
    let (switch, mut reader) = all();
    let access = PortVlan { mode: Some(VlanMode::Access), tag: Some(9), ..PortVlan::default() };
    switch.set_port("c", &PortOptions { vlan: access, ..PortOptions::default() }).unwrap();
    switch.receive("c", &[frame(BROADCAST, station(1))]).unwrap();
    let long = tagged(0x6009, &[frame(station(1), station(2)), vec![3; 100]].concat());
    switch.receive("a", std::slice::from_ref(&long)).unwrap();
    let mut all = Vec::new();
    reader.read(|sample| all.push((sample.len, sample.bytes().to_vec(), sample.onward.tci)));
    let expected = [(60, frame(BROADCAST, station(1)), 9), (164, long[..64].to_vec(), 0)];
    assert_eq!(all, expected);
}

#[test]
fn frames_that_go_on_to_another_bridge_are_sampled_once() {
    let (switch, mut first) = all();
    switch.add_bridge("other", &BridgeOptions::default()).unwrap();
    let options = PortOptions { bridge: Some("other".to_owned()), ..PortOptions::default() };
    switch.open_port("far", "null:", &options).unwrap();
    switch.open_port("there", "patch:back", &PortOptions::default()).unwrap();
    switch.open_port("back", "patch:there", &options).unwrap();
    let mut other = switch.sample(&of("other")).unwrap();
    switch.receive("a", &[frame(BROADCAST, station(1))]).unwrap();
    assert_eq!(read(&switch, &mut first), [seen("a", 3, "b")]);
    assert_eq!(read(&switch, &mut other), []);
    switch.receive("far", &[frame(station(1), station(2))]).unwrap();
    assert_eq!(read(&switch, &mut first), []);
    assert_eq!(read(&switch, &mut other), [seen("far", 1, "a")]);
}

#[test]
fn a_bridge_that_comes_again_is_sampled_again() {
    let (switch, _) = all();
    let mut reader = switch.sample(&of("later")).unwrap();
    let options = PortOptions { bridge: Some("later".to_owned()), ..PortOptions::default() };
    for _ in 0..2 {
        switch.add_bridge("later", &BridgeOptions::default()).unwrap();
        switch.open_port("x", "null:", &options).unwrap();
        switch.receive("x", &[frame(BROADCAST, station(1))]).unwrap();
        assert_eq!(read(&switch, &mut reader), [seen("x", 0, "")]);
        switch.remove_port("x").unwrap();
        switch.remove_bridge("later").unwrap();
    }
    switch.set_workers(&[], 2).unwrap();
    switch.add_bridge("later", &BridgeOptions::default()).unwrap();
    switch.open_port("x", "null:", &options).unwrap();
    switch.receive("x", &[frame(BROADCAST, station(1))]).unwrap();
    assert_eq!(read(&switch, &mut reader), [seen("x", 0, "")]);
}

#[test]
fn a_bridge_by_rules_is_sampled() {
    let (switch, mut reader) = all();
    let mut pipeline = flow::Pipeline::default();
    for (number, name) in (1..).zip(["a", "b", "c"]) {
        let port = switch.port_number(name).unwrap();
        pipeline.ports.insert(PortNo(number), flow::Port::new(port));
    }
    let actions = vec![
        Action::output(PortNo(2)),
        Action::SetField { field: Field::EthDst, value: 9, mask: Field::EthDst.full_mask() },
        Action::output(PortNo(3)),
    ];
    let matching = Match::new().with(Field::InPort, 1);
    let add = flow::Change::add(0, matching, Instructions::apply(actions));
    pipeline.tables.change(&add, 0).unwrap();
    let flows = BridgeFlows::new(std::sync::Arc::new(pipeline));
    switch.set_flows(DEFAULT_BRIDGE, Some(flows)).unwrap();
    let burst = vec![frame(BROADCAST, station(1)); 32];
    switch.receive("a", &burst).unwrap();
    switch.receive("b", &burst[..1]).unwrap();
    let mut told = vec![seen("a", 2, "b"); 32];
    told.push(seen("b", 0, ""));
    assert_eq!(read(&switch, &mut reader), told);
    let sent = |name| switch.port(name).unwrap().stats.tx_total().packets;
    assert_eq!((sent("b"), sent("c")), (32, 32));
}

#[test]
fn mirrors_copy_what_is_sampled() {
    let (switch, mut reader) = all();
    let output_port = Some("c".to_owned());
    let mirror = Mirror { select_all: true, output_port, ..Mirror::default() };
    switch.set_mirror("all", &mirror).unwrap();
    switch.receive("a", &[frame(BROADCAST, station(1))]).unwrap();
    // What comes from the mirror's port is nothing.
    switch.receive("c", &[frame(BROADCAST, station(3))]).unwrap();
    assert_eq!(read(&switch, &mut reader), [seen("a", 2, "b")]);
    switch.remove_mirror("all");
    switch.receive("a", &[frame(BROADCAST, station(1))]).unwrap();
    assert_eq!(read(&switch, &mut reader), [seen("a", 2, "b")]);
    assert_eq!(switch.port("c").unwrap().stats.tx_total().packets, 2);
}

#[test]
fn there_is_an_end_to_samplings() {
    let (switch, _first) = all();
    let refused = |sampling: &Sampling| switch.sample(sampling).unwrap_err().to_string();
    let what = Sampled::Frames { rate: 0, sides: Sides::IN };
    let rate = refused(&Sampling { what, ..of("x") });
    assert!(rate.starts_with("sampling: one of 0 frames: expected 1 to"), "{rate}");
    let _all: Vec<_> = (0..8).map(|_| switch.sample(&of("x")).unwrap()).collect();
    assert!(refused(&of("x")).contains("bridge 'x' has 8 already"));
}
