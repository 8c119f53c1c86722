//! Every table fits a terminal of 80 columns, with the longest names and largest numbers.

use std::collections::BTreeMap;

use crate::control::protocol::{
    Bond, BondLacp, BondMember, Bonds, Bridge, Bridges, Counters, Fdb, FdbEntry, Group,
    GroupBridge, GroupRouter, Groups, MemberArp, MemberLacp, Mirror, Mirrors, Neighbours,
    PortStats, Ports, Rstp, RxPressure, Stats, TxPressure, VdpaDevice, Worker, WorkerQueue,
    Workers,
};
use crate::table::columns;
use crate::{rates, vdpa};

/// As long as a name may be.
fn name(n: usize) -> String {
    format!("{n:03}-{}", "x".repeat(28))
}

fn assert_fits(what: &str, text: &str) {
    for line in text.lines() {
        // A path stays whole, so that it can be copied.
        let is_path = line.trim_start().rsplit(' ').next().is_some_and(|word| word.contains('/'));
        assert!(line.chars().count() <= columns() || is_path, "{what}: {line}\n{text}");
    }
    // Nothing is left out: of each name there is the end, too.
    assert!(text.contains("xxx"), "{what}: {text}");
}

fn counters() -> Counters {
    let most = 99_999_999_999_999;
    Counters {
        packets: most,
        bytes: most,
        multicast: most,
        broadcast: most,
        sizes: BTreeMap::new(),
        dropped: most,
        drops: ethdev::DropReason::ALL.iter().map(|why| (why.name().to_owned(), most)).collect(),
    }
}

fn stats(uptime_ms: u64, counters: &Counters) -> Stats {
    let most = counters.packets;
    let rx = RxPressure { depth: Some(32_768), bursts: most, full_bursts: most, busy_us: most };
    let tx = TxPressure { depth: Some(32_768), stalls: most };
    let ports = (0..256).map(|n| PortStats {
        name: name(n),
        rx: counters.clone(),
        tx: counters.clone(),
        rx_queues: vec![counters.clone(); 2],
        tx_queues: vec![counters.clone(); 2],
        rx_pressure: vec![rx.clone(); 2],
        tx_pressure: vec![tx.clone(); 2],
        extended: BTreeMap::new(),
    });
    Stats { uptime_ms, ports: ports.collect() }
}

#[test]
fn counters_and_rates_of_256_ports_fit() {
    let (before, now) = (stats(1000, &Counters::default()), stats(2000, &counters()));
    for queues in [false, true] {
        assert_fits("counters", &rates::render(&now, None, queues, false));
        assert_fits("rates", &rates::render(&now, Some(&before), queues, false));
    }
}

#[test]
fn ports_fit() {
    let port = |n: usize| super::ports::testing::port(n, &name(n), &name(n + 1));
    let text = super::show_ports(&Ports { ports: (0..256).map(port).collect() }, None, false);
    assert_fits("ports", &text.unwrap());
    let text = super::show_ports(&Ports { ports: vec![port(7)] }, Some(&name(7)), false).unwrap();
    assert_fits("a port", &text);
}

#[test]
fn workers_bridges_and_addresses_fit() {
    let worker = |index: usize| Worker {
        index,
        core: Some(127),
        alive: index > 3,
        packets: 99_999_999_999_999,
        polls: u64::MAX / 2,
        busy_polls: 99_999_999_999_999,
        busy_cycles: 99_999_999_999_999,
        total_cycles: 99_999_999_999_999,
        sleeps: 5,
        sleep_cycles: 99_999_999_999_999,
        queues: (0..64).map(|n| WorkerQueue { port: name(n), queue: index }).collect(),
    };
    let workers =
        Workers { cycles_per_second: 1_000_000_000, workers: (0..32).map(worker).collect() };
    assert_fits("workers", &super::workers(&workers, None, false));
    let bridge = |n: usize| Bridge {
        name: name(n),
        ports: (0..256).map(name).collect(),
        group_fwd_mask: 0xffff,
        vlan_aware: true,
        any_source: true,
        learn_per_burst: 32,
        limit: 1_048_576,
        ageing_seconds: 86_400,
        addresses: 1_048_576,
        learned: u64::MAX / 2,
        moved: u64::MAX / 2,
        expired: u64::MAX / 2,
        evicted: u64::MAX / 2,
        refused: u64::MAX / 2,
    };
    let bridges: Vec<Bridge> = (0..9).map(bridge).collect();
    assert_fits("bridges", &super::show_bridges(&Bridges { bridges: bridges.clone() }, false));
    let entry = |n: usize| FdbEntry {
        bridge: name(n % 9),
        mac: "52:54:00:00:00:01".to_owned(),
        vlan: 4094,
        port: name(n),
        age_seconds: Some(86_399),
        is_static: n.is_multiple_of(2),
    };
    let fdb = Fdb {
        limit: 1,
        ageing_seconds: 1,
        learned: 0,
        moved: 0,
        expired: 0,
        evicted: 0,
        refused: 0,
        bridges,
        entries: (0..256).map(entry).collect(),
    };
    assert_fits("addresses", &super::show_fdb(fdb, None, false).unwrap());
}

#[test]
fn mirrors_bonds_neighbours_and_vdpa_devices_fit() {
    let ports: Vec<String> = (0..32).map(name).collect();
    let settings = serde_json::json!({
        "bridge": name(1), "select-src-port": ports, "select-dst-port": ports,
        "select-vlan": "1-9,20-29,40-49,1000-1999", "output-port": name(2), "snaplen": 65_535,
    });
    let mirror = |n: usize| Mirror {
        name: name(n),
        mirror: serde_json::from_value(settings.clone()).unwrap(),
        active: false,
        trouble: None,
        missed: 99_999_999_999_999,
        packets: 99_999_999_999_999,
        bytes: 99_999_999_999_999,
    };
    let mirrors = Mirrors { mirrors: (0..9).map(mirror).collect() };
    assert_fits("mirrors", &super::show_mirrors(&mirrors, false));
    let flags: Vec<String> =
        ["active", "fast", "aggregatable", "in sync", "collecting", "distributing", "expired"]
            .map(str::to_owned)
            .into();
    let lacp = MemberLacp {
        state: "defaulted".to_owned(),
        in_use: true,
        port: u16::MAX,
        flags: flags.clone(),
        partner_system: "52:54:00:00:00:01".to_owned(),
        partner_system_priority: u16::MAX,
        partner_key: u16::MAX,
        partner_port: u16::MAX,
        partner_flags: flags,
        received: u64::MAX,
        sent: u64::MAX,
        bad: u64::MAX,
    };
    let member = |n: usize| BondMember {
        name: name(n),
        link_up: false,
        enabled: false,
        active: false,
        share: 256,
        lacp: Some(lacp.clone()),
        arp: Some(MemberArp { answered: false, sent: u64::MAX, received: u64::MAX }),
        failures: 99_999,
        inactive_drops: 99_999_999_999,
    };
    let bond = Bond {
        name: name(0),
        bridge: name(1),
        mode: switch::BondMode::ActiveBackup,
        bonding: switch::Bonding::default(),
        active: None,
        active_changes: 0,
        lacp: Some(BondLacp {
            negotiated: true,
            system: "52:54:00:00:00:01".to_owned(),
            system_priority: u16::MAX,
            key: u16::MAX,
        }),
        moved: u64::MAX,
        members: (0..8).map(member).collect(),
    };
    assert_fits("bonds", &super::show_bonds(&Bonds { bonds: vec![bond] }, false));
    let bridges = (0..3).map(|n| super::rstp::tests::bridge(&name(n), &name(n + 1))).collect();
    assert_fits("spanning tree", &super::show_rstp(&Rstp { bridges }, false));
    let ports = (0..9).map(|n| super::neighbours::tests::port(&name(n), 2)).collect();
    assert_fits("neighbours", &super::show_neighbours(&Neighbours { ports }, false));
    let names: Vec<String> = (0..40).map(|n| format!("guest_announce_{n}")).collect();
    let device = VdpaDevice {
        name: name(0),
        device: "virtio-pci:0000:01:00.0".to_owned(),
        socket: format!("/run/ringway-switch/{}.sock", name(0)),
        role: "server".to_owned(),
        state: "connected".to_owned(),
        reason: Some("a reason that is told in many words, since there is much to it ".repeat(3)),
        queue_pairs: 256,
        rings: (0..512).collect(),
        mapped_doorbells: (0..512).collect(),
        offered_features: names.clone(),
        features: names.clone(),
        statistics: names.iter().map(|name| (name.clone(), u64::MAX)).collect(),
    };
    assert_fits("vDPA devices", &vdpa::report::attached(&[device], false));
}

#[test]
fn groups_fit() {
    let bridge = |n: usize| GroupBridge {
        name: name(n),
        limit: 65_536,
        ageing_seconds: 3_600,
        flood_unregistered: false,
        querier: true,
        joined: u64::MAX,
        left: u64::MAX,
        expired: u64::MAX,
        evicted: u64::MAX,
        refused: u64::MAX,
        bad: u64::MAX,
    };
    let group = |n: usize| Group {
        bridge: name(n % 9),
        vlan: 4094,
        group: "ff15:1111:2222:3333:4444:5555:6666:7777".parse().unwrap(),
        port: name(n),
        age_seconds: 3_599,
    };
    let router = |n: usize| GroupRouter {
        bridge: name(n % 9),
        vlan: Some(4094),
        port: name(n),
        age_seconds: Some(254),
    };
    let groups = Groups {
        bridges: (0..9).map(bridge).collect(),
        groups: (0..64).map(group).collect(),
        routers: (0..9).map(router).collect(),
    };
    assert_fits("groups", &super::show_groups(groups, None, false).unwrap());
}
