//! A TAP interface of the host kernel as a port: what the host sends through the interface is
//! received here, and what is sent here arrives at the host.
//!
//! Each queue is a file descriptor, and each frame costs a system call (0.5 to 1 µs), so this is
//! a port for management, for an uplink that is not the bottleneck, and for tests.

mod control;
mod queue;
mod sys;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use ethdev::{DeviceSpec, Error, QueueStats, RxQueue, TxQueue};
use packet::{Capabilities, MacAddr};

use self::control::TapControl;
use self::queue::{State, TapRx, TapTx};
use crate::interfaces::{Interfaces, name_problem};
use crate::open::{DriverInfo, OpenPort, OptionInfo};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "tap",
    syntax: "tap:NAME[,queues=1][,mtu=N][,mac=MAC][,up=on][,offloads=on]",
    summary: "a TAP interface of the host, made if it does not exist (CAP_NET_ADMIN)",
    options: &[
        OptionInfo { name: "queues", value: "N", help: "queue pairs, 1 to 64 (default 1)" },
        OptionInfo {
            name: "mtu",
            value: "BYTES",
            help: "the interface's MTU, 68 to 65521 (default: as it is)",
        },
        OptionInfo {
            name: "mac",
            value: "MAC",
            help: "the interface's own address (default: as it is, or random)",
        },
        OptionInfo { name: "up", value: "on|off", help: "switch the interface on (default on)" },
        OptionInfo {
            name: "offloads",
            value: "on|off",
            help: "exchange large segments and begun checksums with the host (default on)",
        },
    ],
};

/// Largest number of queues; the kernel would take 256.
const MAX_QUEUES: usize = 64;

/// Smallest MTU that the kernel takes (`ETH_MIN_MTU`).
const MIN_MTU: u16 = 68;

/// Largest MTU of a TAP interface: 65,535 bytes with the Ethernet header.
const MAX_MTU: u16 = 65_521;

/// The character device that TAP interfaces are made with.
const DEVICE: &str = "/dev/net/tun";

/// Options of a TAP port, parsed.
struct Config {
    interface: String,
    queues: usize,
    mtu: Option<u16>,
    mac: Option<MacAddr>,
    /// Whether to switch it on; `None` when not asked for, so that failing is no error.
    up: Option<bool>,
    offloads: bool,
}

impl Config {
    fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let interface = spec.require_target("the name of an interface")?.to_owned();
        if let Some(problem) = name_problem(&interface) {
            return Err(spec.error(problem));
        }
        let config = Self {
            queues: spec.take_number("queues", 1, &(1..=MAX_QUEUES))?,
            mtu: spec.take_optional_number("mtu", &(MIN_MTU..=MAX_MTU))?,
            mac: spec.take_optional("mac", "an address such as 52:54:00:12:34:56")?,
            up: spec.take_optional_switch("up")?,
            offloads: spec.take_switch("offloads", true)?,
            interface,
        };
        spec.finish(&INFO.option_names())?;
        Ok(config)
    }
}

/// Opens a TAP port.
///
/// # Errors
/// Options that make no sense; an interface that cannot be made, is in use, or is no TAP
/// interface; settings that the kernel refuses.
pub fn open(name: &str, spec: DeviceSpec) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let config = Config::parse(spec)?;
    let what = format!("TAP interface '{}'", config.interface);
    let error = |reason: String| Error::Device { what: what.clone(), reason };
    let interfaces = Interfaces::new().map_err(|cause| error(format!("no socket: {cause}")))?;
    let (fds, offloads) = attach_all(&config, &interfaces).map_err(error)?;

    let state = Arc::new(State::default());
    let mut rx = Vec::new();
    let mut tx = Vec::new();
    for fd in &fds {
        let driver = TapRx::new(Arc::clone(fd), Arc::clone(&state), offloads)
            .map_err(|cause| error(format!("no epoll descriptor: {cause}")))?;
        rx.push(RxQueue::new(Box::new(driver), Arc::new(QueueStats::default())));
        let driver = TapTx::new(Arc::clone(fd), Arc::clone(&state), offloads);
        tx.push(TxQueue::new(Box::new(driver), Arc::new(QueueStats::default())));
    }
    let mut control = TapControl::new(interfaces, fds, state, offloads).map_err(error)?;
    control.configure(config.mtu, config.mac, config.up)?;
    Ok(OpenPort::new(name, &device, Box::new(control), rx, tx))
}

/// Opens all queues of the interface, and returns what they and the kernel leave to each other;
/// the error is the reason.
fn attach_all(
    config: &Config,
    interfaces: &Interfaces,
) -> Result<(Vec<Arc<OwnedFd>>, Capabilities), String> {
    let name = &config.interface;
    let existed = interfaces.exists(name);
    let had_carrier = existed && interfaces.has_carrier(name).unwrap_or(false);
    let (mut fds, mut offloads) = (Vec::new(), Capabilities::empty());
    for queue in 0..config.queues {
        let file = open_device()?;
        attach(&file, config, existed, queue)?;
        if queue == 0 {
            refuse_if_in_use(&file, name, existed, had_carrier)?;
            offloads = sys::set_offloads(file.as_fd(), config.offloads)
                .map_err(|cause| format!("cannot set its offloads: {cause}; try offloads=off"))?;
        }
        fds.push(Arc::new(OwnedFd::from(file)));
    }
    Ok((fds, offloads))
}

fn open_device() -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    options.open(DEVICE).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => {
            format!("{DEVICE} does not exist; load the kernel's 'tun' module (modprobe tun)")
        }
        io::ErrorKind::PermissionDenied => {
            format!("no permission to open {DEVICE}; give this user read and write access to it")
        }
        _ => format!("cannot open {DEVICE}: {cause}"),
    })
}

fn attach(file: &File, config: &Config, existed: bool, queue: usize) -> Result<(), String> {
    let name = &config.interface;
    let mut result = sys::attach(file.as_fd(), name, true, config.offloads);
    let invalid = |result: &io::Result<()>| {
        result.as_ref().is_err_and(|cause| cause.raw_os_error() == Some(libc::EINVAL))
    };
    if invalid(&result) && config.queues == 1 {
        // It may have been made for a single queue.
        result = sys::attach(file.as_fd(), name, false, config.offloads);
    }
    let Err(cause) = result else { return Ok(()) };
    let create = format!("ip tuntap add dev {name} mode tap multi_queue user USER");
    Err(match cause.raw_os_error() {
        Some(libc::EPERM) if existed => format!(
            "it belongs to another user; run with CAP_NET_ADMIN, or make it anew for this user: \
             {create}"
        ),
        Some(libc::EPERM) => format!(
            "making it needs CAP_NET_ADMIN; run as root, or let root make it once for this user: \
             {create}"
        ),
        Some(libc::EBUSY) => "it is in use by another process".to_owned(),
        Some(libc::EINVAL) if existed && config.queues > 1 => format!(
            "it exists and is no TAP interface with several queues; delete it, or make it with: \
             {create}"
        ),
        Some(libc::EINVAL) if existed => {
            "an interface of this name exists and is no TAP interface; choose another name"
                .to_owned()
        }
        _ => format!("cannot open queue {queue}: {cause}"),
    })
}

/// Several processes may open one interface with several queues, and then each gets some of
/// the frames, which nobody wants: refuses that. An interface that existed before us is in use
/// if it does not outlive its last user (so it has one), or if it has a carrier.
fn refuse_if_in_use(
    file: &File,
    name: &str,
    existed: bool,
    had_carrier: bool,
) -> Result<(), String> {
    let (_, persistent) = sys::attached_to(file.as_fd())
        .map_err(|cause| format!("cannot ask the kernel about {name}: {cause}"))?;
    if existed && (!persistent || had_carrier) {
        return Err("it is in use by another process; choose another name".to_owned());
    }
    Ok(())
}
