//! `ringway bond`, and what a running switch answers about its bonds.

use daemon::{Daemon, Port};
use serde_json::Value;
use switch::{BondReport, PortVlan};

use crate::admin::{Saving, connect};
use crate::cli::{BondAction, BondArgs};
use crate::control::protocol::{Bond, BondLacp, BondMember, Bonds, MemberArp, MemberLacp, Request};
use crate::exit::Failure;
use crate::{orders, output};

/// `ringway bond`.
pub fn run(args: &BondArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    let (name, save, request, done) = match &args.action {
        BondAction::Add { name, members, settings, bridge, vlan, save } => {
            let request = Request::BondAdd {
                name: name.clone(),
                members: members.clone(),
                settings: settings.of_new(),
                bridge: bridge.clone(),
                vlan: vlan.whole()?,
            };
            (name, save, request, format!("added, of {}", members.join(", ")))
        }
        BondAction::Set { name, members, settings, save } => {
            let (settings, members) = (settings.given().clone(), members.clone());
            if settings.is_empty() && members.is_empty() {
                return Err(Failure::usage("nothing to change: give a setting, such as --primary"));
            }
            let members = Some(members).filter(|members| !members.is_empty());
            let request = Request::BondSet { name: name.clone(), members, settings };
            (name, save, request, "changed".to_owned())
        }
        BondAction::Del { name, save } => {
            let request = Request::BondDel { name: name.clone() };
            (name, save, request, "removed, with its members".to_owned())
        }
        order => return orders::bond(&mut client, order),
    };
    let saving = Saving::begin(&mut client, *save, name)?;
    let before = saving.members_of(name);
    let _: Value = client.ask(&request)?;
    output::line(&format!("bond {name} {done}"));
    saving.finish_with(&mut client, |edit, state| {
        let ports = before.iter().map(String::as_str).chain(state.members(name)).chain([&**name]);
        ports.into_iter().try_for_each(|port| edit.set(port, state))
    })
}

/// A bond of a request.
pub fn port(bridge: Option<String>, vlan: PortVlan) -> Port {
    Port { bridge, vlan, ..Port::bond() }
}

/// The bonds of a switch.
pub fn answer(daemon: &Daemon) -> Bonds {
    Bonds { bonds: daemon.switch().bonds().into_iter().map(bond).collect() }
}

fn bond(report: BondReport) -> Bond {
    let members = report.members.into_iter().map(|member| BondMember {
        name: member.name,
        link_up: member.is_up,
        enabled: member.is_enabled,
        active: member.is_active,
        share: member.share,
        lacp: member.lacp.map(|lacp| member_lacp(&lacp)),
        arp: member.arp.map(|arp| MemberArp {
            answered: arp.is_answered,
            sent: arp.sent,
            received: arp.received,
        }),
        failures: member.failures,
        inactive_drops: member.inactive_drops,
    });
    Bond {
        name: report.name,
        bridge: report.bridge,
        mode: report.bonding.mode,
        bonding: report.bonding,
        active: report.active,
        active_changes: report.active_changes,
        lacp: report.lacp.map(|lacp| BondLacp {
            negotiated: lacp.is_negotiated,
            system: lacp.system.to_string(),
            system_priority: lacp.system_priority,
            key: lacp.key,
        }),
        moved: report.moved,
        members: members.collect(),
    }
}

/// The bits of a port's state in LACP, lowest first (IEEE 802.1AX-2014 figure 6-9).
const FLAGS: [&str; 8] = [
    "activity",
    "timeout",
    "aggregation",
    "synchronized",
    "collecting",
    "distributing",
    "defaulted",
    "expired",
];

/// The names of the bits of a port's state, from the lowest on.
pub fn flags(bits: u8) -> Vec<String> {
    let set = FLAGS.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0);
    set.map(|(_, name)| (*name).to_owned()).collect()
}

fn member_lacp(lacp: &switch::MemberLacp) -> MemberLacp {
    MemberLacp {
        state: lacp.state.to_owned(),
        in_use: lacp.is_in_use,
        port: lacp.port,
        flags: flags(lacp.flags),
        partner_system: lacp.partner_system.to_string(),
        partner_system_priority: lacp.partner_priority,
        partner_key: lacp.partner_key,
        partner_port: lacp.partner_port,
        partner_flags: flags(lacp.partner_flags),
        received: lacp.received,
        sent: lacp.sent,
        bad: lacp.bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_in_words() {
        let all = ["activity", "aggregation", "synchronized", "collecting", "distributing"];
        assert_eq!(flags(0x3D), all);
        assert_eq!(flags(0xC0), ["defaulted", "expired"]);
    }
}
