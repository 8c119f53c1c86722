//! What the larger actions consist of.

use std::net::IpAddr;

use super::Action;
use crate::field::{Field, Subfield};
use crate::packet_in::Reason;
use crate::port_no::PortNo;

/// A table's number.
pub type TableId = u8;

/// To controllers, with more to say than `output` has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Controller {
    /// The most bytes that are sent of a packet.
    pub max_len: u16,
    /// To which controllers: those that have set this id.
    pub id: u16,
    /// What is said to be the reason.
    pub reason: Reason,
    /// What is passed along as it is.
    pub userdata: Vec<u8>,
    /// Whether the packet waits until the controller has it go on.
    pub pause: bool,
    /// A meter for what is sent; 0xffffffff: that for controllers, if there is one.
    pub meter: u32,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            max_len: u16::MAX,
            id: 0,
            reason: Reason::ACTION,
            userdata: Vec::new(),
            pause: false,
            meter: u32::MAX,
        }
    }
}

/// Over which fields `multipath` and `bundle` make a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum HashFields {
    /// The Ethernet source.
    EthSrc = 0,
    /// Addresses, protocol and ports, the same in both directions.
    SymmetricL4 = 1,
    /// Addresses, and ports of TCP and SCTP, the same in both directions.
    SymmetricL3L4 = 2,
    /// Addresses, and ports of TCP, UDP and SCTP, the same in both directions.
    SymmetricL3L4Udp = 3,
    /// The source of the network header.
    NwSrc = 4,
    /// The destination of the network header.
    NwDst = 5,
    /// The addresses of the network header, the same in both directions.
    SymmetricL3 = 6,
}

impl HashFields {
    /// All of them, by number.
    const ALL: [Self; 7] = [
        Self::EthSrc,
        Self::SymmetricL4,
        Self::SymmetricL3L4,
        Self::SymmetricL3L4Udp,
        Self::NwSrc,
        Self::NwDst,
        Self::SymmetricL3,
    ];

    /// Its number in messages.
    #[must_use]
    pub const fn wire(self) -> u16 {
        self as u16
    }

    /// The one with this number.
    #[must_use]
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|fields| fields.wire() == number)
    }
}

/// How `multipath` and `bundle` choose a link by a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The first port that is up, whatever the hash; only of `bundle`.
    ActiveBackup,
    /// The remainder of the hash; only of `multipath`.
    ModuloN,
    /// The place of the hash between the least and the largest; only of `multipath`.
    HashThreshold,
    /// The highest of all links' hashes.
    Hrw,
    /// Tries until a link is there; only of `multipath`.
    IterHash,
}

impl Algorithm {
    /// Its number in `bundle`.
    pub(super) const fn of_bundle(self) -> u16 {
        match self {
            Self::Hrw => 1,
            _ => 0,
        }
    }

    /// Its number in `multipath`.
    pub(super) const fn of_multipath(self) -> u16 {
        match self {
            Self::ModuloN | Self::ActiveBackup => 0,
            Self::HashThreshold => 1,
            Self::Hrw => 2,
            Self::IterHash => 3,
        }
    }
}

/// One of several ports, by a hash of the packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bundle {
    /// Over what.
    pub fields: HashFields,
    /// A number that changes the hash.
    pub basis: u16,
    /// How: the first that is up, or the highest of all ports' hashes.
    pub algorithm: Algorithm,
    /// The ports.
    pub members: Vec<PortNo>,
    /// Where the port's number is written, instead of sending to it.
    pub target: Option<Subfield>,
}

/// A hash of the packet as the number of a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Multipath {
    /// Over what.
    pub fields: HashFields,
    /// A number that changes the hash.
    pub basis: u16,
    /// How.
    pub algorithm: Algorithm,
    /// The largest number.
    pub max_link: u16,
    /// An argument of the algorithm.
    pub arg: u32,
    /// Where the number is written.
    pub target: Subfield,
}

/// After how many seconds a flow ends; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// Without a packet.
    pub idle: u16,
    /// In any case.
    pub hard: u16,
}

/// How a learnt flow is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LearnFlags {
    /// Controllers are told when it ends.
    pub send_flow_removed: bool,
    /// It ends with the flow that has learnt it.
    pub delete_learned: bool,
}

/// Adds or changes a flow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learn {
    /// Its timeouts.
    pub timeouts: Timeouts,
    /// Its timeouts once a connection ends.
    pub fin_timeouts: Timeouts,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// How it is kept.
    pub flags: LearnFlags,
    /// Its table.
    pub table: TableId,
    /// The most flows of this table with this cookie; 0: any number.
    pub limit: u32,
    /// The bit that says whether it was learnt.
    pub result: Option<Subfield>,
    /// What it matches on and does.
    pub specs: Vec<LearnSpec>,
}

/// A part of a learnt flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LearnSpec {
    /// How many bits.
    pub bits: u16,
    /// What.
    pub source: LearnSource,
    /// To what end.
    pub target: LearnTarget,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnSource {
    /// From the packet.
    Field {
        /// The field.
        field: Field,
        /// The lowest bit.
        offset: u16,
    },
    /// It is always the same.
    Value(u128),
}

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnTarget {
    /// The flow matches on it.
    Match {
        /// The field.
        field: Field,
        /// The lowest bit.
        offset: u16,
    },
    /// The flow writes it.
    Load {
        /// The field.
        field: Field,
        /// The lowest bit.
        offset: u16,
    },
    /// The flow sends to the port of this number.
    Output,
}

/// In which direction packets are told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SampleDirection {
    /// Not said.
    #[default]
    Default = 0,
    /// Those that come in.
    Ingress = 1,
    /// Those that go out.
    Egress = 2,
}

/// Tells a collector of some of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Of how many of 65,535, not 0.
    pub probability: u16,
    /// Which collectors.
    pub collector_set_id: u32,
    /// Where from, for the collector.
    pub obs_domain_id: u32,
    /// Where in that, for the collector.
    pub obs_point_id: u32,
    /// The port that is told of.
    pub sampling_port: PortNo,
    /// In which direction.
    pub direction: SampleDirection,
}

/// Where a zone's number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtZone {
    /// It is always the same.
    Number(u16),
    /// From 16 bits of a field.
    Field(Subfield),
}

impl Default for CtZone {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// Tracks connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ct {
    /// Whether the connection is kept.
    pub commit: bool,
    /// Whether a connection in the other direction is forgotten; only with `commit`.
    pub force: bool,
    /// In which zone.
    pub zone: CtZone,
    /// The table that the packet goes on in, tracked.
    pub table: Option<TableId>,
    /// The application whose further connections are expected, by its port: 21 for ftp, 69 for tftp.
    pub alg: u16,
    /// What is done to the connection: `nat` at first, and what writes `ct_mark` and `ct_label`.
    pub actions: Vec<Action>,
}

/// Which address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// As the connection's was.
    Existing,
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// Translates addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nat {
    /// Which.
    pub kind: NatKind,
    /// Flags as messages have them.
    pub flags: u16,
    /// The least and the largest address to choose from; the latter may be left out.
    pub addresses: Option<(IpAddr, Option<IpAddr>)>,
    /// The least and the largest port to choose from; the latter may be left out.
    pub ports: Option<(u16, Option<u16>)>,
}

impl Nat {
    /// A client has the same address each time.
    pub const PERSISTENT: u16 = 0x04;
    /// Ports are chosen by a hash.
    pub const HASH: u16 = 0x08;
    /// Ports are chosen at random.
    pub const RANDOM: u16 = 0x10;

    /// Whether it says nothing but that addresses are translated as they were.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.kind == NatKind::Existing && self.flags == 0 && self.addresses.is_none()
    }
}

/// Puts a header on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Encap {
    /// Which: namespace and type.
    pub packet_type: u32,
    /// The size that is put on where it is not known by the type, in bytes.
    pub header_size: u16,
    /// What is in it.
    pub properties: Vec<PropertyOfEncap>,
}

/// A property of a header that is put on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PropertyOfEncap {
    /// The type of a network service header's metadata.
    NshMdtype(u8),
    /// A value of a network service header's metadata.
    NshTlv {
        /// Its class.
        class: u16,
        /// Its type.
        kind: u8,
        /// The value.
        data: Vec<u8>,
    },
}
