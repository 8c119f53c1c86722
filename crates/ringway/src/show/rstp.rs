//! `ringway show rstp`.

use crate::control::protocol::{Rstp, RstpBridge, RstpPort};
use crate::table::{Align, Cell, Table, Tone, count, paragraph, seconds};

/// All bridges that take part, each with its ports in a table.
pub fn show_rstp(answer: &Rstp, colour: bool) -> String {
    if answer.bridges.is_empty() {
        return "no bridge takes part in spanning tree; 'ringway bridge set NAME --rstp on' has one do \
                so\n"
            .to_owned();
    }
    let bridges = answer.bridges.iter().map(|bridge| {
        let mut table = Table::new(&[
            ("port", Align::Left),
            ("role", Align::Left),
            ("state", Align::Left),
            ("cost", Align::Right),
            ("id", Align::Left),
            ("designated", Align::Left),
            ("its port", Align::Left),
        ]);
        bridge.ports.iter().for_each(|port| table.row(row(port)));
        let ports = if table.is_empty() { "no ports\n".to_owned() } else { table.render(colour) };
        format!("{}{ports}", paragraph(&head(bridge)))
    });
    bridges.collect::<Vec<_>>().join("\n")
}

/// A bridge in a few words.
fn head(bridge: &RstpBridge) -> String {
    let way = match &bridge.root_port {
        Some(port) => {
            format!("root {} by {port} at cost {}", bridge.root_id, bridge.root_path_cost)
        }
        None => "it is the root".to_owned(),
    };
    let version = match bridge.version.as_str() {
        "rstp" => String::new(),
        other => format!(", speaks {other}"),
    };
    let changes = match bridge.since_change_seconds {
        Some(since) => {
            let times = count(bridge.topology_changes);
            format!(", topology changes {times}, last {} ago", seconds(since))
        }
        None => String::new(),
    };
    format!("bridge {}, {}{version}: {way}{changes}", bridge.name, bridge.bridge_id)
}

fn row(port: &RstpPort) -> Vec<Cell> {
    let tone = match port.state.as_str() {
        "forwarding" => Tone::Good,
        _ => Tone::Faint,
    };
    let more = [(port.edge, "edge"), (port.protocol != "rstp", "stp")];
    let more: Vec<&str> =
        more.into_iter().filter_map(|(is_so, word)| is_so.then_some(word)).collect();
    let role = match more.as_slice() {
        [] => port.role.clone(),
        more => format!("{} ({})", port.role, more.join(", ")),
    };
    let (designated, its_port) = match &port.designated_bridge_id {
        Some(bridge) => (bridge.as_str(), port.designated_port_id.as_str()),
        None => ("-", "-"),
    };
    vec![
        port.name.as_str().into(),
        role.into(),
        Cell::toned(port.state.as_str(), tone),
        port.path_cost.to_string().into(),
        port.port_id.as_str().into(),
        designated.into(),
        its_port.into(),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn bridge(name: &str, port: &str) -> RstpBridge {
        let port = RstpPort {
            name: port.into(),
            port_id: "8001".into(),
            role: "alternate".into(),
            state: "discarding".into(),
            path_cost: 200_000_000,
            edge: false,
            point_to_point: true,
            protocol: "stp".into(),
            designated_bridge_id: Some("8000.0200000000ab".into()),
            designated_port_id: "8002".into(),
            designated_path_cost: 4,
            received: 5,
            sent: 6,
            bad: 0,
            forward_transitions: 1,
        };
        RstpBridge {
            name: name.into(),
            version: "rstp".into(),
            bridge_id: "8000.0200000000cd".into(),
            root_id: "1000.0200000000ab".into(),
            root_path_cost: 20_000,
            root_port: Some(port.name.clone()),
            max_age: 20,
            hello_time: 2,
            forward_delay: 15,
            topology_changes: 3,
            since_change_seconds: Some(75),
            ports: vec![port],
        }
    }

    #[test]
    fn bridges_are_shown_with_their_ports() {
        assert!(show_rstp(&Rstp { bridges: Vec::new() }, false).contains("--rstp on"));
        let other = RstpBridge { root_port: None, ports: Vec::new(), ..bridge("red", "x") };
        let text = show_rstp(&Rstp { bridges: vec![bridge("default", "up0"), other] }, false);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in [
            "bridge default, 8000.0200000000cd: root 1000.0200000000ab by up0 at cost 20000, \
             topology changes 3, last",
            "up0 alternate (stp) discarding 200000000 8001 8000.0200000000ab 8002",
            "bridge red, 8000.0200000000cd: it is the root",
            "no ports",
        ] {
            assert!(words.contains(expected), "{expected}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
