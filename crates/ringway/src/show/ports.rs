//! `ringway show ports`.

use ethdev::hint;

use crate::control::protocol::{Port, Ports};
use crate::exit::Failure;
use crate::table::{Align, Cell, Table, Tone, count, paragraph};
use crate::vlan::summary;
use crate::{groups, guard, limits};

/// All ports in a table, or one with all there is to tell.
pub fn show_ports(answer: &Ports, name: Option<&str>, colour: bool) -> Result<String, Failure> {
    let Some(name) = name else { return Ok(all(answer, colour)) };
    let port = answer.ports.iter().find(|port| port.name == name);
    port.map(|port| one(port, colour)).ok_or_else(|| unknown(answer, name))
}

/// That there is no such port, with the ones that there are.
fn unknown(answer: &Ports, name: &str) -> Failure {
    let names: Vec<&str> = answer.ports.iter().map(|port| port.name.as_str()).collect();
    let hint = hint(name, names.iter().copied());
    Failure::runtime(format!("there is no port '{name}'{hint} (there are: {})", names.join(", ")))
}

fn all(answer: &Ports, colour: bool) -> String {
    if answer.ports.is_empty() {
        return "no ports; 'ringway port add NAME=DEVICE' adds one\n".to_owned();
    }
    // Where there is but one bridge, nobody wants to read its name in each line.
    let several = answer
        .ports
        .iter()
        .any(|port| port.bridge != switch::DEFAULT_BRIDGE || port.bond.is_some());
    let bridge = several.then_some(("bridge", Align::Left));
    let columns = [
        ("link", Align::Left),
        ("mtu", Align::Right),
        ("queues", Align::Right),
        ("stations", Align::Left),
        ("front-end", Align::Left),
        ("device", Align::Left),
    ];
    let columns: Vec<_> =
        [("port", Align::Left)].into_iter().chain(bridge).chain(columns).collect();
    let mut table = Table::new(&columns);
    for port in &answer.ports {
        let name = [Cell::from(port.name.as_str())].into_iter();
        let bridge = several.then(|| home(port).into());
        let rest = [
            link(port),
            port.mtu.to_string().into(),
            port.rx_queues.to_string().into(),
            stations(port).into(),
            front_end(port).unwrap_or_else(|| "-".to_owned()).into(),
            port.device.as_str().into(),
        ];
        table.row(name.chain(bridge).chain(rest).collect());
    }
    let mut text = table.render(colour);
    for port in &answer.ports {
        text.push_str(&details(port));
    }
    text
}

/// Where a port belongs: to a bridge, or to a bond.
pub fn home(port: &Port) -> String {
    let bond = port.bond.as_ref().map(|bond| format!("in {bond}"));
    bond.unwrap_or_else(|| port.bridge.clone())
}

fn link(port: &Port) -> Cell {
    if let Some(guard) = &port.shut {
        return Cell::toned(format!("shut by {guard}"), Tone::Bad);
    }
    match (port.enabled, port.link_up) {
        (false, _) => Cell::toned("disabled", Tone::Faint),
        (true, true) => Cell::toned("up", Tone::Good),
        (true, false) => Cell::toned("down", Tone::Bad),
    }
}

/// The first station behind a port, and how many more there are.
fn stations(port: &Port) -> String {
    let Some(first) = port.stations.first() else { return "-".to_owned() };
    match port.stations.len().max(port.fdb_entries).saturating_sub(1) {
        0 => first.clone(),
        more => format!("{first} +{}", count(more as u64)),
    }
}

/// The process that has connected to a port's socket: its name, where this host tells, and number.
pub fn front_end(port: &Port) -> Option<String> {
    let pid = port.details.get("front-end_pid")?;
    // The switch itself may not look: see docs/security.md.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let name = name.map(|name| name.trim().chars().filter(|c| !c.is_control()).collect::<String>());
    Some(name.map_or_else(|| pid.clone(), |name| format!("{name} {pid}")))
}

fn details(port: &Port) -> String {
    let vlan = summary(&port.vlan).map(|vlan| format!("vlan {vlan}"));
    let facts = port.details.iter().filter(|(name, _)| *name != "front-end_pid");
    let facts = facts.map(|(name, value)| format!("{name} {value}"));
    let limits = limits::summary(&port.limits).map(|limits| format!("limits {limits}"));
    let guard = guard::summary(&port.guard).map(|guard| format!("guard {guard}"));
    let groups = groups::summary(&port.mcast_snooping).map(|own| format!("mcast-snooping {own}"));
    let settings = [vlan, limits, guard, groups].into_iter().flatten();
    let facts: Vec<String> = settings.chain(facts).collect();
    match facts.is_empty() {
        true => String::new(),
        false => paragraph(&format!("{}: {}", port.name, facts.join(", "))),
    }
}

fn one(port: &Port, colour: bool) -> String {
    let mut table = Table::new(&[("port", Align::Left), (" ", Align::Left)]);
    let workers: Vec<String> = port.rx_workers.iter().map(ToString::to_string).collect();
    let speed = port.speed_mbps.map_or_else(|| "-".to_owned(), |mbps| format!("{mbps} Mbit/s"));
    let rows = [
        ("name", port.name.as_str().into()),
        ("device", port.device.as_str().into()),
        ("bridge", home(port).into()),
        ("link", link(port)),
        ("link changes", count(port.link_changes).into()),
        ("speed", speed.into()),
        ("mtu", port.mtu.to_string().into()),
        ("vlan", summary(&port.vlan).unwrap_or_else(|| "-".to_owned()).into()),
        ("limits", limits::summary(&port.limits).unwrap_or_else(|| "-".to_owned()).into()),
        ("guard", guard::summary(&port.guard).unwrap_or_else(|| "-".to_owned()).into()),
        (
            "mcast-snooping",
            groups::summary(&port.mcast_snooping).unwrap_or_else(|| "-".to_owned()).into(),
        ),
        ("own address", port.mac.as_str().into()),
        ("receive queues", format!("{}, on workers {}", port.rx_queues, workers.join(" ")).into()),
        ("transmit queues", port.tx_queues.to_string().into()),
        ("addresses learned", count(port.fdb_entries as u64).into()),
        ("stations", port.stations.join(" ").into()),
        ("process", front_end(port).unwrap_or_else(|| "-".to_owned()).into()),
    ];
    for (key, value) in rows {
        table.row(vec![key.into(), value]);
    }
    for (key, value) in port.details.iter().filter(|(name, _)| *name != "front-end_pid") {
        table.row(vec![key.as_str().into(), value.as_str().into()]);
    }
    table.render(colour)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn port(name: &str, stations: &[&str], details: &[(&str, &str)]) -> Port {
        let details = details.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Port {
            name: name.into(),
            device: "null:".into(),
            driver: "null".into(),
            link_up: true,
            link_changes: 3,
            speed_mbps: None,
            mac: "02:00:00:00:00:02".into(),
            mtu: 1500,
            enabled: true,
            shut: None,
            bridge: switch::DEFAULT_BRIDGE.into(),
            bond: None,
            vlan: switch::PortVlan::default(),
            limits: switch::PortLimits::default(),
            guard: switch::PortGuard::default(),
            mcast_snooping: switch::PortSnooping::default(),
            rx_queues: 1,
            tx_queues: 1,
            rx_workers: vec![0],
            fdb_entries: stations.len(),
            stations: stations.iter().map(ToString::to_string).collect(),
            details: details.collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn a_port_is_shown_by_who_is_behind_it() {
        let own = std::process::id().to_string();
        let details = [("front-end_pid", own.as_str()), ("rings", "2 of 2 running")];
        let mut answer = Ports { ports: vec![port("vm1", &["52:54:00:00:00:01", "x"], &details)] };
        answer.ports.push(Port { enabled: false, ..port("vm2", &[], &[]) });
        let text = show_ports(&answer, None, false).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let of = |port: &str| *lines.iter().find(|line| line.starts_with(port)).unwrap();
        assert!(of("vm1 ").contains("up") && of("vm1 ").contains("52:54:00:00:00:01 +1"), "{text}");
        assert!(of("vm1 ").contains(&own) && of("vm2 ").contains("disabled"), "{text}");
        assert_eq!(of("vm1:"), "vm1: rings 2 of 2 running");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        let text = show_ports(&answer, Some("vm1"), false).unwrap();
        for expected in ["link changes", "on workers 0", "2 of 2 running", &own] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let error = show_ports(&answer, Some("vm3"), false).unwrap_err().to_string();
        assert!(error.contains("did you mean 'vm1'?"), "{error}");
    }
}

/// Ports for other tests.
#[cfg(test)]
pub mod testing {
    use super::*;

    /// A port of which there is as much to tell as can be.
    pub fn port(n: usize, name: &str, bridge: &str) -> Port {
        let pid = std::process::id().to_string();
        let details = [("front-end_pid", pid.as_str()), ("rings", "2 of 32 running")];
        Port {
            name: name.to_owned(),
            device: format!("vhost-user:/run/ringway-switch/{name}.sock,queues=16,mtu=9000"),
            driver: "vhost-user".to_owned(),
            bridge: bridge.to_owned(),
            bond: n.is_multiple_of(3).then(|| bridge.to_owned()),
            link_up: true,
            link_changes: u64::MAX,
            speed_mbps: Some(400_000),
            mac: "02:00:00:00:00:02".to_owned(),
            mtu: 65_535,
            enabled: !n.is_multiple_of(5),
            vlan: serde_json::from_str(r#"{"trunks":"1-9,20-29,40-49,1000-1999"}"#)
                .unwrap_or_default(),
            limits: switch::PortLimits::default(),
            guard: switch::PortGuard::default(),
            mcast_snooping: switch::PortSnooping::default(),
            shut: n.is_multiple_of(7).then(|| "bpdu-guard".to_owned()),
            rx_queues: 128,
            tx_queues: 128,
            rx_workers: (0..32).collect(),
            fdb_entries: 1_048_576,
            stations: vec!["52:54:00:00:00:01".to_owned(); 16],
            details: details.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        }
    }
}
