//! How much may come in on an interface, as Open vSwitch's table `Interface` says it.

use switch::PortLimits;
use switch::limit::{Bits, Frames};

use crate::content::Policing;

/// The burst where a rate is given and none is: 8000 kbit, or 16000 frames (ovs-vswitchd.conf.db(5)).
const BURST: i64 = 8_000;
const KPKTS_BURST: i64 = 16;

/// The limits of a port.
///
/// # Errors
/// A figure that makes no sense, in words for `Interface.error`.
pub fn limits(policing: &Policing) -> Result<PortLimits, String> {
    let Policing { rate, burst, kpkts_rate, kpkts_burst } = *policing;
    let bits = pair(("rate", rate), ("burst", burst), BURST)?;
    let frames = pair(("kpkts_rate", kpkts_rate), ("kpkts_burst", kpkts_burst), KPKTS_BURST)?;
    Ok(PortLimits {
        rx_rate: bits.map(|(rate, _)| Bits(rate)),
        rx_burst: bits.map(|(_, burst)| Bits(burst)),
        rx_packet_rate: frames.map(|(rate, _)| Frames(rate)),
        rx_packet_burst: frames.map(|(_, burst)| Frames(burst)),
        ..PortLimits::default()
    })
}

/// A rate and its burst, in ones; `None` without a rate.
fn pair(
    (rate_key, rate): (&str, i64),
    (burst_key, burst): (&str, i64),
    default: i64,
) -> Result<Option<(u64, u64)>, String> {
    let burst = if burst == 0 { default } else { burst };
    let ones = |key: &str, value: i64| {
        let ones = u64::try_from(value).ok().and_then(|value| value.checked_mul(1_000));
        ones.ok_or_else(|| format!("ingress_policing_{key}={value}: expected 0 or more"))
    };
    let (rate, burst) = (ones(rate_key, rate)?, ones(burst_key, burst)?);
    Ok((rate > 0).then_some((rate, burst)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_counted_in_ones() {
        assert_eq!(limits(&Policing::default()), Ok(PortLimits::default()));
        let policing =
            Policing { rate: 10_000, kpkts_rate: 5, kpkts_burst: 2, ..Policing::default() };
        let limits = limits(&policing).unwrap();
        assert_eq!(
            (limits.rx_rate, limits.rx_burst),
            (Some(Bits(10_000_000)), Some(Bits(8_000_000)))
        );
        assert_eq!(limits.rx_packet_rate, Some(Frames(5_000)));
        assert_eq!(limits.rx_packet_burst, Some(Frames(2_000)));
    }

    #[test]
    fn nonsense_is_named() {
        let wrong = Policing { rate: -1, ..Policing::default() };
        assert!(limits(&wrong).unwrap_err().contains("ingress_policing_rate=-1"));
        let wrong = Policing { rate: 1, burst: i64::MAX, ..Policing::default() };
        assert!(limits(&wrong).unwrap_err().contains("ingress_policing_burst"));
    }
}
