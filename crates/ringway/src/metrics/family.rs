//! The list of metrics. Names are for good: a dashboard has them.
//!
//! Base units, `_total` for what only grows (which is not part of the name here), and labels whose
//! values are few and stay: <https://prometheus.io/docs/practices/naming/>.

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows until the switch, or what it is of, starts anew.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Always 1: its labels tell something.
    Info,
    /// Counts by size.
    Histogram,
}

/// A metric with all its series.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, without `_total` or `_info`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a line.
    pub help: &'static str,
}

impl Family {
    /// What stands behind the name in each sample of it.
    pub const fn suffix(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }

    /// Its unit, which is the end of the name.
    pub fn unit(&self) -> Option<&'static str> {
        ["bytes", "seconds"]
            .into_iter()
            .find(|unit| self.name.strip_suffix(unit).is_some_and(|before| before.ends_with('_')))
    }
}

/// Makes constants, and a list of all of them in this order.
macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All of them.
        #[cfg(test)]
        pub const ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD: Info "ringway_build" ["version", "commit"]
        "Version of the program, and the commit that it was built of.";
    UPTIME: Gauge "ringway_uptime_seconds" []
        "How long the switch has run.";
    CONFIG_CHANGES: Counter "ringway_config_changes" []
        "How often the configuration was changed, by the file or by commands.";
    CONFIG_RELOADS: Counter "ringway_config_reloads" ["result"]
        "How often the configuration file was read again, by what came of it: success or failure.";
    CONFIG_RELOADED: Gauge "ringway_config_last_reload_successful" []
        "Whether the file was right when it was read last; 1 before it was read again.";
    SCRAPES: Counter "ringway_metrics_scrapes" []
        "How often these figures were taken, before this time.";
    SCRAPE_SECONDS: Gauge "ringway_metrics_last_scrape_duration_seconds" []
        "How long the switch took to write these figures the last time.";

    PORT: Info "ringway_port" ["port", "bridge", "driver", "device", "mac"]
        "What a port is.";
    PORT_WAITING: Gauge "ringway_port_waiting" ["port"]
        "A port or vDPA device that cannot be opened yet and is tried again; always 1.";
    PORT_ENABLED: Gauge "ringway_port_enabled" ["port"]
        "Whether the operator has the port in service.";
    PORT_LINK: Gauge "ringway_port_link_up" ["port"]
        "Whether the port's peer is there and takes frames.";
    PORT_LINK_CHANGES: Counter "ringway_port_link_changes" ["port"]
        "How often the link went up or down.";
    PORT_SPEED: Gauge "ringway_port_speed_bytes" ["port"]
        "Speed of the link in bytes per second, where it has one.";
    PORT_MTU: Gauge "ringway_port_mtu_bytes" ["port"]
        "Largest payload of a frame.";
    PORT_FRAMES: Counter "ringway_port_frames" ["port", "direction"]
        "Frames that passed: rx from the port to the switch, tx from the switch to the port.";
    PORT_BYTES: Counter "ringway_port_bytes" ["port", "direction"]
        "Bytes of those frames, without frame check sequences.";
    PORT_MULTICAST: Counter "ringway_port_multicast_frames" ["port", "direction"]
        "Those of the frames that go to a group, broadcast left out.";
    PORT_BROADCAST: Counter "ringway_port_broadcast_frames" ["port", "direction"]
        "Those of the frames that go to all stations.";
    PORT_SIZES: Histogram "ringway_port_frame_size_bytes" ["port", "direction"]
        "The frames by their size without frame check sequence.";
    PORT_DROPS: Counter "ringway_port_dropped_frames" ["port", "direction", "reason"]
        "Frames dropped, by reason: rx where the frame came in, tx where it should have gone out.";
    PORT_FDB: Gauge "ringway_port_fdb_entries" ["port"]
        "Addresses in the forwarding database that were learnt on the port.";
    PORT_EVENTS: Counter "ringway_port_driver_events" ["port", "direction", "queue", "event"]
        "What the port's driver counts, by its own names.";

    QUEUE: Info "ringway_queue" ["port", "queue", "worker"]
        "The worker that polls a receive queue.";
    QUEUE_FRAMES: Counter "ringway_queue_frames" ["port", "direction", "queue"]
        "Frames that passed a queue.";
    QUEUE_BYTES: Counter "ringway_queue_bytes" ["port", "direction", "queue"]
        "Bytes of those frames.";
    QUEUE_DROPS: Counter "ringway_queue_dropped_frames" ["port", "direction", "queue"]
        "Frames dropped at a queue, for all reasons.";
    QUEUE_SEGMENTS: Counter "ringway_queue_large_segments" ["port", "direction", "queue"]
        "Those of the frames that are large segments, to be cut later, where the driver tells.";

    QUEUE_DEPTH: Gauge "ringway_queue_depth" ["port", "direction", "queue"]
        "Buffers in a guest's ring that wait for the switch: rx with frames, tx for frames.";
    QUEUE_BURSTS: Counter "ringway_queue_bursts" ["port", "queue"]
        "Polls of a receive queue that found frames.";
    QUEUE_FULL_BURSTS: Counter "ringway_queue_full_bursts" ["port", "queue"]
        "Those of them that found as many frames as a burst may have, so that more may wait.";
    QUEUE_BUSY: Counter "ringway_queue_busy_seconds" ["port", "queue"]
        "Time spent on frames of a receive queue, estimated: its rate is its part of its worker's load.";
    QUEUE_STALLS: Counter "ringway_queue_stalls" ["port", "queue"]
        "How often frames found no room in a transmit queue: the peer's ring was full or had no buffers.";

    BRIDGE_PORTS: Gauge "ringway_bridge_ports" ["bridge"]
        "Number of ports.";
    BRIDGE_FDB: Gauge "ringway_bridge_fdb_entries" ["bridge"]
        "Addresses in the forwarding database.";
    BRIDGE_FDB_STATIC: Gauge "ringway_bridge_fdb_static_entries" ["bridge"]
        "Those of them that an operator has set.";
    BRIDGE_FDB_MAX: Gauge "ringway_bridge_fdb_max_entries" ["bridge"]
        "The most addresses that there can be.";
    BRIDGE_FDB_AGEING: Gauge "ringway_bridge_fdb_ageing_seconds" ["bridge"]
        "How long an address lives without frames; 0: for ever.";
    BRIDGE_FDB_LEARNED: Counter "ringway_bridge_fdb_learned" ["bridge"]
        "Addresses learnt.";
    BRIDGE_FDB_MOVED: Counter "ringway_bridge_fdb_moved" ["bridge"]
        "Addresses that moved from one port to another.";
    BRIDGE_FDB_EXPIRED: Counter "ringway_bridge_fdb_expired" ["bridge"]
        "Addresses forgotten since no frame came for too long.";
    BRIDGE_FDB_EVICTED: Counter "ringway_bridge_fdb_evicted" ["bridge"]
        "Addresses given up for others when the database was full.";

    MIRROR_ACTIVE: Gauge "ringway_mirror_active" ["mirror"]
        "Whether the mirror's output port is there, or its file is written; without it nothing is copied.";
    MIRROR_FRAMES: Counter "ringway_mirror_frames" ["mirror"]
        "Frames copied.";
    MIRROR_BYTES: Counter "ringway_mirror_bytes" ["mirror"]
        "Bytes of the copies.";

    MIRROR_MISSED: Counter "ringway_mirror_missed_frames" ["mirror"]
        "Those of the frames that are not in the mirror's file: the disk was too slow, or full.";

    EXPORT_RECORDS: Counter "ringway_export_records" ["bridge", "protocol", "outcome"]
        "What collectors are told of a bridge (samples, flows), each for each collector: sent, or lost.";

    RSTP: Info "ringway_rstp" ["bridge", "bridge_id", "root_id", "root_port", "version"]
        "What a bridge with spanning tree knows of its tree; root_port is empty where it is the root.";
    RSTP_IS_ROOT: Gauge "ringway_rstp_is_root" ["bridge"]
        "Whether the bridge is the root of its tree.";
    RSTP_ROOT_COST: Gauge "ringway_rstp_root_path_cost" ["bridge"]
        "What the way to the root costs.";
    RSTP_CHANGES: Counter "ringway_rstp_topology_changes" ["bridge"]
        "How often the topology has changed.";
    RSTP_ROLE: Gauge "ringway_rstp_port_role" ["port", "role"]
        "1 for the part that a port has in the tree of its bridge, 0 for the others.";
    RSTP_STATE: Gauge "ringway_rstp_port_state" ["port", "state"]
        "1 for what a port does with frames by spanning tree, 0 for the others.";
    RSTP_FORWARDS: Counter "ringway_rstp_port_forward_transitions" ["port"]
        "How often a port began to forward.";
    RSTP_FRAMES: Counter "ringway_rstp_port_frames" ["port", "direction"]
        "Frames of the protocol.";
    RSTP_BAD: Counter "ringway_rstp_port_bad_frames" ["port"]
        "Those received that made no sense.";

    LLDP_NEIGHBOUR: Info "ringway_lldp_neighbour"
        ["port", "chassis_id_type", "chassis_id", "port_id_type", "port_id", "system_name"]
        "A neighbour, by its own words.";
    LLDP_NEIGHBOURS: Gauge "ringway_lldp_neighbours" ["port"]
        "Neighbours that are heard on a port.";
    LLDP_AGED: Counter "ringway_lldp_aged_neighbours" ["port"]
        "Neighbours forgotten since they were not heard for as long as they had said.";
    LLDP_FRAMES: Counter "ringway_lldp_frames" ["port", "direction"]
        "Frames of the protocol.";
    LLDP_BAD: Counter "ringway_lldp_bad_frames" ["port"]
        "Those received that made no sense.";
    LLDP_IGNORED: Counter "ringway_lldp_ignored_frames" ["port"]
        "Those received of one neighbour more than a port keeps.";

    MCAST_GROUPS: Gauge "ringway_mcast_groups" ["bridge"]
        "Groups of IGMP and MLD that have members, counted in each VLAN.";
    MCAST_MAX: Gauge "ringway_mcast_max_groups" ["bridge"]
        "The most groups that there can be.";
    MCAST_ROUTERS: Gauge "ringway_mcast_routers" ["bridge"]
        "Places where multicast routers are heard, counted in each VLAN.";
    MCAST_PORT_GROUPS: Gauge "ringway_mcast_port_groups" ["port"]
        "Groups that a port has members of; a port without any is missing.";
    MCAST_JOINED: Counter "ringway_mcast_joined" ["bridge"]
        "Ports that became members of groups.";
    MCAST_LEFT: Counter "ringway_mcast_left" ["bridge"]
        "Those that left.";
    MCAST_EXPIRED: Counter "ringway_mcast_expired" ["bridge"]
        "Those of which no report came for too long.";
    MCAST_EVICTED: Counter "ringway_mcast_evicted_groups" ["bridge"]
        "Groups given up for others at the limit.";
    MCAST_REFUSED: Counter "ringway_mcast_refused" ["bridge"]
        "Reports of ports that had as many groups as they may.";
    MCAST_BAD: Counter "ringway_mcast_bad_messages" ["bridge"]
        "Messages that made no sense.";

    BOND: Info "ringway_bond" ["bond", "bridge", "mode"]
        "What a bond is.";
    BOND_MEMBERS: Gauge "ringway_bond_members" ["bond"]
        "Number of members.";
    BOND_CHANGES: Counter "ringway_bond_active_changes" ["bond"]
        "How often another member has become the active one, or none was left.";
    BOND_MOVED: Counter "ringway_bond_moved" ["bond"]
        "How many parts of the traffic, of 256, went to another member for their load.";
    BOND_NEGOTIATED: Gauge "ringway_bond_lacp_negotiated" ["bond"]
        "Whether a bond with LACP has a partner, and links that both use.";
    BOND_LINK: Gauge "ringway_bond_member_link_up" ["bond", "port"]
        "Whether a member's link is up, and the port in service.";
    BOND_ENABLED: Gauge "ringway_bond_member_enabled" ["bond", "port"]
        "Whether it may be used, after the delays of the bond.";
    BOND_ACTIVE: Gauge "ringway_bond_member_active" ["bond", "port"]
        "Whether it is the active one.";
    BOND_SHARE: Gauge "ringway_bond_member_share_ratio" ["bond", "port"]
        "Its part of the traffic, 0 to 1.";
    BOND_FAILURES: Counter "ringway_bond_member_failures" ["bond", "port"]
        "How often it was given up.";
    BOND_LACP_STATE: Gauge "ringway_bond_member_lacp_state" ["bond", "port", "state"]
        "1 for what a member knows of its partner by LACP (current: it is heard), 0 for the others.";
    BOND_LACP_IN_USE: Gauge "ringway_bond_member_lacp_in_use" ["bond", "port"]
        "Whether both sides use the member, by LACP.";
    BOND_LACP_FRAMES: Counter "ringway_bond_member_lacp_frames" ["bond", "port", "direction"]
        "Frames of the protocol.";
    BOND_LACP_BAD: Counter "ringway_bond_member_lacp_bad_frames" ["bond", "port"]
        "Those received that made no sense.";

    WORKER: Info "ringway_worker" ["worker", "core"]
        "The core that a worker is bound to, or any.";
    WORKER_UP: Gauge "ringway_worker_up" ["worker"]
        "Whether the worker runs; 0: it has ended by a panic.";
    WORKER_SECONDS: Counter "ringway_worker_seconds" ["worker"]
        "Time since the worker started.";
    WORKER_BUSY: Counter "ringway_worker_busy_seconds" ["worker"]
        "Time in rounds that found frames: its rate is the worker's load, 0 to 1.";
    WORKER_ASLEEP: Counter "ringway_worker_sleep_seconds" ["worker"]
        "Time asleep.";
    WORKER_SLEEPS: Counter "ringway_worker_sleeps" ["worker"]
        "How often the worker fell asleep.";
    WORKER_FRAMES: Counter "ringway_worker_frames" ["worker"]
        "Frames received.";
    WORKER_POLLS: Counter "ringway_worker_polls" ["worker"]
        "Rounds over its queues.";
    WORKER_BUSY_POLLS: Counter "ringway_worker_busy_polls" ["worker"]
        "Rounds that found frames.";

    VDPA: Info "ringway_vdpa_device" ["name", "device", "role"]
        "What a vDPA device is.";
    VDPA_STATE: Gauge "ringway_vdpa_state" ["name", "state"]
        "1 for the state that a vDPA device is in, 0 for the others.";
    VDPA_RINGS: Gauge "ringway_vdpa_rings" ["name"]
        "Rings that a vDPA device serves now.";
    VDPA_EVENTS: Counter "ringway_vdpa_device_events" ["name", "event"]
        "What a vDPA device counts, by its own names.";

    PROCESS_CPU: Counter "process_cpu_seconds" []
        "Processor time that the switch has used, user and system.";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" []
        "Memory of the switch, with what it shares with its guests.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "When the switch started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_as_prometheus_has_them() {
        let is_name = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                && !name.starts_with('_')
        };
        for family in ALL {
            let Family { name, kind, labels, help } = family;
            assert!(is_name(name) && labels.iter().all(|label| is_name(label)), "{family:?}");
            assert!(name.starts_with("ringway_") || name.starts_with("process_"), "{family:?}");
            assert!(help.ends_with('.') && !help.contains(['\n', '\\', '"']), "{family:?}");
            // These ends belong to samples (OpenMetrics 1.0, Suffixes).
            for end in ["_total", "_info", "_count", "_sum", "_bucket", "_created"] {
                assert!(!name.ends_with(end), "{family:?}");
            }
            assert_eq!(*kind == Kind::Histogram, name.contains("_size_"), "{family:?}");
        }
        let names: BTreeSet<&str> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn the_unit_is_the_end_of_the_name() {
        assert_eq!(PORT_BYTES.unit(), Some("bytes"));
        assert_eq!(WORKER_SECONDS.unit(), Some("seconds"));
        assert_eq!(PORT_FRAMES.unit(), None);
    }

    /// What a metric is of, for its place in the document.
    fn section(family: &Family) -> &'static str {
        let sections = [
            ("ringway_port_", "Ports"),
            ("ringway_queue_", "Queues"),
            ("ringway_bridge_", "Bridges"),
            ("ringway_mirror_", "Mirrors"),
            ("ringway_export_", "Collectors"),
            ("ringway_rstp_", "Spanning tree"),
            ("ringway_lldp_", "Neighbours"),
            ("ringway_mcast_", "Groups of multicast"),
            ("ringway_bond_", "Bonds"),
            ("ringway_worker_", "Workers"),
            ("ringway_vdpa_", "vDPA devices"),
            ("process_", "The process"),
        ];
        let name = format!("{}_", family.name);
        let found = sections.into_iter().find(|(start, _)| name.starts_with(start));
        found.map_or("The switch", |(_, section)| section)
    }

    /// All metrics, as the document has them.
    fn tables() -> String {
        let mut text = String::new();
        let mut last = "";
        for family in ALL {
            if section(family) != last {
                last = section(family);
                text +=
                    &format!("\n### {last}\n\n| Metric | Kind | Labels | |\n|---|---|---|---|\n");
            }
            let kind = format!("{:?}", family.kind).to_lowercase();
            let labels: Vec<String> =
                family.labels.iter().map(|label| format!("`{label}`")).collect();
            let name = format!("{}{}", family.name, family.suffix());
            text += &format!("| `{name}` | {kind} | {} | {} |\n", labels.join(" "), family.help);
        }
        text
    }

    #[test]
    fn the_document_has_all_of_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, found) = document.split_once("## The list\n").unwrap();
        let found = found.split("\n## ").next().unwrap();
        let expected = tables();
        if let Some(file) = std::env::var_os("RINGWAY_WRITE_DOCS") {
            std::fs::write(file, &expected).unwrap();
        }
        assert_eq!(found.trim(), expected.trim(), "docs/metrics.md, 'The list'");
    }
}
