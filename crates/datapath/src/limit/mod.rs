//! Limits of a port: how many bits and frames may come in and go out.
//!
//! - [`amount`]: numbers of bits and frames, as people write them
//! - `bucket`: token buckets, shared by workers
//! - `limiter`: which frames of a burst go through
//! - `limits`: one worker's part in the limits of all ports

pub mod amount;
mod bucket;
mod limiter;
mod limits;

use std::ops::RangeInclusive;

use packet::MAX_FRAME_LEN;
use serde::{Deserialize, Serialize};

pub use self::amount::{Bits, Frames};
use self::bucket::Share;
pub(crate) use self::bucket::{Size, Well};
pub(crate) use self::limiter::Limiter;
pub use self::limits::Direction;
pub(crate) use self::limits::Limits;

/// What a rate of bits can be: 8 kbit/s to 1 Tbit/s.
const BITS: RangeInclusive<u64> = 8_000..=1_000_000_000_000;

/// What a burst of bits can be. The smallest has room for a large segment with the headers of all
/// the frames that it is cut into, of a kibibyte each or more.
const BURST_BITS: RangeInclusive<u64> = 600_000..=1_000_000_000_000;

/// What a rate of frames can be.
const FRAMES: RangeInclusive<u64> = 1..=1_000_000_000;

/// What a burst of frames can be. The smallest has room for such a segment, too.
const BURST_FRAMES: RangeInclusive<u64> = 64..=1_000_000_000;

const _: () = assert!(*BURST_BITS.start() / 8 > MAX_FRAME_LEN as u64 + 63 * 128);

/// The part of a second that a burst of a storm limit lasts.
const STORM_BURST: u64 = 10;

/// The part of a second that a burst lasts where it is not given.
const DEFAULT_BURST: u64 = 100;

/// Limits of a port. "Receive" is from the port into the switch, as everywhere. Frames count without
/// their frame check sequences; a large segment counts as the frames that it is going to be cut
/// into, with the headers of each.
///
/// ```
/// use datapath::limit::{Bits, PortLimits};
///
/// let limits = PortLimits { rx_rate: Some(Bits(100_000_000)), ..PortLimits::default() };
/// assert!(limits.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "limits, as in { rx-rate = \"100Mbit\" }"
)]
pub struct PortLimits {
    /// Bits per second that the switch takes from the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate: Option<Bits>,
    /// Bits that it takes at once; `None`: those of 10 ms, and a Mbit at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_burst: Option<Bits>,
    /// Frames per second that the switch takes from the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_packet_rate: Option<Frames>,
    /// Frames that it takes at once; `None`: those of 10 ms, and 256 at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_packet_burst: Option<Frames>,
    /// Bits per second that the switch sends to the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate: Option<Bits>,
    /// Bits that it sends at once; as [`rx_burst`](Self::rx_burst).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_burst: Option<Bits>,
    /// Frames per second that the switch sends to the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_packet_rate: Option<Frames>,
    /// Frames that it sends at once; as [`rx_packet_burst`](Self::rx_packet_burst).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_packet_burst: Option<Frames>,
    /// Bits per second to all stations that the switch takes from the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast_rate: Option<Bits>,
    /// Frames per second to all stations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast_packet_rate: Option<Frames>,
    /// Bits per second to other groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast_rate: Option<Bits>,
    /// Frames per second to other groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast_packet_rate: Option<Frames>,
    /// Bits per second to addresses that the bridge does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_rate: Option<Bits>,
    /// Frames per second to addresses that the bridge does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_packet_rate: Option<Frames>,
}

/// The limits of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    pub(crate) rate: Option<Bits>,
    pub(crate) burst: Option<Bits>,
    pub(crate) packet_rate: Option<Frames>,
    pub(crate) packet_burst: Option<Frames>,
}

impl PortLimits {
    /// Whether there are none.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks them.
    ///
    /// # Errors
    /// What is out of range, or without what it belongs to, by its key in a configuration file.
    pub fn check(&self) -> Result<(), String> {
        self.rx().check("rx")?;
        self.tx().check("tx")?;
        let kinds = ["broadcast", "multicast", "unknown"].into_iter().zip(self.storm());
        kinds.into_iter().try_for_each(|(kind, rate)| rate.check(kind))
    }

    /// The same, with those figures of both directions that are out of range at the end of it.
    #[must_use]
    pub fn clamped(mut self) -> Self {
        let within = |figure: &mut u64, ends: &RangeInclusive<u64>| {
            *figure = (*figure).clamp(*ends.start(), *ends.end());
        };
        for (bits, ends) in [
            (&mut self.rx_rate, BITS),
            (&mut self.tx_rate, BITS),
            (&mut self.rx_burst, BURST_BITS),
            (&mut self.tx_burst, BURST_BITS),
        ] {
            bits.iter_mut().for_each(|Bits(bits)| within(bits, &ends));
        }
        for (frames, ends) in [
            (&mut self.rx_packet_rate, FRAMES),
            (&mut self.tx_packet_rate, FRAMES),
            (&mut self.rx_packet_burst, BURST_FRAMES),
            (&mut self.tx_packet_burst, BURST_FRAMES),
        ] {
            frames.iter_mut().for_each(|Frames(frames)| within(frames, &ends));
        }
        self
    }

    /// Whether there is a limit of frames to unknown addresses.
    #[must_use]
    pub const fn limits_unknown(&self) -> bool {
        self.unknown_rate.is_some() || self.unknown_packet_rate.is_some()
    }

    /// Frames to all stations, to other groups, and to addresses that nobody has been heard from.
    /// Each may have at once what it may have in [`STORM_BURST`].
    pub fn storm(&self) -> [Rate; 3] {
        let rates = [
            (self.broadcast_rate, self.broadcast_packet_rate),
            (self.multicast_rate, self.multicast_packet_rate),
            (self.unknown_rate, self.unknown_packet_rate),
        ];
        rates.map(|(rate, packet_rate)| {
            let part = |rate: u64, ends: RangeInclusive<u64>| {
                (rate / STORM_BURST).clamp(*ends.start(), *ends.end())
            };
            Rate {
                rate,
                burst: rate.map(|Bits(rate)| Bits(part(rate, BURST_BITS))),
                packet_rate,
                packet_burst: packet_rate.map(|Frames(rate)| Frames(part(rate, BURST_FRAMES))),
            }
        })
    }

    /// What comes from the port.
    pub const fn rx(&self) -> Rate {
        Rate {
            rate: self.rx_rate,
            burst: self.rx_burst,
            packet_rate: self.rx_packet_rate,
            packet_burst: self.rx_packet_burst,
        }
    }

    /// What goes to it.
    pub const fn tx(&self) -> Rate {
        Rate {
            rate: self.tx_rate,
            burst: self.tx_burst,
            packet_rate: self.tx_packet_rate,
            packet_burst: self.tx_packet_burst,
        }
    }
}

impl Rate {
    fn check(self, direction: &str) -> Result<(), String> {
        let bits = |Bits(bits): Bits| Bits(bits).to_string();
        let frames = |Frames(frames): Frames| Frames(frames).to_string();
        let key = |name: &str| format!("{direction}-{name}");
        check_pair(&key("rate"), self.rate, self.burst, [BITS, BURST_BITS].map(range(Bits)), bits)?;
        let ranges = [FRAMES, BURST_FRAMES].map(range(Frames));
        check_pair(&key("packet-rate"), self.packet_rate, self.packet_burst, ranges, frames)
    }

    /// For each of so many workers its part in these limits; `None` where there are none. The clock
    /// has `hz` cycles per second.
    pub fn limiters(self, workers: usize, hz: u64, now: u64) -> Vec<Option<Limiter>> {
        let shares = |size: Option<Size>| match size {
            Some(size) => Share::of(size, workers, now).into_iter().map(Some).collect(),
            None => (0..workers).map(|_| None).collect::<Vec<_>>(),
        };
        let (bytes, frames) = (shares(self.bytes(hz)), shares(self.frames(hz)));
        let both = bytes.into_iter().zip(frames);
        let limited = self.rate.is_some() || self.packet_rate.is_some();
        both.map(|(bytes, frames)| limited.then_some(Limiter { bytes, frames })).collect()
    }

    fn bytes(self, hz: u64) -> Option<Size> {
        let Bits(rate) = self.rate?;
        let burst = self.burst.map_or_else(|| (rate / DEFAULT_BURST).max(1_000_000), |bits| bits.0);
        let largest = *BURST_BITS.start() / 8;
        Some(Size { tokens: rate, cycles: hz.saturating_mul(8), burst: burst / 8, largest })
    }

    fn frames(self, hz: u64) -> Option<Size> {
        let Frames(rate) = self.packet_rate?;
        let burst = self.packet_burst.map_or_else(|| (rate / DEFAULT_BURST).max(256), |n| n.0);
        Some(Size { tokens: rate, cycles: hz, burst, largest: *BURST_FRAMES.start() })
    }
}

/// A range of amounts.
fn range<T>(of: fn(u64) -> T) -> impl Fn(RangeInclusive<u64>) -> RangeInclusive<T> {
    move |range| of(*range.start())..=of(*range.end())
}

/// Checks a rate and its burst.
fn check_pair<T: PartialOrd + Copy>(
    key: &str,
    rate: Option<T>,
    burst: Option<T>,
    [rates, bursts]: [RangeInclusive<T>; 2],
    text: impl Fn(T) -> String,
) -> Result<(), String> {
    let burst_key = key.replace("rate", "burst");
    if rate.is_none() && burst.is_some() {
        return Err(format!("{burst_key} without {key}: give the rate, too, or leave it out"));
    }
    for (key, value, range) in [(key, rate, rates), (&burst_key, burst, bursts)] {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let (low, high) = (text(*range.start()), text(*range.end()));
            return Err(format!("{key} {}: expected {low} to {high}", text(value)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        serde_json::from_str::<PortLimits>(text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn limits_are_written_as_they_are_read() {
        let text = r#"{"rx-rate":"100Mbit","rx-burst":"2Mbit","tx-packet-rate":"50k"}"#;
        let limits: PortLimits = serde_json::from_str(text).unwrap();
        assert_eq!(limits.rx_rate, Some(Bits(100_000_000)));
        assert_eq!(serde_json::to_string(&limits).unwrap(), text);
        assert!(limits.check().is_ok() && !limits.is_default());
        assert!(PortLimits::default().is_default() && PortLimits::default().check().is_ok());
    }

    #[test]
    fn what_is_out_of_range_is_named_with_what_is_not() {
        for (text, expected) in [
            (r#"{"rx-rate":"1k"}"#, "rx-rate 1kbit: expected 8kbit to 1Tbit"),
            (r#"{"tx-rate":"2T"}"#, "tx-rate 2Tbit: expected 8kbit to 1Tbit"),
            (
                r#"{"rx-rate":"1M","rx-burst":"1500"}"#,
                "rx-burst 1500bit: expected 600kbit to 1Tbit",
            ),
            (r#"{"rx-packet-rate":0}"#, "rx-packet-rate 0: expected 1 to 1G"),
            (
                r#"{"tx-packet-rate":"1k","tx-packet-burst":1}"#,
                "tx-packet-burst 1: expected 64 to 1G",
            ),
            (r#"{"tx-burst":"1M"}"#, "tx-burst without tx-rate: give the rate, too"),
            (r#"{"rx-packet-burst":99}"#, "rx-packet-burst without rx-packet-rate"),
            (r#"{"rx-rate":"fast"}"#, "'fast': expected bits, as in 100Mbit"),
            (r#"{"rate":"1M"}"#, "unknown field `rate`"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_burst_lasts_ten_milliseconds_where_it_is_not_given() {
        let hz = 2_000_000_000;
        let rate = |bits| Rate { rate: Some(Bits(bits)), ..Rate::default() };
        let size = rate(10_000_000_000).bytes(hz).unwrap();
        assert_eq!((size.burst, size.cycles), (12_500_000, 8 * hz));
        assert_eq!(rate(1_000_000).bytes(hz).unwrap().burst, 125_000);
        let rate = |frames| Rate { packet_rate: Some(Frames(frames)), ..Rate::default() };
        assert_eq!(rate(1_000_000).frames(hz).unwrap().burst, 10_000);
        assert_eq!((rate(1).frames(hz).unwrap().burst, rate(1).bytes(hz)), (256, None));
        assert!(Rate::default().limiters(3, hz, 0).iter().all(Option::is_none));
    }
}
