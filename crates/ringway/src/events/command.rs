//! `ringway events`: tells what happens in a running switch.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::control::client::Client;
use crate::control::event::{Address, Event, Membership, Notice, Router};
use crate::control::protocol::Request;

use crate::cli::EventsArgs;
use crate::exit::Failure;
use crate::output;

/// `ringway events`.
pub fn run(args: &EventsArgs) -> Result<(), Failure> {
    let mut client = Client::connect(args.control.control.clone())?;
    let (topics, drop_rate) = (args.filter.clone(), args.drop_rate);
    let _: Value = client.ask(&Request::Subscribe { topics, drop_rate })?;
    while let Some(line) = client.next_event()? {
        if args.json {
            output::json_line(&line);
        } else {
            output::line(&told(&client.parse(line)?));
        }
        if output::is_closed() {
            break;
        }
    }
    Ok(())
}

/// An event for people: seconds since the start of the switch, and what has happened.
fn told(notice: &Notice) -> String {
    let (seconds, thousandths) = (notice.uptime_ms / 1_000, notice.uptime_ms % 1_000);
    let text = match &notice.event {
        Event::Link { port, up, .. } => {
            format!("port {port}: link {}", if *up { "up" } else { "down" })
        }
        Event::BondActive { bond, active: Some(active), .. } => {
            format!("bond {bond}: {active} is active")
        }
        Event::BondActive { bond, active: None, .. } => format!("bond {bond}: no member is active"),
        Event::RstpPort { bridge, port, role, state } => {
            format!("bridge {bridge}: port {port} is {role}, {state}")
        }
        Event::RstpRoot { bridge, root_id, root_port: Some(port) } => {
            format!("bridge {bridge}: root {root_id} by port {port}")
        }
        Event::RstpRoot { bridge, root_id, root_port: None } => {
            format!("bridge {bridge}: root {root_id}, which it is itself")
        }
        Event::PortShut { port, reason } => format!("port {port}: shut by {reason}"),
        Event::PortReopened { port } => format!("port {port}: open again"),
        Event::GuestConnected { port, pid } => {
            format!("port {port}: guest connected{}", process(*pid))
        }
        Event::GuestDisconnected { port, pid } => {
            format!("port {port}: guest disconnected{}", process(*pid))
        }
        Event::Changed { text, .. } => text.replace('\n', "; "),
        Event::Waiting { name, reason } => format!("{name} is tried again: {reason}"),
        Event::Opened { name } => format!("{name} is there now"),
        Event::Drops { port, direction, rate, reasons } => {
            format!("port {port}: {rate} frames/s dropped ({direction}): {}", list(reasons))
        }
        Event::DropsEnded { port, direction } => {
            format!("port {port}: no drops any more ({direction})")
        }
        Event::Learned(address) => format!("{} learnt", at(address)),
        Event::Moved(moved) => format!("{} moved from {}", at(&moved.address()), moved.from),
        Event::Forgotten(address) => format!("{} forgotten", at(address)),
        Event::GroupJoined(member) => format!("{} joined", member_of(member)),
        Event::GroupLeft(member) => format!("{} left", member_of(member)),
        Event::RouterFound(router) => format!("{} found", router_at(router)),
        Event::RouterLost(router) => format!("{} lost", router_at(router)),
        Event::Reload { ok: true, changes, .. } => {
            format!("configuration read again: {} changes", changes.len())
        }
        Event::Reload { error, .. } => {
            let error = error.as_deref().unwrap_or_default();
            format!("configuration not read again: {error}")
        }
        Event::Lost { count } => format!("{count} events were lost here: this was read too slowly"),
    };
    format!("{seconds:>6}.{thousandths:03} {text}")
}

/// A process with its name, which this side may see, if it is of this machine.
fn process(pid: Option<u32>) -> String {
    let Some(pid) = pid else { return String::new() };
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!(" (process {pid}, {})", name.trim_end()),
        Err(_) => format!(" (process {pid})"),
    }
}

fn list(reasons: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> =
        reasons.iter().map(|(reason, rate)| format!("{rate} {reason}")).collect();
    each.join(", ")
}

fn at(address: &Address) -> String {
    let Address { bridge, mac, vlan, port } = address;
    format!("bridge {bridge}: {mac}{} on port {port}", in_vlan(*vlan))
}

fn member_of(member: &Membership) -> String {
    let Membership { bridge, vlan, group, port } = member;
    format!("bridge {bridge}: {group}{} on port {port}", in_vlan(*vlan))
}

fn router_at(router: &Router) -> String {
    let Router { bridge, vlan, port } = router;
    format!("bridge {bridge}: router{} on port {port}", in_vlan(vlan.unwrap_or(0)))
}

/// Nothing for what has no VLAN.
fn in_vlan(vlan: u16) -> String {
    if vlan == 0 { String::new() } else { format!(" vlan {vlan}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_one_line_each() {
        let told = |event| told(&Notice { uptime_ms: 12_034, event });
        let port = || "vm1".to_owned();
        assert_eq!(
            told(Event::Link { port: port(), up: false, changes: 2 }),
            "    12.034 port vm1: link down"
        );
        let shut = Event::PortShut { port: port(), reason: "bpdu-guard".into() };
        assert_eq!(told(shut), "    12.034 port vm1: shut by bpdu-guard");
        let from = Some("eth0".to_owned());
        let tree = Event::RstpPort {
            bridge: "default".into(),
            port: port(),
            role: "root".into(),
            state: "forwarding".into(),
        };
        assert_eq!(told(tree), "    12.034 bridge default: port vm1 is root, forwarding");
        let none = Event::BondActive { bond: "up".into(), active: None, from, changes: 3 };
        assert_eq!(told(none), "    12.034 bond up: no member is active");
        let (bridge, group) = ("default".to_owned(), [239, 1, 2, 3].into());
        let member = Membership { bridge: bridge.clone(), vlan: 7, group, port: port() };
        assert_eq!(
            told(Event::GroupJoined(member)),
            "    12.034 bridge default: 239.1.2.3 vlan 7 on port vm1 joined"
        );
        let router = Router { bridge, vlan: None, port: port() };
        assert_eq!(
            told(Event::RouterLost(router)),
            "    12.034 bridge default: router on port vm1 lost"
        );
        let us = std::process::id();
        let text = told(Event::GuestConnected { port: port(), pid: Some(us) });
        assert!(text.contains(&format!("guest connected (process {us}, ")), "{text}");
        let reasons = BTreeMap::from([("ring_full".to_owned(), 7), ("too_long".to_owned(), 3)]);
        let drops = Event::Drops { port: port(), direction: "tx".to_owned(), rate: 10, reasons };
        assert_eq!(
            told(drops),
            "    12.034 port vm1: 10 frames/s dropped (tx): 7 ring_full, 3 too_long"
        );
        let two = Event::Changed {
            version: 3,
            kind: "port".into(),
            name: Some(port()),
            change: "changed".into(),
            text: "a 1 -> 2\nb 3 -> 4".into(),
        };
        assert_eq!(told(two), "    12.034 a 1 -> 2; b 3 -> 4");
    }
}
