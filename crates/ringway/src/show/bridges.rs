//! `ringway show bridges`.

use crate::control::protocol::{Bridge, Bridges};
use crate::table::{Align, Cell, Table, count, seconds};

/// Columns that the names of ports take at most.
const NAMES: usize = 34;

/// All bridges in a table.
pub fn show_bridges(answer: &Bridges, colour: bool) -> String {
    let mut table = Table::new(&[
        ("bridge", Align::Left),
        ("addresses", Align::Right),
        ("of", Align::Right),
        ("ageing", Align::Right),
        ("ports", Align::Left),
    ]);
    for bridge in &answer.bridges {
        table.row(row(bridge));
    }
    let mut text = table.render(colour);
    for bridge in answer.bridges.iter().filter(|bridge| bridge.group_fwd_mask != 0) {
        text.push_str(&format!("{}: group-fwd-mask {:#06x}\n", bridge.name, bridge.group_fwd_mask));
    }
    text
}

fn row(bridge: &Bridge) -> Vec<Cell> {
    let ageing = match bridge.ageing_seconds {
        0 => "never".to_owned(),
        ageing => seconds(u64::from(ageing)),
    };
    vec![
        bridge.name.as_str().into(),
        count(bridge.addresses as u64).into(),
        count(bridge.limit as u64).into(),
        ageing.into(),
        ports(&bridge.ports).into(),
    ]
}

/// The names as far as there is room, and how many more there are.
fn ports(names: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 && text.len() + name.len() >= NAMES {
            return format!("{text} +{}", names.len() - index);
        }
        if index > 0 {
            text.push(' ');
        }
        text.push_str(name);
    }
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ports_are_counted_and_all_fits() {
        let bridge = |name: &str, ports: usize| Bridge {
            name: name.to_owned(),
            ports: (0..ports).map(|port| format!("vm{port}")).collect(),
            group_fwd_mask: 0x4000,
            vlan_aware: false,
            any_source: false,
            learn_per_burst: 8,
            limit: 65_536,
            ageing_seconds: 300,
            addresses: 65_536,
            learned: 0,
            moved: 0,
            expired: 0,
            evicted: 0,
            refused: 0,
        };
        let bridges = vec![bridge("default", 300), bridge(&"x".repeat(15), 1), bridge("none", 0)];
        let text = show_bridges(&Bridges { bridges }, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
        assert!(lines[1].contains(" 5m00s  vm0 vm1 ") && lines[1].ends_with(" +292"), "{text}");
        assert!(lines[2].ends_with("vm0") && lines[3].ends_with('-'), "{text}");
        assert_eq!(lines[4], "default: group-fwd-mask 0x4000");
    }
}
