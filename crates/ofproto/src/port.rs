//! Ports, and how many frames have passed them.

use std::collections::BTreeSet;
use std::time::Instant;

use litemap::LiteMap;
use openflow::message::port::PortDesc;
use openflow::message::stats::port::FIGURES;

/// A port of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What controllers are told of it.
    pub desc: PortDesc,
    /// Its name, which may be longer than what they are told.
    pub name: String,
    /// Its counters, as in [`PortStats`](openflow::message::stats::port::PortStats).
    pub figures: [u64; FIGURES],
    /// Those that it has by names of its own.
    pub custom: Vec<(String, u64)>,
    /// The numbers of its queues. What goes out by each is not counted.
    pub queues: BTreeSet<u32>,
    /// The class of service (DSCP) that packets get by some queues, which need not be those above.
    pub marks: LiteMap<u32, u8>,
    /// Since when it has been there.
    pub since: Instant,
}

impl Port {
    /// Whether controllers are told that it has changed.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        self.desc != other.desc
    }
}
