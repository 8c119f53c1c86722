//! How long connections are kept that nothing more is heard of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How far a connection has come: its packets say how long it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP: the first packet was seen.
    TcpFirst,
    /// TCP: being opened.
    TcpOpening,
    /// TCP: open in both directions.
    TcpEstablished,
    /// TCP: one side has ended.
    TcpClosing,
    /// TCP: both sides have ended.
    TcpFinWait,
    /// TCP: closed in both directions, or reset.
    TcpClosed,
    /// ICMP: not answered yet.
    IcmpFirst,
    /// ICMP: answered.
    IcmpReply,
    /// UDP and others: one packet.
    OtherFirst,
    /// UDP and others: several, in one direction.
    OtherMultiple,
    /// UDP and others: packets in both directions.
    OtherBidirectional,
}

/// All of them.
const STAGES: usize = Stage::OtherBidirectional as usize + 1;

/// For each stage, how long a connection is kept that nothing more is heard of.
///
/// The usual ones are those of Open vSwitch's user space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts([u64; STAGES]);

impl Default for Timeouts {
    fn default() -> Self {
        // In the order of the stages, in seconds.
        let seconds: [u64; STAGES] = [30, 30, 24 * 60 * 60, 15 * 60, 45, 30, 60, 30, 60, 60, 30];
        Self(seconds.map(|seconds| seconds * 1000))
    }
}

impl Timeouts {
    /// Those that are so much longer, in milliseconds.
    fn longer(&self, by: u64) -> Self {
        Self(self.0.map(|time| time.saturating_add(by)))
    }

    /// Another time for a stage.
    #[must_use]
    pub fn with(mut self, stage: Stage, time: Duration) -> Self {
        if let Some(place) = self.0.get_mut(stage as usize) {
            *place = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        }
        self
    }
}

/// Timeouts that connections have in common, and that change for all of them.
#[derive(Debug)]
pub(crate) struct Policy([AtomicU64; STAGES]);

impl Policy {
    fn new(timeouts: &Timeouts) -> Self {
        Self(timeouts.0.map(AtomicU64::new))
    }

    fn set(&self, timeouts: &Timeouts) {
        self.0.iter().zip(timeouts.0).for_each(|(own, time)| own.store(time, Relaxed));
    }

    /// When a connection ends that was heard of at `now`, in milliseconds.
    #[inline]
    pub(crate) fn end(&self, stage: Stage, now: u64) -> u64 {
        now.saturating_add(self.0.get(stage as usize).map_or(0, |time| time.load(Relaxed)))
    }
}

/// The timeouts of all zones.
#[derive(Debug)]
pub(crate) struct Policies {
    /// How far the clock may be behind, in milliseconds: so much longer connections are kept, since what came last may
    /// have come so much later than it says.
    lag: u64,
    /// Of zones without timeouts of their own.
    usual: (Timeouts, Arc<Policy>),
    /// Of those that have, or had, some: connections may still go by them.
    own: Mutex<HashMap<u16, Arc<Policy>>>,
    /// Whether there are any of these.
    has_own: AtomicBool,
}

impl Policies {
    pub(crate) fn new(timeouts: &Timeouts, lag: Duration) -> Self {
        let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        let usual = timeouts.longer(lag);
        let policy = Arc::new(Policy::new(&usual));
        let (own, has_own) = (Mutex::default(), AtomicBool::new(false));
        Self { lag, usual: (usual, policy), own, has_own }
    }

    /// How far the clock may be behind.
    pub(crate) const fn lag(&self) -> u64 {
        self.lag
    }

    /// What a connection of a zone goes by.
    pub(crate) fn of(&self, zone: u16) -> Arc<Policy> {
        let own = if self.has_own.load(Relaxed) {
            self.own.lock().unwrap_or_else(PoisonError::into_inner).get(&zone).cloned()
        } else {
            None
        };
        own.unwrap_or_else(|| Arc::clone(&self.usual.1))
    }

    /// Sets the timeouts of a zone; `None`: the usual ones.
    pub(crate) fn set(&self, zone: u16, timeouts: Option<&Timeouts>) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let timeouts = timeouts.map(|timeouts| timeouts.longer(self.lag));
        match (own.get(&zone), timeouts) {
            (Some(policy), timeouts) => policy.set(timeouts.as_ref().unwrap_or(&self.usual.0)),
            (None, Some(timeouts)) => _ = own.insert(zone, Arc::new(Policy::new(&timeouts))),
            (None, None) => {}
        }
        self.has_own.store(!own.is_empty(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_their_times() {
        let policy = Policy::new(&Timeouts::default());
        assert_eq!(policy.end(Stage::TcpFirst, 5), 30_005);
        assert_eq!(policy.end(Stage::TcpEstablished, 0), 86_400_000);
        assert_eq!(policy.end(Stage::OtherBidirectional, 0), 30_000);
        policy.set(&Timeouts::default().with(Stage::IcmpReply, Duration::from_secs(90)));
        assert_eq!(policy.end(Stage::IcmpReply, 1), 90_001);
        assert_eq!(policy.end(Stage::OtherFirst, u64::MAX), u64::MAX);
    }
}
