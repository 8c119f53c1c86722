//! `ringway show fdb`.

use ethdev::hint;

use crate::control::protocol::{Bridge, Fdb, FdbEntry};
use crate::exit::Failure;
use crate::table::{Align, Cell, Table, Tone, count, paragraph, seconds};

/// The forwarding databases, or that of one bridge.
pub fn show_fdb(mut answer: Fdb, bridge: Option<&str>, colour: bool) -> Result<String, Failure> {
    if let Some(name) = bridge {
        if !answer.bridges.iter().any(|bridge| bridge.name == name) {
            return Err(unknown(&answer.bridges, name));
        }
        answer.bridges.retain(|bridge| bridge.name == name);
        answer.entries.retain(|entry| entry.bridge == name);
    }
    // Where there is but one bridge, nobody wants to read its name in each line.
    let several = answer.bridges.len() > 1;
    let mut text = table(&answer.entries, several, colour);
    for bridge in &answer.bridges {
        text.push_str(&figures(bridge, several));
    }
    Ok(text)
}

fn unknown(bridges: &[Bridge], name: &str) -> Failure {
    let names: Vec<&str> = bridges.iter().map(|bridge| bridge.name.as_str()).collect();
    let hint = hint(name, names.iter().copied());
    let names = names.join(", ");
    Failure::runtime(format!("there is no bridge '{name}'{hint} (there are: {names})"))
}

fn table(entries: &[FdbEntry], several: bool, colour: bool) -> String {
    let bridge = several.then_some(("bridge", Align::Left));
    let columns = [("mac", Align::Left), ("vlan", Align::Right), ("port", Align::Left)];
    let columns: Vec<_> =
        bridge.into_iter().chain(columns).chain([("age", Align::Right)]).collect();
    let mut table = Table::new(&columns);
    for entry in entries {
        let age = match entry.age_seconds {
            Some(age) if !entry.is_static => Cell::from(seconds(u64::from(age))),
            _ => Cell::toned("static", Tone::Faint),
        };
        let bridge = several.then(|| Cell::from(entry.bridge.as_str()));
        let rest = [entry.mac.as_str().into(), entry.vlan.to_string().into()];
        let rest = rest.into_iter().chain([entry.port.as_str().into(), age]);
        table.row(bridge.into_iter().chain(rest).collect());
    }
    if table.is_empty() { String::new() } else { table.render(colour) }
}

/// How much is in a database, and what became of it.
fn figures(bridge: &Bridge, several: bool) -> String {
    let of = if several { format!("{}: ", bridge.name) } else { String::new() };
    paragraph(&format!(
        "{of}{} of {} addresses; learned {}, moved {}, expired {}, evicted {}{}",
        count(bridge.addresses as u64),
        count(bridge.limit as u64),
        count(bridge.learned),
        count(bridge.moved),
        count(bridge.expired),
        count(bridge.evicted),
        match bridge.refused {
            0 => String::new(),
            refused => format!(", refused {}", count(refused)),
        },
    ))
}
