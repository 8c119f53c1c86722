//! What a datapath leaves to others: packets to the switch itself, and what it cannot do.

use std::collections::BTreeSet;

/// By what a packet speaks to the switch itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// CFM.
    Cfm,
    /// BFD.
    Bfd,
    /// LACP.
    Lacp,
    /// Spanning tree, by any of its protocols.
    Stp,
    /// LLDP.
    Lldp,
}

impl Protocol {
    /// In flows, and in texts.
    const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Cfm => ["cfm", "CFM"],
            Self::Bfd => ["bfd", "BFD"],
            Self::Lacp => ["lacp", "LACP"],
            Self::Stp => ["stp", "STP"],
            Self::Lldp => ["lldp", "LLDP"],
        }
    }
}

/// What a flow does of which not all can be done in a datapath; `None`: all can.
pub(super) fn flow(is_slow: bool, heard: &BTreeSet<Protocol>) -> Option<String> {
    let heard = heard.iter().map(|protocol| protocol.names()[0]);
    let reasons: Vec<&str> = heard.chain(is_slow.then_some("action")).collect();
    (!reasons.is_empty()).then(|| format!("userspace(pid=0,slow_path({}))", reasons.join(",")))
}

/// Why, for people; empty if all can.
pub(super) fn text(is_slow: bool, heard: &BTreeSet<Protocol>) -> String {
    let heard = heard.iter().map(|protocol| {
        let [_, name] = protocol.names();
        format!("\n  - Consists of {name} packets.")
    });
    let slow = is_slow.then(|| "\n  - Uses action(s) not supported by datapath.".to_owned());
    let reasons: String = heard.chain(slow).collect();
    match reasons.as_str() {
        "" => reasons,
        _ => format!("\nThis flow is handled by the userspace slow path because it:{reasons}"),
    }
}
