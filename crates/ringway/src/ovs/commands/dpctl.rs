//! The data path as `ovs-dpctl` shows it, and limits of what goes out.

use std::fmt::Write as _;

use daemon::{Missing, State};
use ordered::Order as _;
use ovs::content::{Content, Interface, Port};
use ovs::unixctl::Answer;
use switch::PortReport;

use super::super::flows::collect;
use super::Appctl;
use super::dpif::{PATHS, kind_of, path_of};

/// Kinds of `QoS` that limit something.
const QOS_KINDS: [&str; 4] = ["egress-policer", "linux-hfsc", "linux-htb", "trtcm-policer"];

/// Data paths with the numbers of their ports; with `-s`, what was counted of each.
pub fn show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    collect(appctl, false);
    let (options, names): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|word| word.starts_with('-'));
    let counts = options.iter().any(|option| matches!(option.as_str(), "-s" | "--statistics"));
    let Some(content) = appctl.agent.content() else { return Ok(String::new()) };
    let mut text = String::new();
    for path in paths(content) {
        if names.is_empty() || names.iter().any(|name| *name == path) {
            describe(appctl, content, path, counts, &mut text);
        }
    }
    match names.first() {
        Some(name) if text.is_empty() => Err(format!("{name}: no such data path")),
        _ => Ok(text),
    }
}

/// The names of data paths.
pub fn dump_paths(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let paths = appctl.agent.content().map(paths).unwrap_or_default();
    Ok(paths.iter().map(|path| format!("{path}\n")).collect())
}

/// Those that any bridge has.
fn paths(content: &Content) -> Vec<&'static str> {
    let has =
        |path: &&str| content.bridges.values().any(|row| path_of(&row.datapath_type) == *path);
    PATHS.into_iter().filter(has).collect()
}

fn describe(appctl: &Appctl<'_>, content: &Content, path: &str, counts: bool, text: &mut String) {
    let reports = appctl.daemon.switch().ports();
    let interfaces = content.interfaces().filter_map(|(bridge, _, name, row)| {
        let kind = &content.bridges.get(bridge)?.datapath_type;
        let number = appctl.agent.path_numbers().of(name)?;
        let report = reports.iter().find(|report| report.name == name)?;
        (path_of(kind) == path).then(|| (number, report, kind_of(appctl, row, kind)))
    });
    let mut ports: Vec<_> = interfaces.collect();
    ports.order_by_key(|(number, ..)| *number);
    let packets: u64 = ports.iter().map(|(_, port, _)| port.stats.rx_total().packets).sum();
    // Without flows, no frame is looked up twice: there is nothing that it could miss.
    let (hit, missed, lost, flows) = match appctl.flows.of_path(path) {
        Some(flows) => (flows.hits, flows.misses, flows.lost, flows.len()),
        None => (packets, 0, 0, 0),
    };
    let _ = writeln!(
        text,
        "{path}:\n  lookups: hit:{hit} missed:{missed} lost:{lost}\n  flows: {flows}"
    );
    for (number, report, kind) in ports {
        let kind = if kind == "system" { String::new() } else { format!(" ({kind})") };
        let _ = writeln!(text, "  port {number}: {}{kind}", report.name);
        if counts {
            *text += &count(report);
        }
    }
}

fn count(report: &PortReport) -> String {
    let (rx, tx) = (report.stats.rx_total(), report.stats.tx_total());
    format!(
        "    RX packets:{} errors:0 dropped:{}\n    TX packets:{} errors:0 dropped:{}\n    \
         RX bytes:{}  TX bytes:{}\n",
        rx.packets,
        rx.dropped(),
        tx.packets,
        tx.dropped(),
        rx.bytes,
        tx.bytes
    )
}

/// Checks that there is such a data path.
fn check_path(appctl: &Appctl<'_>, path: &str) -> Result<(), String> {
    let all = appctl.agent.content().map(paths).unwrap_or_default();
    // Its type may be left out.
    let is_it = |known: &&str| *known == path || known.split('@').nth(1) == Some(path);
    all.iter().any(is_it).then_some(()).ok_or_else(|| format!("{path}: no such data path"))
}

/// Takes ports out, until bridges are configured anew: the database still has them.
pub fn remove_ports(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [path, names @ ..] = arguments else { return Ok(String::new()) };
    check_path(appctl, path)?;
    for name in names {
        interface(appctl, name)?;
        let remove = |state: &mut State| {
            state.ports.shift_remove(name);
            Ok(())
        };
        let removed = appctl.daemon.edit(Missing::Retry, remove);
        removed.map_err(|error| format!("deleting port {name} from {path} failed: {error}"))?;
    }
    Ok(String::new())
}

/// Puts ports back that were taken out. Others have no bridge: that is for the database to say.
pub fn add_ports(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [path, names @ ..] = arguments else { return Ok(String::new()) };
    check_path(appctl, path)?;
    for name in names {
        if interface(appctl, name).is_err() {
            return Err(format!("{name} is a port of no bridge: add it with ovs-vsctl add-port"));
        }
    }
    appctl.agent.again();
    Ok(String::new())
}

/// An interface, and the port that it belongs to.
fn interface<'a>(appctl: &'a Appctl<'_>, name: &str) -> Result<(&'a Port, &'a Interface), String> {
    let mut all = appctl.agent.content().into_iter().flat_map(Content::interfaces);
    let found = all.find(|(.., known, _)| *known == name);
    found.map(|(_, port, _, row)| (port, row)).ok_or_else(|| "no such interface".to_owned())
}

/// How much may go out on an interface.
pub fn show_qos(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [name, ..] = arguments else { return Ok(String::new()) };
    let qos = interface(appctl, name)?.0.qos.as_ref();
    let Some(qos) = qos.filter(|qos| QOS_KINDS.contains(&qos.kind.as_str())) else {
        return Ok(format!("QoS not configured on {name}"));
    };
    let mut text = format!("QoS: {name} {}\n", qos.kind);
    for (key, value) in &qos.other_config {
        let _ = writeln!(text, "{key}: {value}");
    }
    Ok(text)
}

/// By which kinds that can be said.
pub fn show_qos_kinds(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [name, ..] = arguments else { return Ok(String::new()) };
    interface(appctl, name)?;
    Ok(QOS_KINDS.map(|kind| format!("QoS type: {kind}\n")).concat())
}
