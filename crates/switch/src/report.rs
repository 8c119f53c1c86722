//! What the switch tells about itself. Plain values: take one twice and subtract for rates.

use std::net::IpAddr;
use std::time::Duration;

use datapath::guard::PortGuard;
use datapath::limit::PortLimits;
use datapath::vlan::PortVlan;
use ethdev::{DropReason, Link, Peer, PortStats, Pressure};
pub use fdb::Report as FdbReport;
use flow::{PathCounts, Visit};
use l2proto::rstp::{RstpRole, RstpState};
use packet::MacAddr;

use crate::bond::Bonding;
use crate::config::BridgeOptions;
use crate::mirror::Mirror;
use crate::snoop::{McastSnooping, PortSnooping};

/// A port at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortReport {
    /// The name that the operator gave it.
    pub name: String,
    /// The device string that it was opened with.
    pub device: String,
    /// The driver's name.
    pub driver: &'static str,
    /// The bridge that it belongs to; of a member of a bond, that of the bond.
    pub bridge: String,
    /// The bond that it is a member of.
    pub bond: Option<String>,
    /// The state of its link.
    pub link: Link,
    /// Whether frames may go by it as far as LACP is concerned, and CFM and BFD, which watch its link.
    pub is_agreed: bool,
    /// Its own MAC address.
    pub mac: MacAddr,
    /// Its MTU in bytes: the largest payload of a frame without link-layer header.
    pub mtu: u16,
    /// Taken out of service by the operator; see [`PortOptions::disabled`](crate::PortOptions).
    pub disabled: bool,
    /// Shut since it sent a message of spanning tree, until one of its settings is changed or it is
    /// [opened again](crate::Switch::reopen_port). Its link is down meanwhile.
    pub is_shut: bool,
    /// The worker that polls each receive queue, by queue number.
    pub rx_workers: Vec<usize>,
    /// Its part in VLANs.
    pub vlan: PortVlan,
    /// How much may come in and go out.
    pub limits: PortLimits,
    /// What it may send.
    pub guard: PortGuard,
    /// Its part in snooping.
    pub mcast_snooping: PortSnooping,
    /// Counters of its queues. "Receive" is from the device into the switch. Drops of a frame
    /// that has no destination count on the queue where it came in, all others on the queue
    /// where it should have gone out.
    pub stats: PortStats,
    /// How hard pressed its receive queues and its transmit queues are. The time that its frames
    /// have taken is an estimate, from one burst in 32.
    pub pressures: [Vec<Pressure>; 2],
    /// The driver's own counters, by name.
    pub extended: Vec<(String, u64)>,
    /// The VMM that has connected, where the device waits for one.
    pub peer: Option<Peer>,
    /// Facts about the device, by name: the peer, negotiated features.
    pub details: Vec<(String, String)>,
    /// Number of addresses in the forwarding database that were learnt on this port.
    pub fdb_entries: usize,
}

/// A bridge at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeReport {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub options: BridgeOptions,
    /// The names of its ports.
    pub ports: Vec<String>,
    /// Its forwarding database.
    pub fdb: FdbReport,
}

/// An entry of a forwarding database at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The bridge whose database it is.
    pub bridge: String,
    /// The address.
    pub mac: MacAddr,
    /// The VLAN id; 0 for untagged.
    pub vlan: u16,
    /// The name of the port that the address is behind.
    pub port: String,
    /// Time since its last frame, in seconds; 0 for a static entry.
    pub age: u32,
    /// Whether an operator set it; such an entry neither ages nor moves.
    pub is_static: bool,
}

/// What a bridge that looks at groups of IGMP and MLD knows of them at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupsReport {
    /// Its name.
    pub bridge: String,
    /// What it does about them.
    pub settings: McastSnooping,
    /// Members of groups, sorted by VLAN, group and number of the port.
    pub groups: Vec<Group>,
    /// Where routers are.
    pub routers: Vec<GroupRouter>,
    /// What has happened since it looks at groups.
    pub counts: GroupCounts,
}

/// How many groups a bridge that looks at them knows at one moment. Unlike a [`GroupsReport`] it costs
/// the same however many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTotals {
    /// Its name.
    pub bridge: String,
    /// Largest number of groups.
    pub limit: usize,
    /// Groups, counted in each VLAN.
    pub groups: usize,
    /// Places where routers were heard, counted in each VLAN.
    pub routers: usize,
    /// How many groups its ports have members of, those that have any, by their numbers.
    pub ports: Vec<(String, usize)>,
    /// What has happened since it looks at groups.
    pub counts: GroupCounts,
}

/// A port that has members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The VLAN; 0 in a bridge that does not look at tags.
    pub vlan: u16,
    /// The group's address.
    pub group: IpAddr,
    /// The port's name.
    pub port: String,
    /// Seconds since a member has reported.
    pub age: u64,
}

/// A port that has a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRouter {
    /// The VLAN where it was heard; `None` where it is set, for all VLANs.
    pub vlan: Option<u16>,
    /// The port's name.
    pub port: String,
    /// Seconds since it was heard; `None` where it is set.
    pub age: Option<u64>,
}

/// How often what happened to the groups of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
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

/// A bond at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondReport {
    /// The name of its port.
    pub name: String,
    /// The bridge that it belongs to.
    pub bridge: String,
    /// Its settings.
    pub bonding: Bonding,
    /// The name of the active member, if any is in use.
    pub active: Option<String>,
    /// How often another member has become the active one, or none has been left.
    pub active_changes: u64,
    /// What it has agreed on by LACP; `None` where it does not speak that.
    pub lacp: Option<LacpReport>,
    /// How many parts of the traffic, of 256, have been moved to another member for their load.
    pub moved: u64,
    /// How long until load is moved the next time, where it is.
    pub next_rebalance: Option<Duration>,
    /// Its members, in the order of their names.
    pub members: Vec<MemberReport>,
}

/// What a bond has agreed on by LACP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LacpReport {
    /// Whether there is a partner, and links are in use.
    pub is_negotiated: bool,
    /// The priority and address by which the bond is known, and its key.
    pub system_priority: u16,
    /// Its address.
    pub system: MacAddr,
    /// Its key.
    pub key: u16,
}

/// What a member knows by LACP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberLacp {
    /// `disabled`, `expired`, `defaulted` or `current`: whether the partner is heard.
    pub state: &'static str,
    /// Whether both sides use it.
    pub is_in_use: bool,
    /// Its own number, as the partner knows it.
    pub port: u16,
    /// That number's priority.
    pub port_priority: u16,
    /// Its key: that of the bond, unless it has its own.
    pub key: u16,
    /// The state that it tells, as bits (IEEE 802.1AX-2014 figure 6-9).
    pub flags: u8,
    /// The partner's system, zero where none is known.
    pub partner_system: MacAddr,
    /// Its priority.
    pub partner_priority: u16,
    /// The partner's key, port and state.
    pub partner_key: u16,
    /// Its port.
    pub partner_port: u16,
    /// That port's priority.
    pub partner_port_priority: u16,
    /// Its state, as bits.
    pub partner_flags: u8,
    /// Frames of the protocol received, sent, and received that made no sense.
    pub received: u64,
    /// Those sent.
    pub sent: u64,
    /// Those that made no sense.
    pub bad: u64,
    /// Questions of the marker protocol received.
    pub markers: u64,
    /// How often the partner was not heard for too long.
    pub expired: u64,
    /// How often it was given up.
    pub defaulted: u64,
    /// How often the link went down or came up.
    pub links: u64,
}

/// What a member of a bond has found out by asking stations behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberArp {
    /// Whether they answer.
    pub is_answered: bool,
    /// Questions sent.
    pub sent: u64,
    /// Answers received.
    pub received: u64,
}

/// A part of the traffic of a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondPart {
    /// The name of the member that has it, if any is in use.
    pub member: Option<String>,
    /// What was sent of it, where traffic is divided: frames, and their bytes.
    pub packets: u64,
    /// Those bytes.
    pub bytes: u64,
}

/// A member of a bond at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReport {
    /// The name of its port.
    pub name: String,
    /// Whether its link is up and the port in service.
    pub is_up: bool,
    /// Whether it may be used, after the delays of the bond.
    pub is_enabled: bool,
    /// Whether it is the active one.
    pub is_active: bool,
    /// How long until that changes, since its link has.
    pub delay: Option<Duration>,
    /// How many parts of the traffic it has, of 256.
    pub share: usize,
    /// Those of them that frames have gone by lately, and how many bytes that were, where load is moved:
    /// each time it is, half of them are forgotten.
    pub loads: Vec<(u8, u64)>,
    /// What it knows by LACP; `None` where the bond does not speak that.
    pub lacp: Option<MemberLacp>,
    /// What it has found out by asking stations behind it; `None` where it does not.
    pub arp: Option<MemberArp>,
    /// How often it was given up.
    pub failures: u64,
    /// Frames that came in while it was not in use.
    pub inactive_drops: u64,
}

/// A bridge in spanning tree: its priority, and its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RstpBridge {
    /// The lower the better.
    pub priority: u16,
    /// Its address.
    pub address: MacAddr,
}

/// A bridge's view of its tree at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RstpReport {
    /// The bridge.
    pub bridge: String,
    /// How it is known.
    pub id: RstpBridge,
    /// The root of the tree; this bridge itself, where it is the best one.
    pub root: RstpBridge,
    /// The cost of the way there.
    pub root_path_cost: u32,
    /// The port of the way there; `None` where this bridge is the root.
    pub root_port: Option<String>,
    /// The times that hold, in seconds, which the root decides.
    pub max_age: u8,
    /// How often designated ports speak.
    pub hello_time: u8,
    /// How long ports wait that cannot agree with their neighbours.
    pub forward_delay: u8,
    /// Whether it speaks the rapid protocol.
    pub is_rapid: bool,
    /// How often the topology has changed.
    pub changes: u64,
    /// Time since it has changed last; `None`: not yet.
    pub since_change: Option<Duration>,
    /// Its ports, by number.
    pub ports: Vec<RstpPort>,
}

/// A port of a tree at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RstpPort {
    /// Its name.
    pub name: String,
    /// Its priority and number.
    pub id: u16,
    /// Its part in the tree.
    pub role: RstpRole,
    /// What it does with frames.
    pub state: RstpState,
    /// What a way through it costs.
    pub path_cost: u32,
    /// Whether there is no bridge behind it.
    pub is_edge: bool,
    /// Whether there is one neighbour at most.
    pub is_point_to_point: bool,
    /// Whether it speaks the rapid protocol; otherwise its neighbour knows the old one only.
    pub is_rapid: bool,
    /// The bridge by which what is behind it has its way to the root; `None` while its link is down.
    pub designated: Option<RstpBridge>,
    /// That bridge's port.
    pub designated_port: u16,
    /// The cost of its way to the root.
    pub designated_path_cost: u32,
    /// Messages received.
    pub received: u64,
    /// Those sent.
    pub sent: u64,
    /// Those received that made no sense.
    pub bad: u64,
    /// How often it began to forward.
    pub forwards: u64,
    /// When it came into its state: how many times ports of the switch had come into another one by then.
    pub turn: u64,
}

/// A mirror at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorReport {
    /// Its name.
    pub name: String,
    /// What it copies, and where to.
    pub mirror: Mirror,
    /// Whether its output port is there, or its file can be written; without it nothing is copied.
    pub is_active: bool,
    /// Why its file cannot be written now.
    pub trouble: Option<String>,
    /// Frames that are missing in its file: they came faster than they were written, or could not
    /// be.
    pub missed: u64,
    /// Frames copied since it was added.
    pub packets: u64,
    /// Bytes of the copies.
    pub bytes: u64,
}

/// A worker at one moment. Counters count since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerReport {
    /// Its index, from 0.
    pub index: usize,
    /// The core that it is bound to, if any.
    pub core: Option<usize>,
    /// Whether it runs; if not, it ended by a panic, which was logged.
    pub alive: bool,
    /// Rounds over all its receive queues.
    pub polls: u64,
    /// Those that found frames.
    pub busy_polls: u64,
    /// Frames received.
    pub packets: u64,
    /// Clock cycles spent in rounds that found frames.
    pub busy_cycles: u64,
    /// Clock cycles since it started, sleep included.
    pub total_cycles: u64,
    /// How often it slept.
    pub sleeps: u64,
    /// Clock cycles asleep, with the sleep that goes on.
    pub sleep_cycles: u64,
    /// How often it looked up what rules do with frames, until that was told last.
    pub look_ups: PathCounts,
    /// The receive queues that it polls: port name and queue number.
    pub queues: Vec<(String, usize)>,
}

impl WorkerReport {
    /// Busy clock cycles per frame; 0 before the first.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a mean for people")]
    pub fn cycles_per_packet(&self) -> f64 {
        if self.packets == 0 { 0.0 } else { self.busy_cycles as f64 / self.packets as f64 }
    }

    /// The share of its time that it was busy, 0 to 1.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn load(&self) -> f64 {
        if self.total_cycles == 0 {
            0.0
        } else {
            self.busy_cycles as f64 / self.total_cycles as f64
        }
    }

    /// What was counted since `earlier`, a report of the same worker.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            polls: self.polls.wrapping_sub(earlier.polls),
            busy_polls: self.busy_polls.wrapping_sub(earlier.busy_polls),
            packets: self.packets.wrapping_sub(earlier.packets),
            busy_cycles: self.busy_cycles.wrapping_sub(earlier.busy_cycles),
            total_cycles: self.total_cycles.wrapping_sub(earlier.total_cycles),
            sleeps: self.sleeps.wrapping_sub(earlier.sleeps),
            sleep_cycles: self.sleep_cycles.wrapping_sub(earlier.sleep_cycles),
            look_ups: self.look_ups.since(earlier.look_ups),
            ..self.clone()
        }
    }
}

/// How a switch ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Workers that had ended by a panic: index and message.
    pub panics: Vec<(usize, String)>,
    /// How long the switch ran.
    pub uptime: Duration,
}

/// What becomes of a frame; see [`Switch::trace`](crate::Switch::trace).
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// The ports where it enters a bridge, the first one and peers of patch ports, and the tables that it
    /// passes there, with the rules found in them.
    pub entered: Vec<(String, Vec<Visit>)>,
    /// The ports where it goes out, copies for mirrors among them, and what it is by then.
    pub outputs: Vec<(String, Vec<u8>)>,
    /// Why it is dropped, where it goes nowhere.
    pub dropped: Option<DropReason>,
}

/// What switching as usual does with a frame; see [`Switch::decide`](crate::Switch::decide).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// The ports where it goes out, without copies for mirrors, and what it is by then.
    pub outputs: Vec<(String, Vec<u8>)>,
    /// Whether it goes everywhere since nobody knows its destination.
    pub is_flooded: bool,
    /// Why it is dropped, where it goes nowhere.
    pub dropped: Option<DropReason>,
}
