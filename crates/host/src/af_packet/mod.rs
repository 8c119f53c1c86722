//! An interface of the host as a port, by packet sockets: the way to a NIC that always works and
//! needs nothing but `CAP_NET_RAW`.
//!
//! Frames are received from a ring that the kernel shares with us, where they are used in place,
//! and sent from another. The kernel's own network stack gets a copy of everything received, so
//! the interface should have no addresses.
//!
//! - `socket`: opens sockets and their rings
//! - `ring`: slots shared with the kernel
//! - `receive`, `transmit`: the queues

mod receive;
mod ring;
mod socket;
#[cfg(test)]
mod tests;
mod transmit;

use eal::sandbox::{Calls, CapabilitySet, Needs, Reach};
use eal::time::Time;
use packet::LINK_HEADERS;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use eal::Epoll;
use ethdev::{DeviceSpec, DriverInfo, Error, OpenPort, OptionInfo};

use self::receive::PacketRx;
use self::socket::{Receiver, Sender, Shape};
use self::transmit::PacketTx;
use crate::interfaces::{Interfaces, name_problem};
use crate::kernel::control::open_port;
use crate::kernel::driver::{Driver, Kind, Opened, slotted};
use crate::kernel::interface::{Interface, NotOpened};
use crate::kernel::link::LinkState;
use crate::kernel::options::{MAX_MTU, Settings, about, take_queue_size};
use crate::kernel::session::Device;

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "af-packet",
    syntax: "af-packet:IFACE[,queues=1][,queue_size=1024][,qdisc=off][,promiscuous=on][,mtu=N][,mac=MAC]",
    summary: "an interface of the host, by packet sockets (CAP_NET_RAW)",
    options: &[
        OptionInfo {
            name: "queues",
            value: "N",
            help: "queue pairs, among which flows are spread, 1 to 64 (default 1)",
        },
        about::QUEUE_SIZE,
        OptionInfo::switch(
            "qdisc",
            "send through the queueing discipline, where tcpdump sees it (default off)",
        ),
        about::PROMISCUOUS,
        about::MTU,
        about::MAC,
    ],
};

/// Largest number of queues.
const MAX_QUEUES: usize = 64;

/// Options of a port, parsed.
pub(crate) struct Config {
    interface: String,
    queues: usize,
    queue_size: u32,
    qdisc: bool,
    settings: Settings,
}

impl Config {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let interface = spec.require_target("the name of an interface")?.to_owned();
        if let Some(problem) = name_problem(&interface) {
            return Err(spec.error(problem));
        }
        let config = Self {
            queues: spec.take_number("queues", 1, &(1..=MAX_QUEUES))?,
            queue_size: take_queue_size(&mut spec)?,
            qdisc: spec.take_switch("qdisc", false)?,
            settings: Settings::take(&mut spec)?,
            interface,
        };
        spec.finish(&INFO.option_names())?;
        Ok(config)
    }
}

/// Reads a device string and opens nothing.
///
/// # Errors
/// Options that make no sense.
pub fn check(spec: DeviceSpec) -> Result<(), Error> {
    Config::parse(spec).map(drop)
}

/// What such a port needs of the system.
#[must_use]
pub fn needs(_: &mut DeviceSpec) -> Needs {
    Needs::new()
        .capabilities(CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN)
        .calls(Calls::RAW_SOCKETS)
        .path("/sys", Reach::READ)
}

/// Opens an AF_PACKET port, which waits for its interface should that not be there; `time` is the
/// clock by which it looks again.
///
/// # Errors
/// Options that make no sense; rights or kernel features that are missing.
pub fn open(name: &str, spec: DeviceSpec, time: &Time) -> Result<OpenPort, Error> {
    let text = spec.text().to_owned();
    let Config { interface, queues, queue_size, qdisc, settings } = Config::parse(spec)?;
    let driver = slotted(AfPacket { queues, queue_size, qdisc });
    open_port(name, &text, driver, &interface, settings, time)
}

/// What it takes to open queues.
struct AfPacket {
    queues: usize,
    queue_size: u32,
    /// Whether what is sent goes through the queueing discipline.
    qdisc: bool,
}

impl Driver for AfPacket {
    const KIND: Kind = Kind::new(INFO.name, "AF_PACKET");
    type Rx = PacketRx;
    type Tx = PacketTx;

    fn queues(&self, _name: &str, _asker: &Interfaces) -> usize {
        self.queues
    }

    fn check_rights(&self) -> Result<(), String> {
        socket::check_rights()
    }

    fn open(
        &mut self,
        interface: &Interface<'_>,
        wanted: &Settings,
        waits: Vec<Arc<Epoll>>,
        state: &Arc<LinkState>,
    ) -> Result<Opened<PacketRx, PacketTx>, NotOpened> {
        // Longer frames pass too, at the cost of a system call each.
        let mtu = wanted.mtu.or_else(|| interface.asker.mtu(&interface.name).ok());
        let frame_len = usize::from(mtu.unwrap_or(1500)) + LINK_HEADERS;
        let shape = Shape::new(self.queue_size, frame_len);
        let (receivers, senders) = open_all(interface.index, self.queues, shape, self.qdisc)?;
        let was_off = interface.switch_on().unwrap_or_else(|reason| stays_off(interface, &reason));
        let device = Box::new(Sockets::new(&receivers));
        let rx = receivers.into_iter().zip(waits);
        let rx = rx.map(|(receiver, wait)| PacketRx::new(receiver, Arc::clone(state), wait));
        let tx = senders.into_iter().map(|sender| PacketTx::new(sender, Arc::clone(state)));
        Ok(Opened { rx: rx.collect(), tx: tx.collect(), device, was_off })
    }
}

/// Without CAP_NET_ADMIN an interface that is off stays so, until somebody switches it on.
fn stays_off(interface: &Interface<'_>, reason: &str) -> bool {
    let name = &interface.name;
    tracing::warn!("interface '{name}' is off and stays so: {reason}");
    false
}

/// Opens all sockets.
fn open_all(
    ifindex: u32,
    queues: usize,
    shape: Shape,
    qdisc: bool,
) -> Result<(Vec<Receiver>, Vec<Sender>), NotOpened> {
    let mut receivers: Vec<Receiver> = Vec::new();
    let (mut senders, mut group) = (Vec::new(), None);
    for _ in 0..queues {
        let receiver = Receiver::open(ifindex, shape)?;
        if queues > 1 {
            let joined = receiver.join(group);
            group = Some(joined.map_err(|cause| {
                format!("cannot spread frames over {queues} queues: {cause}; try queues=1")
            })?);
        }
        receivers.push(receiver);
        senders.push(Sender::open(ifindex, shape, qdisc)?);
    }
    // What came before all were in the group may be in several of them.
    receivers.iter_mut().for_each(Receiver::discard);
    Ok((receivers, senders))
}

/// The control side's own part: the receiving sockets, to ask for their counters. The kernel
/// sets those to zero whenever it tells them.
#[derive(Debug)]
struct Sockets {
    sockets: Vec<(Arc<OwnedFd>, AtomicU64)>,
    slot: usize,
}

impl Sockets {
    fn new(receivers: &[Receiver]) -> Self {
        let sockets =
            receivers.iter().map(|receiver| (Arc::clone(&receiver.fd), AtomicU64::new(0)));
        Self {
            sockets: sockets.collect(),
            slot: receivers.first().map_or(0, |receiver| receiver.slots.slot_len()),
        }
    }
}

impl Device for Sockets {
    fn is_attached(&self, index: u32) -> bool {
        self.sockets.iter().all(|(fd, _)| socket::is_bound(fd.as_fd(), index))
    }

    fn max_mtu(&self) -> u16 {
        MAX_MTU
    }

    fn extended_stats(&self) -> Vec<(String, u64)> {
        let sockets = self.sockets.iter().enumerate();
        sockets
            .map(|(queue, (fd, drops))| {
                let more = socket::drops(fd.as_fd()).unwrap_or(0);
                let drops = drops.fetch_add(u64::from(more), Relaxed) + u64::from(more);
                (format!("rx_q{queue}_packet_dropped"), drops)
            })
            .collect()
    }

    fn details(&self) -> Vec<(String, String)> {
        let slot = format!("{} bytes", self.slot);
        vec![("rings".to_owned(), "TPACKET_V2".to_owned()), ("slot".to_owned(), slot)]
    }
}
