//! What workers know of a bridge's groups: where frames to groups go, without a lock, since it does
//! not change. When it would, workers get another one.

use std::collections::HashMap;
use std::net::IpAddr;

use super::kind::Kind;
use crate::port_set::PortSet;

/// A group in a VLAN.
pub type Key = (u16, IpAddr);

/// What is set of a bridge's ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Those that get what goes to any group.
    pub flood: PortSet,
    /// Those that get all reports.
    pub flood_reports: PortSet,
    /// Those that have routers, heard or not.
    pub routers: PortSet,
    /// Those that have none.
    pub without: PortSet,
    /// Whether what goes to a group without members is kept from all others.
    pub keeps_unregistered: bool,
}

/// Where something goes.
#[derive(Clone, Copy, Debug)]
pub enum Reach<'v> {
    /// To all ports.
    All,
    /// To these.
    Ports(&'v PortSet),
}

impl Reach<'_> {
    /// Whether it goes to `port`.
    #[inline]
    pub fn has(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Ports(ports) => ports.contains(port),
        }
    }
}

impl PartialEq for Reach<'_> {
    /// Whether it is the same entry, which is quick to tell.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::Ports(these), Self::Ports(those)) => std::ptr::eq(*these, *those),
            _ => false,
        }
    }
}

/// Of a VLAN: where reports go, and what goes to groups without members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rest {
    reports: PortSet,
    unregistered: PortSet,
}

impl Rest {
    fn new(ports: &Ports, routers: &PortSet) -> Self {
        Self {
            reports: routers.with(&ports.flood_reports),
            unregistered: routers.with(&ports.flood),
        }
    }
}

/// The groups of a bridge. Keys are chosen by guests, so the hash is one that they cannot know.
#[derive(Debug, Default)]
pub struct View {
    groups: HashMap<Key, PortSet>,
    /// Of VLANs with routers that were heard, and of all others.
    vlans: HashMap<u16, Rest>,
    others: Rest,
    ports: Ports,
}

impl View {
    /// One without groups.
    pub fn new(ports: &Ports) -> Self {
        let others = Rest::new(ports, &ports.routers);
        Self { groups: HashMap::new(), vlans: HashMap::new(), others, ports: ports.clone() }
    }

    /// Notes behind which ports the routers of a VLAN are.
    pub fn set_routers(&mut self, vlan: u16, routers: &PortSet) {
        self.vlans.insert(vlan, Rest::new(&self.ports, routers));
    }

    /// Notes to which ports a group goes.
    pub fn set_group(&mut self, key: Key, ports: &PortSet) {
        self.groups.insert(key, ports.with(&self.ports.flood));
    }

    /// Where a frame of some kind goes in `vlan`.
    #[inline]
    pub fn reach(&self, vlan: u16, kind: Kind) -> Reach<'_> {
        match kind {
            Kind::Other | Kind::FromRouter => Reach::All,
            Kind::Report => Reach::Ports(&self.rest(vlan).reports),
            Kind::Data(group) => match self.groups.get(&(vlan, group)) {
                Some(ports) => Reach::Ports(ports),
                None if self.ports.keeps_unregistered => {
                    Reach::Ports(&self.rest(vlan).unregistered)
                }
                None => Reach::All,
            },
        }
    }

    fn rest(&self, vlan: u16) -> &Rest {
        self.vlans.get(&vlan).unwrap_or(&self.others)
    }

    /// Whether a router may be behind `port`.
    pub(crate) fn may_have_router(&self, port: u16) -> bool {
        !self.ports.without.contains(port)
    }
}
