//! The command line of `ringway bridge`.

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::str::FromStr as _;
use switch::RstpVersion;

use super::admin::{OrDefault, or_default};
use super::{ControlArgs, number, parse_switch};

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
#[derive(Clone, Debug, Default, Args)]
pub struct BridgeSettings {
    /// Seconds after which an address that was not heard of is forgotten; 0 for never.
    #[arg(long, value_name = "SECS|default", value_parser = or_default(number(0_u64..)))]
    pub ageing: Option<OrDefault<u64>>,
    /// Largest number of addresses that are learned.
    #[arg(long, value_name = "N|default", value_parser = or_default(number::<usize>(..)))]
    pub fdb_size: Option<OrDefault<usize>>,
    /// Most addresses that a burst of 32 frames may add or move.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(0_usize..=32)))]
    pub learn_per_burst: Option<OrDefault<usize>>,
    /// Reserved groups that are forwarded all the same, as bits.
    #[arg(long, value_name = "BITS|default", value_parser = or_default(parse_bits))]
    pub group_fwd_mask: Option<OrDefault<u16>>,
    /// Learn and flood in each VLAN by itself though no port has VLAN settings.
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub vlan_aware: Option<OrDefault<bool>>,
    /// Forward frames whose source is zero or a group's address, and learn nothing from them.
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub any_source: Option<OrDefault<bool>>,
    /// Whether it takes part in spanning tree, by which bridges find one way between any two stations.
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub rstp: Option<bool>,
    /// Of several bridges the one with the lowest is the root: a multiple of 4096 up to 61440.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(0..=61_440_u16)))]
    pub rstp_priority: Option<OrDefault<u16>>,
    /// Seconds, or bridges, after which what was heard is of no use any more.
    #[arg(long, value_name = "SECS|default", value_parser = or_default(number(6..=40_u8)))]
    pub rstp_max_age: Option<OrDefault<u8>>,
    /// Seconds that a port waits twice before it forwards, where its neighbour does not agree.
    #[arg(long, value_name = "SECS|default", value_parser = or_default(number(4..=30_u8)))]
    pub rstp_forward_delay: Option<OrDefault<u8>>,
    /// The protocol that it speaks: rstp, which knows the old one too, or stp.
    #[arg(long, value_name = "NAME", value_parser = RstpVersion::from_str)]
    pub rstp_force_version: Option<RstpVersion>,
    /// Send what goes to groups of IGMP and MLD to ports with members and routers alone.
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub mcast_snooping: Option<OrDefault<bool>>,
    /// Seconds without a report after which a port is taken for no member any more.
    #[arg(long, value_name = "SECS", value_parser = or_default(number::<u32>(..)))]
    pub mcast_aging_time: Option<OrDefault<u32>>,
    /// Largest number of groups.
    #[arg(long, value_name = "N", value_parser = or_default(number::<usize>(..)))]
    pub mcast_table_size: Option<OrDefault<usize>>,
    /// Keep what goes to groups without members from ports without routers.
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub mcast_disable_flood_unregistered: Option<OrDefault<bool>>,
    /// Ask hosts for their groups where no router does.
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub mcast_querier: Option<OrDefault<bool>>,
    /// The address from which it asks by IGMP.
    #[arg(long, value_name = "IP", value_parser = or_default(parse_address))]
    pub mcast_querier_address: Option<OrDefault<Ipv4Addr>>,
}

impl BridgeSettings {
    /// Those that are given, by their keys in the file.
    pub fn given(&self) -> Map<String, Value> {
        let Self { ageing, fdb_size, learn_per_burst, .. } = self;
        let Self { group_fwd_mask, vlan_aware, any_source, .. } = self;
        let Self {
            rstp, rstp_priority, rstp_max_age, rstp_forward_delay, rstp_force_version, ..
        } = self;
        let Self {
            mcast_snooping,
            mcast_aging_time,
            mcast_table_size,
            mcast_disable_flood_unregistered: keep,
            mcast_querier,
            mcast_querier_address,
            ..
        } = self;
        let all = [
            ("fdb.ageing", ageing.as_ref().map(|value| json!(value.0))),
            ("fdb.size", fdb_size.as_ref().map(|value| json!(value.0))),
            ("fdb.learn-per-burst", learn_per_burst.as_ref().map(|value| json!(value.0))),
            ("group-fwd-mask", group_fwd_mask.as_ref().map(|value| json!(value.0))),
            ("vlan-aware", vlan_aware.as_ref().map(|value| json!(value.0))),
            ("any-source", any_source.as_ref().map(|value| json!(value.0))),
            ("rstp.enabled", rstp.map(Value::Bool)),
            ("rstp.priority", rstp_priority.as_ref().map(|value| json!(value.0))),
            ("rstp.max-age", rstp_max_age.as_ref().map(|value| json!(value.0))),
            ("rstp.forward-delay", rstp_forward_delay.as_ref().map(|value| json!(value.0))),
            ("rstp.force-version", rstp_force_version.map(|value| json!(value))),
            ("mcast-snooping.enabled", mcast_snooping.as_ref().map(|value| json!(value.0))),
            ("mcast-snooping.aging-time", mcast_aging_time.as_ref().map(|value| json!(value.0))),
            ("mcast-snooping.table-size", mcast_table_size.as_ref().map(|value| json!(value.0))),
            (
                "mcast-snooping.disable-flood-unregistered",
                keep.as_ref().map(|value| json!(value.0)),
            ),
            ("mcast-snooping.querier", mcast_querier.as_ref().map(|value| json!(value.0))),
            (
                "mcast-snooping.querier-address",
                mcast_querier_address.as_ref().map(|value| json!(value.0)),
            ),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

fn parse_address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| "expected an IPv4 address such as 192.0.2.1".to_owned())
}

fn parse_bits(text: &str) -> Result<u16, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected 0 to 65535, or 0x0 to 0xffff".to_owned())
}
