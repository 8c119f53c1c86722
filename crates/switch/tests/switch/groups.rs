//! A running switch that looks at groups of IGMP and MLD.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Peer, frame, mac, port, wait_until};
use eal::time::Time;
use packet::MacAddr;
use packet::checksum::checksum;
use switch::{
    BOND_DEVICE, Bonding, BridgeOptions, DEFAULT_BRIDGE, McastSnooping, PortOptions, PortVlan,
    Switch, SwitchConfig,
};

const GROUP: [u8; 4] = [239, 1, 2, 3];

fn snooping() -> McastSnooping {
    McastSnooping { enabled: true, ..McastSnooping::default() }
}

fn start(workers: usize, mcast_snooping: McastSnooping) -> (Switch, Time) {
    let time = Time::stopped();
    let config = SwitchConfig { workers, mcast_snooping, ..SwitchConfig::default() };
    (Switch::start_with(&config, time.clone()).unwrap(), time)
}

fn add(switch: &Switch, name: &str, options: &PortOptions) -> Arc<Peer> {
    let (open, peer) = port(name, 1);
    switch.add_port(open, options).unwrap();
    peer
}

/// A message of IGMP.
fn igmp(to: [u8; 4], message: [u8; 8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = checksum(&message).to_be_bytes();
    message.splice(2..4, sum);
    let [_, b, c, d] = to;
    let mut bytes = frame(MacAddr([1, 0, 0x5E, b & 0x7F, c, d]), mac(7), 0)[..12].to_vec();
    bytes.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 192, 0, 2, 1]);
    bytes.extend(to);
    bytes.extend(message);
    bytes.resize(60, 0);
    bytes
}

fn report(belongs: bool) -> Vec<u8> {
    let [a, b, c, d] = GROUP;
    let (kind, to) = if belongs { (0x16, GROUP) } else { (0x17, [224, 0, 0, 2]) };
    igmp(to, [kind, 0, 0, 0, a, b, c, d])
}

fn query() -> Vec<u8> {
    igmp([224, 0, 0, 1], [0x11, 100, 0, 0, 0, 0, 0, 0])
}

fn data(number: u8) -> Vec<u8> {
    let mut bytes = igmp(GROUP, [0; 8]);
    (bytes[23], bytes[59]) = (17, number);
    bytes
}

/// The groups of all bridges: port and VLAN.
fn groups(switch: &Switch) -> Vec<(String, u16)> {
    let all = switch.groups().into_iter().flat_map(|bridge| bridge.groups);
    all.map(|group| (group.port, group.vlan)).collect()
}

fn joined(switch: &Switch, ports: &[&str]) {
    wait_until("groups are known", || groups(switch).iter().map(|(port, _)| port).eq(ports));
}

/// Waits until workers know what was heard: they are told in turn.
fn settle(switch: &Switch, time: &Time) {
    time.warp(Duration::from_millis(50));
    switch.catch_up();
}

#[test]
fn members_join_leave_and_are_forgotten() {
    for workers in [1, 3] {
        let (switch, time) = start(workers, snooping());
        let [a, b, c] = ["a", "b", "c"].map(|name| add(&switch, name, &PortOptions::default()));
        settle(&switch, &time);
        b.send(0, [report(true)]);
        joined(&switch, &["b"]);
        settle(&switch, &time);
        a.send(0, [data(1), frame(mac(8), mac(9), 2)]);
        assert_eq!(b.receive(2)[0], data(1));
        assert_eq!(c.receive(1), [frame(mac(8), mac(9), 2)], "the group is not for it");
        // A router is heard: it has everything, and asks when somebody leaves.
        c.send(0, [query()]);
        assert_eq!([&a, &b].map(|peer| peer.receive(1)), [[query()], [query()]]);
        wait_until("the router is known", || switch.groups()[0].routers.len() == 1);
        let totals = switch.group_totals().remove(0);
        assert_eq!((totals.groups, totals.routers, totals.ports), (1, 1, vec![("b".into(), 1)]));
        assert_eq!((totals.counts.joined, totals.limit), (1, snooping().table_size));
        settle(&switch, &time);
        a.send(0, [data(3)]);
        assert_eq!([&b, &c].map(|peer| peer.receive(1)), [[data(3)], [data(3)]]);
        b.send(0, [report(false)]);
        assert_eq!(c.receive(1), [report(false)]);
        switch.catch_up();
        time.warp(Duration::from_secs(1));
        switch.catch_up();
        joined(&switch, &["b"]);
        time.warp(Duration::from_secs(1));
        joined(&switch, &[]);
        assert_eq!(switch.groups()[0].counts.left, 1);
        // What is silent is forgotten, and so is what is behind a link that goes down.
        b.send(0, [report(true)]);
        assert_eq!(c.receive(1), [report(true)]);
        joined(&switch, &["b"]);
        time.warp(Duration::from_secs(300));
        wait_until("it is forgotten", || groups(&switch).is_empty());
        assert_eq!((switch.groups()[0].routers.len(), switch.groups()[0].counts.expired), (0, 1));
        b.send(0, [report(true)]);
        joined(&switch, &["b"]);
        b.set_link(false);
        joined(&switch, &[]);
    }
}

#[test]
fn without_a_router_who_stays_is_asked_when_somebody_leaves() {
    let (switch, time) = start(1, snooping());
    let [a, b] = ["a", "b"].map(|name| add(&switch, name, &PortOptions::default()));
    a.send(0, [report(true)]);
    joined(&switch, &["a"]);
    settle(&switch, &time);
    a.send(0, [report(false)]);
    let left = || switch.groups()[0].groups.len();
    wait_until("it is asked", || {
        settle(&switch, &time);
        a.arrived() > 0 || left() == 0
    });
    let asked = a.receive(1).remove(0);
    // A router alert, and a query of this group, to be answered within a second.
    assert_eq!((asked[34], &asked[38..40], &asked[42..46]), (0x94, &[0x11, 10][..], &GROUP[..]));
    assert_eq!(b.arrived(), 0);
    time.warp(Duration::from_secs(2));
    joined(&switch, &[]);
}

#[test]
fn settings_change_while_frames_flow() {
    let (switch, time) = start(2, McastSnooping::default());
    let [a, b, c] = ["a", "b", "c"].map(|name| add(&switch, name, &PortOptions::default()));
    a.send(0, [report(true)]);
    assert_eq!([b.receive(1), c.receive(1)], [[report(true)], [report(true)]], "it is off");
    assert_eq!(switch.groups(), []);
    let set = |mcast_snooping| {
        let options = BridgeOptions { mcast_snooping, ..BridgeOptions::default() };
        switch.set_bridge(DEFAULT_BRIDGE, &options)
    };
    set(McastSnooping { disable_flood_unregistered: true, ..snooping() }).unwrap();
    a.send(0, [data(1), frame(mac(8), mac(9), 2)]);
    assert_eq!(b.receive(1), [frame(mac(8), mac(9), 2)]);
    assert_eq!(c.receive(1), [frame(mac(8), mac(9), 2)]);
    a.send(0, [report(true)]);
    joined(&switch, &["a"]);
    settle(&switch, &time);
    // A worker that comes later knows the group.
    switch.set_workers(&[], 4).unwrap();
    b.send(0, [data(3)]);
    assert_eq!(a.receive(1), [data(3)]);
    // In another VLAN it is another group.
    let vlan = PortVlan { tag: Some(5), ..PortVlan::default() };
    switch.set_port("a", &PortOptions { vlan, ..PortOptions::default() }).unwrap();
    joined(&switch, &[]);
    a.send(0, [report(true)]);
    wait_until("it is known again", || groups(&switch) == [("a".to_owned(), 5)]);
    let error = set(McastSnooping { aging_time: 1, ..snooping() }).unwrap_err().to_string();
    assert!(error.contains("mcast-snooping.aging-time is 1: expected 15 to 3600"), "{error}");
    set(McastSnooping::default()).unwrap();
    assert_eq!(switch.groups(), []);
    switch.remove_port("a").unwrap();
    b.send(0, [data(4)]);
    assert_eq!(c.receive(1), [data(4)]);
}

#[test]
fn a_querier_asks_where_nobody_else_does() {
    let (switch, time) = start(1, McastSnooping { querier: true, ..snooping() });
    let [a, b] = ["a", "b"].map(|name| add(&switch, name, &PortOptions::default()));
    time.warp(Duration::from_secs(31));
    let asked = a.receive(2);
    // By IGMP and by MLD.
    assert_eq!((asked[0][38], asked[1][62]), (0x11, 130));
    assert_eq!(b.receive(2).len(), 2);
    b.send(0, [query()]);
    assert_eq!(a.receive(1), [query()]);
    wait_until("the router is known", || switch.groups()[0].routers.len() == 1);
    time.warp(Duration::from_secs(125));
    switch.catch_up();
    assert_eq!(a.arrived(), 0);
    time.warp(Duration::from_secs(250));
    assert_eq!(a.receive(2).len(), 2, "it is silent");
}

#[test]
fn groups_behind_a_bond_are_asked_for_when_another_member_takes_over() {
    let (switch, time) = start(1, snooping());
    let member = || PortOptions { bond: Some("up".to_owned()), ..PortOptions::default() };
    let [m1, m2] = ["m1", "m2"].map(|name| add(&switch, name, &member()));
    let bond = PortOptions { bonding: Bonding::default(), ..PortOptions::default() };
    switch.open_port("up", BOND_DEVICE, &bond).unwrap();
    let vm = add(&switch, "vm", &PortOptions::default());
    m1.send(0, [query()]);
    assert_eq!(vm.receive(1), [query()]);
    wait_until("the router is behind the bond", || {
        let routers = switch.groups()[0].routers.clone();
        routers.iter().map(|router| router.port.as_str()).eq(["up"])
    });
    settle(&switch, &time);
    vm.send(0, [report(true)]);
    assert_eq!(m1.receive(1), [report(true)]);
    m1.set_link(false);
    let asked = vm.receive(2);
    assert_eq!((asked[0][38], asked[1][62]), (0x11, 130));
    vm.send(0, [report(true)]);
    wait_until("it is reported by the other member", || m2.receive(1).remove(0) == report(true));
}
