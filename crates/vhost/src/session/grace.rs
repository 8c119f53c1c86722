//! Rings that run before it is known whether they are enabled.
//!
//! A front-end that connects again starts its rings with what they held when the back-end before
//! was lost, and some, as DPDK's, enable them only then. (That one even disables them before, while
//! they are stopped.) A disabled ring is to be drained (chapter "Ring states"): all of that would be
//! discarded in between. So a ring that was never enabled is left alone, for a while.

use std::time::{Duration, Instant};

use super::{Device, Session};

/// How long rings wait. A front-end that means to enable them does so with its next messages.
const GRACE: Duration = Duration::from_secs(1);

impl Session {
    /// When [`on_deadline`](Self::on_deadline) is due, if ever.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.grace
    }

    /// Ends the wait of rings that the front-end has said nothing of in time.
    pub fn on_deadline(&mut self, device: &mut Device, now: Instant) {
        if self.grace.is_none_or(|end| end > now) {
            return;
        }
        self.grace = None;
        for (index, ring) in (0..).zip(&mut self.rings) {
            if ring.started && !ring.settled {
                ring.settled = true;
                device.backend.drain_ring(index);
            }
        }
    }

    /// A ring has started that waits.
    pub(super) fn begin_grace(&mut self) {
        self.grace.get_or_insert_with(|| self.time.now() + GRACE);
    }
}
