//! The data path.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ordered::Order as _;
use ovs::content::{Content, Interface};
use ovs::device::rx_queues;
pub use ovs::features::{PATHS, path_of};
use ovs::unixctl::Answer;
use switch::tunnels::{Address, ErspanSettings, Inherited, Kind, Mode, Said, Settings, TunnelKey};

use super::super::flows::collect;
use super::Appctl;

/// What is shown of an interface's type.
pub(super) fn kind_of(appctl: &Appctl<'_>, row: &Interface, datapath_type: &str) -> String {
    let is_dummy = appctl.agent.dummies().has(&row.kind, datapath_type);
    match (row.kind.as_str(), row.options.get("peer")) {
        ("internal", _) if is_dummy => "dummy-internal".to_owned(),
        // What it is: Open vSwitch's own userspace data path has none but these either.
        ("internal", _) => "tap".to_owned(),
        ("", _) => "system".to_owned(),
        // A dummy port has one queue to send to.
        ("dummy-pmd", _) => {
            let count = rx_queues(row).unwrap_or(1);
            let queues = |state| format!("{state}_rx_queues={count}, {state}_tx_queues=1");
            format!("dummy-pmd: {}, {}", queues("configured"), queues("requested"))
        }
        ("patch", Some(peer)) => format!("patch: peer={peer}"),
        (kind, _) => kind.to_owned(),
    }
}

/// What is shown of a tunnel: its type, and what it is set to, but for what is usual.
fn tunnel(kind: &str, settings: &Settings) -> String {
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    for (name, end) in [("remote_ip", settings.remote), ("local_ip", settings.local)] {
        match end {
            Address::Is(address) => drop(all.insert(name, address.to_string())),
            Address::Flow => drop(all.insert(name, "flow".to_owned())),
            Address::Any => {}
        }
    }
    let Settings { in_key, out_key, .. } = settings;
    let keys = match in_key == out_key {
        true => vec![("key", in_key)],
        false => vec![("in_key", in_key), ("out_key", out_key)],
    };
    for (name, key) in keys {
        match key {
            TunnelKey::Is(key) => drop(all.insert(name, key.to_string())),
            TunnelKey::Flow => drop(all.insert(name, "flow".to_owned())),
            TunnelKey::None => {}
        }
    }
    let usual = Settings::new(settings.kind, settings.remote);
    for (name, own, usual) in [("ttl", settings.ttl, usual.ttl), ("tos", settings.tos, usual.tos)] {
        match own {
            Inherited::Inner => drop(all.insert(name, "inherit".to_owned())),
            Inherited::Is(own) if Inherited::Is(own) == usual => {}
            Inherited::Is(own) if name == "tos" => drop(all.insert(name, format!("{own:#x}"))),
            Inherited::Is(own) => drop(all.insert(name, own.to_string())),
        }
    }
    if settings.port != usual.port {
        all.insert("dst_port", settings.port.to_string());
    }
    if settings.checksum {
        all.insert("csum", "true".to_owned());
    }
    if settings.mark != 0 {
        all.insert("egress_pkt_mark", settings.mark.to_string());
    }
    if settings.is_numbered {
        all.insert("seq", "true".to_owned());
    }
    if settings.kind == Kind::Erspan {
        all.extend(erspan(&settings.erspan));
    }
    match settings.mode {
        own if own == usual.mode => {}
        Mode::Frames => drop(all.insert("packet_type", "legacy_l2".to_owned())),
        Mode::Packets => drop(all.insert("packet_type", "legacy_l3".to_owned())),
        Mode::Any => drop(all.insert("packet_type", "ptap".to_owned())),
    }
    if !settings.dont_fragment {
        all.insert("df_default", "false".to_owned());
    }
    let all: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{kind}: {}", all.join(", "))
}

/// What is said of frames that are mirrored, by the version that has it.
fn erspan(settings: &ErspanSettings) -> Vec<(&'static str, String)> {
    let ErspanSettings { version, index, direction, hardware } = *settings;
    let is = |own: u32| version == Said::Flow || version == Said::Is(own);
    let number = |said: Said, hex: bool| match said {
        Said::Flow => "flow".to_owned(),
        Said::Is(own) if hex => format!("{own:#x}"),
        Said::Is(own) => own.to_string(),
    };
    let all = [
        (true, "erspan_ver", number(version, false)),
        (is(1), "erspan_idx", number(index, true)),
        (is(2), "erspan_dir", number(direction, false)),
        (is(2), "erspan_hwid", number(hardware, true)),
    ];
    let there = all.into_iter().filter(|(is_there, ..)| *is_there);
    there.map(|(_, name, value)| (name, value)).collect()
}

/// Bridges and their ports: OpenFlow number, number in the data path, type.
pub fn show(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    collect(appctl, false);
    let Some(content) = appctl.agent.content() else { return Ok(String::new()) };
    let reports = appctl.daemon.switch().ports();
    let mut text = String::new();
    for path in PATHS {
        let bridges = content.bridges.iter();
        let bridges = bridges.filter(|(_, bridge)| path_of(&bridge.datapath_type) == path);
        let names: Vec<&String> = bridges.map(|(name, _)| name).collect();
        if names.is_empty() {
            continue;
        }
        let ports = reports.iter().filter(|port| names.contains(&&port.bridge));
        let packets: u64 = ports.map(|port| port.stats.rx_total().packets).sum();
        // Without flows, no frame is looked up twice: there is nothing that it could miss.
        let flows = appctl.flows.of_path(path);
        let (hit, missed) = flows.map_or((packets, 0), |flows| (flows.hits, flows.misses));
        let _ = writeln!(text, "{path}: hit:{hit} missed:{missed}");
        for name in names {
            show_bridge(appctl, content, name, &mut text);
        }
    }
    Ok(text)
}

fn show_bridge(appctl: &Appctl<'_>, content: &Content, name: &str, text: &mut String) {
    let Some(bridge) = content.bridges.get(name) else { return };
    let _ = writeln!(text, "  {name}:");
    let ports = bridge.ports.values().flat_map(|port| &port.interfaces);
    let mut interfaces: Vec<(&String, &Interface)> = ports.collect();
    interfaces.order_by_key(|(name, _)| *name);
    for (interface, row) in interfaces {
        let is_there = appctl.daemon.switch().port(interface).is_ok();
        let Some(number) = appctl.agent.number(name, interface).filter(|_| is_there) else {
            continue;
        };
        let place = appctl.agent.path_numbers().of(interface);
        let place = place.map_or_else(|| "none".to_owned(), |place| place.to_string());
        let kind = match appctl.tunnel_settings(interface) {
            Some(settings) => tunnel(&row.kind, &settings),
            None => kind_of(appctl, row, &bridge.datapath_type),
        };
        let _ = writeln!(text, "    {interface} {number}/{place}: ({kind})");
    }
}

/// Bridges with their types of data path.
pub fn dump_paths(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let bridges = appctl.agent.content().into_iter().flat_map(|content| &content.bridges);
    let line = |(name, bridge): (&String, &ovs::content::Bridge)| {
        let kind = path_of(&bridge.datapath_type).split('@').next().unwrap_or_default();
        format!("{kind}@{name}\n")
    };
    Ok(bridges.map(line).collect())
}

/// How much there is of what takes memory.
pub fn memory(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let switch = appctl.daemon.switch();
    let bridges = switch.bridges();
    let entries: usize = bridges.iter().map(|bridge| bridge.fdb.entries).sum();
    let (ports, workers) = (switch.ports().len(), switch.workers().len());
    Ok(format!("bridges:{} fdb-entries:{entries} ports:{ports} workers:{workers}", bridges.len()))
}
