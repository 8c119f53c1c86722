//! `ringway show neighbours`.

use crate::control::protocol::{Neighbour, NeighbourPort, Neighbours};
use crate::printable::printable;
use crate::table::{Align, Cell, Table, Tone};

/// The neighbours of all ports in a table.
pub fn show_neighbours(answer: &Neighbours, colour: bool) -> String {
    if answer.ports.is_empty() {
        return "no port looks for neighbours; 'ringway port set NAME --lldp both' has one do so\n"
            .to_owned();
    }
    let mut table = Table::new(&[
        ("port", Align::Left),
        ("neighbour", Align::Left),
        ("address", Align::Left),
        ("its port", Align::Left),
        ("does", Align::Left),
        ("left", Align::Right),
    ]);
    for port in &answer.ports {
        if port.neighbours.is_empty() {
            let first = [port.port.as_str().into(), none(port)];
            table.row(first.into_iter().chain(std::iter::repeat_n("-".into(), 4)).collect());
        }
        for neighbour in &port.neighbours {
            table.row(row(&port.port, neighbour));
        }
    }
    table.render(colour)
}

/// Why there is no neighbour.
fn none(port: &NeighbourPort) -> Cell {
    let why = if port.mode.receives() { "none heard" } else { "does not listen" };
    Cell::toned(why, Tone::Faint)
}

fn row(port: &str, neighbour: &Neighbour) -> Vec<Cell> {
    let own = |text: &str| Cell::from(printable(text).into_owned());
    let name = neighbour.system_name.as_deref().unwrap_or("-");
    // A port whose name is an address is better known by what is said of it.
    let described =
        neighbour.port_description.as_deref().filter(|_| neighbour.port_id_type == "mac");
    vec![
        port.into(),
        own(name),
        own(&neighbour.chassis_id),
        own(described.unwrap_or(&neighbour.port_id)),
        neighbour.capabilities.join(", ").into(),
        format!("{} s", neighbour.left_seconds).into(),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn port(name: &str, neighbours: usize) -> NeighbourPort {
        let neighbour = Neighbour {
            chassis_id: "52:54:00:00:00:01".into(),
            chassis_id_type: "mac".into(),
            port_id: "52:54:00:00:00:02".into(),
            port_id_type: "mac".into(),
            ttl_seconds: 120,
            left_seconds: 97,
            port_description: Some("p\x1b[2J0".into()),
            system_name: Some("core".into()),
            system_description: None,
            capabilities: vec!["bridge".into(), "router".into()],
            addresses: vec!["192.0.2.1".into()],
        };
        NeighbourPort {
            port: name.into(),
            mode: switch::LldpMode::Both,
            received: 3,
            sent: 4,
            bad: 0,
            ignored: 0,
            aged: 0,
            neighbours: vec![neighbour; neighbours],
        }
    }

    #[test]
    fn neighbours_are_shown_by_port_and_cannot_command_the_terminal() {
        assert!(show_neighbours(&Neighbours { ports: Vec::new() }, false).contains("--lldp both"));
        let silent = NeighbourPort { mode: switch::LldpMode::Transmit, ..port("c", 0) };
        let text =
            show_neighbours(&Neighbours { ports: vec![port("a", 1), port("b", 0), silent] }, false);
        let lines: Vec<&str> = text.lines().collect();
        for (line, expected) in [
            (1, "core "),
            (1, "52:54:00:00:00:01  p\u{fffd}[2J0"),
            (1, "bridge, router  97 s"),
            (2, "none heard"),
            (3, "does not listen"),
        ] {
            assert!(lines[line].contains(expected), "{expected}: {text}");
        }
    }
}
