//! All that decides about a bridge's packets, as one value: what workers have a copy of.

use litemap::LiteMap;
use openflow::PortNo;

use crate::key::{Key, slot};
use crate::kinds::KINDS;
use crate::path::Basis;
use crate::tables::Tables;

/// The group that spanning tree speaks to (IEEE 802.1D, table 7-10).
const STP_GROUP: u128 = 0x0180_C200_0000;

/// What OpenFlow has for the EtherType of packets without one.
const NO_TYPE: u16 = 0x05FF;

/// A port of a bridge with flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// The number by which the switch knows it.
    pub number: u16,
    /// Whether nothing is sent there (`OFPPC_NO_FWD`).
    pub no_forward: bool,
    /// Whether it is left out where packets flood (`OFPPC_NO_FLOOD`).
    pub no_flood: bool,
    /// Whether what comes in there is dropped (`OFPPC_NO_RECV`), but what spanning tree says.
    pub no_receive: bool,
    /// Whether what spanning tree says there is dropped (`OFPPC_NO_RECV_STP`).
    pub no_receive_stp: bool,
    /// Whether controllers get nothing of it that no rule is for (`OFPPC_NO_PACKET_IN`).
    pub no_packet_in: bool,
    /// Whether buckets of groups that watch it are dead: nothing goes out there.
    pub is_dead: bool,
    /// Whether packets without a header of Ethernet can go out there.
    pub takes_bare: bool,
    /// Whether another bridge is behind it.
    pub is_patch: bool,
}

impl Port {
    /// A port that does all that ports do.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self {
            number,
            no_forward: false,
            no_flood: false,
            no_receive: false,
            no_receive_stp: false,
            no_packet_in: false,
            is_dead: false,
            takes_bare: false,
            is_patch: false,
        }
    }

    /// Whether packets that flood go out there, or that go to all ports.
    #[must_use]
    pub const fn floods(&self, all: bool) -> bool {
        !self.no_forward && (all || !self.no_flood)
    }

    /// Whether it does less with packets than ports do, so that more than its bridge has to be asked.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.no_forward || self.no_flood || self.no_receive || self.no_receive_stp
    }

    /// Whether a packet with this key that comes in there is dropped.
    #[must_use]
    pub fn refuses(&self, key: &Key) -> bool {
        if self.no_receive == self.no_receive_stp {
            return self.no_receive;
        }
        let is_stp = key.get(slot::ETH_DST) == STP_GROUP && key.get_u16(slot::ETH_TYPE) == NO_TYPE;
        if is_stp { self.no_receive_stp } else { self.no_receive }
    }

    /// Whether a packet that begins with this (`packet_type`) can go out there.
    #[must_use]
    pub const fn takes(&self, packet_type: u32) -> bool {
        packet_type == 0 || self.takes_bare
    }
}

/// How many tags of a packet rules can match on; what is behind them counts as no header, and the EtherType
/// is then that of the next tag (OVS: `vlan-limit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanLimit(u8);

impl VlanLimit {
    /// The most that there is room for in a key.
    pub const MOST: Self = Self(2);

    /// So many, as far as there is room; 0: as many as there is.
    #[must_use]
    pub const fn new(tags: u64) -> Self {
        match tags {
            1 => Self(1),
            _ => Self::MOST,
        }
    }

    /// Their number.
    #[must_use]
    pub const fn tags(self) -> u8 {
        self.0
    }
}

impl Default for VlanLimit {
    fn default() -> Self {
        Self(1)
    }
}

/// A field that stands for an option of Geneve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionField {
    /// The field's number: `tun_metadata0` is 0.
    pub field: u8,
    /// Who has defined the option, and what it is.
    pub class: u16,
    /// See `class`.
    pub kind: u8,
    /// Bytes of its value.
    pub len: u8,
}

impl OptionField {
    /// The most bytes of a value that there is a place for.
    pub const PLACE: u8 = 8;

    /// The bit that says whether there is the option.
    #[must_use]
    pub const fn bit(&self) -> u64 {
        1_u64.wrapping_shl(self.field as u32)
    }

    /// Whether its value is known, if it is there: it is empty, or has a place.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.len <= Self::PLACE
    }

    /// Whether its value has a place, which it shares with no other one.
    #[must_use]
    pub const fn has_place(&self) -> bool {
        self.len > 0 && self.is_known()
    }
}

/// Tunnels that a bridge has ports of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tunnelling {
    /// Whether there are any.
    pub is_used: bool,
    /// The fields of their options.
    pub options: Vec<OptionField>,
}

/// What becomes of packets of a bridge.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// The rules.
    pub tables: Tables,
    /// The ports, by their OpenFlow numbers.
    pub ports: LiteMap<PortNo, Port>,
    /// Whether controllers get what no rule of the first table is for, as in OpenFlow 1.0 to 1.2.
    pub asks_controllers: bool,
    /// The class of service (DSCP) that packets of IP get where rules send them to a queue of a port.
    pub marks: LiteMap<(PortNo, u32), u8>,
    /// How many tags are looked at.
    pub vlans: VlanLimit,
    /// Its tunnels.
    pub tunnels: Tunnelling,
}

impl Pipeline {
    /// What is not as it is in `other`; `None` if it is more than a path can depend on.
    pub(crate) fn changed(&self, other: &Self) -> Option<Basis> {
        let links = self.ports != other.ports;
        let is_other = self.asks_controllers != other.asks_controllers
            || self.tables.fragments() != other.tables.fragments()
            || self.tables.first() != other.tables.first()
            || self.marks != other.marks
            || self.vlans != other.vlans
            || self.tunnels != other.tunnels;
        if is_other || links && !self.has_ports_of(other) {
            return None;
        }
        let tables = self.tables.changed(&other.tables);
        let groups = self.tables.groups().changed(other.tables.groups());
        let meters = !self.tables.meters().is_same(other.tables.meters());
        Some(Basis { tables, counted: tables, groups, links, meters })
    }

    /// Whether all ports are the same but for being alive.
    fn has_ports_of(&self, other: &Self) -> bool {
        let same = |((number, port), (others, before)): ((&PortNo, &Port), (&PortNo, &Port))| {
            number == others && *port == Port { is_dead: port.is_dead, ..*before }
        };
        self.ports.len() == other.ports.len() && self.ports.iter().zip(&other.ports).all(same)
    }

    /// Whether all that it says is that the bridge is a plain one, of which all ports do all that ports do.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.tables.is_plain() && !self.ports.values().any(Port::is_limited)
    }

    /// Which bits of a packet its way may depend on.
    pub(crate) fn relevant(&self) -> Key {
        let mut key = self.tables.relevant();
        self.mark(&mut key);
        key
    }

    /// The same of packets of each kind.
    pub(crate) fn relevant_by_kind(&self) -> [Key; KINDS.len()] {
        let mut keys = self.tables.relevant_by_kind();
        keys.iter_mut().for_each(|key| self.mark(key));
        keys
    }

    fn mark(&self, key: &mut Key) {
        if self.tunnels.is_used {
            // Controllers are told of it, and the next tunnel may be as the one before was.
            key.union(&Key::of_tunnels());
        }
        if self.ports.values().any(|port| port.no_receive != port.no_receive_stp) {
            key.set(slot::ETH_DST, slot::ETH_DST.ones());
        }
        if !self.marks.is_empty() {
            // What is marked for one port has its own class for the next.
            for slot in [slot::IP_DSCP, slot::IP_PROTO, slot::IP_FRAG] {
                key.set(slot, slot.ones());
            }
        }
    }

    /// The OpenFlow number of the port that the switch knows by `number`.
    #[must_use]
    pub fn port_no(&self, number: u16) -> Option<PortNo> {
        let found = self.ports.iter().find(|(_, port)| port.number == number);
        found.map(|(port_no, _)| *port_no)
    }
}
