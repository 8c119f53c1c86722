//! Actions: what becomes of a packet.
//!
//! - `check`: whether they fit the packets that a flow is for
//! - `fields`: which fields they read and write
//! - `parts`: what the larger ones consist of
//! - `text`: actions as ovs-ofctl shows them
//! - [`wire`]: actions in messages

pub(crate) mod check;
mod fields;
mod parts;
mod text;
pub mod wire;

use std::net::Ipv4Addr;

use packet::MacAddr;

use crate::error::ErrorCode;
use crate::field::{Field, Subfield};
use crate::port_no::PortNo;

pub use parts::{
    Algorithm, Bundle, Controller, Ct, CtZone, Encap, HashFields, Learn, LearnFlags, LearnSource,
    LearnSpec, LearnTarget, Multipath, Nat, NatKind, PropertyOfEncap, Sample, SampleDirection,
    TableId, Timeouts,
};
pub use text::Actions;

/// An action: those of OpenFlow 1.0 to 1.5 and of Open vSwitch.
///
/// Each is here once, whatever messages of different versions call it. Actions of OpenFlow 1.0 that set
/// a field are apart from `set_field`, since they differ in what they do to packets without the field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send to a port. `max_len` is how much of it controllers get, where that is the port.
    Output {
        /// The port.
        port: PortNo,
        /// The most bytes that are sent to a controller.
        max_len: u16,
    },
    /// Send to the port whose number is in a field.
    OutputField {
        /// The number, in the numbers of OpenFlow 1.0.
        source: Subfield,
        /// The most bytes that are sent to a controller.
        max_len: u16,
    },
    /// Send the packet's begin to a port.
    OutputTruncated {
        /// The port.
        port: PortNo,
        /// How many bytes.
        max_len: u32,
    },
    /// Send to controllers, with more to say.
    Controller(Box<Controller>),
    /// Process by a group.
    Group(u32),
    /// Send through a queue of a port.
    Enqueue {
        /// The port.
        port: PortNo,
        /// The queue.
        queue: u32,
    },
    /// Send to one of several ports.
    Bundle(Box<Bundle>),

    /// Write bits of a field; it must be there.
    SetField {
        /// The field.
        field: Field,
        /// What to write.
        value: u128,
        /// Which bits.
        mask: u128,
    },
    /// Write a number to some bits of a field.
    Load {
        /// Where to.
        target: Subfield,
        /// What.
        value: u64,
    },
    /// Copy bits of a field to another.
    Move {
        /// Where from.
        source: Subfield,
        /// Where to.
        target: Subfield,
    },
    /// Set the number of the VLAN tag.
    SetVlanVid {
        /// The number, 0 to 4095.
        vid: u16,
        /// Whether a packet without a tag gets one.
        push: bool,
    },
    /// Set the priority of the VLAN tag.
    SetVlanPcp {
        /// The priority, 0 to 7.
        pcp: u8,
        /// Whether a packet without a tag gets one.
        push: bool,
    },
    /// Take the outermost VLAN tag off, if there is one.
    StripVlan,
    /// The same, as OpenFlow 1.1 and later call it.
    PopVlan,
    /// Put a VLAN tag on.
    PushVlan {
        /// Its EtherType, 0x8100 or 0x88a8.
        ethertype: u16,
    },
    /// Set the source of the Ethernet header.
    SetEthSrc(MacAddr),
    /// Set the destination of the Ethernet header.
    SetEthDst(MacAddr),
    /// Set the source of the IPv4 header, if there is one.
    SetIpSrc(Ipv4Addr),
    /// Set the destination of the IPv4 header, if there is one.
    SetIpDst(Ipv4Addr),
    /// Set the upper six bits of the type of service to those of this.
    SetNwTos(u8),
    /// Set the congestion notification, 0 to 3.
    SetNwEcn(u8),
    /// Set the time to live.
    SetNwTtl(u8),
    /// Set the source port of TCP, UDP or SCTP, or the type of ICMP.
    SetL4Src(u16),
    /// Set the destination port of TCP, UDP or SCTP, or the code of ICMP.
    SetL4Dst(u16),
    /// Take one of the time to live; where it then is over, the packet goes to the controllers with
    /// these ids; where there is no list: with id 0.
    DecTtl(Option<Vec<u16>>),
    /// Set the label of the outermost MPLS header.
    SetMplsLabel(u32),
    /// Set the traffic class of the outermost MPLS header.
    SetMplsTc(u8),
    /// Set the time to live of the outermost MPLS header.
    SetMplsTtl(u8),
    /// Take one of the time to live of the outermost MPLS header.
    DecMplsTtl,
    /// Put an MPLS header on.
    PushMpls {
        /// Its EtherType, 0x8847 or 0x8848.
        ethertype: u16,
    },
    /// Take the outermost MPLS header off.
    PopMpls {
        /// The EtherType of what is below.
        ethertype: u16,
    },
    /// Take one of the time to live of the network service header.
    DecNshTtl,
    /// Put a header on.
    Encap(Box<Encap>),
    /// Take the outermost header off.
    Decap {
        /// What is below, 0xfffe where the header says it: namespace and type.
        packet_type: u32,
    },
    /// Make a field of a tunnel's options absent.
    DeleteField(Field),

    /// Set the tunnel's id.
    SetTunnel {
        /// The id.
        id: u64,
        /// Whether messages have 64 bits of it even if 32 would do.
        wide: bool,
    },
    /// Use this queue from here on.
    SetQueue(u32),
    /// Use the queue of before `SetQueue` again.
    PopQueue,
    /// Apply a meter; what is beyond its rate is dropped.
    Meter(u32),

    /// Look the packet up again and go on here behind what is found.
    Resubmit {
        /// The port that it then seems to have come in on, if not the same.
        port: Option<PortNo>,
        /// The table, if not the same.
        table: Option<u8>,
        /// Whether to look for the tracked connection's addresses instead of the packet's.
        ct: bool,
    },
    /// Put a field's value on the stack.
    Push(Subfield),
    /// Take a value from the stack into a field.
    Pop(Subfield),
    /// Do these with a copy of the packet.
    Clone(Vec<Self>),
    /// Do no more.
    Exit,
    /// Add or change a flow by what is in the packet.
    Learn(Box<Learn>),
    /// Belong to a conjunction: a flow with its `conj_id` is for what matches on all of its clauses.
    Conjunction {
        /// The conjunction.
        id: u32,
        /// Which of its clauses, counted from 0.
        clause: u8,
        /// How many there are, 2 to 64.
        clauses: u8,
    },
    /// Write a hash of the packet to a field, as the number of one of several links.
    Multipath(Box<Multipath>),
    /// Write whether the packet is larger than this to a bit.
    CheckPktLarger {
        /// The bytes.
        len: u16,
        /// The bit.
        target: Subfield,
    },
    /// Shorten the flow's timeouts when a packet ends its connection.
    FinTimeout {
        /// New idle timeout, in seconds.
        idle: u16,
        /// New hard timeout, in seconds.
        hard: u16,
    },
    /// Tell a collector of some of the packets.
    Sample(Box<Sample>),
    /// Track the packet's connection.
    Ct(Box<Ct>),
    /// Forget what tracking has found.
    CtClear,
    /// Translate addresses; only in `ct`.
    Nat(Box<Nat>),
    /// Nothing; for people.
    Note(Vec<u8>),
    /// Have the data path ask again, for tests of Open vSwitch.
    DebugRecirc,
    /// Have the slow path do it, for tests of Open vSwitch.
    DebugSlow,
}

impl Action {
    /// Send to a port, and all of it to a controller.
    #[must_use]
    pub const fn output(port: PortNo) -> Self {
        Self::Output { port, max_len: if port.0 == PortNo::CONTROLLER.0 { u16::MAX } else { 0 } }
    }

    /// Look the packet up in a table.
    #[must_use]
    pub const fn resubmit_table(table: u8) -> Self {
        Self::Resubmit { port: None, table: Some(table), ct: false }
    }
}

/// Whether packets may be sent to a port.
///
/// # Errors
/// There can be no such port.
pub fn verify_output(port: PortNo) -> Result<(), ErrorCode> {
    let is_reserved = (PortNo::IN_PORT..=PortNo::LOCAL).contains(&port);
    let is_port = port.v10().is_some() && port < PortNo::MAX;
    if is_port || is_reserved { Ok(()) } else { Err(ErrorCode::BacBadOutPort) }
}
