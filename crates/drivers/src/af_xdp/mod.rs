//! An interface of the host as a port, by AF_XDP sockets: the fast way to a NIC that stays with
//! the kernel.
//!
//! A small program in the interface's driver hands received frames to our sockets, one per
//! queue, past the kernel's network stack. They are used where they were put; frames to send are
//! copied once. With a driver that can do zero-copy, the kernel copies nothing either.
//!
//! - `program`: the instructions that redirect frames
//! - `bpf`: loads them and puts them on the interface
//! - `socket`: opens sockets
//! - `umem`: the memory of frames
//! - `ring`: the rings shared with the kernel
//! - `receive`, `transmit`: the queues
//! - `begun`: checksums that a virtual interface's sender has only begun

mod begun;
mod bpf;
#[cfg(test)]
mod hostile_tests;
mod program;
mod receive;
mod ring;
mod socket;
#[cfg(test)]
mod tests;
mod transmit;
mod umem;

use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::sync::Arc;

use ethdev::{DeviceSpec, Error, PortInfo, QueueStats, RxQueue, TxQueue};
use packet::MacAddr;
use rustix::net::sockopt::xdp_statistics;

use self::bpf::Hook;
use self::receive::XdpRx;
use self::socket::{BINDING, Failure, OPENING, Plan, REGISTERING, Socket, Transfer, patiently};
use self::transmit::XdpTx;
use self::umem::{CHUNK, HEADROOM};
use crate::interfaces::name_problem;
use crate::kernel::control::{Device, KernelControl, Settings};
use crate::kernel::interface::{Interface, TagsKept, socket_refused};
use crate::kernel::link::LINK_HEADERS;
use crate::open::{DriverInfo, OpenPort, OptionInfo};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "af-xdp",
    syntax: "af-xdp:IFACE[,queues=N][,mode=auto][,busy_poll=off][,queue_size=1024]..",
    summary: "an interface of the host, fast, by AF_XDP (CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW)",
    options: &[
        OptionInfo {
            name: "queues",
            value: "N",
            help: "queue pairs, from queue 0 on, 1 to 64 (default: all of the interface)",
        },
        OptionInfo {
            name: "mode",
            value: "MODE",
            help: "auto, zero-copy, copy or generic (default auto: the best that works)",
        },
        OptionInfo {
            name: "busy_poll",
            value: "on|off",
            help: "have the worker drive the interface instead of its interrupts (default off)",
        },
        OptionInfo {
            name: "queue_size",
            value: "N",
            help: "frames per queue and direction, a power of two from 64 to 32768 (default 1024)",
        },
        OptionInfo {
            name: "checksums",
            value: "KIND",
            help: "of frames received: complete, maybe begun, or auto (begun on virtual ones)",
        },
        OptionInfo {
            name: "promiscuous",
            value: "on|off",
            help: "receive frames for all stations (default on)",
        },
        OptionInfo {
            name: "mtu",
            value: "BYTES",
            help: "the interface's MTU while the port is open (default: as it is)",
        },
        OptionInfo {
            name: "mac",
            value: "MAC",
            help: "the interface's address while the port is open (default: as it is)",
        },
    ],
};

/// Largest number of queues.
const MAX_QUEUES: u32 = 64;

/// Smallest MTU that the kernel takes (`ETH_MIN_MTU`).
const MIN_MTU: u16 = 68;

/// Largest MTU with frames of one piece: what a chunk has room for.
#[allow(clippy::cast_possible_truncation, reason = "a constant that fits")]
const MAX_MTU_ONE_PIECE: u16 = (CHUNK - HEADROOM - LINK_HEADERS) as u16;

/// Largest MTU with frames of several pieces.
#[allow(clippy::cast_possible_truncation, reason = "a constant that fits")]
const MAX_MTU: u16 = u16::MAX - LINK_HEADERS as u16;

/// Option `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Native with or without copy, or generic.
    Auto,
    ZeroCopy,
    /// Native with copy.
    Copy,
    Generic,
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "zero-copy" => Ok(Self::ZeroCopy),
            "copy" => Ok(Self::Copy),
            "generic" => Ok(Self::Generic),
            _ => Err(()),
        }
    }
}

impl Mode {
    const fn transfer(self, hook: Hook) -> Transfer {
        match (self, hook) {
            (Self::ZeroCopy, _) => Transfer::ZeroCopy,
            (Self::Auto, Hook::Native) => Transfer::Any,
            _ => Transfer::Copy,
        }
    }
}

/// Option `checksums`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksums {
    Auto,
    Complete,
    Begun,
}

impl FromStr for Checksums {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "auto" => Ok(Self::Auto),
            "complete" => Ok(Self::Complete),
            "begun" => Ok(Self::Begun),
            _ => Err(()),
        }
    }
}

/// Options of a port, parsed.
struct Config {
    interface: String,
    /// All that the interface has, unless given.
    queues: Option<u32>,
    mode: Mode,
    busy_poll: bool,
    queue_size: u32,
    checksums: Checksums,
    settings: Settings,
}

impl Config {
    fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let interface = spec.require_target("the name of an interface")?.to_owned();
        if let Some(problem) = name_problem(&interface) {
            return Err(spec.error(problem));
        }
        let sizes = 64..=32_768;
        let config = Self {
            queues: spec.take_optional_number("queues", &(1..=MAX_QUEUES))?,
            mode: spec.take_parsed("mode", Mode::Auto, "auto, zero-copy, copy or generic")?,
            busy_poll: spec.take_switch("busy_poll", false)?,
            queue_size: spec.take_number("queue_size", 1024, &sizes)?,
            checksums: spec.take_parsed("checksums", Checksums::Auto, "auto, complete or begun")?,
            settings: Settings {
                mtu: spec.take_optional_number("mtu", &(MIN_MTU..=MAX_MTU))?,
                mac: spec
                    .take_optional::<MacAddr>("mac", "an address such as 52:54:00:12:34:56")?,
                promiscuous: spec.take_switch("promiscuous", true)?,
            },
            interface,
        };
        if !config.queue_size.is_power_of_two() {
            let size = config.queue_size;
            return Err(spec.error(format!("queue_size={size}: expected a power of two")));
        }
        spec.finish(&INFO.option_names())?;
        Ok(config)
    }
}

/// Opens an AF_XDP port.
///
/// # Errors
/// Options that make no sense; an interface that does not exist, has fewer queues, or has an XDP
/// program already; rights or kernel features that are missing.
pub fn open(name: &str, spec: DeviceSpec) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let config = Config::parse(spec)?;
    let what = format!("AF_XDP port on interface '{}'", config.interface);
    let error = |reason: String| Error::Device { what: what.clone(), reason };
    let interface = Interface::find(&config.interface).map_err(error)?;
    let was_off = interface.switch_on().map_err(error)?;
    let opened = open_on(&interface, &config).map_err(|reason| {
        if was_off {
            let _ = interface.asker.set_down(&interface.name);
        }
        error(reason)
    })?;

    let state = Arc::new(interface.state("AF_XDP"));
    let Opened { attached, sockets, begun } = opened;
    let tags_kept = TagsKept::new(&interface);
    let control = AfXdp { tags_kept, ..AfXdp::new(attached, &sockets, begun, config.busy_poll) };
    let info = control.info();
    let (mut rx, mut tx) = (Vec::new(), Vec::new());
    for socket in sockets {
        let options = receive::Options { begun, busy_poll: config.busy_poll };
        let Socket { fd, umem, .. } = socket;
        let rings = (socket.rx, socket.fill);
        let driver =
            XdpRx::new(Arc::clone(&fd), Arc::clone(&umem), Arc::clone(&state), rings, options)
                .map_err(|cause| error(format!("no epoll descriptor: {cause}")))?;
        rx.push(RxQueue::new(Box::new(driver), Arc::new(QueueStats::default())));
        let rings = (socket.tx, socket.completion);
        let driver = XdpTx::new(fd, umem, Arc::clone(&state), rings, socket.multi_buffer);
        tx.push(TxQueue::new(Box::new(driver), Arc::new(QueueStats::default())));
    }
    let mut control = KernelControl::new(info, &what, interface, was_off, state, Box::new(control))
        .map_err(error)?;
    control.configure(&config.settings)?;
    Ok(OpenPort::new(name, &device, Box::new(control), rx, tx))
}

/// The program on an interface, for as long as this is open.
#[derive(Debug)]
struct Attached {
    /// Never read, but detached when closed.
    _link: OwnedFd,
    map: OwnedFd,
    hook: Hook,
}

/// A program with a socket for each queue.
struct Opened {
    attached: Attached,
    sockets: Vec<Socket>,
    begun: bool,
}

/// Puts the program on the interface and opens the sockets; the error is the reason.
fn open_on(interface: &Interface, config: &Config) -> Result<Opened, String> {
    let known = interface.asker.queues(&interface.name);
    let queues = count_queues(config, known)?;
    let driver = interface.asker.driver(&interface.name);
    let attached = attach(interface, config.mode, known.unwrap_or(queues).max(queues))?;
    let hook = attached.hook;
    let mut sockets = Vec::new();
    for queue in 0..queues {
        let plan = Plan {
            ifindex: interface.index,
            queue,
            size: config.queue_size,
            transfer: config.mode.transfer(hook),
            busy_poll: config.busy_poll,
        };
        let socket = Socket::open(&plan).map_err(|failure| explain(&failure, &plan))?;
        bpf::set_socket(attached.map.as_fd(), queue, socket.fd.as_fd())
            .map_err(|cause| format!("cannot redirect frames to queue {queue}: {cause}"))?;
        sockets.push(socket);
    }
    if let Some(known) = known.filter(|known| *known > queues) {
        let name = &interface.name;
        tracing::warn!(
            "interface '{name}' has {known} queues, of which an AF_XDP port uses {queues}: frames \
             that arrive on the others go to the kernel; open it with queues={known}, or run as \
             root: ethtool -L {name} combined {queues}"
        );
    }
    let begun = match config.checksums {
        Checksums::Auto => hook == Hook::Generic || driver.is_none_or(|driver| driver.is_virtual),
        Checksums::Begun => true,
        Checksums::Complete => false,
    };
    Ok(Opened { attached, sockets, begun })
}

fn count_queues(config: &Config, known: Option<u32>) -> Result<u32, String> {
    match (config.queues, known) {
        (Some(wanted), Some(known)) if wanted > known => {
            let plural = if known == 1 { "" } else { "s" };
            let name = &config.interface;
            Err(format!(
                "it has {known} queue{plural}, not {wanted}; use queues={known}, or run as root: \
                 ethtool -L {name} combined {wanted}"
            ))
        }
        (Some(wanted), _) => Ok(wanted),
        (None, known) => Ok(known.unwrap_or(1).min(MAX_QUEUES)),
    }
}

/// Puts the program on the interface, natively where that works, if the mode leaves it open.
fn attach(interface: &Interface, mode: Mode, queues: u32) -> Result<Attached, String> {
    let map = bpf::socket_map(queues).map_err(|cause| match cause.raw_os_error() {
        Some(libc::EPERM) => "no permission to load an XDP program; run as root, or with \
                              CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW"
            .to_owned(),
        _ => format!("cannot make a map of sockets: {cause}"),
    })?;
    let program = bpf::load(map.as_fd()).map_err(|cause| match cause.raw_os_error() {
        Some(libc::EPERM) => "no permission to load an XDP program; run as root, or with \
                              CAP_BPF and CAP_NET_ADMIN"
            .to_owned(),
        _ => format!("cannot load the XDP program: {cause}"),
    })?;
    let put = |hook| {
        // A process that was killed may not be all gone yet.
        let attempt = || {
            bpf::attach(program.as_fd(), interface.index, hook)
                .map_err(|cause| cause.raw_os_error().unwrap_or(libc::EIO))
        };
        patiently(&libc::EBUSY, attempt)
    };
    let (link, hook) = match (mode, put(first_hook(mode))) {
        (_, Ok(link)) => (link, first_hook(mode)),
        (Mode::Auto, Err(cause)) if !is_occupied(cause) => {
            let (name, why) = (&interface.name, errno_text(cause));
            tracing::warn!(
                "the driver of interface '{name}' takes no XDP program ({why}); an AF_XDP port \
                 uses the slower generic mode"
            );
            let link = put(Hook::Generic).map_err(|cause| refused(interface, cause))?;
            (link, Hook::Generic)
        }
        (_, Err(cause)) => return Err(refused(interface, cause)),
    };
    Ok(Attached { _link: link, map, hook })
}

const fn first_hook(mode: Mode) -> Hook {
    match mode {
        Mode::Generic => Hook::Generic,
        _ => Hook::Native,
    }
}

/// Whether an error says that there is another program.
const fn is_occupied(errno: i32) -> bool {
    matches!(errno, libc::EBUSY | libc::EEXIST)
}

fn errno_text(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}

/// Why the program cannot be put on the interface.
fn refused(interface: &Interface, errno: i32) -> String {
    let name = &interface.name;
    let cause = errno_text(errno);
    match errno {
        libc::EBUSY | libc::EEXIST => format!(
            "it has an XDP program already: end the process that uses it, or run as root: \
             ip link set dev {name} xdp off (ip link show dev {name} shows the program)"
        ),
        libc::EPERM => format!("no permission to put an XDP program on it; {RIGHTS}"),
        libc::ERANGE | libc::EINVAL => format!(
            "it takes no XDP program as it is set up: {cause}; a smaller MTU may help, as may \
             mode=generic"
        ),
        _ => format!("it takes no XDP program: {cause}; try mode=generic"),
    }
}

const RIGHTS: &str = "run as root, or with CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW";

/// Why a socket cannot be opened.
fn explain(failure: &Failure, plan: &Plan) -> String {
    let Failure { step, cause } = failure;
    let (queue, size) = (plan.queue, plan.size);
    match (*step, cause.raw_os_error()) {
        (OPENING, _) => socket_refused(cause, "AF_XDP", "CAP_NET_RAW"),
        (REGISTERING, Some(libc::ENOBUFS | libc::ENOMEM)) => {
            let kib = 2 * u64::from(size) * CHUNK as u64 / 1024;
            format!(
                "queue {queue} needs {kib} KiB of locked memory, which is more than this \
                 process may have; raise the limit (ulimit -l), or use a smaller queue_size"
            )
        }
        (BINDING, Some(libc::EBUSY)) => {
            format!("queue {queue} is in use by another AF_XDP socket; end its process")
        }
        (BINDING, Some(libc::EINVAL)) => {
            format!("the interface has no queue {queue}; use queues={queue}, or fewer")
        }
        (BINDING, Some(libc::EOPNOTSUPP)) if plan.transfer == Transfer::ZeroCopy => {
            "its driver cannot do zero-copy; use mode=copy or mode=auto".to_owned()
        }
        _ => format!("cannot {step} of queue {queue}: {cause}"),
    }
}

/// The control side's own part.
#[derive(Debug)]
struct AfXdp {
    attached: Attached,
    sockets: Vec<Arc<OwnedFd>>,
    zero_copy: bool,
    multi_buffer: bool,
    begun: bool,
    busy_poll: bool,
    /// What is undone when the port is closed.
    tags_kept: Option<TagsKept>,
}

impl AfXdp {
    fn new(attached: Attached, sockets: &[Socket], begun: bool, busy_poll: bool) -> Self {
        Self {
            attached,
            sockets: sockets.iter().map(|socket| Arc::clone(&socket.fd)).collect(),
            zero_copy: sockets.iter().all(|socket| socket.zero_copy),
            multi_buffer: sockets.iter().all(|socket| socket.multi_buffer),
            begun,
            busy_poll,
            tags_kept: None,
        }
    }

    fn info(&self) -> PortInfo {
        let queues = self.sockets.len();
        let max_mtu = if self.multi_buffer { MAX_MTU } else { MAX_MTU_ONE_PIECE };
        PortInfo { driver: INFO.name, rx_queues: queues, tx_queues: queues, max_mtu }
    }
}

impl Device for AfXdp {
    /// What the kernel counts per socket (`XDP_STATISTICS`).
    fn extended_stats(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for (queue, socket) in self.sockets.iter().enumerate() {
            let Ok(counts) = xdp_statistics(socket) else { continue };
            let rx = [
                ("dropped", Some(counts.rx_dropped)),
                ("invalid_descriptors", Some(counts.rx_invalid_descs)),
                ("ring_full", counts.rx_ring_full),
                ("fill_ring_empty", counts.rx_fill_ring_empty_descs),
            ];
            let tx = [
                ("invalid_descriptors", Some(counts.tx_invalid_descs)),
                ("ring_empty", counts.tx_ring_empty_descs),
            ];
            let name = |side: &str, name: &str| format!("{side}_q{queue}_xdp_{name}");
            all.extend(rx.iter().filter_map(|(of, count)| Some((name("rx", of), (*count)?))));
            all.extend(tx.iter().filter_map(|(of, count)| Some((name("tx", of), (*count)?))));
        }
        all
    }

    fn details(&self) -> Vec<(String, String)> {
        let transfer = if self.zero_copy { "zero-copy" } else { "copy" };
        let checksums = if self.begun { "maybe begun" } else { "complete" };
        let onoff = |on| if on { "on" } else { "off" };
        [
            ("mode", format!("{}, {transfer}", self.attached.hook.name())),
            ("multi_buffer", onoff(self.multi_buffer).to_owned()),
            ("busy_poll", onoff(self.busy_poll).to_owned()),
            ("checksums", checksums.to_owned()),
            (
                "vlan_stripping",
                if self.tags_kept.is_some() { "off for now" } else { "untouched" }.to_owned(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}
