//! Samples for tests.

use std::collections::BTreeMap;

use super::sample::Sample;
use crate::control::protocol::{
    Bond, BondLacp, BondMember, Bonds, Bridge, Bridges, Counters, Info, MemberLacp, Mirror,
    Mirrors, Port, PortStats, Ports, Stats, Vdpa, VdpaDevice, Worker, WorkerQueue, Workers,
};

fn counters(packets: u64, dropped: u64) -> Counters {
    Counters {
        packets,
        bytes: packets * 100,
        dropped,
        drops: BTreeMap::from([("ring_full".to_owned(), dropped)])
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect(),
        sizes: BTreeMap::from([("size_65_127".to_owned(), packets)]),
        ..Counters::default()
    }
}

/// The sample with a bond of ports `a` and `b`, two mirrors and a vDPA device, which have counted
/// `counted`.
pub fn with_more(sample: Sample, counted: u64) -> Sample {
    let lacp = |state: &str, in_use| MemberLacp {
        state: state.to_owned(),
        in_use,
        port: 1,
        flags: Vec::new(),
        partner_system: "02:00:00:00:00:09".to_owned(),
        partner_system_priority: 1,
        partner_key: 7,
        partner_port: 2,
        partner_flags: Vec::new(),
        received: counted,
        sent: counted,
        bad: 0,
    };
    let member = |name: &str, active, lacp| BondMember {
        name: name.to_owned(),
        link_up: active,
        enabled: active,
        active,
        share: if active { 256 } else { 0 },
        lacp: Some(lacp),
        failures: 3,
        arp: None,
        inactive_drops: counted,
    };
    let bond = Bond {
        name: "uplink".to_owned(),
        bridge: switch::DEFAULT_BRIDGE.to_owned(),
        mode: switch::BondMode::ActiveBackup,
        bonding: switch::Bonding::default(),
        active: Some("a".to_owned()),
        active_changes: 5,
        lacp: Some(BondLacp {
            negotiated: true,
            system: "02:00:00:00:00:01".to_owned(),
            system_priority: 1,
            key: 4,
        }),
        moved: 0,
        members: vec![
            member("a", true, lacp("current", true)),
            member("b", false, lacp("defaulted", false)),
        ],
    };
    let empty = Bond { name: "empty".to_owned(), lacp: None, members: Vec::new(), ..bond.clone() };
    let mirror = |name: &str, settings: &str, active, missed| Mirror {
        name: name.to_owned(),
        mirror: serde_json::from_str(settings).unwrap(),
        active,
        trouble: (!active).then(|| "No space left on device".to_owned()),
        missed,
        packets: counted,
        bytes: counted * 100,
    };
    let to_port = r#"{"select-all":true,"output-port":"w"}"#;
    let to_file = r#"{"select-src-port":["a"],"output-file":"/var/m.pcapng"}"#;
    let device = VdpaDevice {
        name: "vm5".to_owned(),
        device: "0000:01:00.0".to_owned(),
        socket: "/run/vm5.sock".to_owned(),
        role: "server".to_owned(),
        state: "running".to_owned(),
        reason: None,
        queue_pairs: 4,
        rings: vec![0, 1, 8],
        mapped_doorbells: vec![0],
        offered_features: vec!["csum".to_owned()],
        features: vec!["csum".to_owned()],
        statistics: BTreeMap::from([("kicks".to_owned(), counted), ("resets".to_owned(), 1)]),
    };
    let mirrors = vec![mirror("all", to_port, true, 0), mirror("disk", to_file, false, counted)];
    Sample {
        bonds: Bonds { bonds: vec![empty, bond] },
        mirrors: Mirrors { mirrors },
        vdpa: Vdpa { devices: vec![device] },
        ..sample
    }
}

fn port(name: &str) -> Port {
    Port {
        name: name.to_owned(),
        device: format!("vhost-user:/run/{name}.sock"),
        driver: "vhost-user".to_owned(),
        bridge: switch::DEFAULT_BRIDGE.to_owned(),
        link_up: true,
        link_changes: 1,
        speed_mbps: None,
        mac: "02:00:00:00:00:01".to_owned(),
        mtu: 1500,
        enabled: true,
        shut: None,
        vlan: switch::PortVlan::default(),
        limits: switch::PortLimits::default(),
        guard: switch::PortGuard::default(),
        mcast_snooping: switch::PortSnooping::default(),
        rx_queues: 1,
        tx_queues: 1,
        rx_workers: vec![0],
        fdb_entries: 1,
        stations: vec!["52:54:00:00:00:09".to_owned()],
        bond: None,
        details: BTreeMap::from([("guest_takes".to_owned(), "CSUM TSO4".to_owned())]),
    }
}

/// A switch with these ports after `seconds`, each of which has received its number of frames, and
/// has dropped its other number of those it should have sent.
pub fn sample(seconds: u64, ports: &[(&str, u64, u64)]) -> Sample {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    let stats = ports.iter().map(|(name, packets, dropped)| PortStats {
        name: (*name).to_owned(),
        rx: counters(*packets, 0),
        tx: counters(0, *dropped),
        rx_queues: vec![counters(*packets, 0)],
        tx_queues: vec![counters(0, *dropped)],
        rx_pressure: Vec::new(),
        tx_pressure: Vec::new(),
        extended: BTreeMap::new(),
    });
    let names = || ports.iter().map(|(name, ..)| (*name).to_owned());
    let worker = Worker {
        index: 0,
        core: Some(3),
        alive: true,
        packets: ports.iter().map(|(_, packets, _)| packets).sum(),
        polls: seconds * 1000,
        busy_polls: seconds * 100,
        busy_cycles: seconds * 500_000,
        total_cycles: seconds * 1_000_000,
        sleeps: 0,
        sleep_cycles: 0,
        queues: names().map(|port| WorkerQueue { port, queue: 0 }).collect(),
    };
    let bridge = Bridge {
        name: switch::DEFAULT_BRIDGE.to_owned(),
        ports: names().collect(),
        group_fwd_mask: 0,
        vlan_aware: false,
        any_source: false,
        learn_per_burst: 8,
        limit: 65_536,
        ageing_seconds: 300,
        addresses: ports.len(),
        learned: seconds * 5,
        moved: 0,
        expired: 0,
        evicted: 0,
        refused: 0,
    };
    Sample {
        info: Info { version: "1.2.3".to_owned(), pid: 77, uptime_seconds: seconds },
        stats: Stats { uptime_ms: seconds * 1000, ports: stats.collect() },
        ports: Ports { ports: ports.iter().map(|(name, ..)| port(name)).collect() },
        workers: Workers { cycles_per_second: 1_000_000, workers: vec![worker] },
        bridges: Bridges { bridges: vec![bridge] },
        bonds: Bonds { bonds: Vec::new() },
        mirrors: Mirrors { mirrors: Vec::new() },
        vdpa: Vdpa { devices: Vec::new() },
        front_ends: BTreeMap::new(),
    }
}
