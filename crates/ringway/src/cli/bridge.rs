//! The command line of `ringway bridge`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::admin::{OrDefault, or_default};
use super::{ControlArgs, number};

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
}

impl BridgeSettings {
    /// Those that are given, by their keys in the file.
    pub fn given(&self) -> Map<String, Value> {
        let Self { ageing, fdb_size, learn_per_burst, group_fwd_mask } = self;
        let all = [
            ("fdb.ageing", ageing.as_ref().map(|value| json!(value.0))),
            ("fdb.size", fdb_size.as_ref().map(|value| json!(value.0))),
            ("fdb.learn-per-burst", learn_per_burst.as_ref().map(|value| json!(value.0))),
            ("group-fwd-mask", group_fwd_mask.as_ref().map(|value| json!(value.0))),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

fn parse_bits(text: &str) -> Result<u16, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "expected 0 to 65535, or 0x0 to 0xffff".to_owned())
}
