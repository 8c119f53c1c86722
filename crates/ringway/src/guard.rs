//! What ports may send, on the command line.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use packet::MacAddr;
use serde_json::Value;
use switch::PortGuard;
use switch::guard::{Beyond, BpduGuard, Prefix};

use crate::cli::settings::{Read, Setting, Settings, Table, parsed};

/// The options of a port for what it may send, as in a configuration file. Each can be `default`.
pub type GuardArgs = Settings<PortGuard>;

impl Table for PortGuard {
    const NAME: &str = "guard settings";
    const SETTINGS: &[Setting] = &[
        Setting::new("allowed-macs", "MAC,..", Read::By(list::<MacAddr>)).or_default().help(
            "MAC addresses that the port may send from, and name as its own in ARP, \
             neighbour discovery and DHCP [default: any]",
        ),
        Setting::new("allowed-ips", "IP,..", Read::By(list::<Prefix>)).or_default().help(
            "IP addresses and prefixes that it may send from, and name as its own [default: \
             any]",
        ),
        Setting::switch("dhcp-guard")
            .or_default()
            .help("Drop what DHCP servers send [default: on with --allowed-ips, off without]"),
        Setting::switch("ra-guard")
            .or_default()
            .help("Drop what IPv6 routers advertise [default: as --dhcp-guard]"),
        Setting::new("bpdu-guard", "WHAT", Read::By(parsed::<BpduGuard>)).or_default().help(
            "What becomes of messages of spanning tree: off, drop, or shut, which takes the \
             port out of service until 'ringway port set' [default: off]",
        ),
        Setting::switch("isolated")
            .or_default()
            .help("Let it reach only ports that are not isolated [default: off]"),
        Setting::new("max-addresses", "N", Read::Number(1, u32::MAX as u64)).or_default().help(
            "The most addresses that are learnt on it [default: as many as there is room \
             for]",
        ),
        Setting::new("beyond-max", "WHAT", Read::By(parsed::<Beyond>))
            .or_default()
            .help("What becomes of frames from further addresses: drop or flood [default: drop]"),
    ];
}

/// A list as it is in a file.
fn list<T: FromStr<Err: Display> + Display>(text: &str) -> Result<Value, String> {
    let part = |part: &str| match part.trim().parse::<T>() {
        Ok(value) => Ok(Value::String(value.to_string())),
        Err(error) => Err(error.to_string()),
    };
    text.split(',').map(part).collect()
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
        assert_eq!(parse("").unwrap().whole().unwrap(), PortGuard::default());
        assert_eq!(summary(&PortGuard::default()), None);
        let options = "--allowed-macs 52:54:00:00:00:01,52:54:00:00:00:02 --allowed-ips 192.0.2.7 \
                       --ra-guard off";
        let args = parse(options).unwrap();
        let expected = r#"{"allowed-macs":["52:54:00:00:00:01","52:54:00:00:00:02"],"allowed-ips":["192.0.2.7"],"ra-guard":false}"#;
        assert_eq!(Value::Object(args.given().clone()).to_string(), expected);
        let text = summary(&args.whole().unwrap()).unwrap();
        assert_eq!(text, "macs 52:54:00:00:00:01 52:54:00:00:00:02, ips 192.0.2.7, dhcp-guard");
        let args = parse("--allowed-macs default --dhcp-guard default").unwrap();
        let expected = r#"{"allowed-macs":null,"dhcp-guard":null}"#;
        assert_eq!(Value::Object(args.given().clone()).to_string(), expected);
        assert!(args.whole().unwrap().is_default());
        let isolated = parse("--isolated on").unwrap();
        assert_eq!(Value::Object(isolated.given().clone()).to_string(), r#"{"isolated":true}"#);
        assert_eq!(summary(&isolated.whole().unwrap()).unwrap(), "isolated");
        let bpdu = parse("--bpdu-guard shut").unwrap();
        assert_eq!(Value::Object(bpdu.given().clone()).to_string(), r#"{"bpdu-guard":"shut"}"#);
        assert_eq!(summary(&bpdu.whole().unwrap()).unwrap(), "bpdu-guard shut");
        let few = parse("--max-addresses 5 --beyond-max flood").unwrap();
        let expected = r#"{"max-addresses":5,"beyond-max":"flood"}"#;
        assert_eq!(Value::Object(few.given().clone()).to_string(), expected);
        assert_eq!(summary(&few.whole().unwrap()).unwrap(), "max-addresses 5, beyond flood");
        let off = parse("--dhcp-guard off").unwrap().whole().unwrap();
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
