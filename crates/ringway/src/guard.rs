//! What ports may send, on the command line.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use clap::Args;
use ordered::Gather as _;
use packet::MacAddr;
use serde_json::{Map, Value, json};
use switch::PortGuard;
use switch::guard::{Beyond, BpduGuard, Prefix};

use crate::cli::{OrDefault, number, or_default, parse_switch};

/// The options of a port for what it may send, as in a configuration file. Each can be `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct GuardArgs {
    /// MAC addresses that the port may send from, and name as its own in ARP, neighbour discovery
    /// and DHCP [default: any].
    #[arg(long, value_name = "MAC,..", value_parser = or_default(list::<MacAddr>))]
    pub allowed_macs: Option<OrDefault<BTreeSet<MacAddr>>>,
    /// IP addresses and prefixes that it may send from, and name as its own [default: any].
    #[arg(long, value_name = "IP,..", value_parser = or_default(list::<Prefix>))]
    pub allowed_ips: Option<OrDefault<BTreeSet<Prefix>>>,
    /// Drop what DHCP servers send [default: on with --allowed-ips, off without].
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub dhcp_guard: Option<OrDefault<bool>>,
    /// Drop what IPv6 routers advertise [default: as --dhcp-guard].
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub ra_guard: Option<OrDefault<bool>>,
    /// What becomes of messages of spanning tree: off, drop, or shut, which takes the port out of
    /// service until 'ringway port set' [default: off].
    #[arg(long, value_name = "WHAT", value_parser = or_default(BpduGuard::from_str))]
    pub bpdu_guard: Option<OrDefault<BpduGuard>>,
    /// Let it reach only ports that are not isolated [default: off].
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub isolated: Option<OrDefault<bool>>,
    /// The most addresses that are learnt on it [default: as many as there is room for].
    #[arg(long, value_name = "N", value_parser = or_default(number::<u32>(1..)))]
    pub max_addresses: Option<OrDefault<u32>>,
    /// What becomes of frames from further addresses: drop or flood [default: drop].
    #[arg(long, value_name = "WHAT", value_parser = or_default(Beyond::from_str))]
    pub beyond_max: Option<OrDefault<Beyond>>,
}

impl GuardArgs {
    /// The settings of a new port.
    pub fn settings(self) -> PortGuard {
        PortGuard {
            allowed_macs: self.allowed_macs.and_then(|macs| macs.0).unwrap_or_default(),
            allowed_ips: self.allowed_ips.and_then(|ips| ips.0).unwrap_or_default(),
            dhcp_guard: self.dhcp_guard.and_then(|is_on| is_on.0),
            ra_guard: self.ra_guard.and_then(|is_on| is_on.0),
            bpdu_guard: self.bpdu_guard.and_then(|what| what.0).unwrap_or_default(),
            isolated: self.isolated.and_then(|is_on| is_on.0).unwrap_or_default(),
            max_addresses: self.max_addresses.and_then(|most| most.0),
            beyond_max: self.beyond_max.and_then(|what| what.0).unwrap_or_default(),
        }
    }

    /// The settings that are to change, by their keys in the file.
    pub fn changed(&self) -> Map<String, Value> {
        let Self {
            allowed_macs,
            allowed_ips,
            dhcp_guard,
            ra_guard,
            bpdu_guard,
            isolated,
            max_addresses,
            beyond_max,
        } = self;
        let all = [
            ("allowed-macs", allowed_macs.as_ref().map(|macs| texts(macs.0.as_ref()))),
            ("allowed-ips", allowed_ips.as_ref().map(|ips| texts(ips.0.as_ref()))),
            ("dhcp-guard", dhcp_guard.as_ref().map(|is_on| json!(is_on.0))),
            ("ra-guard", ra_guard.as_ref().map(|is_on| json!(is_on.0))),
            ("bpdu-guard", bpdu_guard.as_ref().map(|what| json!(what.0))),
            ("isolated", isolated.as_ref().map(|is_on| json!(is_on.0))),
            ("max-addresses", max_addresses.as_ref().map(|most| json!(most.0))),
            ("beyond-max", beyond_max.as_ref().map(|what| json!(what.0))),
        ];
        let given = all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        given.collect()
    }
}

/// A list as it is in a file; `null` for the default.
fn texts<T: Display>(all: Option<&BTreeSet<T>>) -> Value {
    let texts = |all: &BTreeSet<T>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!(all.map(texts))
}

fn list<T: FromStr<Err: Display> + Ord>(text: &str) -> Result<BTreeSet<T>, String> {
    let parts = text.split(',').map(|part| part.trim().parse().map_err(|e: T::Err| e.to_string()));
    parts.try_gather()
}

/// A list in words, behind its name; `None` where it is empty.
fn words<T: Display>(key: &str, all: &BTreeSet<T>) -> Option<String> {
    let texts = all.iter().map(|value| format!(" {value}"));
    (!all.is_empty()).then(|| format!("{key}{}", texts.collect::<String>()))
}

/// A port's guard in a few words; `None` where it has none.
pub fn summary(guard: &PortGuard) -> Option<String> {
    let switch = |key: &str, is_on: bool| is_on.then(|| key.to_owned());
    let words = [
        words("macs", &guard.allowed_macs),
        words("ips", &guard.allowed_ips),
        switch("dhcp-guard", guard.guards_dhcp()),
        switch("ra-guard", guard.guards_ra()),
        (guard.bpdu_guard != BpduGuard::Off).then(|| format!("bpdu-guard {}", guard.bpdu_guard)),
        switch("isolated", guard.isolated),
        guard
            .max_addresses
            .map(|most| format!("max-addresses {most}, beyond {}", guard.beyond_max)),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!guard.is_default()).then(|| match words.is_empty() {
        true => "off".to_owned(),
        false => words.join(", "),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, PortAction};

    fn parse(options: &str) -> Result<GuardArgs, String> {
        let words = ["ringway", "port", "set", "a"].into_iter();
        let cli = Cli::try_parse_from(words.chain(options.split_whitespace()));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Port(args) => match args.action {
                PortAction::Set(port) => Ok(port.guard),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_are_the_guard() {
        assert_eq!(parse("").unwrap().settings(), PortGuard::default());
        assert_eq!(summary(&PortGuard::default()), None);
        let options = "--allowed-macs 52:54:00:00:00:01,52:54:00:00:00:02 --allowed-ips 192.0.2.7 \
                       --ra-guard off";
        let args = parse(options).unwrap();
        let expected = r#"{"allowed-macs":["52:54:00:00:00:01","52:54:00:00:00:02"],"allowed-ips":["192.0.2.7"],"ra-guard":false}"#;
        assert_eq!(Value::Object(args.changed()).to_string(), expected);
        let text = summary(&args.settings()).unwrap();
        assert_eq!(text, "macs 52:54:00:00:00:01 52:54:00:00:00:02, ips 192.0.2.7, dhcp-guard");
        let args = parse("--allowed-macs default --dhcp-guard default").unwrap();
        let expected = r#"{"allowed-macs":null,"dhcp-guard":null}"#;
        assert_eq!(Value::Object(args.changed()).to_string(), expected);
        assert!(args.settings().is_default());
        let isolated = parse("--isolated on").unwrap();
        assert_eq!(Value::Object(isolated.changed()).to_string(), r#"{"isolated":true}"#);
        assert_eq!(summary(&isolated.settings()).unwrap(), "isolated");
        let bpdu = parse("--bpdu-guard shut").unwrap();
        assert_eq!(Value::Object(bpdu.changed()).to_string(), r#"{"bpdu-guard":"shut"}"#);
        assert_eq!(summary(&bpdu.settings()).unwrap(), "bpdu-guard shut");
        let few = parse("--max-addresses 5 --beyond-max flood").unwrap();
        let expected = r#"{"max-addresses":5,"beyond-max":"flood"}"#;
        assert_eq!(Value::Object(few.changed()).to_string(), expected);
        assert_eq!(summary(&few.settings()).unwrap(), "max-addresses 5, beyond flood");
        let off = parse("--dhcp-guard off").unwrap().settings();
        assert_eq!(summary(&off).unwrap(), "off");
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_option() {
        for (options, expected) in [
            ("--allowed-macs 52:54", "expected a MAC address such as"),
            ("--allowed-ips 10.0.0.1/8", "did you mean 10.0.0.0/8?"),
            ("--allowed-ips 10.0.0.1,x", "'x': expected an IP address or prefix"),
            ("--max-addresses 0", "expected"),
            ("--beyond-max flod", "did you mean 'flood'?"),
            ("--dhcp-guard no", "expected on or off, or default"),
            ("--no-guard --ra-guard on", "cannot be used with"),
        ] {
            let error = parse(options).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
