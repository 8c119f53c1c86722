//! `ringway show bonds`.

use crate::control::protocol::{BondMember, Bonds};
use crate::table::{Align, Cell, Table, Tone, count};

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
        ("failures", Align::Right),
        ("dropped", Align::Right),
    ]);
    for bond in &answer.bonds {
        let mut first = [bond.name.clone(), bond.mode.to_string()];
        if bond.members.is_empty() {
            let none = Cell::toned("no members", Tone::Bad);
            let [name, mode] = first.map(Cell::from);
            table.row(vec![name, mode, none, "-".into(), "-".into(), "-".into(), "-".into()]);
            continue;
        }
        for member in &bond.members {
            let [name, mode] = std::mem::take(&mut first).map(Cell::from);
            let link = match member.link_up {
                true => Cell::toned("up", Tone::Good),
                false => Cell::toned("down", Tone::Bad),
            };
            table.row(vec![
                name,
                mode,
                member.name.as_str().into(),
                link,
                state(member),
                count(member.failures).into(),
                count(member.inactive_drops).into(),
            ]);
        }
    }
    table.render(colour)
}

fn state(member: &BondMember) -> Cell {
    match (member.active, member.enabled) {
        (true, _) => Cell::toned("active", Tone::Good),
        (false, true) => "standby".into(),
        (false, false) => Cell::toned("not in use", Tone::Faint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Bond;

    #[test]
    fn bonds_are_shown_by_their_members() {
        assert!(show_bonds(&Bonds { bonds: Vec::new() }, false).contains("bond add"));
        let member = |name: &str, link_up, active| BondMember {
            name: name.into(),
            link_up,
            enabled: link_up,
            active,
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
            mode: switch::BondMode::ActiveBackup,
            bonding: switch::Bonding::default(),
            active: Some("eth0".into()),
            active_changes: 3,
            members,
        };
        let empty = Bond { name: "none".into(), members: Vec::new(), ..bond.clone() };
        let text = show_bonds(&Bonds { bonds: vec![bond, empty] }, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("uplink") && lines[1].contains("active-backup"), "{text}");
        for (line, expected) in
            [(1, "active"), (2, "not in use"), (3, "standby"), (4, "no members")]
        {
            assert!(lines[line].contains(expected), "{text}");
        }
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    }
}
