//! Meters: what passes of the frames that rules send through them.
//!
//! Each band has a bucket of tokens that all workers share, as a port's limit has; each worker
//! takes tokens for a burst together, and counts in memory of its own.

use std::sync::Arc;

use arrayvec::ArrayVec;
use eal::time::Time;
use flow::{MAX_BANDS, Meter};
use litemap::LiteMap;
use ordered::{Gather as _, Order as _};
use packet::{BURST, Frame};

use crate::limit::{Limiter, Size, Well};
use crate::marks::all_of;

/// The most tokens that one frame takes: a large segment with the headers of all frames that it
/// becomes; and how many those are.
const LARGEST_BYTES: u64 = 75_000;
const LARGEST_FRAMES: u64 = 64;

/// The meters of a bridge, with the buckets that all workers share, and the clock by which these fill.
#[derive(Clone, Debug, Default)]
pub struct Metering {
    all: Arc<LiteMap<u32, Arc<Shared>>>,
    time: Time,
}

/// A meter, and the buckets of its bands.
#[derive(Debug)]
struct Shared {
    meter: Arc<Meter>,
    wells: Box<[Well]>,
    /// Its bands, those with the highest rates first.
    order: Box<[usize]>,
}

impl Shared {
    fn new(meter: &Arc<Meter>, (workers, hz, now): (usize, u64, u64)) -> Self {
        let well = |band| Well::new(size(band, meter.counts_packets(), hz), workers, now);
        let bands = &meter.desc.bands;
        let mut order: Box<[usize]> = (0..bands.len().min(MAX_BANDS)).collect();
        order.order_by_key(|at| std::cmp::Reverse(bands.get(*at).map(|band| band.rate)));
        Self { meter: Arc::clone(meter), wells: bands.iter().map(well).collect(), order }
    }
}

/// The bucket of a band. Without a burst, what comes in a second may come at once.
fn size(band: &openflow::message::meter::Band, counts_packets: bool, hz: u64) -> Size {
    let (rate, burst) = (u64::from(band.rate), u64::from(band.burst));
    let burst = if burst == 0 { rate } else { burst };
    if counts_packets {
        return Size { tokens: rate, cycles: hz, burst, largest: LARGEST_FRAMES };
    }
    // Tokens are bytes, rates kilobits.
    let (bits, cycles) = (rate.saturating_mul(1_000), hz.saturating_mul(8));
    Size { tokens: bits, cycles, burst: burst.saturating_mul(1_000) / 8, largest: LARGEST_BYTES }
}

impl Metering {
    /// The same, of which buckets fill by this clock.
    #[must_use]
    pub fn by(self, time: &Time) -> Self {
        Self { time: time.clone(), ..self }
    }

    /// These meters for so many workers, by a counter of `hz` cycles a second that is at `now`. Those
    /// that are the same as before have the same buckets.
    #[must_use]
    pub fn of(&self, meters: &flow::Meters, (workers, hz, now): (usize, u64, u64)) -> Self {
        let at = (workers, hz, self.time.cycles(now));
        let shared = |meter: &Arc<Meter>| {
            let same = self.all.get(&meter.desc.id).filter(|own| Arc::ptr_eq(&own.meter, meter));
            (meter.desc.id, same.cloned().unwrap_or_else(|| Arc::new(Shared::new(meter, at))))
        };
        let all = Arc::new(meters.iter().map(shared).gather());
        Self { all, time: self.time.clone() }
    }

    /// The same, with full buckets.
    #[must_use]
    pub fn anew(&self, meters: &flow::Meters, at: (usize, u64, u64)) -> Self {
        Self::default().by(&self.time).of(meters, at)
    }
}

/// Which frames of a burst a meter drops, and which it remarks, by how much.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) dropped: u32,
    pub(crate) remarked: ArrayVec<(u32, u8), MAX_BANDS>,
}

/// Frames, and how many of their first bytes are nothing of the packets.
pub(super) type Packets<'p, 'f> = (&'p [Frame<'f>], usize);

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    frames: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, (frames, place): Packets<'_, '_>, mask: u32) {
        self.frames += u64::from(mask.count_ones());
        let all = frames.iter().enumerate().take(BURST).filter(|(at, _)| mask & 1 << at != 0);
        let lens = all.map(|(_, frame)| frame.len() as u64);
        // Nearly all packets are all of their frames.
        self.bytes += match place as u64 {
            0 => lens.sum::<u64>(),
            place => lens.map(|len| len.saturating_sub(place)).sum(),
        };
    }

    fn tell(&mut self, stats: &flow::Stats, now: u64) {
        let Self { frames, bytes } = std::mem::take(self);
        if frames > 0 {
            stats.add(frames, bytes, now);
        }
    }
}

/// One worker's part in a meter.
#[derive(Debug)]
struct Part {
    shared: Arc<Shared>,
    bands: ArrayVec<Limiter, MAX_BANDS>,
    /// What was not told yet.
    seen: Count,
    fired: [Count; MAX_BANDS],
}

impl Part {
    fn new(shared: &Arc<Shared>) -> Self {
        let counts_frames = shared.meter.counts_packets();
        let limiter = |well: &Well| Limiter::of(well.share(), counts_frames);
        let bands = shared.wells.iter().map(limiter).take(MAX_BANDS).collect();
        let (seen, fired) = Default::default();
        Self { shared: Arc::clone(shared), bands, seen, fired }
    }

    /// Of the bands whose rate a frame is beyond, the one with the highest says what becomes of it.
    fn charge(&mut self, packets: Packets<'_, '_>, now: u64) -> Verdict {
        let all = all_of(packets.0.len());
        self.seen.add(packets, all);
        let mut beyond = [0_u32; MAX_BANDS];
        for (beyond, limiter) in beyond.iter_mut().zip(&mut self.bands) {
            *beyond = all & !limiter.pass_packets(packets, all, now);
        }
        let mut verdict = Verdict::default();
        let mut taken = 0;
        for at in &self.shared.order {
            let mask = beyond.get(*at).map_or(0, |beyond| beyond & !taken);
            let band = self.shared.meter.desc.bands.get(*at);
            let (Some(band), Some(count)) = (band, self.fired.get_mut(*at)) else { continue };
            if mask == 0 {
                continue;
            }
            taken |= mask;
            count.add(packets, mask);
            match band.remark {
                None => verdict.dropped |= mask,
                // There are no more than bands.
                Some(level) => _ = verdict.remarked.try_push((mask, level)),
            }
        }
        verdict
    }

    fn tell(&mut self, now: u64) {
        let stats = &self.shared.meter.stats;
        self.seen.tell(&stats.seen, now);
        self.fired.iter_mut().zip(&stats.bands).for_each(|(count, stats)| count.tell(stats, now));
    }
}

impl Drop for Part {
    /// What was taken in advance is there for the others again.
    fn drop(&mut self) {
        self.bands.iter_mut().for_each(Limiter::leave);
    }
}

/// One worker's part in the meters of a bridge: in those that frames have come to.
#[derive(Debug, Default)]
pub(super) struct Meters {
    all: Metering,
    /// As many as there are of those, in their order: none moves when frames come to another.
    parts: Box<[Option<Box<Part>>]>,
}

impl Meters {
    pub(super) fn new(all: &Metering) -> Self {
        Self { all: all.clone(), parts: all.all.iter().map(|_| None).collect() }
    }

    /// The meters, as all workers have them.
    pub(super) const fn all(&self) -> &Metering {
        &self.all
    }

    /// Has these from `now` on, in milliseconds.
    pub(super) fn update(&mut self, all: &Metering, now: u64) {
        self.flush(now);
        if Arc::ptr_eq(&self.all.all, &all.all) {
            return;
        }
        let before = std::mem::replace(self, Self::new(all));
        for part in before.parts.into_iter().flatten() {
            let place = all.all.find_index(&part.shared.meter.desc.id).ok();
            let place =
                place.and_then(|at| Some((all.all.get_indexed(at)?.1, self.parts.get_mut(at)?)));
            if let Some((shared, place)) = place
                && Arc::ptr_eq(shared, &part.shared)
            {
                *place = Some(part);
            }
        }
    }

    /// Tells meters what has come to them until `now`, in milliseconds.
    pub(super) fn flush(&mut self, now: u64) {
        self.parts.iter_mut().flatten().for_each(|part| part.tell(now));
    }

    /// What the meter of this number does to a burst, at a time in clock cycles; nothing if there is
    /// none.
    pub(super) fn charge(&mut self, id: u32, packets: Packets<'_, '_>, now: u64) -> Verdict {
        let Metering { all, time } = &self.all;
        let Ok(at) = all.find_index(&id) else { return Verdict::default() };
        let (Some(part), Some((_, shared))) = (self.parts.get_mut(at), all.get_indexed(at)) else {
            return Verdict::default();
        };
        let now = time.cycles(now);
        part.get_or_insert_with(|| Box::new(Part::new(shared))).charge(packets, now)
    }
}

#[cfg(test)]
mod tests;
