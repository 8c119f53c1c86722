//! How fast frames are sent.

use std::str::FromStr;
use std::time::Duration;

/// Frames or bits per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Frames per second.
    Packets(f64),
    /// Bits per second of frames without frame check sequence, preamble and gap.
    Bits(f64),
}

/// More frames per second than a link of 400 Gbit/s carries.
const MOST_PACKETS: f64 = 1e9;

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected frames per second as 50k or 1.5M, or bits as 10Gbit".to_owned();
        let lower = text.to_ascii_lowercase();
        let (rest, bits) = match lower.strip_suffix("bit") {
            Some(rest) => (rest, true),
            None => (lower.strip_suffix("pps").unwrap_or(&lower), false),
        };
        let (number, factor) = match rest.char_indices().last() {
            Some((index, 'k')) => (rest.get(..index), 1e3),
            Some((index, 'm')) => (rest.get(..index), 1e6),
            Some((index, 'g')) => (rest.get(..index), 1e9),
            _ => (Some(rest), 1.0),
        };
        let number: f64 = number.unwrap_or_default().trim().parse().map_err(|_| expected())?;
        let value = number * factor;
        if !(1.0..=1e13).contains(&value) {
            return Err(expected());
        }
        if !bits && value > MOST_PACKETS {
            let number = text.get(..rest.len()).unwrap_or(text);
            return Err(format!(
                "{number} frames per second are more than there can be; bits are {number}bit"
            ));
        }
        Ok(if bits { Self::Bits(value) } else { Self::Packets(value) })
    }
}

impl Rate {
    /// Frames per second, where a frame has `mean_size` bytes on average.
    pub fn packets_per_second(self, mean_size: f64) -> f64 {
        match self {
            Self::Packets(rate) => rate,
            Self::Bits(rate) => rate / (8.0 * mean_size),
        }
    }
}

/// Fractions of a cycle: intervals are exact to 2^-16 cycle, so that the rate is, too.
const FRACTION_BITS: u32 = 16;

/// Says when the next frame is due.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Cycles between two frames, and when the next is due, both in 2^-16 cycle.
    interval: u128,
    next: u128,
    /// Frames that are later than this are given up for the sake of a steady rate.
    backlog: Option<u128>,
    /// Frames that are due at the same time, and how many of these are still to come.
    burst: u32,
    left: u32,
    ramp: Option<Ramp>,
}

/// A rate that changes evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Frames per second in the beginning.
    pub from: f64,
    /// In the end, and from then on.
    pub to: f64,
    /// How long it takes.
    pub time: Duration,
    /// When it begins, in cycles of the clock.
    pub start: u64,
    /// Cycles per second.
    pub hz: u64,
}

impl Ramp {
    /// The rate at `now`, and whether it changes no more.
    fn at(&self, now: u64) -> (f64, bool) {
        let passed = crate::approximate(now.saturating_sub(self.start));
        let part = passed / (crate::approximate(self.hz) * self.time.as_secs_f64()).max(1.0);
        if part >= 1.0 {
            (self.to, true)
        } else {
            (self.from + (self.to - self.from) * part, false)
        }
    }
}

/// Cycles between two frames, in 2^-16 cycle.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive")]
fn interval(rate: f64, hz: u64) -> u128 {
    let scale = f64::from(1_u32 << FRACTION_BITS);
    let interval = crate::approximate(hz) / rate.max(1e-3) * scale;
    (interval as u128).max(1)
}

impl Pacer {
    /// A pacer for `rate` frames per second, from `start` on; `hz` and `start` are the clock's.
    /// With a `backlog`, frames that could not be sent for so long are not made up for.
    pub fn new(rate: f64, hz: u64, start: u64, backlog: Option<Duration>) -> Self {
        let interval = interval(rate, hz);
        let backlog = backlog.map(|time| u128::from(eal::clock::cycles(time)) << FRACTION_BITS);
        let next = u128::from(start) << FRACTION_BITS;
        Self { interval, next, backlog, burst: 1, left: 1, ramp: None }
    }

    /// The same rate with `burst` frames at a time.
    #[must_use]
    pub const fn in_bursts(mut self, burst: u32) -> Self {
        self.burst = if burst == 0 { 1 } else { burst };
        self.left = self.burst;
        self
    }

    /// The same with a rate that changes.
    #[must_use]
    pub fn along(mut self, ramp: Option<Ramp>) -> Self {
        self.ramp = ramp;
        self.adjust(ramp.map_or(0, |ramp| ramp.start));
        self
    }

    /// Takes the rate of a [`Ramp`] at `now`: once for a burst is often enough.
    #[inline]
    pub fn adjust(&mut self, now: u64) {
        let Some(ramp) = self.ramp else { return };
        let (rate, is_over) = ramp.at(now);
        self.interval = interval(rate, ramp.hz);
        self.ramp = if is_over { None } else { Some(ramp) };
    }

    /// When the next frame is or was due, if that is not in the future of `now`; then the
    /// frame counts as sent.
    #[inline]
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let now = u128::from(now) << FRACTION_BITS;
        if self.next > now {
            return None;
        }
        if let Some(backlog) = self.backlog {
            self.next = self.next.max(now.saturating_sub(backlog));
        }
        let due = self.next >> FRACTION_BITS;
        self.left = self.left.wrapping_sub(1);
        if self.left == 0 {
            self.left = self.burst;
            self.spend(self.burst.into());
        }
        u64::try_from(due).ok()
    }
}

impl Pacer {
    /// How many units (frames, or bits) are due at `now`; they count as sent when they are
    /// [spent](Self::spend).
    #[inline]
    pub fn due(&mut self, now: u64) -> u64 {
        let now = u128::from(now) << FRACTION_BITS;
        if let Some(backlog) = self.backlog {
            self.next = self.next.max(now.saturating_sub(backlog));
        }
        match now.checked_sub(self.next) {
            Some(late) => u64::try_from(late / self.interval + 1).unwrap_or(u64::MAX),
            None => 0,
        }
    }

    /// Counts units as sent: more than were due are made up for by waiting.
    #[inline]
    pub fn spend(&mut self, units: u64) {
        let time = self.interval.saturating_mul(u128::from(units));
        self.next = self.next.saturating_add(time);
    }
}

/// Lets through what comes from elsewhere at a rate.
#[derive(Clone, Debug)]
pub struct Gate {
    pacer: Pacer,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Frames,
    Bits,
}

impl Gate {
    /// A gate for the `share`th part of `rate`.
    pub fn new(rate: Rate, share: f64, hz: u64, start: u64, backlog: Duration) -> Self {
        let (rate, unit) = match rate {
            Rate::Packets(rate) => (rate, Unit::Frames),
            Rate::Bits(rate) => (rate, Unit::Bits),
        };
        Self { pacer: Pacer::new(rate / share.max(1.0), hz, start, Some(backlog)), unit }
    }

    /// How many frames may pass at `now`, `most` at most. How long they are is not known yet, so
    /// that bits are let through frame by frame.
    #[inline]
    pub fn open(&mut self, now: u64, most: usize) -> usize {
        let due = usize::try_from(self.pacer.due(now)).unwrap_or(usize::MAX);
        due.min(if self.unit == Unit::Bits { 1 } else { most })
    }

    /// What has passed.
    #[inline]
    pub fn pass(&mut self, frames: usize, bytes: usize) {
        self.pacer.spend(match self.unit {
            Unit::Frames => frames as u64,
            Unit::Bits => (bytes as u64).saturating_mul(8),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_prefixes_and_units() {
        assert_eq!("1000".parse(), Ok(Rate::Packets(1000.0)));
        assert_eq!("50k".parse(), Ok(Rate::Packets(50_000.0)));
        assert_eq!("1.5Mpps".parse(), Ok(Rate::Packets(1_500_000.0)));
        assert_eq!("10Gbit".parse(), Ok(Rate::Bits(1e10)));
        let error = "10G".parse::<Rate>().unwrap_err();
        assert_eq!(error, "10G frames per second are more than there can be; bits are 10Gbit");
        for bad in ["10Gpps", "", "k", "-1", "0", "fast", "1kk", "nan", "inf", "10Gbyte"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        let rate = Rate::Bits(8_000_000.0).packets_per_second(1000.0);
        assert!((rate - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn the_rate_is_kept_whatever_the_interval_is() {
        for rate in [1.0, 3.0, 7e5, 1.3e6, 9e7] {
            let mut pacer = Pacer::new(rate, 2_000_000_000, 1000, None);
            // Ten seconds, looked at 50 times a second.
            let mut sent = 0_u64;
            for step in 0..=500 {
                while sent < 1_000_000 && pacer.take(1000 + step * 40_000_000).is_some() {
                    sent += 1;
                }
            }
            let expected = (rate * 10.0 + 1.0).min(1e6);
            assert!((crate::approximate(sent) - expected).abs() <= 1.0 + expected * 1e-4);
        }
    }

    #[test]
    fn due_times_do_not_depend_on_when_one_asks() {
        let mut pacer = Pacer::new(1000.0, 1_000_000_000, 0, None);
        assert_eq!(pacer.take(0), Some(0));
        assert_eq!(pacer.take(999_999), None);
        // A stall of three intervals: all three frames are due in the past.
        let late: Vec<u64> = std::iter::from_fn(|| pacer.take(3_500_000)).collect();
        assert_eq!(late, [1_000_000, 2_000_000, 3_000_000]);
    }

    #[test]
    fn a_gate_keeps_to_frames_and_to_bits() {
        let second = eal::clock::hz();
        for (rate, expected) in [(Rate::Packets(10_000.0), 10_000), (Rate::Bits(8e6), 10_000)] {
            let mut gate = Gate::new(rate, 1.0, second, 0, BACKLOG);
            let mut passed = 0;
            // A second, looked at every 10 µs, with frames of 100 bytes as many as may pass.
            for step in 1..=100_000 {
                let open = gate.open(second / 100_000 * step, 32);
                gate.pass(open, open * 100);
                passed += open;
            }
            assert!((expected - 3..=expected + 33).contains(&passed), "{rate:?}: {passed}");
            // A stall is made up for, but not all of it; and two of two queues have half each.
            let mut burst = 0;
            loop {
                let open = gate.open(second * 3, 32);
                if open == 0 {
                    break;
                }
                gate.pass(open, open * 100);
                burst += open;
            }
            assert!((99..=133).contains(&burst), "{rate:?}: {burst}");
            let mut half = Gate::new(rate, 2.0, second, 0, BACKLOG);
            half.pass(1, 100);
            assert_eq!((half.open(second / 6000, 32), half.open(second / 4900, 32)), (0, 1));
        }
    }

    #[test]
    fn bursts_are_due_at_once_and_the_rate_is_the_same() {
        let mut pacer = Pacer::new(1000.0, 1_000_000_000, 0, None).in_bursts(4);
        let due: Vec<u64> = std::iter::from_fn(|| pacer.take(8_500_000)).collect();
        assert_eq!(due, [[0; 4], [4_000_000; 4], [8_000_000; 4]].concat());
        assert_eq!(pacer.take(11_999_999), None);
        assert_eq!(pacer.take(12_000_000), Some(12_000_000));
    }

    #[test]
    fn a_ramp_goes_evenly_from_one_rate_to_another() {
        let hz = 1_000_000_000;
        let ramp = Ramp {
            from: 1000.0,
            to: 5000.0,
            time: Duration::from_secs(2),
            start: 7_000_000_000,
            hz,
        };
        let mut pacer = Pacer::new(5000.0, hz, ramp.start, None).along(Some(ramp));
        // Frames in each half second, looked at every 100 µs.
        let mut sent = [0_u32; 6];
        for step in 0..30_000 {
            let now = ramp.start + step * 100_000;
            pacer.adjust(now);
            while pacer.take(now).is_some() {
                if let Some(sent) = sent.get_mut(usize::try_from(step / 5000).unwrap()) {
                    *sent += 1;
                }
            }
        }
        for (sent, expected) in sent.into_iter().zip([750, 1250, 1750, 2250, 2500, 2500]) {
            assert!(sent.abs_diff(expected) <= 5, "{sent}, expected {expected}");
        }
    }

    const BACKLOG: Duration = Duration::from_millis(10);

    #[test]
    fn a_backlog_bounds_what_is_made_up_for() {
        let second = eal::clock::hz();
        let mut pacer = Pacer::new(1000.0, second, 0, Some(Duration::from_millis(10)));
        let sent = std::iter::from_fn(|| pacer.take(second)).count();
        assert!((10..=11).contains(&sent), "{sent}");
    }
}
