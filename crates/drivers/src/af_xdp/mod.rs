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
mod options;
mod program;
mod receive;
mod rest;
mod ring;
mod socket;
#[cfg(test)]
mod tests;
mod transmit;
mod umem;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use ethdev::{DeviceSpec, Error, QueueStats, RxQueue, TxQueue};

use self::attach::{Attached, attach};
use self::bpf::Hook;
use self::device::AfXdp;
use self::options::{Checksums, Config, MAX_QUEUES};
use self::receive::XdpRx;
use self::rest::Rest;
use self::socket::{Plan, Socket};
use self::transmit::XdpTx;
use crate::kernel::control::KernelControl;
use crate::kernel::interface::{Interface, TagsKept};
use crate::kernel::link::LinkState;
use crate::kernel::options::about;
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
    let rest = config.busy_poll.then(|| rest(&interface)).flatten();
    let control = AfXdp::new(attached, &sockets, begun, config.busy_poll, (tags_kept, rest));
    let info = control.info();
    let options = receive::Options { begun, busy_poll: config.busy_poll };
    let (rx, tx) = queues_of(sockets, &state, options)
        .map_err(|cause| error(format!("no epoll descriptor: {cause}")))?;
    let mut control = KernelControl::new(info, &what, interface, was_off, state, Box::new(control))
        .map_err(error)?;
    control.configure(&config.settings)?;
    Ok(OpenPort::new(name, &device, Box::new(control), rx, tx))
}

/// Lets the interrupts of an interface rest that is polled, where that can be.
fn rest(interface: &Interface) -> Option<Rest> {
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

fn queues_of(
    sockets: Vec<Socket>,
    state: &Arc<LinkState>,
    options: receive::Options,
) -> io::Result<(Vec<RxQueue>, Vec<TxQueue>)> {
    let (mut rx, mut tx) = (Vec::new(), Vec::new());
    for socket in sockets {
        let Socket { fd, umem, multi_buffer, .. } = socket;
        let rings = (socket.rx, socket.fill);
        let (shared_fd, shared_umem) = (Arc::clone(&fd), Arc::clone(&umem));
        let driver = XdpRx::new(shared_fd, shared_umem, Arc::clone(state), rings, options)?;
        rx.push(RxQueue::new(Box::new(driver), Arc::new(QueueStats::default())));
        let rings = (socket.tx, socket.completion);
        let driver = XdpTx::new(fd, umem, Arc::clone(state), rings, multi_buffer);
        tx.push(TxQueue::new(Box::new(driver), Arc::new(QueueStats::default())));
    }
    Ok((rx, tx))
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
