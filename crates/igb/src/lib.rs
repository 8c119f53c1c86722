//! The driver of Intel's 82576 and its siblings, polled from user space over VFIO or UIO.
//!
//! ```no_run
//! use eal::pci::Spaces;
//! use eal::time::Time;
//!
//! let device = "igb:0000:01:00.0,queues=2".parse()?;
//! let mut port = igb::open("port0", device, &Spaces::default(), &Time::system())?;
//! let burst = port.rx[0].rx_burst(32);
//! println!("{} frames", burst.frames().len());
//! # Ok::<(), ethdev::Error>(())
//! ```
//!
//! - `options`: what the device string can say
//! - `devices`: the devices there are, and how they differ
//! - `registers`, `descriptors`: what the datasheet defines
//! - `hardware`, `phy`: reset and start of the device, and its link
//! - `filters`, [`rss`]: which frames it receives, and in which queue
//! - `lane`: where a ring passes between the control side and its worker
//! - `receive`, `transmit`: the rings and queues that carry frames
//! - `context`: checksums, large segments and tags that the device makes
//! - `facts`: what the registers say, for people
//! - `interrupts`: who is told of what
//! - `statistics`: the device's own counters
//! - `port`, `watcher`: the control side, and its thread
//!
//! Sections are those of the "Intel 82576EB Gigabit Ethernet Controller Datasheet", revision 2.8.
//! Where QEMU's device differs from it, the code says so.

mod context;
mod descriptors;
mod devices;
mod facts;
mod filters;
mod hardware;
mod interrupts;
mod lane;
#[cfg(test)]
mod model;
mod options;
mod phy;
mod port;
mod receive;
mod registers;
pub mod rss;
mod statistics;
#[cfg(test)]
mod tests;
mod transmit;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use eal::pci::{PciDevice, Spaces};
use eal::sandbox::Needs;
use eal::time::Time;
use ethdev::{DeviceSpec, DriverInfo, Error, OpenPort, OptionInfo, QueueStats, RxQueue, TxQueue};

use descriptors::RingMemory;
use devices::Model;
use filters::receive_bits;
use hardware::{Hardware, HardwareError};
use interrupts::Interrupts;
use lane::{Lane, Notify};
use options::Options;
use port::{IgbPort, Lanes, Shared, longest_frame};
use receive::{Receiver, RxConfig, RxRing};
use registers::Registers;
use rss::Spread;
use transmit::{Transmitter, TxConfig, TxRing};

pub use facts::facts;

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "igb",
    syntax: "igb:ADDRESS[,queues=1][,queue_size=512][,mtu=1500][,mac=MAC]..",
    summary: "an Intel 82576, 82580, I350, I210 or I211 at a PCI address, bound to VFIO or UIO",
    options: &[
        OptionInfo {
            name: "queues",
            value: "N",
            help: "queue pairs, 1 to what the device has, 16 at most (default 1)",
        },
        OptionInfo {
            name: "queue_size",
            value: "N",
            help: "ring entries, 128 to 4096, a multiple of 8 (default 512)",
        },
        OptionInfo { name: "mtu", value: "BYTES", help: "68 to 9216 (default 1500)" },
        OptionInfo { name: "mac", value: "MAC", help: "own address (default: the device's)" },
        OptionInfo {
            name: "promiscuous",
            value: "on|off",
            help: "receive frames for other stations too (default on)",
        },
        OptionInfo {
            name: "multicast",
            value: "all|none|MAC+..",
            help: "groups to receive when promiscuous=off (default all)",
        },
        OptionInfo {
            name: "vlan",
            value: "ID",
            help: "be in this VLAN only: take its tag off frames received, put it on those sent",
        },
        OptionInfo {
            name: "vlans",
            value: "ID+ID..",
            help: "receive these VLANs and untagged frames only (default: no filter)",
        },
        OptionInfo {
            name: "rss_key",
            value: "HEX",
            help: "the 40 bytes that flows are spread over queues with",
        },
        OptionInfo {
            name: "rss_table",
            value: "N+N..",
            help: "queues in the order in which flows are spread (default: all alike)",
        },
        OptionInfo {
            name: "offloads",
            value: "on|off",
            help: "leave checksums and the cutting of large segments to the device (default on)",
        },
    ],
};

/// What people call the device of these numbers, if this driver knows it.
#[must_use]
pub fn name(vendor: u16, device: u16) -> Option<&'static str> {
    devices::find(vendor, device).ok().map(|model| model.name)
}

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
    eal::pci::needs(spec.target())
}

/// Opens an igb port, which looks at its device by `time`.
///
/// # Errors
/// Options that make no sense; a device that is not there, not bound to VFIO or UIO, none of this
/// driver's, or does not start.
pub fn open(name: &str, spec: DeviceSpec, spaces: &Spaces, time: &Time) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let options = Options::parse(spec)?;
    let failed = |reason| Error::Device { what: format!("PCI device {}", options.address), reason };
    let pci = eal::pci::open(options.address, spaces).map_err(|error| failed(error.reason))?;
    let pci: Arc<dyn PciDevice> = Arc::from(pci);
    let (vendor, number) = (pci.info().vendor, pci.info().device);
    let model = devices::find(vendor, number).map_err(failed)?;
    let registers = pci.map_bar(0).map_err(|error| failed(error.reason))?;
    start(name, &device, options, pci, registers, model, time)
}

/// Starts the device and makes a port of it.
fn start<R: Registers>(
    name: &str,
    device: &str,
    options: Options,
    pci: Arc<dyn PciDevice>,
    registers: R,
    model: &'static Model,
    time: &Time,
) -> Result<OpenPort, Error> {
    let what = format!("port {name} (igb {})", options.address);
    let failed = |reason: String| Error::Device { what: what.clone(), reason };
    if options.queues > model.queues {
        let (wanted, most) = (options.queues, model.queues);
        return Err(failed(format!("queues={wanted}: an {} has {most}", model.name)));
    }
    let hardware = Arc::new(Hardware::new(registers, model));
    let started = Started::new(name, &hardware, &pci, &options).map_err(failed)?;
    let Started { lanes, interrupts, description, mac } = started;
    let mtu = Arc::new(AtomicU16::new(options.mtu));
    let rx = lanes.rx.iter().map(|lane| {
        RxQueue::new(Box::new(Receiver::new(Arc::clone(lane))), Arc::new(QueueStats::default()))
    });
    let tx = lanes.tx.iter().map(|lane| {
        let driver = Transmitter::new(Arc::clone(lane), Arc::clone(&mtu));
        TxQueue::new(Box::new(driver), Arc::new(QueueStats::default()))
    });
    let (rx, tx) = (rx.collect(), tx.collect());
    let bad_checksums = lanes
        .rx
        .iter()
        .filter_map(|lane| lane.ring.lock().as_ref().map(|ring| Arc::clone(ring.bad_checksums())));
    let bad_checksums = bad_checksums.collect();
    let shared = Shared::new(name, hardware, pci, lanes, bad_checksums);
    let control = IgbPort::start(shared, options, mac, mtu, interrupts.link, description, time)?;
    Ok(OpenPort::new(name, device, Box::new(control), rx, tx))
}

/// A device that is running.
struct Started<R: Registers> {
    lanes: Lanes<R>,
    /// Without those of the queues, which these have.
    interrupts: Interrupts,
    /// The interrupts in words.
    description: String,
    mac: packet::MacAddr,
}

impl<R: Registers> Started<R> {
    /// Resets the device, sets it up as `options` say, and starts it. The error is the reason.
    fn new(
        name: &str,
        hardware: &Arc<Hardware<R>>,
        pci: &Arc<dyn PciDevice>,
        options: &Options,
    ) -> Result<Self, String> {
        let text = |error: HardwareError| error.to_string();
        // Whoever had the device before may have left it running.
        pci.set_bus_master(false).map_err(|error| error.to_string())?;
        hardware.reset().map_err(text)?;
        hardware.prepare();
        let mac = match options.mac {
            Some(mac) => mac,
            None => hardware.permanent_address().map_err(text)?,
        };
        hardware.set_address(mac);
        hardware.set_groups(&options.groups);
        hardware.set_vlans(&options.vlans);
        hardware.set_longest_frame(longest_frame(options.mtu));
        hardware.set_spread(&Spread::new(options.rss_key, &options.rss_table));
        let mut interrupts = Interrupts::set_up(hardware, pci, options.queues)?;
        let description = interrupts.describe();
        pci.set_bus_master(true).map_err(|error| error.to_string())?;
        let lanes = Self::start_queues(name, hardware, pci, options, &mut interrupts)?;
        hardware.start(receive_bits(options.promiscuous, &options.groups, &options.vlans));
        for lane in &lanes.rx {
            if let Some(ring) = lane.ring.lock().as_ref() {
                ring.offer();
            }
        }
        hardware.set_up_link().map_err(text)?;
        Ok(Self { lanes, interrupts, description, mac })
    }

    fn start_queues(
        name: &str,
        hardware: &Arc<Hardware<R>>,
        pci: &Arc<dyn PciDevice>,
        options: &Options,
        interrupts: &mut Interrupts,
    ) -> Result<Lanes<R>, String> {
        let space = pci.dma();
        let short: String = name.chars().take(100).filter(|c| *c != '\0').collect();
        let count = usize::from(options.queues);
        let mut rings =
            RingMemory::allocate(&format!("igb-{short}"), 2 * count, options.queue_size, space)
                .map_err(|error| error.to_string())?;
        let mut ring = || rings.ring().ok_or("there is no memory for another ring");
        let access_vlan = options.vlans.access();
        let receive = RxConfig { access_vlan, drop_when_empty: options.queues > 1 };
        let transmit = TxConfig { access_vlan, offloads: options.offloads };
        let mut lanes = Lanes { rx: Vec::new(), tx: Vec::new() };
        let notifies: Vec<Option<Notify>> = std::mem::take(&mut interrupts.receive);
        for (queue, notify) in (0..options.queues).zip(notifies) {
            let name = format!("igb-{short}-rx{queue}");
            let rx = RxRing::start(hardware, &name, queue, ring()?, receive, space)?;
            lanes.rx.push(Arc::new(Lane::new(rx, notify)));
            let name = format!("igb-{short}-tx{queue}");
            let tx = TxRing::start(hardware, &name, queue, ring()?, transmit, space)?;
            lanes.tx.push(Arc::new(Lane::new(tx, None)));
        }
        Ok(lanes)
    }
}
