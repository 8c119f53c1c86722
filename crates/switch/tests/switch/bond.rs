//! Bonds of a running switch.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{BROADCAST, Peer, frame, mac, number, port, wait_until};
use eal::machine::MachineId;
use eal::time::Time;
use packet::MacAddr;
use switch::guard::BpduGuard;
use switch::{
    BOND_DEVICE, BondMode, BondPart, BondReport, Bonding, BridgeOptions, Identity, Lacp,
    LacpManner, LacpTime, PortGuard, PortLacp, PortOptions, Switch, SwitchConfig,
};

fn member() -> PortOptions {
    PortOptions { bond: Some("up".to_owned()), ..PortOptions::default() }
}

fn bond(bonding: Bonding) -> PortOptions {
    PortOptions { bonding, ..PortOptions::default() }
}

/// A guest, and a bond of two members, by a clock that stands still.
fn start(workers: usize, bonding: Bonding) -> (Switch, Time, [Arc<Peer>; 3]) {
    let time = Time::stopped();
    let config = SwitchConfig { workers, ..SwitchConfig::default() };
    let switch = Switch::start_with(&config, time.clone()).unwrap();
    let peers = ["vm", "m1", "m2"].map(|name| {
        let (open, peer) = port(name, 1);
        let options = if name == "vm" { PortOptions::default() } else { member() };
        switch.add_port(open, &options).unwrap();
        peer
    });
    switch.open_port("up", BOND_DEVICE, &bond(bonding)).unwrap();
    (switch, time, peers)
}

fn report(switch: &Switch) -> BondReport {
    switch.bonds().remove(0)
}

fn wait_active(switch: &Switch, name: Option<&str>) {
    wait_until("the member takes over", || report(switch).active.as_deref() == name);
}

#[test]
fn a_failing_link_loses_what_was_on_the_way_at_most_and_the_network_hears_of_it() {
    for workers in [1, 3] {
        let (switch, _time, [vm, m1, m2]) = start(workers, Bonding::default());
        assert_eq!(report(&switch).active.as_deref(), Some("m1"));
        vm.send(0, [frame(BROADCAST, mac(1), 1)]);
        assert_eq!(number(&m1.receive(1)[0]), 1);
        m1.send(0, [frame(mac(1), mac(9), 2)]);
        assert_eq!(number(&vm.receive(1)[0]), 2);
        m1.set_link(false);
        // The station behind the bond's bridge is announced behind the other member.
        let told = m2.receive(1).remove(0);
        assert_eq!(
            (&told[..6], &told[6..14]),
            (
                &[0xff; 6][..],
                &{
                    let mut rarp = mac(1).0.to_vec();
                    rarp.extend([0x80, 0x35]);
                    rarp
                }[..]
            )
        );
        wait_active(&switch, Some("m2"));
        vm.send(0, [frame(mac(9), mac(1), 3)]);
        assert_eq!(number(&m2.receive(1)[0]), 3, "known behind the bond all the time");
        m2.send(0, [frame(mac(1), mac(9), 4)]);
        assert_eq!(number(&vm.receive(1)[0]), 4);
        // A link that is back brings no change; what it receives is dropped.
        m1.set_link(true);
        wait_until("it is back", || report(&switch).members[0].is_enabled);
        m1.send(0, [frame(BROADCAST, mac(9), 5)]);
        wait_until("it is counted", || report(&switch).members[0].inactive_drops == 1);
        assert_eq!(m2.arrived() + vm.arrived() + m1.arrived(), 0);
        let report = report(&switch);
        assert_eq!((report.active_changes, report.members[0].failures), (2, 1));
        let up = switch.port("up").unwrap();
        assert!(up.link.up && up.fdb_entries == 1);
        assert_eq!((up.stats.rx_total().packets, up.stats.tx_total().packets), (3, 3));
        assert_eq!(up.details[0].1, "m1, m2 (active)");
    }
}

#[test]
fn delays_go_by_the_clock_of_the_switch() {
    let primary = Some("m2".to_owned());
    let bonding = Bonding { primary, updelay: 200, downdelay: 300, ..Bonding::default() };
    let (switch, time, [_vm, m1, m2]) = start(1, bonding);
    let warp = |ms| {
        time.warp(Duration::from_millis(ms));
        switch.catch_up();
    };
    let active = || report(&switch).active;
    assert_eq!(active().as_deref(), Some("m2"));
    m2.set_link(false);
    wait_until("it is seen", || !report(&switch).members[1].is_up);
    warp(299);
    assert_eq!(active().as_deref(), Some("m2"));
    warp(1);
    assert_eq!(active().as_deref(), Some("m1"));
    m2.set_link(true);
    wait_until("it is seen", || report(&switch).members[1].is_up);
    warp(199);
    assert_eq!(active().as_deref(), Some("m1"));
    warp(1);
    assert_eq!(active().as_deref(), Some("m2"), "the primary one");
    for peer in [&m1, &m2] {
        peer.set_link(false);
    }
    wait_until("both are seen", || report(&switch).members.iter().all(|member| !member.is_up));
    warp(300);
    assert_eq!(active(), None);
    assert!(!switch.port("up").unwrap().link.up);
    m1.set_link(true);
    wait_active(&switch, Some("m1"));
}

#[test]
fn members_come_and_go_while_frames_flow() {
    let (switch, _time, [vm, m1, m2]) = start(2, Bonding::default());
    assert!(switch.port("m1").unwrap().bond.as_deref() == Some("up"));
    assert_eq!(switch.bridges()[0].ports, ["up", "vm"]);
    m1.send(0, [frame(BROADCAST, mac(9), 1)]);
    assert_eq!(number(&vm.receive(1)[0]), 1);
    // One that is taken out of service is given up at once.
    switch.set_port("m1", &PortOptions { disabled: true, ..member() }).unwrap();
    wait_active(&switch, Some("m2"));
    // One that leaves the bond is a port like any other.
    switch.set_port("m1", &PortOptions::default()).unwrap();
    m1.send(0, [frame(BROADCAST, mac(8), 2)]);
    assert_eq!((number(&vm.receive(1)[0]), number(&m2.receive(1)[0])), (2, 2));
    switch.set_port("m1", &member()).unwrap();
    assert_eq!(switch.fdb().iter().filter(|entry| entry.port == "m1").count(), 0);
    switch.remove_port("m2").unwrap();
    wait_active(&switch, Some("m1"));
    // Without the bond, members are mute: two uplinks are never a loop.
    switch.remove_port("up").unwrap();
    m1.send(0, [frame(BROADCAST, mac(9), 3)]);
    wait_until("it is taken", || m1.pending() == 0);
    switch.open_port("up", BOND_DEVICE, &bond(Bonding::default())).unwrap();
    m1.send(0, [frame(BROADCAST, mac(9), 4)]);
    assert_eq!(number(&vm.receive(1)[0]), 4);
    let other = switch.fdb_add_static(mac(5), 0, "m1").unwrap_err().to_string();
    assert!(other.contains("a member of bond 'up'"), "{other}");
}

#[test]
fn other_workers_know_the_bond_and_its_bridge_may_change() {
    let (switch, _time, [vm, m1, _m2]) = start(1, Bonding::default());
    switch.set_workers(&[], 3).unwrap();
    vm.send(0, [frame(BROADCAST, mac(1), 1)]);
    assert_eq!(number(&m1.receive(1)[0]), 1);
    switch.add_bridge("other", &BridgeOptions::default()).unwrap();
    let there = |options: PortOptions| PortOptions { bridge: Some("other".into()), ..options };
    switch.set_port("up", &there(PortOptions::default())).unwrap();
    vm.send(0, [frame(BROADCAST, mac(1), 2)]);
    wait_until("it is taken", || vm.pending() == 0);
    switch.set_port("vm", &there(PortOptions::default())).unwrap();
    vm.send(0, [frame(BROADCAST, mac(1), 3)]);
    assert_eq!(number(&m1.receive(1)[0]), 3);
    assert_eq!(report(&switch).bridge, "other");
    assert_eq!(switch.port("m1").unwrap().bridge, "other");
}

/// What the member `name` of a new switch says of itself first.
fn said_by_lacp(instance: &str, name: &str) -> Vec<u8> {
    let identity = Identity::new(MachineId([7; 16]), instance);
    let switch = Switch::start(&SwitchConfig { identity, ..SwitchConfig::default() }).unwrap();
    let (open, peer) = port(name, 1);
    let lacp =
        PortLacp { port_id: Some(77), port_priority: Some(5), aggregation_key: Some(0x0123) };
    switch.add_port(open, &PortOptions { lacp, ..member() }).unwrap();
    let bonding = Bonding { lacp: Lacp::Active, ..Bonding::default() };
    switch.open_port("up", BOND_DEVICE, &bond(bonding)).unwrap();
    let said = peer.receive(1).remove(0);
    assert_eq!(report(&switch).lacp.unwrap().system.0, said[20..26]);
    said[18..34].to_vec()
}

#[test]
fn a_bond_is_known_by_the_same_address_after_a_restart_and_members_as_they_are_told() {
    let said = said_by_lacp("a", "m1");
    assert_eq!(said[..2], 65_534_u16.to_be_bytes());
    assert_eq!(said[8..], [0x01, 0x23, 0, 5, 0, 77, said[14], said[15]]);
    assert_eq!(said_by_lacp("a", "m2"), said);
    assert_ne!(said_by_lacp("b", "m1")[2..8], said[2..8]);
}

/// A reply of 10.1.0.9 to a question by ARP.
fn reply(question: &[u8]) -> Vec<u8> {
    let them = mac(9).0;
    let head = [&question[6..12], &them, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    [&head[..], &them, &[10, 1, 0, 9], &question[22..32], &[0; 18]].concat()
}

#[test]
fn a_member_that_leads_nowhere_is_given_up_until_it_is_answered() {
    let arp_ip_targets = vec!["10.1.0.9".parse().unwrap()];
    let bonding = Bonding { arp_ip_targets, primary: Some("m1".to_owned()), ..Bonding::default() };
    let (switch, time, [vm, m1, m2]) = start(2, bonding);
    let second = || {
        time.warp(Duration::from_secs(1));
        switch.catch_up();
        [&m1, &m2].map(|peer| peer.receive(1).remove(0))
    };
    let answered = |peer: &Peer, question: &[u8], member: usize| {
        let received = || report(&switch).members[member].arp.unwrap().received;
        let before = received();
        peer.send(0, [reply(question)]);
        wait_until("the answer is heard", || received() > before);
    };
    let first = [&m1, &m2].map(|peer| peer.receive(1).remove(0));
    assert_eq!(first[0][..6], [0xFF; 6]);
    assert_eq!(first[0][38..42], [10, 1, 0, 9]);
    assert_ne!(first[0][6..12], first[1][6..12], "each asks from an address of its own");
    answered(&m2, &first[1], 1);
    // Three questions of the first one are without an answer when the fourth is due.
    for _ in 0..2 {
        let questions = second();
        answered(&m2, &questions[1], 1);
        assert_eq!(report(&switch).active.as_deref(), Some("m1"));
    }
    let questions = second();
    assert_eq!(report(&switch).active.as_deref(), Some("m2"));
    let member = report(&switch).members.remove(0);
    assert!(member.is_up && !member.is_enabled && !member.arp.unwrap().is_answered);
    // A question that comes back by the other member goes no further, as no answer does; what else
    // comes in there does.
    m2.send(0, [questions[0].clone(), frame(BROADCAST, mac(9), 1)]);
    assert_eq!(number(&vm.receive(1)[0]), 1);
    assert_eq!(vm.arrived(), 0);
    answered(&m1, &questions[0], 0);
    wait_active(&switch, Some("m1"));
    // Nothing is asked any more, and nothing is listened for.
    switch.set_port("up", &bond(Bonding::default())).unwrap();
    m1.send(0, [frame(MacAddr(first[0][6..12].try_into().unwrap()), mac(9), 2)]);
    assert_eq!(number(&vm.receive(1)[0]), 2);
    assert!(report(&switch).members[0].arp.is_none());
}

#[test]
fn a_bond_that_is_shut_carries_nothing_until_it_is_opened() {
    let (switch, _time, [vm, m1, m2]) = start(2, Bonding::default());
    let guard = PortGuard { bpdu_guard: BpduGuard::Shut, ..PortGuard::default() };
    switch.set_port("up", &PortOptions { guard, ..bond(Bonding::default()) }).unwrap();
    let bpdu = MacAddr([0x01, 0x80, 0xC2, 0, 0, 0]);
    m1.send(0, [frame(bpdu, mac(9), 1)]);
    wait_until("it is shut", || switch.port("up").unwrap().is_shut);
    wait_active(&switch, None);
    for peer in [&m1, &m2] {
        peer.send(0, [frame(BROADCAST, mac(9), 2)]);
        wait_until("it is taken", || peer.pending() == 0);
    }
    vm.send(0, [frame(BROADCAST, mac(1), 3)]);
    wait_until("it is taken", || vm.pending() == 0);
    assert!(switch.reopen_port("up").unwrap());
    wait_active(&switch, Some("m1"));
    m1.send(0, [frame(BROADCAST, mac(9), 4)]);
    assert_eq!(number(&vm.receive(1)[0]), 4, "nothing before");
    vm.send(0, [frame(BROADCAST, mac(1), 5)]);
    let sent = m1.receive(1);
    assert!(sent.iter().all(|frame| number(frame) != 3));
}

/// LACP, as a bond speaks it, or a port by itself.
fn spoken(manner: LacpManner) -> Bonding {
    let (lacp, lacp_time) = (Lacp::Active, LacpTime::Fast);
    Bonding { lacp, lacp_time, lacp_manner: manner, ..Bonding::default() }
}

#[test]
fn bonds_of_two_bridges_agree_by_patch_ports_and_notice_when_these_lead_elsewhere() {
    let time = Time::stopped();
    let config = SwitchConfig { workers: 2, ..SwitchConfig::default() };
    let switch = Switch::start_with(&config, time.clone()).unwrap();
    switch.add_bridge("red", &BridgeOptions::default()).unwrap();
    let red = |options: PortOptions| PortOptions { bridge: Some("red".to_owned()), ..options };
    let of = |name: &str| PortOptions { bond: Some(name.to_owned()), ..PortOptions::default() };
    let bonding = || spoken(LacpManner::OpenVswitch);
    switch.open_port("left", BOND_DEVICE, &bond(bonding())).unwrap();
    switch.open_port("right", BOND_DEVICE, &red(bond(bonding()))).unwrap();
    for (left, right) in [("l1", "r1"), ("l2", "r2")] {
        switch.open_port(left, &format!("patch:{right}"), &of("left")).unwrap();
        switch.open_port(right, &format!("patch:{left}"), &of("right")).unwrap();
    }
    let warp = |ms: u64| {
        for _ in 0..ms / 100 {
            time.warp(Duration::from_millis(100));
            switch.catch_up();
        }
    };
    let in_use = || {
        let members = switch.lacp().into_iter().flat_map(|bond| bond.members);
        members.filter(|member| member.is_enabled).map(|member| member.name).collect::<Vec<_>>()
    };
    warp(200);
    wait_until("they agree", || {
        warp(100);
        in_use() == ["l1", "l2", "r1", "r2"]
    });
    assert!(switch.port("l1").unwrap().is_agreed);
    // The first cable is taken out, and put elsewhere.
    switch.open_port("l3", "patch:r1", &PortOptions::default()).unwrap();
    switch.set_peer("r1", "l3").unwrap();
    assert_eq!(switch.port("r1").unwrap().device, "patch:l3");
    assert!(switch.port("l3").unwrap().link.up && !switch.port("l1").unwrap().link.up);
    warp(4_100);
    assert_eq!(in_use(), ["l2", "r2"]);
    assert!(!switch.port("l1").unwrap().is_agreed);
    let lacp = switch.lacp().remove(0).members.remove(0).lacp.unwrap();
    assert_eq!(lacp.state, "expired", "its partner is known still");
    switch.remove_port("l3").unwrap();
    switch.set_peer("r1", "l1").unwrap();
    wait_until("they agree", || {
        warp(100);
        in_use() == ["l1", "l2", "r1", "r2"]
    });
}

#[test]
fn a_port_by_itself_speaks_lacp_and_carries_frames_whatever_is_answered() {
    let switch = Switch::start(&SwitchConfig::default()).unwrap();
    let [(vm, vm_peer), (up, up_peer)] = [port("vm", 1), port("up", 1)];
    switch.add_port(vm, &PortOptions::default()).unwrap();
    switch.add_port(up, &bond(spoken(LacpManner::Standard))).unwrap();
    let said = up_peer.receive(1).remove(0);
    assert_eq!(said[..6], [1, 0x80, 0xC2, 0, 0, 2]);
    assert!(switch.bonds().is_empty());
    let lacp = switch.lacp().remove(0);
    assert_eq!((lacp.name.as_str(), lacp.members[0].name.as_str()), ("up", "up"));
    assert!(!switch.port("up").unwrap().is_agreed);
    // Its own frame comes back, and is for nobody else.
    up_peer.send(0, [said, frame(BROADCAST, mac(9), 1)]);
    assert_eq!(number(&vm_peer.receive(1)[0]), 1);
    wait_until("it is heard", || switch.lacp()[0].members[0].lacp.unwrap().received == 1);
    switch.set_port("up", &PortOptions::default()).unwrap();
    assert!(switch.lacp().is_empty() && switch.port("up").unwrap().is_agreed);
}

#[test]
fn what_is_sent_of_each_part_is_told_with_the_member_that_has_it() {
    let bonding = Bonding { mode: BondMode::BalanceSlb, ..Bonding::default() };
    let (switch, _time, [vm, m1, m2]) = start(2, bonding);
    assert!(!switch.divides_by_flow("up") && switch.bond_parts("vm").is_empty());
    let part = usize::from(switch::source_part(mac(1), 0));
    let member = switch.bond_parts("up")[part].member.clone().unwrap();
    let to = if member == "m1" { &m1 } else { &m2 };
    vm.send(0, [frame(mac(9), mac(1), 1), frame(mac(9), mac(1), 2)]);
    let bytes = to.receive(2).iter().map(Vec::len).sum::<usize>() as u64;
    let parts = switch.bond_parts("up");
    let expected = BondPart { member: Some(member), packets: 2, bytes };
    assert_eq!((parts.len(), &parts[part]), (256, &expected));
    assert_eq!(parts.iter().map(|part| part.packets).sum::<u64>(), 2);
}
