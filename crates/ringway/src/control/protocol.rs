//! Requests and responses of the control socket; `docs/control-protocol.md` is their reference.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ordered::Gather as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use switch::{PortGuard, PortLimits, PortSnooping, PortVlan};

use super::event::Topic;
use super::refusal::{Code, Refusal};

mod groups;
mod neighbours;
mod request;
mod rstp;
mod trace;
pub use groups::{Group, GroupBridge, GroupRouter, Groups};
pub use neighbours::{Neighbour, NeighbourPort, Neighbours};
pub use request::{CaptureWay, DROP_RATE, NewPort, Request};
pub use rstp::{Rstp, RstpBridge, RstpPort};
pub use trace::{Trace, TraceEntry, TraceOutput, TraceRule, TraceTable};

/// The answer to a request: `{"ok": VALUE}`, or `{"error": "MESSAGE", "code": "CODE"}`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Answer")]
pub enum Response {
    /// It was done; the value depends on the command.
    Ok(Value),
    /// It was not done, and why.
    Error(Refusal),
}

/// Its members as they are written.
#[derive(Deserialize)]
struct Answer {
    ok: Option<Value>,
    error: Option<String>,
    code: Option<Code>,
}

impl TryFrom<Answer> for Response {
    type Error = &'static str;

    fn try_from(answer: Answer) -> Result<Self, &'static str> {
        match answer {
            Answer { ok: Some(value), error: None, .. } => Ok(Self::Ok(value)),
            Answer { ok: None, error: Some(message), code } => {
                Ok(Self::Error(Refusal { code: code.unwrap_or(Code::Other), message }))
            }
            _ => Err("expected either ok or error"),
        }
    }
}

impl Serialize for Response {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match self {
            Self::Ok(value) => map.serialize_entry("ok", value)?,
            Self::Error(Refusal { code, message }) => {
                map.serialize_entry("error", message)?;
                map.serialize_entry("code", code)?;
            }
        }
        map.end()
    }
}

/// Answer to [`Request::Subscribe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// What is told from now on.
    pub topics: Vec<Topic>,
}

/// Answer to [`Request::LogShow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevels {
    /// The level of what has none of its own.
    pub level: String,
    /// The others, by crate or module.
    pub targets: BTreeMap<String, String>,
}

/// Answer to [`Request::FdbAdd`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The port that the same static entry was behind before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
}

/// Answer to [`Request::ConfigShow`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// How often it has been changed.
    pub version: u64,
    /// Path of the configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Names of the ports and vDPA devices that are on the command line.
    pub arguments: Vec<String>,
    /// The desired state, in the form of the file.
    pub state: daemon::State,
    /// What cannot be opened yet.
    pub waiting: Vec<WaitingDevice>,
}

/// A port or vDPA device that cannot be opened yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingDevice {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Answer to [`Request::ConfigDiff`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDiff {
    /// What would have to be changed to have the switch be what file and command line say.
    pub changes: Vec<String>,
    /// What of it takes a new start.
    pub restart: Vec<String>,
}

/// Answer to [`Request::TimeStop`] and [`Request::TimeWarp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Milliseconds since the switch started, by its clock.
    pub uptime_ms: u64,
}

/// Answer to [`Request::Reload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// How often the state has been changed, by now.
    pub version: u64,
    /// What was changed.
    pub changes: Vec<String>,
    /// What cannot be opened yet.
    pub waiting: Vec<WaitingDevice>,
}

/// Answer to [`Request::Info`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Ringway's version.
    pub version: String,
    /// Process number.
    pub pid: u32,
    /// Seconds since the switch started.
    pub uptime_seconds: u64,
}

/// Answer to [`Request::ShowMirrors`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirrors {
    /// In the order of their names.
    pub mirrors: Vec<Mirror>,
}

/// One mirror. Counters count since it was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its name.
    pub name: String,
    /// What it copies, and where to, in the form of the file.
    pub mirror: switch::Mirror,
    /// Whether its output port is there, or its file can be written.
    pub active: bool,
    /// Why its file cannot be written now.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Frames that are missing in its file.
    #[serde(default)]
    pub missed: u64,
    /// Frames copied.
    pub packets: u64,
    /// Bytes of the copies.
    pub bytes: u64,
}

/// Answer to [`Request::ShowBonds`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bonds {
    /// In the order of their names.
    pub bonds: Vec<Bond>,
}

/// One bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bond {
    /// The name of its port.
    pub name: String,
    /// The bridge that it belongs to.
    pub bridge: String,
    /// How traffic is divided among the members.
    pub mode: switch::BondMode,
    /// Its settings, in the form of the file.
    pub bonding: switch::Bonding,
    /// The active member, if any is in use.
    pub active: Option<String>,
    /// How often another one has become that, or none was left.
    pub active_changes: u64,
    /// What it has agreed on by LACP; `null` where it does not speak that.
    pub lacp: Option<BondLacp>,
    /// How many parts of the traffic have been moved to another member for their load.
    pub moved: u64,
    /// In the order of their names.
    pub members: Vec<BondMember>,
}

/// What a bond has agreed on by LACP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondLacp {
    /// Whether there is a partner, and links are in use.
    pub negotiated: bool,
    /// The address by which the bond is known.
    pub system: String,
    /// Its priority.
    pub system_priority: u16,
    /// Its key.
    pub key: u16,
}

/// What a member knows by LACP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLacp {
    /// Whether the partner is heard: disabled, expired, defaulted or current.
    pub state: String,
    /// Whether both sides use the link.
    pub in_use: bool,
    /// Its own number, as the partner knows it.
    pub port: u16,
    /// The state that it tells, in words.
    pub flags: Vec<String>,
    /// The partner's address; zero where none is known.
    pub partner_system: String,
    /// The partner's priority.
    pub partner_system_priority: u16,
    /// The partner's key.
    pub partner_key: u16,
    /// The partner's number of the port.
    pub partner_port: u16,
    /// The state that the partner tells, in words.
    pub partner_flags: Vec<String>,
    /// Frames of the protocol received.
    pub received: u64,
    /// Those sent.
    pub sent: u64,
    /// Those received that made no sense.
    pub bad: u64,
}

/// What a member of a bond has found out by asking stations behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberArp {
    /// Whether they answer.
    pub answered: bool,
    /// Questions sent.
    pub sent: u64,
    /// Answers received.
    pub received: u64,
}

/// A member of a bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BondMember {
    /// The name of its port.
    pub name: String,
    /// Whether its link is up and the port in service.
    pub link_up: bool,
    /// Whether it may be used, after the delays of the bond.
    pub enabled: bool,
    /// Whether it is the active one.
    pub active: bool,
    /// How many parts of the traffic it has, of 256.
    pub share: usize,
    /// What it knows by LACP; `null` where the bond does not speak that.
    pub lacp: Option<MemberLacp>,
    /// What it has found out by asking stations behind it; `null` where it does not.
    pub arp: Option<MemberArp>,
    /// How often it was given up.
    pub failures: u64,
    /// Frames that came in while it was not in use.
    pub inactive_drops: u64,
}

/// Answer to [`Request::ShowBridges`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridges {
    /// In the order of their names.
    pub bridges: Vec<Bridge>,
}

/// One bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// The names of its ports.
    pub ports: Vec<String>,
    /// Reserved group addresses that are forwarded all the same, as bits.
    pub group_fwd_mask: u16,
    /// Whether it looks at tags though no port has VLAN settings.
    pub vlan_aware: bool,
    /// Whether it forwards frames whose source is zero or a group's address.
    #[serde(default)]
    pub any_source: bool,
    /// Most addresses that a burst of frames may add or move.
    pub learn_per_burst: usize,
    /// Largest number of addresses.
    pub limit: usize,
    /// Seconds after which an address that is not heard of is removed; 0 for never.
    pub ageing_seconds: u32,
    /// Addresses in its forwarding database.
    pub addresses: usize,
    /// Addresses learnt since it is there.
    pub learned: u64,
    /// Addresses that moved from one port to another.
    pub moved: u64,
    /// Entries forgotten since no frame came for too long.
    pub expired: u64,
    /// Entries given up for others at the limit.
    pub evicted: u64,
    /// Addresses that were not learnt since their ports had as many as they may.
    #[serde(default)]
    pub refused: u64,
}

/// Answer to [`Request::ShowPorts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// In the order of their names.
    pub ports: Vec<Port>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its device string.
    pub device: String,
    /// The driver's name.
    pub driver: String,
    /// The bridge that it belongs to.
    #[serde(default = "request::default_bridge")]
    pub bridge: String,
    /// The bond that it is a member of; the bridge is then that of the bond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<String>,
    /// Whether the peer is there and takes frames.
    pub link_up: bool,
    /// How often the link went up or down.
    pub link_changes: u64,
    /// Link speed in Mbit/s where it is known.
    pub speed_mbps: Option<u32>,
    /// The port's own address.
    pub mac: String,
    /// Largest payload in bytes.
    pub mtu: u16,
    /// Whether the operator has it in service.
    pub enabled: bool,
    /// The guard that has shut it, until one of its settings is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shut: Option<String>,
    /// Its part in VLANs; empty for a trunk of all of them.
    #[serde(default)]
    pub vlan: PortVlan,
    /// How much may come in and go out; empty where there are no limits.
    #[serde(default)]
    pub limits: PortLimits,
    /// What it may send; empty where that is everything.
    #[serde(default)]
    pub guard: PortGuard,
    /// Its part in snooping; empty where that is as by default.
    #[serde(default)]
    pub mcast_snooping: PortSnooping,
    /// Number of receive queues.
    pub rx_queues: usize,
    /// Number of transmit queues.
    pub tx_queues: usize,
    /// The worker that polls each receive queue, by queue number.
    pub rx_workers: Vec<usize>,
    /// Number of addresses in the forwarding database that were learnt on this port.
    pub fdb_entries: usize,
    /// The first of them, in order, and of the static ones: at most 16.
    pub stations: Vec<String>,
    /// What the driver has to say, by name.
    pub details: BTreeMap<String, String>,
}

/// Answer to [`Request::ShowStats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Milliseconds since the switch started, from a steady clock: for rates.
    pub uptime_ms: u64,
    /// In the order of their names.
    pub ports: Vec<PortStats>,
}

/// Counters of one port, from the switch's side: `rx` is what the switch received from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// The port.
    pub name: String,
    /// Sum over the receive queues.
    pub rx: Counters,
    /// Sum over the transmit queues.
    pub tx: Counters,
    /// Per receive queue, in order.
    pub rx_queues: Vec<Counters>,
    /// Per transmit queue, in order.
    pub tx_queues: Vec<Counters>,
    /// How hard pressed the receive queues are, in order; a switch before this was told has none.
    #[serde(default)]
    pub rx_pressure: Vec<RxPressure>,
    /// How hard pressed the transmit queues are, in order.
    #[serde(default)]
    pub tx_pressure: Vec<TxPressure>,
    /// The driver's own counters, by name.
    pub extended: BTreeMap<String, u64>,
}

/// How hard pressed a receive queue is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RxPressure {
    /// Buffers with frames that waited in the guest's ring, the last time that somebody asked;
    /// `None` where the driver does not tell.
    pub depth: Option<u32>,
    /// Polls that found frames.
    pub bursts: u64,
    /// Those of them that found as many as a burst may have.
    pub full_bursts: u64,
    /// Microseconds spent on its frames, estimated from one burst in 32.
    pub busy_us: u64,
}

/// How hard pressed a transmit queue is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxPressure {
    /// Buffers for frames that waited in the guest's ring, when it was last sent to after somebody
    /// had asked; `None` where the driver does not tell.
    pub depth: Option<u32>,
    /// How often frames found no room.
    pub stalls: u64,
}

/// Counters of a queue, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames.
    pub packets: u64,
    /// Their bytes, without frame check sequences.
    pub bytes: u64,
    /// Those to groups, broadcast left out.
    pub multicast: u64,
    /// Those to all stations.
    pub broadcast: u64,
    /// Frames by size class; classes without frames are left out.
    pub sizes: BTreeMap<String, u64>,
    /// Frames dropped, for all reasons.
    pub dropped: u64,
    /// Frames dropped by reason; reasons that did not occur are left out.
    pub drops: BTreeMap<String, u64>,
}

impl From<&ethdev::Stats> for Counters {
    fn from(stats: &ethdev::Stats) -> Self {
        let reasons = ethdev::DropReason::ALL.iter().zip(stats.drops);
        Self {
            packets: stats.packets,
            bytes: stats.bytes,
            multicast: stats.multicast,
            broadcast: stats.broadcast,
            sizes: stats
                .named()
                .filter_map(|(name, count)| {
                    let class = name.strip_suffix("_packets")?;
                    let is_size = class == "undersize" || class.starts_with("size_");
                    (is_size && count > 0).then(|| (class.to_owned(), count))
                })
                .gather(),
            dropped: stats.dropped(),
            drops: reasons
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .gather(),
        }
    }
}

/// Answer to [`Request::ShowFdb`]. The figures outside of `bridges` are those of the default one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fdb {
    /// Largest number of entries.
    pub limit: usize,
    /// Seconds after which an entry that is not refreshed is removed; 0 for never.
    pub ageing_seconds: u32,
    /// Addresses learnt since the start.
    pub learned: u64,
    /// Addresses that moved from one port to another.
    pub moved: u64,
    /// Entries forgotten since no frame came for too long.
    pub expired: u64,
    /// Entries given up for others at the limit.
    pub evicted: u64,
    /// Addresses that were not learnt since their ports had as many as they may.
    #[serde(default)]
    pub refused: u64,
    /// All bridges.
    #[serde(default)]
    pub bridges: Vec<Bridge>,
    /// In the order of bridge, VLAN and address.
    pub entries: Vec<FdbEntry>,
}

/// One entry of the forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The bridge.
    #[serde(default = "request::default_bridge")]
    pub bridge: String,
    /// The station's address.
    pub mac: String,
    /// Its VLAN.
    pub vlan: u16,
    /// The port that it is behind.
    pub port: String,
    /// Seconds since it was last heard of; not for static entries.
    pub age_seconds: Option<u32>,
    /// Added by hand: it neither ages nor moves.
    #[serde(rename = "static")]
    pub is_static: bool,
}

/// Answer to [`Request::ShowWorkers`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// Clock cycles per second, for all the cycles here.
    pub cycles_per_second: u64,
    /// In the order of their numbers.
    pub workers: Vec<Worker>,
}

/// One worker. Counters count since its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// The core that it is bound to.
    pub core: Option<usize>,
    /// False when it ended by a panic.
    pub alive: bool,
    /// Frames received.
    pub packets: u64,
    /// Rounds over its queues.
    pub polls: u64,
    /// Rounds that found frames.
    pub busy_polls: u64,
    /// Cycles in rounds that found frames.
    pub busy_cycles: u64,
    /// Cycles since its start.
    pub total_cycles: u64,
    /// How often it slept.
    pub sleeps: u64,
    /// Cycles asleep.
    pub sleep_cycles: u64,
    /// The receive queues that it polls.
    pub queues: Vec<WorkerQueue>,
}

/// A receive queue of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerQueue {
    /// The port's name.
    pub port: String,
    /// The queue's number.
    pub queue: usize,
}

/// Answer to [`Request::ShowVdpa`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vdpa {
    /// In the order of their names.
    pub devices: Vec<VdpaDevice>,
}

/// One vDPA device on its socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdpaDevice {
    /// Its name.
    pub name: String,
    /// Its device string, without what belongs to the socket.
    pub device: String,
    /// Path of the socket.
    pub socket: String,
    /// `server` or `client`.
    pub role: String,
    /// `waiting` for a front-end, `connected`, `running`, `failed`, or `busy`.
    pub state: String,
    /// Why it has failed or is busy.
    pub reason: Option<String>,
    /// Number of queue pairs that it has.
    pub queue_pairs: u16,
    /// The rings that it serves now.
    pub rings: Vec<u16>,
    /// The rings whose doorbell the guest writes itself, as far as the front-end tells.
    pub mapped_doorbells: Vec<u16>,
    /// Features that front-ends are offered, by name.
    pub offered_features: Vec<String>,
    /// Features that the present front-end has accepted, by name.
    pub features: Vec<String>,
    /// The device's counters, by name.
    pub statistics: BTreeMap<String, u64>,
}

/// Answer to [`Request::FdbFlush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Number of entries removed.
    pub removed: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_value_or_a_refusal_with_its_code() {
        let refusal = Response::Error(Refusal::new(Code::NotFound, "there is none"));
        for (text, response) in [
            (r#"{"ok":{"a":1}}"#, Response::Ok(serde_json::json!({"a": 1}))),
            (r#"{"error":"there is none","code":"not-found"}"#, refusal),
        ] {
            assert_eq!(serde_json::to_string(&response).unwrap(), text);
            assert_eq!(serde_json::from_str::<Response>(text).unwrap(), response);
        }
        // As an older switch answers.
        let older: Response = serde_json::from_str(r#"{"error":"no"}"#).unwrap();
        assert_eq!(older, Response::Error(Refusal::new(Code::Other, "no")));
        for wrong in ["{}", r#"{"ok":1,"error":"no"}"#, "[]"] {
            assert!(serde_json::from_str::<Response>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_reasons_that_occurred_are_listed() {
        let mut stats = ethdev::Stats { packets: 7, bytes: 420, ..Default::default() };
        stats.drops[0] = 3;
        let counters = Counters::from(&stats);
        assert_eq!((counters.packets, counters.bytes, counters.dropped), (7, 420, 3));
        assert!(counters.sizes.is_empty());
        assert_eq!(counters.drops, BTreeMap::from([("ring_full".to_owned(), 3)]));
    }
}
