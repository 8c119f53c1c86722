//! What is answered of spanning tree.

use serde::{Deserialize, Serialize};

/// Answer to [`Request::ShowRstp`](super::Request::ShowRstp).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rstp {
    /// The bridges that take part, in the order of their names.
    pub bridges: Vec<RstpBridge>,
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RstpBridge {
    /// Its name.
    pub name: String,
    /// The protocol that it speaks: `rstp` or `stp`.
    pub version: String,
    /// How it is known: its priority in hexadecimal digits, and its address, as 8000.0200000000ab.
    pub bridge_id: String,
    /// The root of the tree; this bridge itself, where it is the best one.
    pub root_id: String,
    /// The cost of the way there.
    pub root_path_cost: u32,
    /// The port of the way there; `null` where this bridge is the root.
    pub root_port: Option<String>,
    /// The times that hold, in seconds, which the root decides.
    pub max_age: u8,
    /// How often designated ports speak.
    pub hello_time: u8,
    /// How long ports wait that cannot agree with their neighbours.
    pub forward_delay: u8,
    /// How often the topology has changed.
    pub topology_changes: u64,
    /// Seconds since it has changed last; `null`: not yet.
    pub since_change_seconds: Option<u64>,
    /// Its ports, by number.
    pub ports: Vec<RstpPort>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RstpPort {
    /// Its name.
    pub name: String,
    /// Its priority and number, in hexadecimal digits.
    pub port_id: String,
    /// Its part in the tree: disabled, root, designated, alternate or backup.
    pub role: String,
    /// What it does with frames: discarding, learning or forwarding.
    pub state: String,
    /// What a way through it costs.
    pub path_cost: u32,
    /// Whether there is no bridge behind it.
    pub edge: bool,
    /// Whether there is one neighbour at most.
    pub point_to_point: bool,
    /// The protocol that its neighbour is spoken to in: `rstp` or `stp`.
    pub protocol: String,
    /// The bridge by which what is behind it has its way to the root; `null` while its link is down.
    pub designated_bridge_id: Option<String>,
    /// That bridge's port.
    pub designated_port_id: String,
    /// The cost of its way to the root.
    pub designated_path_cost: u32,
    /// Messages received.
    pub received: u64,
    /// Those sent.
    pub sent: u64,
    /// Those received that made no sense.
    pub bad: u64,
    /// How often it began to forward.
    pub forward_transitions: u64,
}
