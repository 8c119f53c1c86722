//! The command line of what changes a running switch.

use std::path::PathBuf;
use std::str::FromStr as _;

use clap::{Args, Subcommand};
use packet::MacAddr;
use serde_json::Value;
use switch::LldpMode;

use super::bond::LacpArgs;
use super::settings::{Read, Setting, Settings, Table, parsed};
use super::{ControlArgs, number, parse_port};
use crate::answer::MAX_WARP;
use crate::config::Named;
use crate::control::event::Topic;
use crate::control::protocol::DROP_RATE;
use crate::groups::GroupArgs;
use crate::guard::GuardArgs;
use crate::limits::LimitArgs;
use crate::rstp::PortRstpArgs;
use crate::vlan::VlanArgs;

/// Arguments of `ringway port`.
#[derive(Clone, Debug, Args)]
pub struct PortArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: PortAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway port` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum PortAction {
    /// Open a port and connect it to the switch.
    Add(Box<PortAdd>),
    /// Change the settings of a port while it carries frames.
    Set(Box<PortSet>),
    /// Disconnect a port and close it; of a pair of patch ports both.
    Del {
        /// Its name.
        name: String,
        /// Take it from the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
}

/// Arguments of `ringway port add`.
#[derive(Clone, Debug, Args)]
pub struct PortAdd {
    /// Its name and its device.
    #[arg(value_name = "NAME=DEVICE", value_parser = parse_port)]
    pub port: Named,
    /// Largest payload in bytes [default: the device's own].
    #[arg(long, value_name = "BYTES", value_parser = number::<u16>(..))]
    pub mtu: Option<u16>,
    /// Workers that poll its receive queues, by number, in turn [default: spread evenly].
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = number::<usize>(..))]
    pub workers: Vec<usize>,
    /// The bridge that it belongs to [default: default].
    #[arg(long, value_name = "NAME")]
    pub bridge: Option<String>,
    /// With a device patch:PEER, make port PEER, too, in this bridge.
    #[arg(long, value_name = "NAME")]
    pub peer_bridge: Option<String>,
    /// Its part in VLANs.
    #[command(flatten)]
    pub vlan: VlanArgs,
    /// How much may come in and go out.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What it may send.
    #[command(flatten)]
    pub guard: GuardArgs,
    /// Whether it and its neighbours tell each other who they are: off, receive, transmit or both
    /// [default: off].
    #[arg(long, value_name = "WHAT", value_parser = LldpMode::from_str)]
    pub lldp: Option<LldpMode>,
    /// Its part in snooping.
    #[command(flatten)]
    pub groups: GroupArgs,
    /// Its part in spanning tree.
    #[command(flatten)]
    pub rstp: PortRstpArgs,
    /// Write it to the configuration file of the switch, too.
    #[arg(long)]
    pub save: bool,
}

/// Arguments of `ringway port set`.
#[derive(Clone, Debug, Args)]
pub struct PortSet {
    /// Its name.
    pub name: String,
    /// What to change.
    #[command(flatten)]
    pub settings: PortSettings,
    /// Its part in VLANs: options that are not given take their defaults then.
    #[command(flatten)]
    pub vlan: VlanArgs,
    /// Take part in no VLAN: tags are payload, or, while other ports have VLANs, all are carried.
    #[arg(long, conflicts_with = "vlan settings")]
    pub no_vlan: bool,
    /// How much may come in and go out: limits that are not given are none then.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Have no limits.
    #[arg(long, conflicts_with = "limits settings")]
    pub no_limits: bool,
    /// What it may send: options that are not given stay as they are.
    #[command(flatten)]
    pub guard: GuardArgs,
    /// Let it send everything.
    #[arg(long, conflicts_with = "guard settings")]
    pub no_guard: bool,
    /// Its part in spanning tree: options that are not given stay as they are.
    #[command(flatten)]
    pub rstp: PortRstpArgs,
    /// What it says by LACP: options that are not given stay as they are.
    #[command(flatten)]
    pub lacp: LacpArgs,
    /// Its part in snooping: options that are not given stay as they are.
    #[command(flatten)]
    pub groups: GroupArgs,
    /// Write it to the configuration file of the switch, too.
    #[arg(long)]
    pub save: bool,
}

/// Arguments of `ringway fdb`.
#[derive(Clone, Debug, Args)]
pub struct FdbArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: FdbAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway fdb` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum FdbAction {
    /// Add a static entry: it neither ages nor moves.
    Add {
        /// The station's address.
        mac: MacAddr,
        /// The port that it is behind.
        port: String,
        /// The VLAN; 0 for untagged frames.
        #[arg(long, value_name = "ID", default_value = "0", value_parser = number(0_u16..=4094))]
        vlan: u16,
        /// Write it to the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Remove an entry.
    Del {
        /// The station's address.
        mac: MacAddr,
        /// The VLAN; 0 for untagged frames.
        #[arg(long, value_name = "ID", default_value = "0", value_parser = number(0_u16..=4094))]
        vlan: u16,
        /// The bridge.
        #[arg(long, value_name = "NAME", default_value = switch::DEFAULT_BRIDGE)]
        bridge: String,
        /// Take it from the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Remove all learned entries.
    Flush {
        /// Only those of this port.
        #[arg(long, value_name = "NAME")]
        port: Option<String>,
        /// Only those of this bridge.
        #[arg(long, value_name = "NAME", conflicts_with = "port")]
        bridge: Option<String>,
    },
}

/// Settings of a port; `default` takes one back.
pub type PortSettings = Settings<OfPort>;

/// What ports have.
#[derive(Clone, Debug)]
pub enum OfPort {}

impl Table for OfPort {
    const NAME: &str = "port settings";
    const SETTINGS: &[Setting] = &[
        Setting::new("mtu", "BYTES|default", Read::Number(0, 65_535))
            .or_default()
            .help("Largest payload in bytes, or default: the device's own"),
        Setting::new("workers", "N,..|default", Read::By(parse_workers)).or_default().help(
            "Workers that poll its receive queues, by number, in turn, or default: spread \
             evenly",
        ),
        Setting::new("tx-retries", "N|default", Read::Number(0, switch::MAX_TX_RETRIES as u64))
            .or_default()
            .help("How often frames are offered again to a port that is full"),
        Setting::new("bridge", "NAME", Read::Text).help("The bridge that it belongs to"),
        Setting::switch("enabled").help("Whether frames go in and out; off keeps the device open"),
        Setting::new("lldp", "WHAT", Read::By(parsed::<LldpMode>)).help(
            "Whether it and its neighbours tell each other who they are: off, receive, \
             transmit or both",
        ),
    ];
}

fn parse_workers(text: &str) -> Result<Value, String> {
    let workers = text.split(',').map(|number| number.trim().parse::<usize>().ok());
    let workers: Option<Vec<Value>> = workers.map(|number| Some(number?.into())).collect();
    workers.map(Value::from).ok_or_else(|| "expected numbers of workers, as in 0,1".to_owned())
}

/// Arguments of `ringway config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: ConfigAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway config` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigAction {
    /// Check a configuration file; opens nothing. Exit status 2 if it is wrong.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Show what a running switch is to be, as a file that would make it so.
    Show {
        /// Print JSON; its fields are described in docs/control-protocol.md.
        #[arg(long)]
        json: bool,
    },
    /// Show in what a running switch differs from its file and command line.
    Diff,
    /// Print a file with the bridges and ports of an Open vSwitch, by its database, which stays as it
    /// is. What cannot be taken along is named, and is a comment in the file.
    FromOvs {
        /// The database: unix:PATH or tcp:ADDRESS:PORT [default: unix:db.sock in the run folder].
        #[arg(value_name = "DATABASE")]
        database: Option<ovsdb::Remote>,

        /// The folder of the sockets of its ports of type dpdkvhostuser.
        #[arg(long, value_name = "FOLDER", env = "OVS_RUNDIR", default_value = "/run/openvswitch")]
        run_dir: PathBuf,
    },
}

/// Arguments of `ringway reload`.
#[derive(Clone, Debug, Args)]
pub struct ReloadArgs {
    /// Have the switch be what the file says, whatever commands have changed since.
    #[arg(long)]
    pub exact: bool,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Arguments of `ringway log`.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: LogAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway log` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum LogAction {
    /// Change what is logged, until the switch ends.
    Set {
        /// error, warn, info, debug or trace, for all; TARGET=LEVEL for a crate or module, as
        /// vhost=debug, where default takes that back; or a filter as RUST_LOG has it, as
        /// info,vhost=debug.
        #[arg(value_name = "[TARGET=]LEVEL")]
        level: String,
    },
    /// Show what is logged.
    Show {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `ringway events`.
#[derive(Clone, Debug, Args)]
pub struct EventsArgs {
    /// Only events about these: link, guest, config, drops, fdb, groups, reload [default: all but
    /// fdb and groups].
    #[arg(long, value_name = "TOPIC", value_delimiter = ',', value_parser = Topic::from_str)]
    pub filter: Vec<Topic>,

    /// Frames that a port drops in a second, from which on that is an event.
    #[arg(long, value_name = "N", default_value_t = DROP_RATE)]
    pub drop_rate: u64,

    /// Print JSON, an event per line; its fields are described in docs/control-protocol.md.
    #[arg(long)]
    pub json: bool,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Arguments of `ringway time`.
#[derive(Clone, Debug, Args)]
pub struct TimeArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TimeAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway time` can do.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum TimeAction {
    /// Stop the clock: nothing ages or is tried again any more.
    Stop,
    /// Put the clock forward, whether it goes or not.
    Warp {
        /// By so many milliseconds; at most a year.
        #[arg(value_name = "MS", value_parser = number(0..=MAX_WARP))]
        milliseconds: u64,
    },
}
