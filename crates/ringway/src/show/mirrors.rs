//! `ringway show mirrors`.

use std::collections::BTreeSet;

use switch::Mirror as Settings;

use crate::control::protocol::{Mirror, Mirrors};
use crate::table::{Align, Cell, Table, Tone, count};

/// All mirrors in a table.
pub fn show_mirrors(answer: &Mirrors, colour: bool) -> String {
    if answer.mirrors.is_empty() {
        return "no mirrors; 'ringway mirror add NAME --src PORT --to PORT' adds one\n".to_owned();
    }
    let mut table = Table::new(&[
        ("mirror", Align::Left),
        ("bridge", Align::Left),
        ("copies", Align::Left),
        ("to", Align::Left),
        ("packets", Align::Right),
        ("bytes", Align::Right),
    ]);
    for mirror in &answer.mirrors {
        table.row(vec![
            mirror.name.as_str().into(),
            mirror.mirror.bridge_name().into(),
            selection(mirror).into(),
            output(mirror),
            count(mirror.packets).into(),
            count(mirror.bytes).into(),
        ]);
    }
    table.render(colour)
}

/// What is copied.
pub fn selection(mirror: &Mirror) -> String {
    let names = |word: &str, ports: &BTreeSet<String>| {
        let names: Vec<&str> = ports.iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("{word} {}", names.join(",")))
    };
    let mirror = &mirror.mirror;
    let words = [
        mirror.select_all.then(|| "all".to_owned()),
        names("in", &mirror.select_src_port),
        names("out", &mirror.select_dst_port),
        mirror.select_vlan.as_ref().map(|vlans| format!("VLAN {vlans}")),
        mirror.snaplen.map(|snaplen| format!("{snaplen} bytes")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Where the copies go.
pub fn destination(mirror: &Mirror) -> String {
    let Settings { output_port, output_vlan, output_file, .. } = &mirror.mirror;
    match (output_port, output_vlan, output_file) {
        (Some(port), ..) => port.clone(),
        (None, Some(vlan), _) => format!("VLAN {vlan}"),
        (None, None, Some(file)) => file.display().to_string(),
        (None, None, None) => "-".to_owned(),
    }
}

fn output(mirror: &Mirror) -> Cell {
    let text = destination(mirror);
    match (mirror.active, &mirror.trouble) {
        (true, _) if mirror.missed > 0 => {
            Cell::toned(format!("{text} ({} missed)", count(mirror.missed)), Tone::Bad)
        }
        (true, _) => text.into(),
        (false, Some(trouble)) => Cell::toned(format!("{text} ({trouble})"), Tone::Bad),
        (false, None) => Cell::toned(format!("{text} (not there)"), Tone::Bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_shown_by_what_they_copy() {
        assert!(show_mirrors(&Mirrors { mirrors: Vec::new() }, false).contains("mirror add"));
        let mirror = |text: &str, active| Mirror {
            name: "m".into(),
            mirror: serde_json::from_str(text).unwrap(),
            active,
            trouble: None,
            missed: 0,
            packets: 1_234_567,
            bytes: 9,
        };
        let first = r#"{"select-src-port":["a","b"],"select-vlan":5,"output-port":"w"}"#;
        let second = r#"{"select-all":true,"output-vlan":7,"snaplen":96,"bridge":"green"}"#;
        let third = r#"{"select-all":true,"output-file":"/var/m.pcapng"}"#;
        let missed = Mirror { missed: 1_234, ..mirror(third, true) };
        let full = Mirror { trouble: Some("disk full".to_owned()), ..mirror(third, false) };
        let mirrors = vec![mirror(first, false), mirror(second, true), missed, full];
        let text = show_mirrors(&Mirrors { mirrors }, false);
        let lines: Vec<&str> = text.lines().collect();
        for expected in ["default", "in a,b, VLAN 5", "w (not there)"] {
            assert!(lines[1].contains(expected), "{expected}: {text}");
        }
        for expected in ["green", "all, 96 bytes", "VLAN 7"] {
            assert!(lines[2].contains(expected), "{expected}: {text}");
        }
        let rest = lines[3..].join(" ");
        let rest: Vec<&str> = rest.split_whitespace().collect();
        let rest = rest.join(" ");
        assert!(rest.contains("(1,234 missed)") && rest.contains("(disk full)"), "{text}");
    }
}
