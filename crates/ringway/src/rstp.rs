//! What a running switch answers about spanning tree, and options of ports for it.

use clap::Args;
use daemon::Daemon;
use serde_json::{Map, Value, json};
use switch::{PortRstp, RstpPort as PortReport, RstpReport};

use crate::cli::{OrDefault, number, or_default, parse_switch};
use crate::control::protocol::{Rstp, RstpBridge, RstpPort};

/// The options of a port for spanning tree; those that are not given stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct PortRstpArgs {
    /// Whether it takes part in the spanning tree of its bridge; otherwise it always forwards.
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub rstp: Option<bool>,
    /// What a way through it costs in spanning tree, or default: by its speed.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(1..=200_000_000_u32)))]
    pub rstp_path_cost: Option<OrDefault<u32>>,
    /// Of several ports to one bridge the one with the lowest is used: a multiple of 16 up to 240.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(0..=240_u8)))]
    pub rstp_priority: Option<OrDefault<u8>>,
    /// Its number in messages, by which it is told from others of the same priority; default: one that is
    /// free.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(1..=4095_u16)))]
    pub rstp_number: Option<OrDefault<u16>>,
    /// Whether there is no bridge behind it, so that it forwards at once.
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub rstp_admin_edge: Option<bool>,
    /// Whether that is found out, by hearing none for 3 s.
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub rstp_auto_edge: Option<bool>,
    /// Whether there is one neighbour at most, with which it can agree.
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub rstp_point_to_point: Option<bool>,
}

impl PortRstpArgs {
    /// The settings of a new port.
    pub fn settings(&self) -> PortRstp {
        let default = PortRstp::default();
        PortRstp {
            enabled: self.rstp.unwrap_or(default.enabled),
            path_cost: self.rstp_path_cost.as_ref().and_then(|cost| cost.0),
            priority: self.rstp_priority.as_ref().and_then(|priority| priority.0),
            number: self.rstp_number.as_ref().and_then(|number| number.0),
            admin_edge: self.rstp_admin_edge.unwrap_or(default.admin_edge),
            auto_edge: self.rstp_auto_edge.unwrap_or(default.auto_edge),
            point_to_point: self.rstp_point_to_point.unwrap_or(default.point_to_point),
        }
    }

    /// The settings that are to change, by their keys in the file.
    pub fn changed(&self) -> Map<String, Value> {
        let Self {
            rstp,
            rstp_path_cost,
            rstp_priority,
            rstp_number,
            rstp_admin_edge,
            rstp_auto_edge,
            rstp_point_to_point,
        } = self;
        let all = [
            ("enabled", rstp.map(Value::Bool)),
            ("path-cost", rstp_path_cost.as_ref().map(|cost| json!(cost.0))),
            ("priority", rstp_priority.as_ref().map(|priority| json!(priority.0))),
            ("number", rstp_number.as_ref().map(|number| json!(number.0))),
            ("admin-edge", rstp_admin_edge.map(Value::Bool)),
            ("auto-edge", rstp_auto_edge.map(Value::Bool)),
            ("point-to-point", rstp_point_to_point.map(Value::Bool)),
        ];
        let given = all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        given.collect()
    }
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
    use super::*;

    #[test]
    fn options_are_settings_and_bridges_are_written_as_elsewhere() {
        let args = PortRstpArgs {
            rstp: Some(false),
            rstp_path_cost: Some(OrDefault(Some(7))),
            rstp_priority: Some(OrDefault(None)),
            ..PortRstpArgs::default()
        };
        let expected = r#"{"enabled":false,"path-cost":7,"priority":null}"#;
        assert_eq!(Value::Object(args.changed()).to_string(), expected);
        let expected = PortRstp { enabled: false, path_cost: Some(7), ..PortRstp::default() };
        assert_eq!(args.settings(), expected);
        assert!(PortRstpArgs::default().settings().is_default());
        let address = packet::MacAddr([2, 0, 0, 0, 0, 0xAB]);
        assert_eq!(id(switch::RstpBridge { priority: 4096, address }), "1000.0200000000ab");
    }
}
