//! What is answered of neighbours.

use serde::{Deserialize, Serialize};

/// Answer to [`Request::ShowNeighbours`](super::Request::ShowNeighbours).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbours {
    /// The ports that take part in LLDP, in the order of their names.
    pub ports: Vec<NeighbourPort>,
}

/// A port that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourPort {
    /// Its name.
    pub port: String,
    /// What it does.
    pub mode: switch::LldpMode,
    /// Frames of the protocol received.
    pub received: u64,
    /// Those sent.
    pub sent: u64,
    /// Those received that made no sense.
    pub bad: u64,
    /// Those of one neighbour more than a port keeps.
    pub ignored: u64,
    /// Neighbours that were forgotten since they were not heard for as long as they had said.
    pub aged: u64,
    /// Those that are known.
    pub neighbours: Vec<Neighbour>,
}

/// A neighbour, by its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The station.
    pub chassis_id: String,
    /// What kind of name that is, as `mac` or `local`.
    pub chassis_id_type: String,
    /// Its port.
    pub port_id: String,
    /// What kind of name that is, as `interface` or `mac`.
    pub port_id_type: String,
    /// How long it is to be remembered after each frame.
    pub ttl_seconds: u64,
    /// How much of that is left.
    pub left_seconds: u64,
    /// What it says of its port.
    pub port_description: Option<String>,
    /// The station's name.
    pub system_name: Option<String>,
    /// What it says of itself.
    pub system_description: Option<String>,
    /// What it does, as `bridge` or `router`.
    pub capabilities: Vec<String>,
    /// Where it can be managed.
    pub addresses: Vec<String>,
}
