//! Commands of `ovs-appctl`, in Open vSwitch's words.

use std::fmt::Write as _;

use daemon::Daemon;
use ovs::Agent;
use ovs::numbers::LOCAL;
use ovs::unixctl::Answer;

use super::args::level;
use crate::log;

/// A command: its name, its arguments for people, the fewest and the most of them.
struct Command {
    name: &'static str,
    usage: &'static str,
    arguments: (usize, usize),
    run: fn(&mut Appctl<'_>, &[String]) -> Answer,
}

const COMMANDS: &[Command] = &[
    command("dpif/show", "", (0, 0), dpif_show),
    command("exit", "[--cleanup]", (0, 1), exit),
    command("fdb/flush", "[bridge]", (0, 1), fdb_flush),
    command("fdb/show", "bridge", (1, 1), fdb_show),
    command("fdb/stats-show", "bridge", (1, 1), fdb_stats),
    command("list-commands", "", (0, 0), list_commands),
    command("ofproto/list", "", (0, 0), list_bridges),
    command("version", "", (0, 0), version),
    command("vlog/set", "{spec | PATTERN:destination:pattern}", (1, usize::MAX), vlog_set),
];

const fn command(
    name: &'static str,
    usage: &'static str,
    arguments: (usize, usize),
    run: fn(&mut Appctl<'_>, &[String]) -> Answer,
) -> Command {
    Command { name, usage, arguments, run }
}

/// What commands look at.
pub struct Appctl<'a> {
    /// The switch.
    pub daemon: &'a mut Daemon,
    /// Its database.
    pub agent: &'a Agent,
    /// Whether the process is to end.
    pub ends: &'a mut bool,
}

impl Appctl<'_> {
    /// Answers a command.
    pub fn answer(&mut self, name: &str, arguments: &[String]) -> Answer {
        let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
            return Err(format!(
                "\"{name}\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
            ));
        };
        let (fewest, most) = command.arguments;
        if arguments.len() < fewest {
            return Err(format!("\"{name}\" command requires at least {fewest} arguments"));
        }
        if arguments.len() > most {
            return Err(format!("\"{name}\" command takes at most {most} arguments"));
        }
        (command.run)(self, arguments)
    }

    fn check_bridge(&self, name: &str) -> Result<(), String> {
        let known = self.agent.content().is_some_and(|content| content.bridges.contains_key(name));
        known.then_some(()).ok_or_else(|| "no such bridge".to_owned())
    }

    /// How a port is called in tables.
    fn number(&self, bridge: &str, port: &str) -> String {
        match self.agent.number(bridge, port) {
            Some(LOCAL) => "LOCAL".to_owned(),
            Some(number) => number.to_string(),
            None => "?".to_owned(),
        }
    }
}

fn list_commands(_: &mut Appctl<'_>, _: &[String]) -> Answer {
    let mut text = "The available commands are:\n".to_owned();
    for command in COMMANDS {
        let _ = writeln!(text, "  {:<23} {}", command.name, command.usage);
    }
    Ok(text)
}

fn version(_: &mut Appctl<'_>, _: &[String]) -> Answer {
    Ok(format!("ovs-vswitchd (Ringway) {}", env!("CARGO_PKG_VERSION")))
}

fn exit(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    *appctl.ends = true;
    Ok(String::new())
}

fn list_bridges(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let bridges = appctl.agent.content().into_iter().flat_map(|content| content.bridges.keys());
    Ok(bridges.map(|name| format!("{name}\n")).collect())
}

fn fdb_show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, ..] = arguments else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    let mut text = " port  VLAN  MAC                Age\n".to_owned();
    for entry in appctl.daemon.switch().fdb() {
        if entry.bridge != *bridge {
            continue;
        }
        // A bond has no number of its own, and is known by that of a member.
        let member = appctl.daemon.state().members(&entry.port).next().map(str::to_owned);
        let port = appctl.number(bridge, member.as_ref().unwrap_or(&entry.port));
        let age = if entry.is_static { "static".to_owned() } else { entry.age.to_string() };
        let _ = writeln!(text, "{port:>5}  {:>4}  {}  {age:>3}", entry.vlan, entry.mac);
    }
    Ok(text)
}

fn fdb_flush(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let ports: Vec<Option<String>> = match arguments {
        [] => vec![None],
        [bridge, ..] => {
            appctl.check_bridge(bridge)?;
            let ports = appctl.daemon.switch().ports().into_iter();
            ports.filter(|port| port.bridge == *bridge).map(|port| Some(port.name)).collect()
        }
    };
    for port in ports {
        let flushed = appctl.daemon.switch().fdb_flush(port.as_deref());
        flushed.map_err(|error| error.to_string())?;
    }
    Ok("table successfully flushed".to_owned())
}

fn fdb_stats(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let [bridge, ..] = arguments else { return Ok(String::new()) };
    appctl.check_bridge(bridge)?;
    let report = appctl.daemon.switch().bridges().into_iter().find(|report| report.name == *bridge);
    let report = report.ok_or("no such bridge")?.fdb;
    let mut text = format!("Statistics for bridge \"{bridge}\":\n");
    for (name, value) in [
        (
            "Current/maximum MAC entries in the table",
            format!("{}/{}", report.entries, report.limit),
        ),
        ("Current static MAC entries in the table", report.statics.to_string()),
        ("Total number of learned MAC entries", report.learned.to_string()),
        ("Total number of expired MAC entries", report.expired.to_string()),
        ("Total number of evicted MAC entries", report.evicted.to_string()),
        ("Total number of port moved MAC entries", report.moved.to_string()),
    ] {
        let _ = writeln!(text, "  {:<41}: {value}", name);
    }
    Ok(text)
}

fn dpif_show(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let reports = appctl.daemon.switch().ports();
    let packets: u64 = reports.iter().map(|port| port.stats.rx_total().packets).sum();
    // No frame is looked up twice: there is nothing that it could miss.
    let mut text = format!("netdev@ovs-netdev: hit:{packets} missed:0\n");
    let Some(content) = appctl.agent.content() else { return Ok(text) };
    for (name, bridge) in &content.bridges {
        let _ = writeln!(text, "  {name}:");
        for (interface, row) in bridge.ports.values().flat_map(|port| &port.interfaces) {
            let Some(number) = appctl.agent.number(name, interface) else { continue };
            let kind = if row.kind.is_empty() { "system" } else { &row.kind };
            let place = reports.iter().position(|port| port.name == *interface);
            let Some(place) = place else { continue };
            let _ =
                writeln!(text, "    {interface} {number}/{}: ({kind})", place.saturating_add(1));
        }
    }
    Ok(text)
}

/// A level for everything: modules have other names here.
fn vlog_set(_: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    for spec in arguments {
        let mut words = spec.split([':', ' ', ',']).filter(|word| !word.is_empty());
        if words.clone().any(|word| matches!(word, "syslog" | "PATTERN" | "pattern" | "FACILITY")) {
            continue;
        }
        let set = words.find_map(level);
        let is_module =
            spec.split(':').next().is_some_and(|word| level(word).is_none() && word != "ANY");
        if is_module && spec.contains(':') {
            continue;
        }
        log::set(set.unwrap_or("debug"))?;
    }
    Ok(String::new())
}
