//! `ringway show bonds`.

use switch::BondMode;

use crate::control::protocol::{Bond, BondMember, Bonds};
use crate::table::{Align, Cell, Table, Tone, count, paragraph};

/// All bonds with their members in a table.
pub fn show_bonds(answer: &Bonds, colour: bool) -> String {
    if answer.bonds.is_empty() {
        return "no bonds; 'ringway bond add NAME --members PORT,PORT' makes one\n".to_owned();
    }
    let mut table = Table::new(&[
        ("bond", Align::Left),
        ("mode", Align::Left),
        ("member", Align::Left),
        ("link", Align::Left),
        ("state", Align::Left),
        ("share", Align::Right),
        ("failures", Align::Right),
        ("dropped", Align::Right),
    ]);
    for bond in &answer.bonds {
        let mut first = [bond.name.clone(), bond.mode.to_string()];
        if bond.members.is_empty() {
            let none = Cell::toned("no members", Tone::Bad);
            let [name, mode] = first.map(Cell::from);
            let rest = std::iter::repeat_n("-", 5).map(Cell::from);
            table.row([name, mode, none].into_iter().chain(rest).collect());
            continue;
        }
        for member in &bond.members {
            let [name, mode] = std::mem::take(&mut first).map(Cell::from);
            let is_silent = member.arp.is_some_and(|arp| !arp.answered);
            let link = match member.link_up {
                true if is_silent => Cell::toned("silent", Tone::Bad),
                true => Cell::toned("up", Tone::Good),
                false => Cell::toned("down", Tone::Bad),
            };
            let (does, tone) = state(bond, member);
            table.row(vec![
                name,
                mode,
                member.name.as_str().into(),
                link,
                Cell::toned(does, tone),
                format!("{} %", percent(member.share)).into(),
                count(member.failures).into(),
                count(member.inactive_drops).into(),
            ]);
        }
    }
    let mut text = table.render(colour);
    for bond in &answer.bonds {
        if let Some(lacp) = lacp(bond) {
            text.push_str(&paragraph(&format!("{}: {lacp}", bond.name)));
        }
    }
    text
}

/// The part of the traffic that a member has, in per cent.
const fn percent(share: usize) -> usize {
    share.saturating_mul(100).saturating_add(128) / 256
}

/// What a bond and its neighbour have said to each other, in a line; `None` without LACP.
pub fn lacp(bond: &Bond) -> Option<String> {
    let lacp = bond.lacp.as_ref()?;
    let status = if lacp.negotiated { "negotiated" } else { "not negotiated" };
    let members = bond.members.iter().filter_map(|member| {
        let lacp = member.lacp.as_ref()?;
        let partner = match lacp.partner_key {
            0 => "no partner".to_owned(),
            key => format!("partner {} key {key} port {}", lacp.partner_system, lacp.partner_port),
        };
        Some(format!("{} {}, {partner}", member.name, lacp.state))
    });
    let members: Vec<String> = members.collect();
    let own = format!("system {} key {}", lacp.system, lacp.key);
    Some(format!("LACP {status}, {own}; {}", members.join("; ")))
}

/// What a member does, in words, and how that stands out.
pub fn state(bond: &Bond, member: &BondMember) -> (&'static str, Tone) {
    match (member.active, member.enabled) {
        (true, _) => ("active", Tone::Good),
        (false, true) if bond.mode == BondMode::ActiveBackup => ("standby", Tone::Plain),
        (false, true) => ("in use", Tone::Good),
        (false, false) => ("not in use", Tone::Faint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{BondLacp, MemberArp, MemberLacp};

    #[test]
    fn bonds_are_shown_by_their_members() {
        assert!(show_bonds(&Bonds { bonds: Vec::new() }, false).contains("bond add"));
        let member = |name: &str, link_up, active| BondMember {
            name: name.into(),
            link_up,
            enabled: link_up,
            active,
            share: if active { 256 } else { 0 },
            lacp: None,
            arp: Some(MemberArp { answered: name != "x", sent: 9, received: 7 }),
            failures: 2,
            inactive_drops: 1_234,
        };
        let members = vec![
            member("eth0", true, true),
            member("eth1", false, false),
            member("x", true, false),
        ];
        let bond = Bond {
            name: "uplink".into(),
            bridge: "default".into(),
            mode: BondMode::ActiveBackup,
            bonding: switch::Bonding::default(),
            active: Some("eth0".into()),
            active_changes: 3,
            lacp: None,
            moved: 0,
            members,
        };
        let empty = Bond { name: "none".into(), members: Vec::new(), ..bond.clone() };
        let text = show_bonds(&Bonds { bonds: vec![bond, empty] }, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("uplink") && lines[1].contains("active-backup"), "{text}");
        for (line, expected) in [(1, "active"), (2, "not in use"), (3, "silent"), (4, "no members")]
        {
            assert!(lines[line].contains(expected), "{text}");
        }
        assert!(lines[1].contains("100 %"), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn what_lacp_has_found_out_is_told_below() {
        let lacp = MemberLacp {
            state: "current".into(),
            in_use: true,
            port: 3,
            flags: vec!["activity".into()],
            partner_system: "02:00:00:00:00:09".into(),
            partner_system_priority: 65_535,
            partner_key: 9,
            partner_port: 1,
            partner_flags: Vec::new(),
            received: 5,
            sent: 6,
            bad: 0,
        };
        let member = |name: &str, lacp| BondMember {
            name: name.into(),
            link_up: true,
            enabled: true,
            active: name == "a",
            share: 128,
            lacp: Some(lacp),
            arp: None,
            failures: 0,
            inactive_drops: 0,
        };
        let silent = MemberLacp { state: "defaulted".into(), partner_key: 0, ..lacp.clone() };
        let system = "02:00:00:00:00:01".into();
        let own = BondLacp { negotiated: true, system, system_priority: 65_534, key: 3 };
        let bond = Bond {
            name: "up".into(),
            bridge: "default".into(),
            mode: BondMode::BalanceTcp,
            bonding: switch::Bonding::default(),
            active: Some("a".into()),
            active_changes: 1,
            lacp: Some(own),
            moved: 0,
            members: vec![member("a", lacp), member("b", silent)],
        };
        let text = show_bonds(&Bonds { bonds: vec![bond] }, false);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in [
            "in use 50 %",
            "up: LACP negotiated, system 02:00:00:00:00:01 key 3; a current, partner \
             02:00:00:00:00:09 key 9 port 1; b defaulted, no partner",
        ] {
            assert!(words.contains(expected), "{expected}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
