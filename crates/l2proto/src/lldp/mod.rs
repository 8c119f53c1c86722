//! The Link Layer Discovery Protocol (IEEE 802.1AB-2016): neighbours on a link tell each other who they
//! are. Nothing here reads a clock or sends anything.
//!
//! - `agent`: what is known of the neighbours on a port, and when they are told something
//! - `frame`: frames on the wire

pub mod agent;
pub mod frame;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::named;

/// What a port does by the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LldpMode {
    /// Nothing: frames of the protocol are what they are to the bridge.
    #[default]
    Off,
    /// It listens.
    Receive,
    /// It tells who it is.
    Transmit,
    /// It does both.
    Both,
}

impl LldpMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Receive, Self::Transmit, Self::Both];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Receive => "receive",
            Self::Transmit => "transmit",
            Self::Both => "both",
        }
    }

    /// Whether it listens.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::Receive | Self::Both)
    }

    /// Whether it tells who it is.
    #[must_use]
    pub const fn transmits(self) -> bool {
        matches!(self, Self::Transmit | Self::Both)
    }
}

named!(LldpMode);

/// What a port knows by the protocol at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LldpReport {
    /// The port.
    pub port: String,
    /// What it does.
    pub mode: LldpMode,
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
    /// Its neighbours.
    pub neighbours: Vec<Neighbour>,
}

/// A neighbour. All texts are its own, of which nothing was checked but their length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The station: what kind of name it is, as `mac` or `local`, and the name.
    pub chassis: (&'static str, String),
    /// Its port, in the same way.
    pub port: (&'static str, String),
    /// How long it is to be remembered after each frame.
    pub ttl: Duration,
    /// How much of that is left.
    pub left: Duration,
    /// What it says of its port.
    pub port_description: Option<String>,
    /// The station's name.
    pub system_name: Option<String>,
    /// What it says of itself.
    pub system_description: Option<String>,
    /// What it does, as `bridge` or `router`.
    pub capabilities: Vec<&'static str>,
    /// Where it can be managed.
    pub addresses: Vec<String>,
}

/// Reads a frame as from a neighbour, and tells what a switch would keep of it; `None` if that is
/// nothing. Of use to those who test it.
#[doc(hidden)]
#[must_use]
pub fn probe(frame: &[u8]) -> Option<Neighbour> {
    let unit = frame::parse(frame)?;
    Some(unit.neighbour(Duration::from_secs(u64::from(unit.ttl))))
}
