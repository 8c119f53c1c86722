//! Counts of what is told by IPFIX, for controllers that ask.

use std::sync::{Arc, Mutex, PoisonError};

use litemap::LiteMap;
use openflow::message::stats::ipfix::IpfixStats;

use super::Place;

/// Those of all bridges, and of what their rules sample. Copies are the same.
#[derive(Clone, Debug, Default)]
pub struct IpfixCounts(Arc<Mutex<LiteMap<Place, IpfixStats>>>);

impl IpfixCounts {
    /// That is what there is by now.
    pub(super) fn set(&self, all: LiteMap<Place, IpfixStats>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    /// Those of a bridge, and of each set of collectors for which its rules sample.
    #[must_use]
    pub fn of(&self, bridge: &str) -> Vec<(Option<u32>, IpfixStats)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.iter().filter(|((name, _), _)| name == bridge);
        own.map(|((_, set), stats)| (*set, *stats)).collect()
    }
}
