//! Which frames of a burst a port's limits let through.

use packet::{BURST, Frame};

use super::bucket::Share;

/// What a frame takes of both kinds of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    bytes: u64,
    frames: u64,
}

impl Cost {
    /// The cost of a frame: its own bytes, and, of a large segment, those of all frames that it is
    /// going to be cut into.
    #[inline]
    fn of(frame: &Frame<'_>) -> Self {
        let bytes = frame.len() as u64;
        if frame.offload().is_none() { Self { bytes, frames: 1 } } else { Self::of_segment(frame) }
    }

    #[inline(never)]
    fn of_segment(frame: &Frame<'_>) -> Self {
        let offload = frame.offload();
        let (bytes, headers) = (frame.len() as u64, u64::from(offload.hdr_len()));
        let payload = bytes.saturating_sub(headers);
        let size = u64::from(offload.gso_size());
        let frames = if size == 0 { 1 } else { payload.div_ceil(size).max(1) };
        // All frames but the first have headers of their own.
        let more = headers.saturating_mul(frames.saturating_sub(1));
        Self { bytes: bytes.saturating_add(more), frames }
    }

    #[inline]
    const fn without(self, place: usize) -> Self {
        let place = (place as u64).saturating_mul(self.frames);
        Self { bytes: self.bytes.saturating_sub(place), frames: self.frames }
    }

    #[inline]
    const fn add(&mut self, other: Self) {
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.frames = self.frames.wrapping_add(other.frames);
    }
}

/// One worker's part in the limits of one direction of a port.
#[derive(Debug)]
pub struct Limiter {
    pub(super) bytes: Option<Share>,
    pub(super) frames: Option<Share>,
}

impl Limiter {
    /// One of bytes, or of frames.
    pub(crate) fn of(share: Share, counts_frames: bool) -> Self {
        let (bytes, frames) = match counts_frames {
            true => (None, Some(share)),
            false => (Some(share), None),
        };
        Self { bytes, frames }
    }

    /// Gives back what its worker has: it does not come again.
    pub(crate) fn leave(&mut self) {
        [&mut self.bytes, &mut self.frames].into_iter().flatten().for_each(Share::leave);
    }

    /// Which of the frames in `mask`, of a burst of [`BURST`] at most, go through at time `now`.
    /// A frame that there are no tokens for takes none.
    #[inline]
    pub(crate) fn pass(&mut self, frames: &[Frame<'_>], mask: u32, now: u64) -> u32 {
        self.pass_by(frames, mask, now, Cost::of)
    }

    /// The same of frames of which the first `place` bytes are nothing of the packet.
    pub(crate) fn pass_packets(
        &mut self,
        (frames, place): (&[Frame<'_>], usize),
        mask: u32,
        now: u64,
    ) -> u32 {
        match place {
            0 => self.pass(frames, mask, now),
            _ => self.pass_by(frames, mask, now, |frame| Cost::of(frame).without(place)),
        }
    }

    #[inline]
    fn pass_by(
        &mut self,
        frames: &[Frame<'_>],
        mask: u32,
        now: u64,
        cost: impl Fn(&Frame<'_>) -> Cost + Copy,
    ) -> u32 {
        let mut all = Cost::default();
        let mut bit = 1_u32;
        for frame in frames.iter().take(BURST) {
            if mask & bit != 0 {
                all.add(cost(frame));
            }
            bit = bit.wrapping_shl(1);
        }
        if self.has(all, now) {
            self.spend(all);
            return mask;
        }
        self.pass_some(frames, mask, cost)
    }

    /// As `pass`, where there is not enough for all: frame by frame, of what is at hand.
    #[inline(never)]
    fn pass_some(
        &mut self,
        frames: &[Frame<'_>],
        mask: u32,
        cost: impl Fn(&Frame<'_>) -> Cost,
    ) -> u32 {
        let mut passed = 0;
        for (index, frame) in frames.iter().enumerate().take(BURST) {
            let bit = 1_u32 << index;
            let cost = cost(frame);
            if mask & bit != 0 && self.is_at_hand(cost) {
                self.spend(cost);
                passed |= bit;
            }
        }
        for share in [&mut self.bytes, &mut self.frames].into_iter().flatten() {
            share.give_back();
        }
        passed
    }

    /// Whether there is so much of both; if not, what there is is at hand now.
    #[inline]
    fn has(&mut self, cost: Cost, now: u64) -> bool {
        let bytes = self.bytes.as_mut().is_none_or(|share| share.has(cost.bytes, now));
        let frames = self.frames.as_mut().is_none_or(|share| share.has(cost.frames, now));
        bytes && frames
    }

    fn is_at_hand(&self, cost: Cost) -> bool {
        self.bytes.as_ref().is_none_or(|share| share.at_hand() >= cost.bytes)
            && self.frames.as_ref().is_none_or(|share| share.at_hand() >= cost.frames)
    }

    #[inline]
    const fn spend(&mut self, cost: Cost) {
        if let Some(share) = &mut self.bytes {
            share.spend(cost.bytes);
        }
        if let Some(share) = &mut self.frames {
            share.spend(cost.frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::header::tests::large_segment;
    use crate::limit::{Bits, Frames, Rate};

    /// A second has so many cycles.
    const HZ: u64 = 1_000_000;

    fn limiter(bits: Option<(u64, u64)>, frames: Option<(u64, u64)>) -> Limiter {
        let rate = Rate {
            rate: bits.map(|(rate, _)| Bits(rate)),
            burst: bits.map(|(_, burst)| Bits(burst)),
            packet_rate: frames.map(|(rate, _)| Frames(rate)),
            packet_burst: frames.map(|(_, burst)| Frames(burst)),
        };
        rate.limiters(1, HZ, 0).remove(0).unwrap()
    }

    #[test]
    fn both_limits_hold_and_a_frame_that_is_dropped_takes_nothing() {
        let bytes = vec![0; 1_500];
        let (small, large) = (Frame::from_bytes(&bytes[..60]), Frame::from_bytes(&bytes));
        let mut both = limiter(Some((8_000, 800_000)), Some((1_000, 100)));
        // 100 frames, or 100,000 bytes.
        assert_eq!(both.pass(&[small; 32], 0xFFFF_FFFF, 0), 0xFFFF_FFFF);
        assert_eq!(both.pass(&[large; 32], 0xFFFF_FFFF, 0), 0xFFFF_FFFF);
        assert_eq!(both.pass(&[large; 32], 0x0000_FFFF, 0), 0x0000_FFFF);
        // 20 frames and 26,080 bytes are left: 17 large ones, and three small ones behind them.
        let burst: Vec<_> = (0..32).map(|n| if n < 20 { large } else { small }).collect();
        assert_eq!(both.pass(&burst, u32::MAX, 0), 0b0000_0000_0111_0001_1111_1111_1111_1111);
        // No frame is left, and later one a millisecond.
        assert_eq!(both.pass(&burst[20..], u32::MAX, 0), 0);
        assert_eq!(both.pass(&burst[20..], 0b0110_0000, 1_000), 0b0010_0000);
    }

    #[test]
    fn a_large_segment_counts_as_the_frames_that_it_becomes() {
        let (bytes, offload) = large_segment();
        let frame = Frame::from_bytes(&bytes).with_offload(offload);
        let headers = u64::from(offload.hdr_len());
        let count = (bytes.len() as u64 - headers).div_ceil(1_448);
        let expected = Cost { bytes: bytes.len() as u64 + headers * (count - 1), frames: count };
        assert_eq!((Cost::of(&frame), count), (expected, 42));
        let mut frames = limiter(None, Some((1, 83)));
        assert_eq!(frames.pass(&[frame; 3], 0b111, 0), 0b1);
        let checksum = packet::Offload::NONE;
        assert_eq!(Cost::of(&Frame::from_bytes(&bytes).with_offload(checksum)).frames, 1);
    }

    proptest! {
        #[test]
        fn what_passes_is_what_a_model_lets_through(
            bits in prop::option::of((8_000..10_000_000_u64, 600_000..2_000_000_u64)),
            packets in prop::option::of((1..10_000_u64, 64..200_u64)),
            bursts in prop::collection::vec(
                (0..100_000_u64, any::<u32>(), prop::collection::vec(14..1_514_usize, 0..32)),
                1..40,
            ),
        ) {
            prop_assume!(bits.is_some() || packets.is_some());
            let mut limiter = limiter(bits, packets);
            let bytes = vec![0; 1_514];
            let mut now = 0;
            // Tokens times cycles, so that nothing is rounded.
            let kinds = [bits, packets];
            let mut left = kinds.map(|kind| kind.map_or(0, |(_, burst)| u128::from(burst) * u128::from(HZ)));
            for (pause, mask, lengths) in bursts {
                now += pause;
                for (left, kind) in left.iter_mut().zip(kinds) {
                    let Some((rate, burst)) = kind else { continue };
                    let come = u128::from(pause) * u128::from(rate);
                    *left = (*left + come).min(u128::from(burst) * u128::from(HZ));
                }
                let frames: Vec<_> =
                    lengths.iter().map(|len| Frame::from_bytes(&bytes[..*len])).collect();
                let passed = limiter.pass(&frames, mask, now);
                prop_assert_eq!(passed & !mask, 0);
                for (index, len) in lengths.iter().enumerate() {
                    let bit = 1_u32 << index;
                    if mask & bit == 0 {
                        continue;
                    }
                    let costs = [*len as u128 * 8, 1].map(|cost| cost * u128::from(HZ));
                    // Whole tokens only are spent and lost, so one may be ahead of the other by less
                    // than one.
                    let one = [8, 1].map(|token| token * u128::from(HZ));
                    let enough = (0..2).all(|i| kinds[i].is_none() || left[i] + one[i] >= costs[i]);
                    let surely =
                        (0..2).all(|i| kinds[i].is_none() || left[i] >= costs[i] + one[i]);
                    let passes = passed & bit != 0;
                    prop_assert!(!passes || enough, "more passes than may");
                    prop_assert!(passes || !surely, "less passes than must");
                    if passes {
                        (0..2).for_each(|i| left[i] = left[i].saturating_sub(costs[i]));
                    }
                }
            }
        }
    }
}
