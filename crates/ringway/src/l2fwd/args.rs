//! The command line of `ringway l2fwd`.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use eal::CoreList;

use super::pairs::PortMap;
use crate::cli::{ConfineArgs, number};

/// Arguments of `ringway l2fwd`.
#[derive(Clone, Debug, Args)]
pub struct L2fwdArgs {
    /// A port: its device, with a name in front of it where you like [default name: its number].
    /// May be given many times; ports are numbered from 0 in this order.
    #[arg(short, long, value_name = "[NAME=]DEVICE", required = true)]
    pub port: Vec<PortArg>,

    /// Which ports forward to each other, by numbers or names, as in "(0,3),(1,2)" [default: the
    /// first to the second and back, the third to the fourth, ..].
    #[arg(long, value_name = "(A,B)[,(C,D)..]")]
    pub portmap: Option<PortMap>,

    /// Leave MAC addresses as they are; otherwise frames that leave by port N get the destination
    /// 02:00:00:00:00:N and the port's own address as source.
    #[arg(long)]
    pub no_mac_updating: bool,

    /// Receive frames for all stations; otherwise those for the port itself, for groups and for
    /// everybody. Ports that are no network cards receive all in any case.
    #[arg(short = 'P', long)]
    pub promiscuous: bool,

    /// Cores for the workers, one worker on each, as in 1-3,5 [default: one worker, on any core].
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,

    /// Receive queues per worker [default: spread evenly]; most ports have one.
    #[arg(long, value_name = "N", value_parser = number(1_u16..))]
    pub queues_per_core: Option<u16>,

    /// Frames to receive at once.
    #[arg(long, value_name = "N", default_value = "32",
          value_parser = number(1..=32_u16))]
    pub burst: u16,

    /// Microseconds that a frame may wait to be sent together with others, by a network card; 0 sends
    /// all at once. Ports that copy frames never wait.
    #[arg(long, value_name = "US", default_value = "100",
          value_parser = number(0..=1_000_000_u64))]
    pub drain_us: u64,

    /// Never sleep: the last microsecond of latency, for whole cores of electricity.
    #[arg(long)]
    pub busy_poll: bool,

    /// Seconds between two statistics; 0 for those at the end only.
    #[arg(short = 'T', long = "stats", value_name = "SECS", default_value = "10",
          value_parser = parse_seconds)]
    pub stats: Duration,

    /// How long to wait for the links of all ports before forwarding; it then begins without those
    /// that are missing, which may come later.
    #[arg(long, value_name = "SECS", default_value = "9", value_parser = parse_seconds)]
    pub wait_link: Duration,

    /// Print JSON: one object per line, of which docs/l2fwd.md has the fields.
    #[arg(long)]
    pub json: bool,

    /// What it gives up.
    #[command(flatten)]
    pub confine: ConfineArgs,
}

/// A port as the command line gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortArg {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its device string.
    pub device: String,
}

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // What is in front of the first '=' is a name unless it begins a device: "null:rx=on".
        let (name, device) = match text.split_once('=') {
            Some((name, device)) if !name.contains([':', '/']) => (Some(name), device),
            _ => (None, text),
        };
        if !device.contains(':') {
            return Err("expected DEVICE or NAME=DEVICE, as in tap:tap0 or lan=tap:tap0".to_owned());
        }
        if let Some(name) = name {
            daemon::check::check_name(name).map_err(|error| error.to_string())?;
        }
        Ok(Self { name: name.map(str::to_owned), device: device.to_owned() })
    }
}

/// Seconds, 0 included.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if seconds != 0.0 && !(0.1..=86_400.0).contains(&seconds) {
        return Err("expected 0, or 0.1 seconds to a day".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// What follows the options in the long help.
pub fn help(devices: &str) -> String {
    format!(
        "\
Devices:
{devices}
Examples:
  Two virtual machines, as if there were a cable between them:
    ringway l2fwd --no-mac-updating -p vhost-user:/run/vm1.sock -p vhost-user:/run/vm2.sock

  Four ports in two pairs, crosswise, two workers on cores of their own:
    ringway l2fwd -p a=tap:tap0 -p b=tap:tap1 -p c=tap:tap2 -p d=tap:tap3 \\
      --portmap '(a,d),(b,c)' --cores 2,3

  The frames of one file into another one, with new MAC addresses:
    ringway l2fwd -p pcap:in.pcap -p pcap:,tx=out.pcap

  Without root or a peer, what a core can do, every second, for programs:
    ringway l2fwd -p null:rx=on -p null:rx=on -T 1 --json

Without --busy-poll a worker that has had nothing to do for 100 microseconds sleeps until a frame
comes.

Exit status: 0 after Ctrl-C or SIGTERM, 1 when something failed, 2 for wrong arguments."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_have_a_name() {
        for (text, name, device) in [
            ("tap:tap0", None, "tap:tap0"),
            ("null:rx=on,size=70", None, "null:rx=on,size=70"),
            ("vhost-user:/run/a=b.sock", None, "vhost-user:/run/a=b.sock"),
            ("lan=tap:tap0,queues=2", Some("lan"), "tap:tap0,queues=2"),
        ] {
            let port: PortArg = text.parse().unwrap();
            assert_eq!((port.name.as_deref(), port.device.as_str()), (name, device), "{text}");
        }
        for bad in ["tap0", "a=tap0", "a b=tap:tap0", "=tap:tap0"] {
            assert!(bad.parse::<PortArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_may_be_none() {
        assert_eq!(parse_seconds("0"), Ok(Duration::ZERO));
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["-1", "0.01", "1e9", "nan", "soon"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
    }
}
