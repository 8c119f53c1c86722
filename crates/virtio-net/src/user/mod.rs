//! The virtio-net driver over a vhost-user socket.
//!
//! It has the part of VMM and guest in one: it talks vhost-user to a back-end (Ringway's own,
//! DPDK's, Open vSwitch's) and drives the rings itself. What it shares with the back-end is one
//! piece of memory with rings and packet buffers, and nothing else of this process.
//!
//! - `kicks`: notifications that are passed on as messages
//! - `news`: what a back-end tells by itself
//! - `options`: what the device string can say
//! - `port`: the control side, and the thread that keeps the session
//! - `rings`: the rings of a session, which may outlive it
//! - `session`: one session with a back-end: from the handshake to the last ring
//!
//! The rings and what goes on in them are beside this.
//!
//! A session ends when the back-end goes away, breaks a ring or the port is closed; the port
//! then looks for the next back-end, and its queues never notice but for the missing frames. None is
//! missing that the rings held, where the back-end keeps records of what it has in flight.

mod kicks;
mod news;
mod options;
mod port;
mod rings;
mod session;

use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use eal::sandbox::Needs;
use eal::time::Time;
use eal::{Access, EventFd};
use ethdev::{DeviceSpec, DriverInfo, Error, OpenPort, OptionInfo, QueueStats, RxQueue, TxQueue};

use crate::options::about;
use ethdev::access;
use options::Options;
use port::VirtioUserPort;
use virtio_queues::lane::Lanes;
use virtio_queues::receive::Receiver;
use virtio_queues::transmit::Transmitter;

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "virtio-user",
    syntax: "virtio-user:PATH[,queues=1][,server=on][,mac=MAC][,mtu=1500]..",
    summary: "the driver of a vhost-user back-end at socket PATH, as a VM with virtio-net would be",
    options: &[
        about::QUEUES,
        OptionInfo {
            name: "server",
            value: "on|off",
            help: "listen at PATH for the back-end (default off: connect to it)",
        },
        access::GROUP,
        access::MODE,
        OptionInfo { name: "mac", value: "MAC", help: "own address (default: derived from PATH)" },
        OptionInfo { name: "mtu", value: "BYTES", help: "68 to 65535 (default 1500)" },
        OptionInfo {
            name: "queue_size",
            value: "N",
            help: "ring entries, 4 to 32768; a power of two unless packed=on (default 256)",
        },
        about::PACKED,
        about::IN_ORDER,
        about::MRG_RXBUF,
        about::INDIRECT,
        about::EVENT_IDX,
        about::OFFLOADS,
        OptionInfo {
            name: "version_1",
            value: "on|off",
            help: "modern virtio; off: the legacy net header (default on)",
        },
        OptionInfo::switch(
            "iommu",
            "let the back-end use the shared memory by translated addresses only (default off)",
        ),
        OptionInfo::switch(
            "inband",
            "notify by messages, for simulations; without a control queue (default off)",
        ),
        about::CTRL_VQ,
        about::VLANS,
    ],
};

/// Reads a device string and opens nothing.
///
/// # Errors
/// Options that make no sense.
pub fn check(spec: DeviceSpec) -> Result<(), Error> {
    Options::parse(spec).map(drop)
}

/// What such a port needs of the system.
#[must_use]
pub fn needs(spec: &mut DeviceSpec) -> Needs {
    let listens = spec.take_switch("server", false).unwrap_or(false);
    access::needs(spec, !listens)
}

/// Opens a virtio-user port, whose socket lets in those whom `sockets` names where the device
/// string does not say it. The link comes up when the back-end is there, now or later; it is looked
/// for by `time`.
///
/// # Errors
/// Options that make no sense; a socket that cannot be made, in server mode.
pub fn open(
    name: &str,
    spec: DeviceSpec,
    sockets: &Access,
    time: &Time,
) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let mut options = Options::parse(spec)?;
    options.access = options.access.or(*sockets);
    let failed = |error: std::io::Error| Error::Device {
        what: format!("port {name}"),
        reason: error.to_string(),
    };
    let wake = Arc::new(EventFd::new().map_err(failed)?);
    let lanes = Lanes::new(options.net.queues, &wake).map_err(failed)?;

    let mtu = Arc::new(AtomicU16::new(options.mtu));
    let rx = lanes.rx.iter().map(|lane| {
        let driver = Receiver::new(Arc::clone(lane), options.queue_size, false);
        RxQueue::new(Box::new(driver), Arc::new(QueueStats::default()))
    });
    let tx = lanes.tx.iter().map(|lane| {
        let driver = Transmitter::new(Arc::clone(lane), Arc::clone(&mtu), false);
        TxQueue::new(Box::new(driver), Arc::new(QueueStats::default()))
    });
    let (rx, tx) = (rx.collect(), tx.collect());
    let control = VirtioUserPort::start(name, options, mtu, lanes, wake, time)?;
    Ok(OpenPort::new(name, &device, Box::new(control), rx, tx))
}
