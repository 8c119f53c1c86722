//! The command line of `ringway bridge`.

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use switch::RstpVersion;

use super::ControlArgs;
use super::settings::{Read, Setting, Settings, Table, parsed};

/// Arguments of `ringway bridge`.
#[derive(Clone, Debug, Args)]
pub struct BridgeArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: BridgeAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway bridge` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum BridgeAction {
    /// Add a bridge, without ports.
    Add {
        /// Its name.
        name: String,
        /// Its settings.
        #[command(flatten)]
        settings: BridgeSettings,
        /// Write it to the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Change the settings of a bridge while its ports carry frames.
    Set {
        /// Its name; default is the one that is always there.
        name: String,
        /// What to change.
        #[command(flatten)]
        settings: BridgeSettings,
        /// Write it to the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Remove a bridge that has no ports any more.
    Del {
        /// Its name.
        name: String,
        /// Take it from the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
}

/// Settings of a bridge; `default` takes one back.
pub type BridgeSettings = Settings<OfBridge>;

/// What bridges have.
#[derive(Clone, Debug)]
pub enum OfBridge {}

impl Table for OfBridge {
    const NAME: &str = "bridge settings";
    const SETTINGS: &[Setting] = &[
        Setting::new("ageing", "SECS|default", Read::Number(0, u64::MAX))
            .key("fdb.ageing")
            .or_default()
            .help("Seconds after which an address that was not heard of is forgotten; 0 for never"),
        Setting::new("fdb-size", "N|default", Read::Number(0, u64::MAX))
            .key("fdb.size")
            .or_default()
            .help("Largest number of addresses that are learned"),
        Setting::new("learn-per-burst", "N|default", Read::Number(0, 32))
            .key("fdb.learn-per-burst")
            .or_default()
            .help("Most addresses that a burst of 32 frames may add or move"),
        Setting::new("group-fwd-mask", "BITS|default", Read::By(parse_bits))
            .or_default()
            .help("Reserved groups that are forwarded all the same, as bits"),
        Setting::switch("vlan-aware")
            .or_default()
            .help("Learn and flood in each VLAN by itself though no port has VLAN settings"),
        Setting::switch("any-source").or_default().help(
            "Forward frames whose source is zero or a group's address, and learn nothing \
             from them",
        ),
        Setting::switch("rstp").key("rstp.enabled").help(
            "Whether it takes part in spanning tree, by which bridges find one way between \
             any two stations",
        ),
        Setting::new("rstp-priority", "N|default", Read::Number(0, 61_440))
            .key("rstp.priority")
            .or_default()
            .help(
                "Of several bridges the one with the lowest is the root: a multiple of 4096 up \
                 to 61440",
            ),
        Setting::new("rstp-max-age", "SECS|default", Read::Number(6, 40))
            .key("rstp.max-age")
            .or_default()
            .help("Seconds, or bridges, after which what was heard is of no use any more"),
        Setting::new("rstp-forward-delay", "SECS|default", Read::Number(4, 30))
            .key("rstp.forward-delay")
            .or_default()
            .help(
                "Seconds that a port waits twice before it forwards, where its neighbour does \
                 not agree",
            ),
        Setting::new("rstp-force-version", "NAME", Read::By(parsed::<RstpVersion>))
            .key("rstp.force-version")
            .help("The protocol that it speaks: rstp, which knows the old one too, or stp"),
        Setting::switch("mcast-snooping").key("mcast-snooping.enabled").or_default().help(
            "Send what goes to groups of IGMP and MLD to ports with members and routers \
             alone",
        ),
        Setting::new("mcast-aging-time", "SECS", Read::Number(0, u32::MAX as u64))
            .key("mcast-snooping.aging-time")
            .or_default()
            .help("Seconds without a report after which a port is taken for no member any more"),
        Setting::new("mcast-table-size", "N", Read::Number(0, u64::MAX))
            .key("mcast-snooping.table-size")
            .or_default()
            .help("Largest number of groups"),
        Setting::switch("mcast-disable-flood-unregistered")
            .key("mcast-snooping.disable-flood-unregistered")
            .or_default()
            .help("Keep what goes to groups without members from ports without routers"),
        Setting::switch("mcast-querier")
            .key("mcast-snooping.querier")
            .or_default()
            .help("Ask hosts for their groups where no router does"),
        Setting::new("mcast-querier-address", "IP", Read::By(parse_address))
            .key("mcast-snooping.querier-address")
            .or_default()
            .help("The address from which it asks by IGMP"),
    ];
}

pub(super) fn parse_address(text: &str) -> Result<Value, String> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(json!(address)),
        Err(_) => Err("expected an IPv4 address such as 192.0.2.1".to_owned()),
    }
}

fn parse_bits(text: &str) -> Result<Value, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map(Value::from).map_err(|_| "expected 0 to 65535, or 0x0 to 0xffff".to_owned())
}
