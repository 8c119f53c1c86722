//! Bonds.

use std::fmt::Write as _;

use ovs::unixctl::Answer;
use packet::MacAddr;
use switch::{BondMode, BondReport, MemberReport};

use super::Appctl;
use super::trace::round;

/// All bonds, or one.
pub fn show(appctl: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    let bonds = appctl.daemon.switch().bonds().into_iter();
    let bonds: Vec<BondReport> =
        bonds.filter(|bond| arguments.first().is_none_or(|name| *name == bond.name)).collect();
    if !arguments.is_empty() && bonds.is_empty() {
        return Err("no such bond".to_owned());
    }
    Ok(bonds.iter().map(|bond| describe(appctl, bond)).collect())
}

/// All bonds, a line for each.
pub fn list(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let mut text = "bond\ttype\trecircID\tmembers\n".to_owned();
    for bond in appctl.daemon.switch().bonds() {
        let members: Vec<&str> = bond.members.iter().map(|member| member.name.as_str()).collect();
        let (mode, members) = (bond.bonding.mode, members.join(", "));
        let number = if mode == BondMode::BalanceTcp { round::number(&bond.name) } else { 0 };
        let _ = writeln!(text, "{}\t{mode}\t{number}\t{members}", bond.name);
    }
    Ok(text)
}

/// The tables that the datapath has of bonds.
pub fn tables(appctl: &mut Appctl<'_>, _: &[String]) -> Answer {
    let switch = appctl.daemon.switch();
    let numbers = appctl.agent.path_numbers();
    let mut text = String::new();
    for bond in switch.bonds().iter().filter(|bond| has_table(appctl, bond)) {
        if text.is_empty() {
            text += "Bonds:\n";
        }
        let _ = writeln!(text, "  bond-id {}:", round::number(&bond.name));
        for (at, part) in switch.bond_parts(&bond.name).iter().enumerate() {
            let member = part.member.as_ref().and_then(|member| numbers.of(member));
            let member = member.unwrap_or(NO_PORT);
            let _ = writeln!(text, "    bucket {at} - member {member}");
        }
    }
    Ok(text)
}

/// The number of no port of a datapath.
const NO_PORT: u32 = u32::MAX;

/// Whether the datapath has the table of a bond.
fn has_table(appctl: &Appctl<'_>, bond: &BondReport) -> bool {
    bond.bonding.mode == BondMode::BalanceTcp && round::has_table(appctl, &bond.name)
}

/// The rules by which packets for bonds of a bridge go on that come again, as Open vSwitch has them
/// in its last table.
pub fn rules(appctl: &Appctl<'_>, bridge: &str) -> String {
    let mut text = String::new();
    let switch = appctl.daemon.switch();
    let bonds = switch.bonds().into_iter().filter(|bond| bond.bridge == bridge);
    let bonds = bonds.filter(|bond| switch.divides_by_flow(&bond.name) && !has_table(appctl, bond));
    for bond in bonds {
        let number = round::number(&bond.name);
        for (at, part) in switch.bond_parts(&bond.name).iter().enumerate() {
            let member = part.member.as_ref();
            let member = member.and_then(|member| appctl.agent.number(bridge, member));
            let Some(member) = member else { continue };
            let _ = writeln!(
                text,
                "table_id=254, duration=0s, n_packets={}, n_bytes={}, \
                 priority=20,recirc_id={number:#x},dp_hash={at:#x}/0xff,actions=output:{member}",
                part.packets, part.bytes,
            );
        }
    }
    text
}

/// The part of a bond's traffic that frames from an address belong to, with `bond_mode=balance-slb`.
pub fn hash(_: &mut Appctl<'_>, arguments: &[String]) -> Answer {
    part(arguments)
}

fn part(arguments: &[String]) -> Answer {
    let [mac, rest @ ..] = arguments else { return Ok(String::new()) };
    // In this order, as Open vSwitch looks at them.
    let vlan = rest.first().map_or(Ok(0), |vlan| vlan.parse::<u16>()).ok();
    let vlan = vlan.filter(|vlan| *vlan < 4096).ok_or("invalid vlan")?;
    let mac: MacAddr = mac.parse().map_err(|_| "invalid mac")?;
    if rest.get(1).is_some_and(|basis| basis != "0") {
        return Err("invalid basis: bonds have no other than 0".to_owned());
    }
    Ok(switch::source_part(mac, vlan).to_string())
}

/// How that there is no number is told.
const NONE: &str = "-1";

/// What loads are told in.
const KILOBYTE: u64 = 1_024;

const fn true_or_false(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

const fn yes_or_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// Nothing here takes a second way through a data path, but flows are told as if it did.
fn describe(appctl: &Appctl<'_>, bond: &BondReport) -> String {
    let bonding = &bond.bonding;
    let lacp = match &bond.lacp {
        None => "off",
        Some(lacp) if lacp.is_negotiated => "negotiated",
        Some(_) => "configured",
    };
    let mut text = format!("---- {} ----\n", bond.name);
    let mut line = |key: &str, value: &str| _ = writeln!(text, "{key}: {value}");
    line("bond_mode", bonding.mode.name());
    let is_tcp = bonding.mode == BondMode::BalanceTcp;
    let number = if is_tcp { round::number(&bond.name).to_string() } else { NONE.to_owned() };
    line("bond may use recirculation", &format!("{}, Recirc-ID : {number}", yes_or_no(is_tcp)));
    line("bond-hash-basis", "0");
    let by_table = match has_table(appctl, bond) {
        true => format!("enabled, bond-id: {number}"),
        false => format!("disabled, bond-id: {NONE}"),
    };
    line("lb_output action", &by_table);
    if bonding.mode == BondMode::BalanceSlb {
        line("all members active", true_or_false(bonding.all_members_active));
    }
    line("updelay", &format!("{} ms", bonding.updelay));
    line("downdelay", &format!("{} ms", bonding.downdelay));
    if let Some(next) = bond.next_rebalance {
        line("next rebalance", &format!("{} ms", next.as_millis()));
    }
    line("lacp_status", lacp);
    line("lacp_fallback_ab", true_or_false(bonding.lacp_fallback_ab));
    line("active-backup primary", &primary(appctl, bond));
    line("active member mac", &active(appctl, bond));
    text + &bond.members.iter().map(describe_member).collect::<String>() + "\n"
}

fn describe_member(member: &MemberReport) -> String {
    let state = if member.is_enabled { "enabled" } else { "disabled" };
    let mut text = format!("\nmember {}: {state}\n", member.name);
    if member.is_active {
        text += "  active member\n";
    }
    if let Some(delay) = member.delay {
        let which = if member.is_enabled { "downdelay" } else { "updelay" };
        let _ = writeln!(text, "  {which} expires in {} ms", delay.as_millis());
    }
    // What a link and an agreement allow; delays are not part of that.
    let agreed = member.lacp.is_none_or(|lacp| lacp.is_in_use);
    let _ = writeln!(text, "  may_enable: {}", true_or_false(member.is_up && agreed));
    for (part, load) in member.loads.iter().filter(|(_, load)| *load >= KILOBYTE) {
        let _ = writeln!(text, "  hash {part}: {} kB load", load / KILOBYTE);
    }
    text
}

/// The member that the database prefers.
fn primary(appctl: &Appctl<'_>, bond: &BondReport) -> String {
    let bridges = appctl.agent.content().into_iter().flat_map(|content| content.bridges.values());
    let mut ports = bridges.filter_map(|bridge| bridge.ports.get(&bond.name));
    let asked = ports.find_map(|port| port.other_config.get("bond-primary"));
    match asked {
        None => "<none>".to_owned(),
        Some(name) if bond.members.iter().any(|member| member.name == *name) => name.clone(),
        Some(name) => format!("{name} (no such member)"),
    }
}

fn active(appctl: &Appctl<'_>, bond: &BondReport) -> String {
    let active = bond.active.as_ref();
    let report = active.and_then(|name| Some((name, appctl.daemon.switch().port(name).ok()?)));
    match report {
        Some((name, report)) => format!("{}({name})", report.mac),
        None => "00:00:00:00:00:00(none)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_one_of_256_parts() {
        let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let of = |line: &str| part(&words(line));
        let expected = switch::source_part(MacAddr([2, 0, 0, 0, 0, 1]), 7).to_string();
        assert_eq!(of("02:00:00:00:00:01 7"), Ok(expected.clone()));
        assert_eq!(of("02:00:00:00:00:01 7 0"), Ok(expected));
        for (line, problem) in [
            ("02:00", "invalid mac"),
            ("02:00:00:00:00:01 4096", "invalid vlan"),
            ("02:00:00:00:00:01 7 1", "invalid basis"),
        ] {
            assert!(of(line).unwrap_err().starts_with(problem), "{line}");
        }
    }
}
