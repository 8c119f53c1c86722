//! Bonds that speak LACP.

use std::fmt::Write as _;

use ovs::unixctl::Answer;
use switch::{BondReport, Lacp, LacpReport, MemberLacp, MemberReport};

use super::Appctl;
use crate::bonds::flags as flags_of;

/// The bit of a port that is chosen for the bond.
const SYNCHRONIZED: u8 = 1 << 3;

/// All of them, or one.
pub fn show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    each(appctl, arguments, describe)
}

/// What was counted of them.
pub fn stats(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    each(appctl, arguments, |bond, _| count(bond))
}

fn each(
    appctl: &Appctl<'_>,
    arguments: &[String],
    tell: impl Fn(&BondReport, &LacpReport) -> String,
) -> Answer {
    let bonds = appctl.daemon.switch().lacp();
    let asked = bonds.iter().filter(|bond| arguments.first().is_none_or(|one| *one == bond.name));
    let spoken: Vec<String> = asked.filter_map(|bond| Some(tell(bond, &bond.lacp?))).collect();
    if spoken.is_empty() && !arguments.is_empty() {
        return Err("no such lacp object".to_owned());
    }
    Ok(spoken.concat())
}

fn members(bond: &BondReport) -> impl Iterator<Item = (&MemberReport, MemberLacp)> {
    bond.members.iter().filter_map(|member| Some((member, member.lacp?)))
}

fn describe(bond: &BondReport, lacp: &LacpReport) -> String {
    let status = if bond.bonding.lacp == Lacp::Active { "active" } else { "passive" };
    let negotiated = if lacp.is_negotiated { " negotiated" } else { "" };
    let mut text = format!("---- {} ----\n  status: {status}{negotiated}\n", bond.name);
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {key}: {value}");
    };
    line("sys_id", &lacp.system);
    line("sys_priority", &lacp.system_priority);
    line("aggregation key", &lacp.key);
    line("lacp_time", &bond.bonding.lacp_time);
    text + &members(bond)
        .map(|(member, own)| describe_member(member, &own, lacp))
        .collect::<String>()
}

fn describe_member(member: &MemberReport, own: &MemberLacp, bond: &LacpReport) -> String {
    // One whose link is down waits for its partner, as Open vSwitch calls it.
    let state = if own.state == "disabled" { "defaulted" } else { own.state };
    let chosen = if own.flags & SYNCHRONIZED != 0 { "attached" } else { "detached" };
    let mut text = format!("\nmember: {}: {state} {chosen}\n", member.name);
    let _ = writeln!(text, "  port_id: {}", own.port);
    let _ = writeln!(text, "  port_priority: {}", own.port_priority);
    let _ = writeln!(text, "  may_enable: {}", own.is_in_use);
    let actor = Side {
        system: &bond.system,
        system_priority: bond.system_priority,
        port: own.port,
        port_priority: own.port_priority,
        key: own.key,
        flags: own.flags,
    };
    let partner = Side {
        system: &own.partner_system,
        system_priority: own.partner_priority,
        port: own.partner_port,
        port_priority: own.partner_port_priority,
        key: own.partner_key,
        flags: own.partner_flags,
    };
    text + &actor.describe("actor") + &partner.describe("partner")
}

/// What one side says of itself.
struct Side<'s> {
    system: &'s packet::MacAddr,
    system_priority: u16,
    port: u16,
    port_priority: u16,
    key: u16,
    flags: u8,
}

impl Side<'_> {
    fn describe(&self, who: &str) -> String {
        let Self { system, system_priority, port, port_priority, key, flags } = self;
        let state: String = flags_of(*flags).iter().map(|word| format!(" {word}")).collect();
        let values: [(&str, &dyn std::fmt::Display); 5] = [
            ("sys_id", system),
            ("sys_priority", system_priority),
            ("port_id", port),
            ("port_priority", port_priority),
            ("key", key),
        ];
        let lines = values.map(|(name, value)| format!("  {who} {name}: {value}\n"));
        format!("\n{}  {who} state:{state}\n", lines.concat())
    }
}

fn count(bond: &BondReport) -> String {
    let mut text = format!("---- {} statistics ----\n", bond.name);
    for (member, own) in members(bond) {
        let _ = writeln!(text, "\nmember: {}:", member.name);
        let counted = [
            ("TX PDUs", own.sent),
            ("RX PDUs", own.received),
            ("RX Bad PDUs", own.bad),
            ("RX Marker Request PDUs", own.markers),
            ("Link Expired", own.expired),
            ("Link Defaulted", own.defaulted),
            ("Carrier Status Changed", own.links),
        ];
        for (name, value) in counted {
            let _ = writeln!(text, "  {name}: {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use packet::MacAddr;
    use switch::Bonding;

    use super::*;

    #[test]
    fn both_sides_are_told_of_each_member() {
        let own = MemberLacp {
            state: "current",
            is_in_use: true,
            port: 1,
            port_priority: 255,
            key: 2,
            flags: 0b0011_1101,
            partner_system: MacAddr([2, 0, 0, 0, 0, 2]),
            partner_priority: 65534,
            partner_key: 4,
            partner_port: 3,
            partner_port_priority: 65535,
            partner_flags: 0b10,
            received: 5,
            sent: 6,
            bad: 7,
            markers: 8,
            expired: 9,
            defaulted: 10,
            links: 11,
        };
        let member = MemberReport {
            name: "p0".to_owned(),
            is_up: true,
            is_enabled: true,
            is_active: true,
            delay: None,
            share: 256,
            loads: Vec::new(),
            lacp: Some(own),
            failures: 0,
            arp: None,
            inactive_drops: 0,
        };
        let (system, key) = (MacAddr([2, 0, 0, 0, 0, 1]), 2);
        let lacp = LacpReport { is_negotiated: true, system_priority: 65534, system, key };
        let bond = BondReport {
            name: "bond0".to_owned(),
            bridge: "br0".to_owned(),
            bonding: Bonding { lacp: Lacp::Active, ..Bonding::default() },
            active: None,
            active_changes: 0,
            lacp: Some(lacp),
            moved: 0,
            next_rebalance: None,
            members: vec![member],
        };
        let expected = "---- bond0 ----\n\
            \x20 status: active negotiated\n\
            \x20 sys_id: 02:00:00:00:00:01\n\
            \x20 sys_priority: 65534\n\
            \x20 aggregation key: 2\n\
            \x20 lacp_time: slow\n\
            \n\
            member: p0: current attached\n\
            \x20 port_id: 1\n\
            \x20 port_priority: 255\n\
            \x20 may_enable: true\n\
            \n\
            \x20 actor sys_id: 02:00:00:00:00:01\n\
            \x20 actor sys_priority: 65534\n\
            \x20 actor port_id: 1\n\
            \x20 actor port_priority: 255\n\
            \x20 actor key: 2\n\
            \x20 actor state: activity aggregation synchronized collecting distributing\n\
            \n\
            \x20 partner sys_id: 02:00:00:00:00:02\n\
            \x20 partner sys_priority: 65534\n\
            \x20 partner port_id: 3\n\
            \x20 partner port_priority: 65535\n\
            \x20 partner key: 4\n\
            \x20 partner state: timeout\n";
        assert_eq!(describe(&bond, &lacp), expected);
        let counted = "---- bond0 statistics ----\n\nmember: p0:\n  TX PDUs: 6\n  RX PDUs: 5\n  \
                       RX Bad PDUs: 7\n  RX Marker Request PDUs: 8\n  Link Expired: 9\n  Link Defaulted: 10\n  \
                       Carrier Status Changed: 11\n";
        assert_eq!(count(&bond), counted);
    }
}
