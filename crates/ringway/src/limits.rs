//! Limits of ports on the command line.

use switch::PortLimits;
use switch::limit::{Bits, Frames};

use crate::cli::settings::{Read, Setting, Settings, Table, parsed};

/// The options of a port for its limits, as in a configuration file. "rx" is from the port into the
/// switch, as in 'ringway show stats'.
pub type LimitArgs = Settings<PortLimits>;

impl Table for PortLimits {
    const NAME: &str = "limits settings";
    const SETTINGS: &[Setting] = &[
        Setting::new("rx-rate", "BITS", Read::By(parsed::<Bits>))
            .help("Bits per second that the switch takes from the port, as in 100Mbit"),
        Setting::new("rx-burst", "BITS", Read::By(parsed::<Bits>))
            .help("Bits that it takes at once [default: those of 10 ms, and 1Mbit at least]"),
        Setting::new("rx-packet-rate", "N", Read::By(parsed::<Frames>))
            .help("Frames per second that the switch takes from the port, as in 200k"),
        Setting::new("rx-packet-burst", "N", Read::By(parsed::<Frames>))
            .help("Frames that it takes at once [default: those of 10 ms, and 256 at least]"),
        Setting::new("tx-rate", "BITS", Read::By(parsed::<Bits>))
            .help("Bits per second that the switch sends to the port"),
        Setting::new("tx-burst", "BITS", Read::By(parsed::<Bits>))
            .help("Bits that it sends at once [default: as --rx-burst]"),
        Setting::new("tx-packet-rate", "N", Read::By(parsed::<Frames>))
            .help("Frames per second that the switch sends to the port"),
        Setting::new("tx-packet-burst", "N", Read::By(parsed::<Frames>))
            .help("Frames that it sends at once [default: as --rx-packet-burst]"),
        Setting::new("broadcast-rate", "BITS", Read::By(parsed::<Bits>)).help(
            "Storm limit: bits per second to all stations that the switch takes from the \
             port",
        ),
        Setting::new("broadcast-packet-rate", "N", Read::By(parsed::<Frames>))
            .help("Storm limit: frames per second to all stations"),
        Setting::new("multicast-rate", "BITS", Read::By(parsed::<Bits>))
            .help("Storm limit: bits per second to other groups"),
        Setting::new("multicast-packet-rate", "N", Read::By(parsed::<Frames>))
            .help("Storm limit: frames per second to other groups"),
        Setting::new("unknown-rate", "BITS", Read::By(parsed::<Bits>))
            .help("Storm limit: bits per second to addresses that the bridge does not know"),
        Setting::new("unknown-packet-rate", "N", Read::By(parsed::<Frames>))
            .help("Storm limit: frames per second to addresses that the bridge does not know"),
    ];
}

/// A port's limits in a few words; `None` where it has none.
pub fn summary(limits: &PortLimits) -> Option<String> {
    let bits = |key, bits: Option<Bits>| bits.map(|bits| format!("{key} {bits}"));
    let frames = |key, frames: Option<Frames>| frames.map(|frames| format!("{key} {frames}"));
    let words = [
        bits("rx-rate", limits.rx_rate),
        bits("rx-burst", limits.rx_burst),
        frames("rx-packet-rate", limits.rx_packet_rate),
        frames("rx-packet-burst", limits.rx_packet_burst),
        bits("tx-rate", limits.tx_rate),
        bits("tx-burst", limits.tx_burst),
        frames("tx-packet-rate", limits.tx_packet_rate),
        frames("tx-packet-burst", limits.tx_packet_burst),
        bits("broadcast-rate", limits.broadcast_rate),
        frames("broadcast-packet-rate", limits.broadcast_packet_rate),
        bits("multicast-rate", limits.multicast_rate),
        frames("multicast-packet-rate", limits.multicast_packet_rate),
        bits("unknown-rate", limits.unknown_rate),
        frames("unknown-packet-rate", limits.unknown_packet_rate),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, PortAction};

    fn parse(options: &str) -> Result<PortLimits, String> {
        let words = ["ringway", "port", "add", "a=null:"].into_iter();
        let cli = Cli::try_parse_from(words.chain(options.split_whitespace()));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Port(args) => match args.action {
                PortAction::Add(port) => Ok(port.limits.whole().unwrap()),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_are_the_limits() {
        assert_eq!(parse(""), Ok(PortLimits::default()));
        assert_eq!(summary(&PortLimits::default()), None);
        let limits = parse("--rx-rate 1.5Gbit --rx-burst 10M --tx-packet-rate 50000").unwrap();
        let storm = parse("--broadcast-packet-rate 100 --unknown-rate 1M").unwrap();
        assert_eq!(summary(&storm).unwrap(), "broadcast-packet-rate 100, unknown-rate 1Mbit");
        let expected = "rx-rate 1500Mbit, rx-burst 10Mbit, tx-packet-rate 50k";
        assert_eq!(summary(&limits).unwrap(), expected);
        for (options, expected) in [
            ("--rx-rate fast", "expected bits, as in 100Mbit"),
            ("--tx-packet-burst 10Mbit", "expected frames, as in 200k"),
        ] {
            let error = parse(options).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
