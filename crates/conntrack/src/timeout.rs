//! How long connections are kept that nothing more is heard of.

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
    /// Another time for a stage.
    #[must_use]
    pub fn with(mut self, stage: Stage, time: Duration) -> Self {
        if let Some(place) = self.0.get_mut(stage as usize) {
            *place = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        }
        self
    }

    /// When a connection ends that was heard of at `now`, in milliseconds.
    #[inline]
    pub(crate) fn end(&self, stage: Stage, now: u64) -> u64 {
        now.saturating_add(self.0.get(stage as usize).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_their_times() {
        let timeouts = Timeouts::default();
        assert_eq!(timeouts.end(Stage::TcpFirst, 5), 30_005);
        assert_eq!(timeouts.end(Stage::TcpEstablished, 0), 86_400_000);
        assert_eq!(timeouts.end(Stage::OtherBidirectional, 0), 30_000);
        let longer = timeouts.with(Stage::IcmpReply, Duration::from_secs(90));
        assert_eq!(longer.end(Stage::IcmpReply, 1), 90_001);
        assert_eq!(longer.end(Stage::OtherFirst, u64::MAX), u64::MAX);
    }
}
