//! The connections that the frames of all bridges are of.

use std::sync::Arc;
use std::time::Duration;

use conntrack::Conntrack;
use datapath::flows::BridgeFlows;

use super::{Control, Switch};

/// The share of all places of connections that is looked at each second for those that are over, and
/// the least.
const SHARE: usize = 8;
const LEAST: usize = 4_096;

impl Switch {
    /// The connections of its bridges, whose zones they share. Connections that rules keep are there
    /// until their time is over, whatever becomes of the rules.
    #[must_use]
    pub fn connections(&self) -> Arc<Conntrack> {
        Arc::clone(self.control().connections())
    }
}

impl Control {
    pub(crate) const fn connections(&self) -> &Arc<Conntrack> {
        &self.connections
    }

    /// The same flows, with the connections that all bridges have, and the clock of their meters.
    pub(super) fn connected(&self, flows: BridgeFlows) -> BridgeFlows {
        let (connections, metering) = (Some(Arc::clone(&self.connections)), flows.metering);
        BridgeFlows { connections, metering: metering.by(&self.time), ..flows }
    }

    /// The connections, once it is so long since the start.
    pub(super) fn connections_at(&self, elapsed: Duration) -> Arc<Conntrack> {
        self.connections.set_now(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        Arc::clone(&self.connections)
    }
}

/// Takes out connections that are over, or some of them where there are many.
pub(super) fn sweep(connections: &Conntrack) {
    // Not of those that there are: behind a flood, they are far apart.
    let most = (connections.places() / SHARE).max(LEAST);
    connections.sweep(connections.now(), most);
}
