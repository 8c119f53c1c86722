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

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ethdev::{DeviceSpec, Error, PortInfo, QueueStats, RxQueue, TxQueue};

use self::receive::PacketRx;
use self::socket::{Receiver, Sender, Shape};
use self::transmit::PacketTx;
use crate::interfaces::name_problem;
use crate::kernel::control::{Device, KernelControl};
use crate::kernel::interface::Interface;
use crate::kernel::link::{LINK_HEADERS, LinkState};
use crate::kernel::options::{MAX_MTU, Settings, about, take_queue_size};
use crate::open::{DriverInfo, OpenPort, OptionInfo};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "af-packet",
    syntax: "af-packet:IFACE[,queues=1][,queue_size=1024][,promiscuous=on][,mtu=N][,mac=MAC]",
    summary: "an interface of the host, by packet sockets (CAP_NET_RAW)",
    options: &[
        OptionInfo {
            name: "queues",
            value: "N",
            help: "queue pairs, among which flows are spread, 1 to 64 (default 1)",
        },
        about::QUEUE_SIZE,
        about::PROMISCUOUS,
        about::MTU,
        about::MAC,
    ],
};

/// Largest number of queues.
const MAX_QUEUES: usize = 64;

/// Options of a port, parsed.
struct Config {
    interface: String,
    queues: usize,
    queue_size: u32,
    settings: Settings,
}

impl Config {
    fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        let interface = spec.require_target("the name of an interface")?.to_owned();
        if let Some(problem) = name_problem(&interface) {
            return Err(spec.error(problem));
        }
        let config = Self {
            queues: spec.take_number("queues", 1, &(1..=MAX_QUEUES))?,
            queue_size: take_queue_size(&mut spec)?,
            settings: Settings::take(&mut spec)?,
            interface,
        };
        spec.finish(&INFO.option_names())?;
        Ok(config)
    }
}

/// Opens an AF_PACKET port.
///
/// # Errors
/// Options that make no sense; an interface that does not exist; rights or kernel features that
/// are missing.
pub fn open(name: &str, spec: DeviceSpec) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let config = Config::parse(spec)?;
    let what = format!("AF_PACKET port on interface '{}'", config.interface);
    let error = |reason: String| Error::Device { what: what.clone(), reason };
    let interface = Interface::find(&config.interface).map_err(error)?;
    let state = Arc::new(interface.state("AF_PACKET"));
    // Longer frames pass too, at the cost of a system call each.
    let mtu = config.settings.mtu.map_or(state.max_len(), |mtu| usize::from(mtu) + LINK_HEADERS);
    let shape = Shape::new(config.queue_size, mtu);
    let (receivers, senders) = open_all(interface.index, config.queues, shape).map_err(error)?;
    let was_off = interface.switch_on().or_else(|reason| is_off(&interface, &reason));
    let was_off = was_off.map_err(error)?;

    let control = AfPacket::new(&receivers);
    let queues = config.queues;
    let info =
        PortInfo { driver: INFO.name, rx_queues: queues, tx_queues: queues, max_mtu: MAX_MTU };
    let (rx, tx) = queues_of(receivers, senders, &state)
        .map_err(|cause| error(format!("no epoll descriptor: {cause}")))?;
    let mut control = KernelControl::new(info, &what, interface, was_off, state, Box::new(control))
        .map_err(error)?;
    control.configure(&config.settings)?;
    Ok(OpenPort::new(name, &device, Box::new(control), rx, tx))
}

/// Without CAP_NET_ADMIN an interface that is off stays so, until somebody switches it on.
fn is_off(interface: &Interface, reason: &str) -> Result<bool, String> {
    let name = &interface.name;
    tracing::warn!("interface '{name}' is off and stays so: {reason}");
    Ok(false)
}

/// Opens all sockets; the error is the reason.
fn open_all(
    ifindex: u32,
    queues: usize,
    shape: Shape,
) -> Result<(Vec<Receiver>, Vec<Sender>), String> {
    let mut receivers: Vec<Receiver> = Vec::new();
    let (mut senders, mut group) = (Vec::new(), None);
    for _ in 0..queues {
        let receiver = Receiver::open(ifindex, shape).map_err(|failure| failure.explain())?;
        if queues > 1 {
            let joined = receiver.join(group);
            group = Some(joined.map_err(|cause| {
                format!("cannot spread frames over {queues} queues: {cause}; try queues=1")
            })?);
        }
        receivers.push(receiver);
        senders.push(Sender::open(ifindex, shape).map_err(|failure| failure.explain())?);
    }
    // What came before all were in the group may be in several of them.
    receivers.iter_mut().for_each(Receiver::discard);
    Ok((receivers, senders))
}

fn queues_of(
    receivers: Vec<Receiver>,
    senders: Vec<Sender>,
    state: &Arc<LinkState>,
) -> io::Result<(Vec<RxQueue>, Vec<TxQueue>)> {
    let stats = || Arc::new(QueueStats::default());
    let rx = |receiver| {
        let driver = PacketRx::new(receiver, Arc::clone(state))?;
        Ok(RxQueue::new(Box::new(driver), stats()))
    };
    let tx = |sender| TxQueue::new(Box::new(PacketTx::new(sender, Arc::clone(state))), stats());
    let rx = receivers.into_iter().map(rx).collect::<io::Result<_>>()?;
    Ok((rx, senders.into_iter().map(tx).collect()))
}

/// The control side's own part: the receiving sockets, to ask for their counters. The kernel
/// sets those to zero whenever it tells them.
#[derive(Debug)]
struct AfPacket {
    sockets: Vec<(Arc<OwnedFd>, AtomicU64)>,
    slot: usize,
}

impl AfPacket {
    fn new(receivers: &[Receiver]) -> Self {
        let sockets =
            receivers.iter().map(|receiver| (Arc::clone(&receiver.fd), AtomicU64::new(0)));
        Self {
            sockets: sockets.collect(),
            slot: receivers.first().map_or(0, |receiver| receiver.slots.slot_len()),
        }
    }
}

impl Device for AfPacket {
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
