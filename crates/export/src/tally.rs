//! What has become of what collectors are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// By which protocol collectors are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// sFlow: samples of packets and of counters.
    Sflow,
    /// NetFlow: flows.
    Netflow,
    /// IPFIX: flows, of samples of packets.
    Ipfix,
}

impl Protocol {
    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sflow => "sflow",
            Self::Netflow => "netflow",
            Self::Ipfix => "ipfix",
        }
    }
}

/// Counts records: one that is sent to several collectors counts for each of them. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    /// So many were sent.
    pub fn add_sent(&self, count: u64) {
        self.0.sent.fetch_add(count, Relaxed);
    }

    /// So many were not: there was no room for them, or the system did not take them.
    pub fn add_lost(&self, count: u64) {
        self.0.lost.fetch_add(count, Relaxed);
    }

    /// How many were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Relaxed)
    }

    /// How many were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }
}

/// What collectors are told of a bridge.
#[derive(Clone, Debug)]
pub struct Told {
    /// The bridge.
    pub bridge: String,
    /// How.
    pub protocol: Protocol,
    /// What has become of it.
    pub tally: Tally,
}
