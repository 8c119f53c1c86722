//! Bonds.

use std::fmt::Write as _;

use ovs::unixctl::Answer;
use switch::{BondMode, BondReport};

use super::Appctl;

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
        let _ = writeln!(text, "{}\t{}\t0\t{}", bond.name, bond.bonding.mode, members.join(", "));
    }
    Ok(text)
}

const fn yes_or_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// Nothing here takes a second way through a data path, which is what recirculation would be.
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
    line("bond may use recirculation", &format!("{}, Recirc-ID : -1", yes_or_no(is_tcp)));
    line("bond-hash-basis", "0");
    line("lb_output action", "disabled, bond-id: -1");
    line("updelay", &format!("{} ms", bonding.updelay));
    line("downdelay", &format!("{} ms", bonding.downdelay));
    line("lacp_status", lacp);
    line("lacp_fallback_ab", if bonding.lacp_fallback_ab { "true" } else { "false" });
    line("active-backup primary", &primary(appctl, bond));
    line("active member mac", &active(appctl, bond));
    for member in &bond.members {
        let state = if member.is_enabled { "enabled" } else { "disabled" };
        let _ = writeln!(text, "\nmember {}: {state}", member.name);
        if member.is_active {
            text += "  active member\n";
        }
        // What a link and an agreement allow; delays are not part of that.
        let agreed = member.lacp.is_none_or(|lacp| lacp.is_in_use);
        let may = member.is_up && agreed;
        let _ = writeln!(text, "  may_enable: {}", if may { "true" } else { "false" });
    }
    text + "\n"
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
