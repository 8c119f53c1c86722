//! Limits of frames that go to many: to all stations, to groups, and to addresses that nobody has
//! been heard from.

use ethdev::{DropReason, QueueStats};
use packet::{BURST, Frame, MacAddr};

use crate::limit::{Limiter, PortLimits};

/// Which frames go to groups.
#[derive(Clone, Copy, Debug, Default)]
struct Groups {
    broadcast: u32,
    multicast: u32,
}

impl Groups {
    /// Those of a burst.
    #[inline]
    fn of(frames: &[Frame<'_>]) -> Self {
        let mut groups = Self::default();
        let mut bit = 1_u32;
        for frame in frames.iter().take(BURST) {
            if frame.head().first().is_some_and(|first| first & 1 != 0) {
                let is_broadcast = frame.head().starts_with(&MacAddr::BROADCAST.0);
                let kind = if is_broadcast { &mut groups.broadcast } else { &mut groups.multicast };
                *kind |= bit;
            }
            bit = bit.wrapping_shl(1);
        }
        groups
    }
}

/// One worker's part in the storm limits of a port.
#[derive(Debug)]
pub(super) struct Storm {
    broadcast: Option<Limiter>,
    multicast: Option<Limiter>,
    unknown: Option<Limiter>,
}

impl Storm {
    /// For each of so many workers its part; `None` where there are no limits.
    pub(super) fn of(limits: &PortLimits, workers: usize, hz: u64, now: u64) -> Vec<Option<Self>> {
        let [broadcast, multicast, unknown] =
            limits.storm().map(|rate| rate.limiters(workers, hz, now));
        let all = broadcast.into_iter().zip(multicast).zip(unknown);
        let storm = |((broadcast, multicast), unknown): ((Option<_>, Option<_>), Option<_>)| {
            let is_any = broadcast.is_some() || multicast.is_some() || unknown.is_some();
            is_any.then_some(Self { broadcast, multicast, unknown })
        };
        all.map(storm).collect()
    }

    /// Which frames of a burst come in at time `now`, as far as that depends on where they say
    /// that they go; the others are counted.
    pub(super) fn pass(&mut self, frames: &[Frame<'_>], now: u64, stats: &QueueStats) -> u32 {
        let Groups { broadcast, multicast } = Groups::of(frames);
        let Self { broadcast: all, multicast: some, .. } = self;
        let out = beyond(all, frames, broadcast, now, stats, DropReason::BroadcastLimited)
            | beyond(some, frames, multicast, now, stats, DropReason::MulticastLimited);
        !out
    }

    /// Which of those in `mask`, which nobody knows where to send, are beyond the limit; they are
    /// counted.
    pub(super) fn unknown(
        &mut self,
        frames: &[Frame<'_>],
        mask: u32,
        now: u64,
        stats: &QueueStats,
    ) -> u32 {
        beyond(&mut self.unknown, frames, mask, now, stats, DropReason::UnknownLimited)
    }
}

/// Which of the frames in `mask` a limit does not let through; they are counted.
fn beyond(
    limiter: &mut Option<Limiter>,
    frames: &[Frame<'_>],
    mask: u32,
    now: u64,
    stats: &QueueStats,
    reason: DropReason,
) -> u32 {
    let Some(limiter) = limiter.as_mut().filter(|_| mask != 0) else { return 0 };
    let out = mask & !limiter.pass(frames, mask, now);
    stats.count_drops(reason, out.count_ones() as usize);
    out
}
