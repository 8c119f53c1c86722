//! The command line of `ringway vdpa`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::{ConfineArgs, SocketArgs};

/// Arguments of `ringway vdpa`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct VdpaArgs {
    /// Something else than attaching devices.
    #[command(subcommand)]
    pub action: Option<VdpaAction>,

    /// Where the sockets are: PREFIX0 for the first device, PREFIX1 for the second, and so on.
    #[arg(long, value_name = "PREFIX", required_unless_present = "interactive")]
    pub iface: Option<String>,

    /// A device to attach; may be given many times [default: all that can be used now].
    #[arg(long, value_name = "DEVICE", requires = "iface")]
    pub device: Vec<String>,

    /// Connect to the sockets, which the VMM made, instead of listening there.
    #[arg(long)]
    pub client: bool,

    /// Take commands from standard input: help lists them.
    #[arg(long, short)]
    pub interactive: bool,

    /// Who may connect to the sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,

    /// What it gives up.
    #[command(flatten)]
    pub confine: ConfineArgs,

    /// A folder for the sockets of devices that a command will attach, beside that of PREFIX. May be
    /// given many times.
    #[arg(long, value_name = "DIR", requires = "interactive")]
    pub allow_path: Vec<PathBuf>,
}

/// What else `ringway vdpa` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum VdpaAction {
    /// List the vDPA devices of this machine.
    #[command(after_help = "Examples:\n  \
        ringway vdpa list\n  \
        ringway vdpa list --json | jq -r '.devices[] | select(.obstacle == null) | .device'")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What stands below the options in the long help.
pub fn help() -> String {
    format!(
        "\
Devices:
{}
Examples:
  What there is:
    ringway vdpa list

  A virtio network card for a virtual machine, at /tmp/vdpa0:
    ringway devices bind 0000:03:00.0
    ringway vdpa --iface /tmp/vdpa --device virtio-pci:0000:03:00.0

  All that there is, with commands:
    ringway vdpa --iface /tmp/vdpa --interactive

Frames go from the device to the guest's memory and back; this process sees none of them. A
device may also be given to a running switch: see 'ringway switch --help'.

Exit status: 0 after Ctrl-C, SIGTERM or quit, 1 when something failed, 2 for wrong arguments.",
        devices()
    )
}

/// The kinds of vDPA devices, a few lines each.
pub fn devices() -> String {
    let mut text = String::new();
    for driver in vdpa::list() {
        for line in driver.to_string().lines() {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
