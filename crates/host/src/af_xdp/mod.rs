//! An interface of the host as a port, by AF_XDP sockets: the fast way to a NIC that stays with
//! the kernel.
//!
//! A small program in the interface's driver hands received frames to our sockets, one per
//! queue, past the kernel's network stack. They are used where they were put; frames to send are
//! copied once. With a driver that can do zero-copy, the kernel copies nothing either.
//!
//! - `program`: the instructions that redirect frames
//! - `bpf`: the system call that loads them and puts them on an interface
//! - `attach`: the program on the port's interface
//! - `options`: what a device string says
//! - `device`: counters and facts of the port
//! - `socket`: opens sockets
//! - `umem`: the memory of frames
//! - `ring`: the rings shared with the kernel
//! - `receive`, `transmit`: the queues
//! - `begun`: checksums that a virtual interface's sender has only begun

mod attach;
mod begun;
mod bpf;
mod device;
#[cfg(test)]
mod hostile_tests;
pub(crate) mod options;
mod program;
mod receive;
mod rest;
mod ring;
mod socket;
#[cfg(test)]
mod tests;
mod transmit;
mod umem;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use eal::Epoll;
use eal::sandbox::{Calls, CapabilitySet, Needs, Reach};
use eal::time::Time;
use ethdev::{DeviceSpec, DriverInfo, Error, OpenPort, OptionInfo};

use self::attach::attach;
use self::bpf::Hook;
use self::device::Port;
use self::options::{Checksums, Config, MAX_QUEUES};
use self::receive::XdpRx;
use self::rest::Rest;
use self::socket::{PATIENCE, Plan, Socket};
use self::transmit::XdpTx;
use crate::interfaces::Interfaces;
use crate::kernel::control::open_port;
use crate::kernel::driver::{Driver, Kind, Opened, slotted};
use crate::kernel::interface::{Interface, NotOpened, TagsKept};
use crate::kernel::link::LinkState;
use crate::kernel::options::{Settings, about};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "af-xdp",
    syntax: "af-xdp:IFACE[,queues=N][,mode=auto][,busy_poll=off][,queue_size=1024]..",
    summary: "an interface of the host, fast, by AF_XDP (CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW)",
    options: &[
        OptionInfo {
            name: "queues",
            value: "N",
            help: "queue pairs, from queue 0 on, 1 to 64 (default: all of the interface, 1 if it is not there)",
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
        about::QUEUE_SIZE,
        OptionInfo {
            name: "checksums",
            value: "auto|begun|complete",
            help: "whether those of received frames may be partial (default auto: on virtual interfaces)",
        },
        about::PROMISCUOUS,
        about::MTU,
        about::MAC,
    ],
};

/// Reads a device string and opens nothing.
///
/// # Errors
/// Options that make no sense.
pub fn check(spec: DeviceSpec) -> Result<(), Error> {
    Config::parse(spec).map(drop)
}

/// What such a port needs of the system.
#[must_use]
pub fn needs(spec: &mut DeviceSpec) -> Needs {
    crate::af_packet::needs(spec)
        .capabilities(CapabilitySet::BPF | CapabilitySet::IPC_LOCK)
        .calls(Calls::BPF)
        // How long the interrupts of an interface rest.
        .path("/sys/devices", Reach::READ | Reach::WRITE)
}

/// Opens an AF_XDP port, which waits for its interface should that not be there; `time` is the
/// clock by which it looks again.
///
/// # Errors
/// Options that make no sense; an interface that has fewer queues, or an XDP program already;
/// rights or kernel features that are missing.
pub fn open(name: &str, spec: DeviceSpec, time: &Time) -> Result<OpenPort, Error> {
    let text = spec.text().to_owned();
    let config = Config::parse(spec)?;
    let (interface, settings) = (config.interface.clone(), config.settings);
    let driver = slotted(AfXdp { config, patience: PATIENCE });
    open_port(name, &text, driver, &interface, settings, time)
}

/// What it takes to open queues.
struct AfXdp {
    config: Config,
    /// How long to wait for what a process that was killed has left on the interface.
    patience: Duration,
}

impl Driver for AfXdp {
    const KIND: Kind = Kind::new(INFO.name, "AF_XDP");
    type Rx = XdpRx;
    type Tx = XdpTx;

    fn queues(&self, name: &str, asker: &Interfaces) -> usize {
        let known = || asker.queues(name).unwrap_or(1).min(MAX_QUEUES);
        self.config.queues.unwrap_or_else(known) as usize
    }

    fn check_rights(&self) -> Result<(), String> {
        attach::load(1)?;
        socket::check_rights()
    }

    fn open(
        &mut self,
        interface: &Interface<'_>,
        _wanted: &Settings,
        waits: Vec<Arc<Epoll>>,
        state: &Arc<LinkState>,
    ) -> Result<Opened<XdpRx, XdpTx>, NotOpened> {
        // An interface that comes while the port waits has no such past, and waiting here would
        // keep others from the port.
        let patience = std::mem::take(&mut self.patience);
        let was_off = interface.switch_on()?;
        let most = u32::try_from(waits.len()).unwrap_or(MAX_QUEUES);
        let opened = open_on(interface, &self.config, most, patience).inspect_err(|_| {
            if was_off {
                let asker = interface.asker;
                let _ = asker.by_name(interface.index, |name| asker.set_down(name));
            }
        });
        let (sockets, device) = opened?;
        let options = receive::Options { begun: device.begun(), busy_poll: self.config.busy_poll };
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for (socket, wait) in sockets.into_iter().zip(waits) {
            let Socket { fd, umem, multi_buffer, .. } = socket;
            let rings = (socket.rx, socket.fill);
            let (shared_fd, shared_umem) = (Arc::clone(&fd), Arc::clone(&umem));
            rx.push(XdpRx::new(shared_fd, shared_umem, Arc::clone(state), rings, options, wait));
            let rings = (socket.tx, socket.completion);
            tx.push(XdpTx::new(fd, umem, Arc::clone(state), rings, multi_buffer));
        }
        Ok(Opened { rx, tx, device: Box::new(device), was_off })
    }
}

/// Lets the interrupts of an interface rest that is polled, where that can be.
fn rest(interface: &Interface<'_>) -> Option<Rest> {
    let name = &interface.name;
    Rest::new(interface)
        .inspect_err(|error| {
            tracing::warn!(
                "interface '{name}': its interrupts do not rest while it is polled, which makes \
                 busy_poll=on slower: {error}; set napi_defer_hard_irqs and gro_flush_timeout in \
                 its /sys/class/net"
            );
        })
        .ok()
}

/// Puts the program on the interface and opens sockets, `most` if the interface has so many
/// queues.
fn open_on(
    interface: &Interface<'_>,
    config: &Config,
    most: u32,
    patience: Duration,
) -> Result<(Vec<Socket>, Port), NotOpened> {
    let known = interface.asker.queues(&interface.name);
    let queues = count_queues(config, known)?.min(most);
    let driver = interface.asker.driver(&interface.name);
    let map_len = known.unwrap_or(queues).max(queues);
    let attached = attach(interface, config.mode, map_len, patience)?;
    let hook = attached.hook;
    let mut sockets = Vec::new();
    for queue in 0..queues {
        let plan = Plan {
            ifindex: interface.index,
            queue,
            size: config.queue_size,
            transfer: config.mode.transfer(hook),
            busy_poll: config.busy_poll,
            patience,
        };
        let socket = Socket::open(&plan).map_err(|failure| failure.explain(&plan))?;
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
    // What is undone when the port is closed.
    let tags_kept = TagsKept::new(interface);
    let rest = config.busy_poll.then(|| rest(interface)).flatten();
    let port = Port::new(attached, &sockets, begun, config.busy_poll, (tags_kept, rest));
    Ok((sockets, port))
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
