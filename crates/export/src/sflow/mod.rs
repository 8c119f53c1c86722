//! sFlow version 5 (sflow.org, "sFlow Version 5", July 2004).
//!
//! - `counters`: counters of a port
//! - `exporter`: samples on their way into datagrams
//! - `sample`: a packet that stands for many

mod counters;
mod exporter;
mod sample;
#[cfg(test)]
mod tests;

pub use counters::{Counters, LacpCounters, OpenFlowPort};
pub use exporter::{Agent, Exporter};
pub use sample::{FlowSample, Output, Tag};

/// The port where collectors listen, if nothing else is said.
pub const PORT: u16 = 6343;

/// The most bytes of a packet that are sampled.
pub const MAX_HEADER: u16 = 256;

/// Whose samples these are: a kind of source, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source(u32);

impl Source {
    /// Numbers have 24 bits.
    const INDEX: u32 = 0xff_ffff;

    /// An interface, by its number (`ifIndex`).
    pub(crate) const fn interface(index: u32) -> Self {
        Self(index & Self::INDEX)
    }

    /// A part of the device, by its number (`entPhysicalIndex`).
    pub(crate) const fn entity(index: u32) -> Self {
        Self(2 << 24 | index & Self::INDEX)
    }

    pub(crate) const fn code(self) -> u32 {
        self.0
    }
}
