use std::fmt::{self, Write as _};
use std::process::Command;

use anyhow::Result;
use e2e::peers::workspace;
use e2e::process::run;

/// Tables and rules of the pipeline.
const TABLES: usize = 10;
const RULES: usize = 10;

/// Where there are the rules of OVN for one logical switch with two guests, as `ovs-ofctl dump-flows` has shown
/// them: an archive in the workspace, and a file in it.
const LOGICAL_SWITCH: [&str; 2] = ["tests/ovn/recorded.tar.xz", "1-two-vm/flows.txt"];

/// The addresses of the two guests: as OVN has them, at the ports 1 and 2.
pub const MACS: [[u8; 6]; 2] = [[0x52, 0x54, 0, 0, 0, 2], [0x52, 0x54, 0, 0, 0, 1]];

/// The names of the ports that they are at; their OpenFlow numbers are 1 and 2.
pub const PORTS: [&str; 2] = ["v0", "v1"];

/// The VLAN that they share where there is one.
pub const VLAN: u16 = 10;

/// By what a bridge with two guests forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bridge {
    /// As a learning switch.
    Normal,
    /// The same, both guests at access ports of one VLAN.
    AccessPorts,
    /// The same, from an access port to a trunk and back: each frame gets or loses a tag.
    AccessAndTrunk,
    /// By 100 rules in 10 tables, through all of which each packet goes.
    Pipeline,
    /// By the rules that OVN makes for a logical switch.
    LogicalSwitch,
}

impl Bridge {
    pub const ALL: [Self; 5] = [
        Self::Normal,
        Self::AccessPorts,
        Self::AccessAndTrunk,
        Self::Pipeline,
        Self::LogicalSwitch,
    ];

    /// The most of OVS-DPDK's cycles that ours is to take.
    pub const fn goal(self) -> Option<f64> {
        match self {
            Self::Normal => None,
            Self::AccessPorts | Self::AccessAndTrunk | Self::LogicalSwitch => Some(0.3),
            Self::Pipeline => Some(0.35),
        }
    }

    /// Whether the second port is a trunk.
    pub fn trunk(self) -> bool {
        self == Self::AccessAndTrunk
    }

    /// What `ovs-vsctl` is told once there are ports.
    pub fn commands(self) -> Vec<String> {
        let access = |port: &str| format!("set port {port} vlan_mode=access tag={VLAN}");
        let trunk = |port: &str| format!("set port {port} vlan_mode=trunk trunks={VLAN},20,30");
        let [first, second] = PORTS;
        match self {
            Self::AccessPorts => vec![access(first), access(second)],
            Self::AccessAndTrunk => vec![access(first), trunk(second)],
            Self::Normal | Self::Pipeline | Self::LogicalSwitch => Vec::new(),
        }
    }

    /// The rules that `ovs-ofctl add-flows` is given in place of the one that there is.
    pub fn rules(self) -> Result<Option<String>> {
        let rules = match self {
            Self::Normal | Self::AccessPorts | Self::AccessAndTrunk => None,
            Self::Pipeline => Some(pipeline()),
            Self::LogicalSwitch => Some(recorded()?),
        };
        Ok(rules)
    }
}

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "NORMAL",
            Self::AccessPorts => "access ports",
            Self::AccessAndTrunk => "access port and trunk",
            Self::Pipeline => "10 tables of 10 rules",
            Self::LogicalSwitch => "OVN's switch",
        })
    }
}

/// The rules that OVN has made.
fn recorded() -> Result<String> {
    let [archive, file] = LOGICAL_SWITCH;
    let archive = workspace().join(archive);
    run(Command::new("tar").arg("-xJOf").arg(archive).arg(file))
}

/// In each table, rules for networks or ports that no packet is for come before the one that goes on; the
/// last table goes by the port that a packet came in by.
fn pipeline() -> String {
    let mut text = String::new();
    for table in 0..TABLES {
        let last: &[&str] = if table + 1 == TABLES {
            &["in_port=1,actions=output:2", "in_port=2,actions=output:1"]
        } else {
            &["ip,actions=resubmit(,NEXT)"]
        };
        for rule in 0..RULES - last.len() {
            let matching = if table.is_multiple_of(2) {
                format!("ip,nw_dst=172.16.{}.0/24", RULES * table + rule)
            } else {
                format!("udp,tp_dst={}", 20_000 + RULES * table + rule)
            };
            let _ = writeln!(text, "table={table},priority=10,{matching},actions=drop");
        }
        for rule in last {
            let rule = rule.replace("NEXT", &(table + 1).to_string());
            let _ = writeln!(text, "table={table},priority=1,{rule}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_rules_as_are_told() {
        let text = pipeline();
        assert_eq!(text.lines().count(), TABLES * RULES);
        assert!(text.contains("table=8,priority=1,ip,actions=resubmit(,9)\n"), "{text}");
        assert!(text.contains("table=9,priority=1,in_port=1,actions=output:2\n"), "{text}");
    }
}
