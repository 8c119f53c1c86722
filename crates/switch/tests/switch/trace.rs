//! Frames that come in on no wire.

use ethdev::DropReason;
use packet::MacAddr;
use switch::{BridgeOptions, Mirror, PortOptions, PortVlan, Switch, SwitchConfig, Traced};

const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

fn frame(to: MacAddr, from: MacAddr) -> Vec<u8> {
    [&to.0[..], &from.0, &[0x08, 0], &[7; 46]].concat()
}

fn tagged(vlan: u8, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, vlan], &frame[12..]].concat()
}

/// A switch whose ports have these names, bridges, devices and VLANs.
fn start(ports: &[(&str, &str, &str, Option<u16>)]) -> Switch {
    let switch = Switch::start(&SwitchConfig { workers: 2, ..SwitchConfig::default() }).unwrap();
    switch.add_bridge("other", &BridgeOptions::default()).unwrap();
    for (name, bridge, device, tag) in ports {
        let vlan = PortVlan { tag: *tag, ..PortVlan::default() };
        let bridge = Some((*bridge).to_owned());
        let options = PortOptions { bridge, vlan, ..PortOptions::default() };
        switch.open_port(name, device, &options).unwrap();
    }
    switch
}

fn names(traced: &Traced) -> Vec<&str> {
    traced.outputs.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn frames_come_in_where_they_are_said_to() {
    let ports = ["p1", "p2", "p3"].map(|name| (name, "default", "dummy:", None));
    let switch = start(&ports);
    switch.receive("p1", &[frame(MacAddr::BROADCAST, A)]).unwrap();
    switch.receive("p2", &[frame(A, B), frame(A, B)]).unwrap();
    let counts = |name: &str| {
        let stats = switch.port(name).unwrap().stats;
        (stats.rx_total().packets, stats.tx_total().packets)
    };
    assert_eq!(["p1", "p2", "p3"].map(counts), [(1, 2), (2, 1), (0, 1)]);
    let fdb = switch.fdb().into_iter();
    let mut places: Vec<(MacAddr, String)> = fdb.map(|entry| (entry.mac, entry.port)).collect();
    places.sort();
    assert_eq!(places, [(A, "p1".to_owned()), (B, "p2".to_owned())]);
    assert!(switch.receive("p4", &[]).is_err());
}

#[test]
fn a_trace_changes_nothing_unless_it_is_to_learn() {
    let ports = [("p1", Some(7)), ("p2", Some(7)), ("p3", None), ("p4", Some(8))];
    let switch = start(&ports.map(|(name, tag)| (name, "default", "dummy:", tag)));
    let broadcast = frame(MacAddr::BROADCAST, A);
    let traced = switch.trace("p1", &broadcast, false).unwrap();
    let outputs = [("p2".to_owned(), broadcast.clone()), ("p3".to_owned(), tagged(7, &broadcast))];
    assert_eq!((traced.outputs.as_slice(), traced.dropped), (outputs.as_slice(), None));
    assert!(switch.fdb().is_empty());
    switch.trace("p1", &broadcast, true).unwrap();
    assert_eq!(switch.fdb().len(), 1);
    let back = switch.trace("p3", &tagged(7, &frame(A, B)), false).unwrap();
    assert_eq!(back.outputs, [("p1".to_owned(), frame(A, B))]);
    let wrong = switch.trace("p4", &tagged(7, &frame(A, B)), false).unwrap();
    assert_eq!((wrong.outputs.len(), wrong.dropped), (0, Some(DropReason::WrongVlan)));
    let counted = |name: &str| {
        let stats = switch.port(name).unwrap().stats;
        let all = [stats.rx_total(), stats.tx_total()];
        all.iter().map(|side| side.packets + side.dropped()).sum::<u64>()
    };
    assert_eq!(["p1", "p2", "p3", "p4"].map(counted), [0; 4]);
    // What was traced is not left over for what comes next.
    switch.receive("p4", &[frame(MacAddr::BROADCAST, B)]).unwrap();
    assert_eq!(["p1", "p2", "p3", "p4"].map(counted), [0, 0, 1, 1]);
}

#[test]
fn a_trace_goes_through_patch_ports_and_tells_copies() {
    let switch = start(&[
        ("p1", "default", "dummy:", None),
        ("w", "default", "dummy:", None),
        ("to", "default", "patch:from", None),
        ("from", "other", "patch:to", None),
        ("p2", "other", "dummy:", None),
    ]);
    let mirror =
        Mirror { select_all: true, output_port: Some("w".to_owned()), ..Mirror::default() };
    switch.set_mirror("m", &mirror).unwrap();
    let traced = switch.trace("p1", &frame(MacAddr::BROADCAST, A), false).unwrap();
    assert_eq!((names(&traced), traced.entered.len()), (vec!["w", "p2"], 2));
    assert_eq!(traced.entered[1].0, "from");
    assert!(traced.entered[1].1.is_empty());
    assert_eq!(switch.mirrors()[0].packets, 0);
    let kept = switch.trace("w", &frame(MacAddr::BROADCAST, A), false).unwrap();
    assert_eq!(kept.dropped, Some(DropReason::MirrorPort));
    assert!(switch.trace("to", &frame(A, B), false).unwrap_err().to_string().contains("patch"));
}
