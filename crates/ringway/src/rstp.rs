//! What a running switch answers about spanning tree, and options of ports for it.

use daemon::Daemon;
use switch::{PortRstp, RstpPort as PortReport, RstpReport};

use crate::cli::settings::{Read, Setting, Settings, Table};
use crate::control::protocol::{Rstp, RstpBridge, RstpPort};

/// The options of a port for spanning tree; those that are not given stay as they are.
pub type PortRstpArgs = Settings<PortRstp>;

impl Table for PortRstp {
    const NAME: &str = "rstp settings";
    const SETTINGS: &[Setting] = &[
        Setting::switch("rstp").key("enabled").help(
            "Whether it takes part in the spanning tree of its bridge; otherwise it always \
             forwards",
        ),
        Setting::new("rstp-path-cost", "N|default", Read::Number(1, 200_000_000))
            .key("path-cost")
            .or_default()
            .help("What a way through it costs in spanning tree, or default: by its speed"),
        Setting::new("rstp-priority", "N|default", Read::Number(0, 240))
            .key("priority")
            .or_default()
            .help(
                "Of several ports to one bridge the one with the lowest is used: a multiple of \
                 16 up to 240",
            ),
        Setting::new("rstp-number", "N|default", Read::Number(1, 4095))
            .key("number")
            .or_default()
            .help(
                "Its number in messages, by which it is told from others of the same priority; \
                 default: one that is free",
            ),
        Setting::switch("rstp-admin-edge")
            .key("admin-edge")
            .help("Whether there is no bridge behind it, so that it forwards at once"),
        Setting::switch("rstp-auto-edge")
            .key("auto-edge")
            .help("Whether that is found out, by hearing none for 3 s"),
        Setting::switch("rstp-point-to-point")
            .key("point-to-point")
            .help("Whether there is one neighbour at most, with which it can agree"),
    ];
}

/// The bridges of a switch that take part.
pub fn answer(daemon: &Daemon) -> Rstp {
    Rstp { bridges: daemon.switch().rstp().into_iter().map(bridge).collect() }
}

/// What a bridge or port speaks.
pub const fn protocol(is_rapid: bool) -> &'static str {
    if is_rapid { "rstp" } else { "stp" }
}

/// A bridge as Open vSwitch and Linux write it.
pub fn id(bridge: switch::RstpBridge) -> String {
    let address = bridge.address.0.map(|byte| format!("{byte:02x}")).concat();
    format!("{:04x}.{address}", bridge.priority)
}

fn bridge(report: RstpReport) -> RstpBridge {
    RstpBridge {
        name: report.bridge,
        version: protocol(report.is_rapid).to_owned(),
        bridge_id: id(report.id),
        root_id: id(report.root),
        root_path_cost: report.root_path_cost,
        root_port: report.root_port,
        max_age: report.max_age,
        hello_time: report.hello_time,
        forward_delay: report.forward_delay,
        topology_changes: report.changes,
        since_change_seconds: report.since_change.map(|since| since.as_secs()),
        ports: report.ports.into_iter().map(port).collect(),
    }
}

fn port(report: PortReport) -> RstpPort {
    RstpPort {
        name: report.name,
        port_id: format!("{:04x}", report.id),
        role: report.role.name().to_owned(),
        state: report.state.name().to_owned(),
        path_cost: report.path_cost,
        edge: report.is_edge,
        point_to_point: report.is_point_to_point,
        protocol: protocol(report.is_rapid).to_owned(),
        designated_bridge_id: report.designated.map(id),
        designated_port_id: format!("{:04x}", report.designated_port),
        designated_path_cost: report.designated_path_cost,
        received: report.received,
        sent: report.sent,
        bad: report.bad,
        forward_transitions: report.forwards,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::cli::{Cli, Command, PortAction};

    fn parse(options: &[&str]) -> PortRstpArgs {
        let words = [&["ringway", "port", "set", "a"], options].concat();
        let Command::Port(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{options:?}");
        };
        match args.action {
            PortAction::Set(port) => port.rstp,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_are_settings_and_bridges_are_written_as_elsewhere() {
        let args = parse(&["--rstp", "off", "--rstp-path-cost", "7", "--rstp-priority", "default"]);
        let expected = r#"{"enabled":false,"path-cost":7,"priority":null}"#;
        assert_eq!(Value::Object(args.given().clone()).to_string(), expected);
        let expected = PortRstp { enabled: false, path_cost: Some(7), ..PortRstp::default() };
        assert_eq!(args.whole().unwrap(), expected);
        assert!(parse(&[]).whole().unwrap().is_default());
        let address = packet::MacAddr([2, 0, 0, 0, 0, 0xAB]);
        assert_eq!(id(switch::RstpBridge { priority: 4096, address }), "1000.0200000000ab");
    }
}
