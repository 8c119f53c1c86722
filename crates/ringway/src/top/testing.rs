//! Samples for tests.

use std::collections::BTreeMap;

use super::sample::Sample;
use crate::control::protocol::{
    Bridge, Bridges, Counters, Info, Port, PortStats, Ports, Stats, Worker, WorkerQueue, Workers,
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
        front_ends: BTreeMap::new(),
    }
}
