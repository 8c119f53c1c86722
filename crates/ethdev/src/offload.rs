//! Frames that a device cannot have as they are: completed, and cut, in software.
//!
//! Every transmit queue does this, so no driver ever gets a frame that it cannot deliver.

use arrayvec::ArrayVec;
use packet::segmentation::{Parts, SCRATCH};
use packet::{BURST, Burst, Capabilities, Frame, Offload};

use crate::drop_reason::DropReason;
use crate::queue::{Sent, TxDriver};
use crate::stats::QueueStats;

/// How often a device that has no room for the rest of a large segment is asked again. The
/// frame cannot be given back any more, since its beginning is sent.
const TRIES: u32 = 8;

/// Memory in which frames are completed; allocated with the first one.
#[derive(Debug, Default)]
pub(crate) struct Completer {
    scratch: Vec<u8>,
}

/// How the frames of a burst fare whose parts are being sent.
struct Progress<'s> {
    stats: &'s QueueStats,
    sent: Sent,
    /// Parts of the present frame were taken by the device.
    begun: bool,
    /// One of them was dropped.
    torn: bool,
}

impl Progress<'_> {
    /// The device took the next part, or dropped it.
    fn part(&mut self, is_last: bool, dropped: bool) {
        self.begun = true;
        self.torn |= dropped;
        if is_last {
            self.end();
        }
    }

    /// Nothing more of the present frame is sent.
    fn end(&mut self) {
        if self.torn {
            self.sent.mark_dropped();
        } else {
            self.sent.add_sent();
        }
        (self.begun, self.torn) = (false, false);
    }
}

impl Completer {
    /// Sends `frames`, [`BURST`] at most, to a device that takes only `takes`, and returns how
    /// many it dealt with. Counts what is sent, which may be more frames than were given.
    #[cold]
    #[inline(never)]
    pub(crate) fn transmit(
        &mut self,
        driver: &mut dyn TxDriver,
        takes: Capabilities,
        frames: &[Frame<'_>],
        stats: &QueueStats,
    ) -> usize {
        self.scratch.resize(SCRATCH, 0);
        let mut progress = Progress { stats, sent: Sent::NONE, begun: false, torn: false };
        let mut waiting = frames.iter();
        let mut present = None;
        loop {
            let mut room = self.scratch.as_mut_slice();
            let mut burst = ArrayVec::<Frame<'_>, BURST>::new();
            // Which of them end a frame.
            let mut ends = 0_u32;
            while !burst.is_full() {
                let mut parts = match present.take() {
                    Some(parts) => parts,
                    None => match waiting.as_slice().first().map(|next| Parts::new(next, takes)) {
                        None => break,
                        Some(Ok(parts)) => {
                            waiting.next();
                            parts
                        }
                        // Those before it go first, so that frames end in order.
                        Some(Err(_)) if !burst.is_empty() => break,
                        Some(Err(_)) => {
                            waiting.next();
                            progress.sent.add_dropped(stats, DropReason::BadHeader);
                            continue;
                        }
                    },
                };
                if !parts.fill(&mut room, &mut burst) {
                    present = Some(parts);
                    break;
                }
                ends |= 1_u32.wrapping_shl(last_index(&burst));
            }
            if burst.is_empty() || !send(driver, &burst, ends, &mut progress) {
                return progress.sent.consumed;
            }
        }
    }
}

fn last_index(burst: &[Frame<'_>]) -> u32 {
    u32::try_from(burst.len().saturating_sub(1)).unwrap_or(0)
}

/// Sends parts of frames; returns `false` when the device had no room for all of them.
fn send(
    driver: &mut dyn TxDriver,
    burst: &[Frame<'_>],
    ends: u32,
    progress: &mut Progress<'_>,
) -> bool {
    let (mut done, mut tries) = (0, TRIES);
    while let Some(rest) = burst.get(done..).filter(|rest| !rest.is_empty()) {
        let sent = if Offload::needs_of(rest).is_none() {
            driver.transmit(rest, progress.stats)
        } else {
            driver.transmit_offloaded(rest, progress.stats)
        };
        progress.stats.count_sent(&sent, Burst::new(rest).compared());
        for index in 0..sent.consumed.min(rest.len()) {
            let is_last = ends & 1_u32.wrapping_shl(index_u32(done + index)) != 0;
            let dropped = sent.dropped & 1_u32.wrapping_shl(index_u32(index)) != 0;
            progress.part(is_last, dropped);
        }
        done += sent.consumed.min(rest.len());
        if sent.consumed == 0 {
            tries -= 1;
            if !progress.begun {
                return false;
            }
            if tries == 0 {
                // The frame's beginning is sent, its rest is lost.
                progress.stats.count_drops(DropReason::RingFull, 1);
                progress.torn = true;
                progress.end();
                return false;
            }
            std::hint::spin_loop();
        }
    }
    true
}

fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
