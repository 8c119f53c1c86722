//! The command line.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use eal::access::{parse_group, parse_mode};
use eal::pci::PciAddress;
use eal::{Access, CoreList};

use crate::config::Named;
use crate::l2fwd::args::L2fwdArgs;
use crate::vdpa;
use crate::vdpa::args::VdpaArgs;

mod admin;
mod bond;
mod bridge;
mod capture;
#[cfg(test)]
mod documented;
mod generate;
mod headers;
mod metrics;
mod mirror;
mod parse;
mod rfc2544;
mod rstp;
pub mod settings;
mod top;
mod trace;
pub use admin::{
    ConfigAction, ConfigArgs, EventsArgs, FdbAction, FdbArgs, LogAction, LogArgs, PortAction,
    PortAdd, PortArgs, PortSet, ReloadArgs, TimeAction, TimeArgs,
};
pub use bond::{BondAction, BondArgs, PartArgs};
pub use bridge::{BridgeAction, BridgeArgs, BridgeSettings};
pub use capture::{CaptureArgs, Way};
pub use generate::{GenArgs, Mode};
pub use headers::{HeaderArgs, Turns};
pub use metrics::MetricsArgs;
pub use mirror::{MirrorAction, MirrorArgs};
pub use rstp::{RstpAction, RstpArgs};
pub use top::TopArgs;
pub use trace::TraceArgs;

/// A user-space packet path for virtual machines: connects them to each other and to the
/// network, without the kernel between them.
#[derive(Debug, Parser)]
#[command(
    name = "ringway",
    version = env!("RINGWAY_VERSION"),
    max_term_width = 100,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "First steps:\n  \
        ringway demo                     see it work, without any virtual machine\n  \
        ringway switch --help            connect virtual machines\n  \
        ringway top                      what a running switch does, every second"
)]
pub struct Cli {
    /// Log more; twice for everything. The variable RUST_LOG overrides this.
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet",
          display_order = 900)]
    pub verbose: u8,

    /// Log errors only.
    #[arg(short, long, global = true, display_order = 901)]
    pub quiet: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a switch that connects virtual machines and other ports.
    #[command(after_long_help = switch_help(), after_help = "More with --help: devices, examples.")]
    Switch(SwitchArgs),
    /// Look into a running switch.
    #[command(after_help = "Examples:\n  \
        ringway show ports\n  \
        ringway show ports vm1\n  \
        ringway show stats --watch\n  \
        ringway show stats --queues\n  \
        ringway show fdb --json | jq '.entries[] | select(.port == \"vm1\")'")]
    Show(ShowArgs),
    /// Watch a running switch: ports, rates, drops and workers, on the whole screen.
    #[command(after_help = "Examples:\n  \
        ringway top\n  \
        ringway top --sort drop-s\n  \
        ringway top workers --interval 0.2\n  \
        ringway top --batch -n 10 --filter tenant7\n  \
        ringway top --once --sort rx-b-s\n\n\
        Keys: ? shows them.")]
    Top(TopArgs),
    /// Add ports to a running switch, change their settings, or remove them.
    #[command(after_help = "Examples:\n  \
        ringway port add vm3=vhost-user:/run/vm3.sock --save\n  \
        ringway port add up=tap:rw0 --mtu 9000 --workers 0,1\n  \
        ringway port set vm3 --mtu default --enabled off\n  \
        ringway port add vm4=vhost-user:/run/vm4.sock --tag 10\n  \
        ringway port add out=patch:in --bridge default --peer-bridge tenant7\n  \
        ringway port del vm3")]
    Port(Box<PortArgs>),
    /// Add bridges to a running switch, change their settings, or remove them.
    #[command(after_help = "Examples:\n  \
        ringway bridge add tenant7 --ageing 60 --save\n  \
        ringway port add vm7=vhost-user:/run/vm7.sock --bridge tenant7\n  \
        ringway port set vm7 --bridge default\n  \
        ringway bridge del tenant7")]
    Bridge(BridgeArgs),
    /// Make one port of several, which stand in for each other, while a switch runs.
    #[command(after_help = "Examples:\n  \
        ringway bond add uplink --members eth0,eth1 --save\n  \
        ringway bond set uplink --primary eth0 --updelay 200\n  \
        ringway show bonds\n  \
        ringway bond set-active-member uplink eth1\n  \
        ringway bond migrate uplink eth1 --mac 52:54:00:00:00:01\n  \
        ringway bond del uplink")]
    Bond(BondArgs),
    /// Have ports and bridges of a running switch do something of spanning tree at once.
    #[command(after_help = "Examples:\n  \
        ringway rstp mcheck eth0\n  \
        ringway rstp tcn\n\n\
        Its settings are those of 'ringway bridge set' and 'ringway port set'; 'ringway show rstp' \
        tells how it stands.")]
    Rstp(RstpArgs),
    /// Have a running switch copy what passes through ports to another port, or into a VLAN.
    #[command(after_help = "Examples:\n  \
        ringway mirror add watch --src vm1 --dst vm1 --to watcher\n  \
        ringway mirror add all --all --vlans 10 --to-vlan 900 --save\n  \
        ringway mirror del watch")]
    Mirror(MirrorArgs),
    /// Show or write down what ports receive and send, and what is dropped, with the reason.
    #[command(after_help = "Examples:\n  \
        ringway capture vm1\n  \
        ringway capture all --dropped\n  \
        ringway capture vm1,vm2 -w trouble.pcapng 'tcp port 443'\n  \
        ringway capture all -w ring.pcapng -C 100 -W 10\n  \
        ssh host sudo ringway capture vm1 -w - | wireshark -k -i -")]
    Capture(Box<CaptureArgs>),
    /// Check a configuration file, or show what a running switch is to be.
    #[command(after_help = "Examples:\n  \
        ringway config check /etc/ringway/ringway.toml\n  \
        ringway config show\n  \
        ringway config diff")]
    Config(ConfigArgs),
    /// Have a running switch log more, or less.
    #[command(after_help = "Examples:\n  \
        ringway log set debug\n  \
        ringway log set vhost=trace\n  \
        ringway log show")]
    Log(LogArgs),
    /// Tell what happens in a running switch, as it happens.
    #[command(after_help = "Examples:\n  \
        ringway events\n  \
        ringway events --filter drops --drop-rate 1000\n  \
        ringway events --filter fdb --json | jq -r .mac")]
    Events(EventsArgs),
    /// Stop or put forward the clock of a switch that runs in a test.
    #[command(after_help = "Examples:\n  \
        ringway switch --control-time --port vm1=vhost-user:/run/vm1.sock\n  \
        ringway time stop\n  \
        ringway time warp 300000")]
    Time(TimeArgs),
    /// Have a running switch read its configuration file again.
    ///
    /// What the file says otherwise than when it was read last is changed, port by port; ports and
    /// settings that commands have changed stay. What cannot be changed while a switch runs is
    /// named, and then nothing is.
    Reload(ReloadArgs),
    /// Change the forwarding database of a running switch.
    #[command(after_help = "Examples:\n  \
        ringway fdb add 52:54:00:00:00:01 vm1\n  \
        ringway fdb add 52:54:00:00:00:01 vm1 --vlan 7\n  \
        ringway fdb del 52:54:00:00:00:01\n  \
        ringway fdb flush --port vm1")]
    Fdb(FdbArgs),
    /// Tell what would become of a packet in a running switch: rules, ports, why it is dropped.
    #[command(after_help = "Examples:\n  \
        ringway trace vm1 udp,dl_dst=52:54:00:00:00:02,nw_dst=10.0.0.2,tp_dst=53\n  \
        ringway trace vm1 52540000000252540000000108060001080006040001... --json\n\n\
        Nothing is sent, counted or learnt. Limits and guards are not asked.")]
    Trace(TraceArgs),
    /// Forward frames between ports in pairs, with new MAC addresses.
    #[command(after_long_help = crate::l2fwd::args::help(&devices_help()),
              after_help = "More with --help: devices, examples.")]
    L2fwd(Box<L2fwdArgs>),
    /// Generate, receive, forward and measure traffic on any port.
    #[command(after_long_help = generate::help(), after_help = "More with --help: devices, examples.")]
    Gen(Box<GenArgs>),
    /// Give PCI network devices to Ringway, and back to the host.
    #[command(after_help = "Examples:\n  \
        ringway devices list\n  \
        ringway devices bind 0000:01:00.0\n  \
        ringway devices bind 0000:01:00.0 --driver uio_pci_generic\n  \
        ringway devices show 0000:01:00.0\n  \
        ringway devices restore --all")]
    Devices(DevicesArgs),
    /// Attach vDPA devices, which serve a guest's rings themselves, to vhost-user sockets.
    #[command(after_long_help = vdpa::args::help(), after_help = "More with --help: devices, examples.")]
    Vdpa(VdpaArgs),
    /// Run a switch that Open vSwitch's database configures, in place of ovs-vswitchd.
    #[command(name = "ovs-vswitchd", disable_help_flag = true)]
    OvsVswitchd {
        /// See 'ringway ovs-vswitchd --help'.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// See a switch and two guests at work over real vhost-user sockets: no root, no set-up.
    #[command(after_help = "Examples:\n  \
        ringway demo\n  \
        ringway demo --seconds 5\n  \
        ringway demo --json")]
    Demo(DemoArgs),
}

/// Where the control socket is.
#[derive(Clone, Debug, Args)]
pub struct ControlArgs {
    /// Control socket of the switch [default: $RINGWAY_CONTROL, else ringway.sock in
    /// $XDG_RUNTIME_DIR, for root in /run; where no switch is there, that of the service,
    /// /run/ringway-switch/control.sock].
    #[arg(long, value_name = "PATH", global = true)]
    pub control: Option<PathBuf>,
}

/// Arguments of `ringway switch`.
#[derive(Clone, Debug, Args)]
pub struct SwitchArgs {
    /// Configuration file (TOML); what the command line says is added to it or overrides it.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// A port, or a vDPA device: its name and its device. May be given many times.
    #[arg(short, long, value_name = "NAME=DEVICE", value_parser = parse_port)]
    pub port: Vec<Named>,

    /// Cores for the workers, one worker on each, as in 1-3,5 [default: one worker, on any core].
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,

    /// Number of workers where no cores are given [default: 1].
    #[arg(long, value_name = "N", conflicts_with = "cores", value_parser = number::<usize>(..))]
    pub workers: Option<usize>,

    /// Never sleep: the last microsecond of latency, for whole cores of electricity.
    #[arg(long)]
    pub busy_poll: bool,

    /// Seconds after which an address that was not heard of is forgotten; 0 for never [default: 300].
    #[arg(long, value_name = "SECS", value_parser = number(0_u64..))]
    pub ageing: Option<u64>,

    /// Largest number of addresses that are learned [default: 65536].
    #[arg(long, value_name = "N", value_parser = number::<usize>(..))]
    pub fdb_size: Option<usize>,

    /// Who may connect to the sockets of ports and vDPA devices.
    #[command(flatten)]
    pub sockets: SocketArgs,

    /// What the switch gives up.
    #[command(flatten)]
    pub sandbox: SandboxArgs,

    /// Check arguments and configuration, open nothing, and end: with exit status 2 if they are wrong.
    #[arg(long)]
    pub check: bool,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,

    /// Group whose processes may connect to the control socket, and so do everything.
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub control_group: Option<u32>,

    /// Permissions of the control socket [default: 0600, with a group 0660].
    #[arg(long, value_name = "OCTAL", value_parser = parse_mode)]
    pub control_mode: Option<u32>,

    /// Where its figures are read.
    #[command(flatten)]
    pub metrics: MetricsArgs,

    /// For tests: have 'ringway time' stop the clock and put it forward, by which addresses age and
    /// all that has failed is tried again.
    #[arg(long)]
    pub control_time: bool,
}

/// What a switch gives up once it knows its ports; docs/security.md tells more.
#[derive(Clone, Debug, Default, Args)]
pub struct SandboxArgs {
    /// Whether to give up the privileges, files and system calls that no port needs [default: on].
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub sandbox: Option<bool>,

    /// A kind of port, as tap, that may be added to the running switch although there is none at the
    /// start. May be given many times.
    #[arg(long, value_name = "KIND")]
    pub allow_port: Vec<String>,

    /// A folder for the sockets and files of ports that are added later, beside those of the ports
    /// that there are and of the control socket. May be given many times.
    #[arg(long, value_name = "DIR")]
    pub allow_path: Vec<PathBuf>,
}

/// What other commands give up, whose ports are all there from the start.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ConfineArgs {
    /// Whether to give up the privileges, files and system calls that no device needs [default: on].
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub sandbox: Option<bool>,
}

pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}

/// Who may connect to the sockets that VMMs use.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct SocketArgs {
    /// Group whose processes may connect to the VMMs' sockets, as kvm; group= of a device overrides it.
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub socket_group: Option<u32>,

    /// Permissions of the VMMs' sockets, unless a device has mode= [default: 0660 with a group, else
    /// as umask says].
    #[arg(long, value_name = "OCTAL", value_parser = parse_mode)]
    pub socket_mode: Option<u32>,
}

impl SocketArgs {
    /// The same in one.
    pub const fn access(&self) -> Access {
        Access { group: self.socket_group, mode: self.socket_mode }
    }
}

/// Arguments of `ringway show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// What to show.
    #[arg(value_enum)]
    pub what: What,

    /// One port alone: in ports with all there is to tell of it, or in stats. In fdb a bridge.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Print JSON; its fields are described in docs/control-protocol.md.
    #[arg(long)]
    pub json: bool,

    /// Show it again every SECS seconds, until Ctrl-C.
    #[arg(long, short, value_name = "SECS", num_args = 0..=1, default_missing_value = "1",
          value_parser = parse_interval)]
    pub watch: Option<std::time::Duration>,

    /// In stats, one row per queue instead of one per port.
    #[arg(long)]
    pub queues: bool,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway show` can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Ports with their devices, links and addresses.
    Ports,
    /// Bridges with their settings and ports.
    Bridges,
    /// Bonds with their members.
    Bonds,
    /// Mirrors with what they have copied.
    Mirrors,
    /// What ports know of their neighbours by LLDP.
    Neighbours,
    /// Spanning tree: bridges that take part, their ports' roles and states.
    Rstp,
    /// Groups of IGMP and MLD, with the ports that have members and routers.
    Groups,
    /// The forwarding databases: which address is behind which port.
    Fdb,
    /// Counters and rates, per port or queue, with drops by reason.
    Stats,
    /// Workers, their cores, load and queues.
    Workers,
    /// vDPA devices with their sockets, states and counters.
    Vdpa,
}

/// Arguments of `ringway devices`.
#[derive(Clone, Debug, Args)]
pub struct DevicesArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: DevicesAction,
}

/// What `ringway devices` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum DevicesAction {
    /// List network devices: their drivers, interfaces, IOMMU groups, and what Ringway uses them as.
    #[command(after_help = "Examples:\n  \
        ringway devices list\n  \
        ringway devices list --json | jq -r '.devices[] | select(.ringway) | .address'")]
    List {
        /// List all PCI devices, not only network devices.
        #[arg(long)]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one device: identity, capabilities, registers.
    ///
    /// Of a device that is bound to vfio-pci or uio_pci_generic, it is opened for that, as a port
    /// would be, and reset afterwards.
    Show {
        /// Its PCI address.
        address: PciAddress,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take devices from the host's drivers, so that Ringway can use them.
    ///
    /// vfio-pci needs an IOMMU and keeps the device from any memory but Ringway's packets.
    /// uio_pci_generic needs none, but root and huge pages. What the device had before is
    /// remembered for 'ringway devices restore' until the machine starts again.
    #[command(after_help = "Examples:\n  \
        ringway devices bind 0000:01:00.0\n  \
        ringway devices bind 0000:01:00.0 0000:01:00.1 --force\n  \
        ringway devices bind 01:00.0 --driver uio_pci_generic")]
    Bind {
        /// PCI addresses.
        #[arg(required = true)]
        addresses: Vec<PciAddress>,
        /// Kernel driver to bind them to: vfio-pci, uio_pci_generic or one of the host's.
        #[arg(long, value_name = "NAME", default_value = eal::pci::spaces::VFIO_PCI)]
        driver: String,
        /// Also when the host uses the network interface, or it is no network device.
        #[arg(long)]
        force: bool,
    },
    /// Take devices from their drivers and leave them without one.
    Unbind {
        /// PCI addresses.
        #[arg(required = true)]
        addresses: Vec<PciAddress>,
        /// Also when the host uses the network interface, or it is no network device.
        #[arg(long)]
        force: bool,
    },
    /// Give devices back to the drivers that they had before 'bind' or 'unbind'.
    #[command(after_help = "Examples:\n  \
        ringway devices restore 0000:01:00.0\n  \
        ringway devices restore --all")]
    Restore {
        /// PCI addresses.
        #[arg(required_unless_present = "all")]
        addresses: Vec<PciAddress>,
        /// All devices that were taken.
        #[arg(long, conflicts_with = "addresses")]
        all: bool,
    },
}

/// Arguments of `ringway demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Seconds to run.
    #[arg(short, long, value_name = "N", default_value = "9",
          value_parser = number(1..=86_400_u64))]
    pub seconds: u64,

    /// Print JSON instead of a table: one object per row, and the summary as the last.
    #[arg(long)]
    pub json: bool,

    /// What it gives up.
    #[command(flatten)]
    pub confine: ConfineArgs,
}

fn parse_port(text: &str) -> Result<Named, String> {
    let (name, device) = text
        .split_once('=')
        .filter(|(name, _)| !name.contains([':', '/']))
        .ok_or("expected NAME=DEVICE, as in vm1=vhost-user:/run/vm1.sock")?;
    daemon::check::check_name(name).map_err(|error| error.to_string())?;
    Ok(Named { name: name.to_owned(), device: device.to_owned() })
}

/// A parser of values.
type Parse<T> = dyn Fn(&str) -> Result<T, String> + Send + Sync;

/// A parser as clap takes it. Of what clap does with values there is a copy for each type of these: so there
/// is one for each type of values, and not one for each way to read them.
fn parser<T: 'static>(
    parse: Arc<Parse<T>>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| parse(text)
}

/// A parser of numbers within `bounds`, which says what it expected: clap's own does so only for
/// numbers outside of them.
pub fn number<T>(
    bounds: impl RangeBounds<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Display + Copy + Send + Sync + 'static,
{
    let (least, most) = (bounds.start_bound().cloned(), bounds.end_bound().cloned());
    parser(Arc::new(move |text| parse_number(text, least, most)))
}

fn parse_number<T>(text: &str, least: Bound<T>, most: Bound<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let number =
        text.parse().ok().filter(|number| (least.as_ref(), most.as_ref()).contains(number));
    number.ok_or_else(|| match (least, most) {
        (Bound::Included(least), Bound::Included(most)) => {
            format!("expected a whole number from {least} to {most}")
        }
        (Bound::Included(least), _) => format!("expected a whole number, {least} or more"),
        _ => "expected a whole number".to_owned(),
    })
}

fn parse_interval(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if !(0.1..=31_536_000.0).contains(&seconds) {
        return Err("expected 0.1 seconds to a year".to_owned());
    }
    Ok(std::time::Duration::from_secs_f64(seconds))
}

fn switch_help() -> String {
    format!(
        "\
Devices:
{}
  patch:PORT
    a way to another bridge, whose port PORT has the device patch: with this port's name
  {}
    a vDPA device, which is no port: its guest's frames go past the switch. DEVICE is one of
{}
Examples:
  Two virtual machines:
    ringway switch --port vm1=vhost-user:/run/vm1.sock --port vm2=vhost-user:/run/vm2.sock

  One of them, in QEMU (share=on is what makes it work):
    qemu-system-x86_64 -accel kvm -m 1G \\
      -object memory-backend-memfd,id=mem,size=1G,share=on -numa node,memdev=mem \\
      -chardev socket,id=chr0,path=/run/vm1.sock,reconnect-ms=50 \\
      -netdev vhost-user,id=net0,chardev=chr0 \\
      -device virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01 disk.img

  With a configuration file, two workers on cores of their own:
    ringway switch --config switch.toml --cores 2,3

Configuration file:
  control = \"/run/ringway.sock\"
  cores = \"2-3\"
  busy-poll = false
  [sockets]
  group = \"kvm\"
  [fdb]
  ageing = 300
  size = 65536
  [ports.vm1]
  device = \"vhost-user:/run/vm1.sock,queues=2\"

Exit status: 0 after Ctrl-C or SIGTERM, 1 when something failed, 2 for wrong arguments or
configuration.",
        devices_help(),
        daemon::vdpa::SYNTAX,
        vdpa::args::devices(),
    )
}

/// The devices that can be opened, one line each.
fn devices_help() -> String {
    let mut text = String::new();
    for driver in drivers::list() {
        for line in driver.to_string().lines() {
            text.push_str("  ");
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_no_number_is_told_what_is() {
        let message = |line: &str| {
            let words = line.split(' ');
            Cli::try_parse_from(words).unwrap_err().to_string()
        };
        for (line, expected) in [
            (
                "ringway switch --ageing soon",
                "'soon' for '--ageing <SECS>': expected a whole number",
            ),
            ("ringway switch --fdb-size 1.5", "expected a whole number"),
            ("ringway gen txonly -p null: -n 0", "a whole number, 1 or more"),
            ("ringway gen txonly -p null: -f 1048577", "a whole number from 1 to 1048576"),
            ("ringway l2fwd -p null: --burst many", "a whole number from 1 to 32"),
            ("ringway switch --sandbox maybe", "expected on or off"),
            ("ringway switch --socket-group nobody-has-it", "there is no such group"),
            ("ringway vdpa --iface x --socket-mode 1777", "octal permissions"),
            ("ringway demo -s 99999999999999999999999", "a whole number from 1 to 86400"),
        ] {
            let text = message(line);
            assert!(text.contains(expected), "{line}: {text}");
        }
    }

    #[test]
    fn ports_are_name_and_device() {
        let port = parse_port("vm1=vhost-user:/run/a=b.sock,queues=2").unwrap();
        assert_eq!(
            (port.name.as_str(), port.device.as_str()),
            ("vm1", "vhost-user:/run/a=b.sock,queues=2")
        );
        assert!(parse_port("vhost-user:/run/vm1.sock,queues=2").is_err());
        assert!(parse_port("vm1").is_err());
        assert!(parse_port("v m=null:").is_err());
    }
}
