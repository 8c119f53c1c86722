//! How much may come in on an interface, as Open vSwitch's table `Interface` says it, and go out on a port,
//! as `QoS` does.
//!
//! Rates and bursts that are smaller than any that we can keep are the smallest that we can.

use switch::PortLimits;
use switch::limit::{Bits, Frames};

use crate::content::{Policing, Qos, Texts};

/// The burst where a rate is given and none is: 8000 kbit, or 16000 frames (ovs-vswitchd.conf.db(5)).
const BURST: i64 = 8_000;
const KPKTS_BURST: i64 = 16;

/// The limits of a port's interface.
///
/// # Errors
/// A figure that makes no sense, in words for `Interface.error`.
pub fn limits(policing: &Policing, qos: Option<&Qos>) -> Result<PortLimits, String> {
    let (rate, burst) = qos.map(egress).transpose()?.unwrap_or_default();
    let coming_in = ingress(policing)?;
    Ok(PortLimits { tx_rate: rate, tx_burst: burst, ..coming_in }.clamped())
}

/// What may go out: the rate, and what may go out at once.
fn egress(qos: &Qos) -> Result<(Option<Bits>, Option<Bits>), String> {
    let bytes = |key| bits_of(&qos.other_config, key, 8);
    let sum = |one: Option<Bits>, other: Option<Bits>| match (one, other) {
        (Some(Bits(one)), Some(Bits(other))) => Some(Bits(one.saturating_add(other))),
        (one, other) => one.or(other),
    };
    let (rate, burst) = match qos.kind.as_str() {
        "egress-policer" => (bytes("cir")?, bytes("cbs")?),
        // What is within the second rate passes, too (RFC 4115).
        "trtcm-policer" => (sum(bytes("cir")?, bytes("eir")?), sum(bytes("cbs")?, bytes("ebs")?)),
        "linux-htb" | "linux-hfsc" => (bits_of(&qos.other_config, "max-rate", 1)?, None),
        _ => (None, None),
    };
    Ok((rate, burst.filter(|_| rate.is_some())))
}

/// A number of units of so many bits each; 0 is as none.
fn bits_of(all: &Texts, key: &str, unit: u64) -> Result<Option<Bits>, String> {
    let Some(text) = all.get(key) else { return Ok(None) };
    let bits = text.parse::<u64>().ok().and_then(|value| value.checked_mul(unit));
    let bits = bits.ok_or_else(|| format!("QoS other_config:{key}={text}: expected a number"))?;
    Ok((bits > 0).then_some(Bits(bits)))
}

fn ingress(policing: &Policing) -> Result<PortLimits, String> {
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
        assert_eq!(limits(&Policing::default(), None), Ok(PortLimits::default()));
        let policing =
            Policing { rate: 10_000, kpkts_rate: 5, kpkts_burst: 2, ..Policing::default() };
        let limits = limits(&policing, None).unwrap();
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
        assert!(limits(&wrong, None).unwrap_err().contains("ingress_policing_rate=-1"));
        let wrong = Policing { rate: 1, burst: i64::MAX, ..Policing::default() };
        assert!(limits(&wrong, None).unwrap_err().contains("ingress_policing_burst"));
    }

    #[test]
    fn what_goes_out_is_limited_by_the_kinds_that_have_one_rate() {
        let of = |kind: &str, pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let (kind, other_config) = (kind.to_owned(), pairs.collect());
            let qos = Qos { kind, other_config, ..Qos::default() };
            limits(&Policing::default(), Some(&qos)).map(|made| (made.tx_rate, made.tx_burst))
        };
        let policer = [("cir", "46000000"), ("cbs", "2048")];
        let smallest = Some(Bits(600_000));
        assert_eq!(of("egress-policer", &policer), Ok((Some(Bits(368_000_000)), smallest)));
        let two = [("cir", "1000000"), ("eir", "500000"), ("cbs", "100000"), ("ebs", "50000")];
        let sum = (Some(Bits(12_000_000)), Some(Bits(1_200_000)));
        assert_eq!(of("trtcm-policer", &two), Ok(sum));
        let htb = of("linux-htb", &[("max-rate", "1000000000"), ("cbs", "7")]);
        assert_eq!(htb, Ok((Some(Bits(1_000_000_000)), None)));
        assert_eq!(of("linux-htb", &[("max-rate", "0")]), Ok((None, None)));
        assert_eq!(of("linux-codel", &policer), Ok((None, None)));
        assert!(of("egress-policer", &[("cir", "fast")]).unwrap_err().contains("cir=fast"));
    }

    #[test]
    fn what_is_too_little_is_the_least_that_there_is() {
        let small = Policing { rate: 1, burst: 100, kpkts_rate: 1, kpkts_burst: 1 };
        let limits = limits(&small, None).unwrap();
        assert_eq!(limits.check(), Ok(()));
        assert_eq!((limits.rx_rate, limits.rx_burst), (Some(Bits(8_000)), Some(Bits(600_000))));
    }
}
