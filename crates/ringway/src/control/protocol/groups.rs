//! What a switch answers about groups of IGMP and MLD.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Answer to [`Request::ShowGroups`](super::Request::ShowGroups).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// Bridges that look at groups, in the order of their names.
    pub bridges: Vec<GroupBridge>,
    /// Members of groups, sorted by bridge, VLAN and group.
    pub groups: Vec<Group>,
    /// Where routers are.
    pub routers: Vec<GroupRouter>,
}

/// A bridge that looks at groups, with what has happened since it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupBridge {
    /// Its name.
    pub name: String,
    /// Largest number of groups.
    pub limit: usize,
    /// Seconds without a report after which a port is taken for no member any more.
    pub ageing_seconds: u32,
    /// Whether what goes to a group without members goes to all ports.
    pub flood_unregistered: bool,
    /// Whether it asks for members itself where no router does.
    pub querier: bool,
    /// Ports that became members of groups.
    pub joined: u64,
    /// Those that left.
    pub left: u64,
    /// Those of which no report came for too long.
    pub expired: u64,
    /// Groups given up for others at the limit.
    pub evicted: u64,
    /// Reports of ports that had as many groups as they may.
    pub refused: u64,
    /// Messages that made no sense.
    pub bad: u64,
}

/// A port that has members of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The bridge.
    pub bridge: String,
    /// The VLAN; 0 in a bridge without VLANs.
    pub vlan: u16,
    /// The group's address.
    pub group: IpAddr,
    /// The port's name.
    pub port: String,
    /// Seconds since a member has reported.
    pub age_seconds: u64,
}

/// A port that has a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRouter {
    /// The bridge.
    pub bridge: String,
    /// The VLAN where it was heard; `null` where it is set.
    pub vlan: Option<u16>,
    /// The port's name.
    pub port: String,
    /// Seconds since it was heard; `null` where it is set.
    pub age_seconds: Option<u64>,
}
