//! The virtio-net driver over PCI: network devices of virtual machines, and of hardware that
//! looks like them.
//!
//! The device is reached through VFIO or UIO, and is modern (virtio 1.0 and later) or legacy.
//!
//! - `options`: what the device string can say
//! - [`window`]: registers in base address registers
//! - [`capability`]: where a modern device has which registers
//! - [`registers`]: what the registers of both generations can do: `modern`, `legacy`
//! - [`hardware`]: an open device: reset, status, feature check
//! - `interrupts`: MSI-X, the line, or none
//! - `device`: the device of a port, with its interrupts
//! - [`config`]: the network device's configuration
//! - `facts`: what the registers say, for people
//! - `negotiation`: what device and options agree on
//! - `session`: from one reset of the device to the next
//! - `keeper`: the thread that looks after the device
//! - `port`: the control side
//!
//! The rings and what goes on in them are beside this. What is public here is for other
//! drivers of such devices: vDPA.
//!
//! The device reads and writes the memory of a session until it is reset. So a session ends with
//! the workers' rings being taken back, then the reset, and only then the memory is freed.

pub mod capability;
pub mod config;
mod device;
mod facts;
pub mod hardware;
mod interrupts;
mod keeper;
mod legacy;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod model;
mod modern;
mod negotiation;
mod options;
mod port;
pub mod registers;
mod session;
#[cfg(test)]
mod tests;
pub mod window;

use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use eal::EventFd;
use eal::pci::{PciDevice, Spaces};
use eal::sandbox::Needs;
use eal::time::Time;
use ethdev::{DeviceSpec, DriverInfo, Error, OpenPort, OptionInfo, QueueStats, RxQueue, TxQueue};

use device::Device;
pub use facts::facts;
use hardware::is_network_device;

use crate::options::about;
use options::Options;
use port::VirtioPciPort;
use virtio_queues::lane::Lanes;
use virtio_queues::receive::Receiver;
use virtio_queues::transmit::Transmitter;
use window::{MappedBars, Windows};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "virtio-pci",
    syntax: "virtio-pci:ADDRESS[,queues=1][,queue_size=N][,packed=on][,mac=MAC][,mtu=BYTES]..",
    summary: "a virtio network device at PCI address ADDRESS, bound to vfio-pci or a UIO driver",
    options: &[
        about::QUEUES,
        OptionInfo {
            name: "queue_size",
            value: "N",
            help: "most ring entries, 4 to 32768 (default: the device's, up to 1024)",
        },
        about::PACKED,
        OptionInfo { name: "mac", value: "MAC", help: "own address (default: the device's)" },
        OptionInfo {
            name: "mtu",
            value: "BYTES",
            help: "68 to 65535 (default: the device's, or 1500)",
        },
        about::IN_ORDER,
        about::MRG_RXBUF,
        about::INDIRECT,
        about::EVENT_IDX,
        about::OFFLOADS,
        about::CTRL_VQ,
        about::VLANS,
    ],
};

/// What people call the device of these numbers, if this driver knows it.
#[must_use]
pub fn name(vendor: u16, device: u16) -> Option<&'static str> {
    is_network_device(vendor, device).then_some("virtio network device")
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

/// Opens a virtio-pci port, which looks at its device by `time`.
///
/// # Errors
/// Options that make no sense; a device that is not there, is not bound to a driver that lets it
/// be used, or cannot be started with these options.
pub fn open(name: &str, spec: DeviceSpec, spaces: &Spaces, time: &Time) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let options = Options::parse(spec)?;
    let pci = eal::pci::open(options.address, spaces).map_err(|error| Error::Device {
        what: format!("PCI device {}", error.address),
        reason: error.reason,
    })?;
    let pci: Arc<dyn PciDevice> = Arc::from(pci);
    let windows = Box::new(MappedBars::new(Arc::clone(&pci)));
    open_on(name, &device, options, pci, windows, time)
}

/// Opens a port on a device that belongs to this process already.
fn open_on(
    name: &str,
    device: &str,
    options: Options,
    pci: Arc<dyn PciDevice>,
    windows: Box<dyn Windows>,
    time: &Time,
) -> Result<OpenPort, Error> {
    let failed = |error: std::io::Error| Error::Device {
        what: format!("port {name}"),
        reason: error.to_string(),
    };
    let wake = Arc::new(EventFd::new().map_err(failed)?);
    let lanes = Lanes::new(options.net.queues, &wake).map_err(failed)?;
    let mtu = Arc::new(AtomicU16::new(0));
    let opened = Device::open(pci, windows, &lanes).map_err(|error| Error::Device {
        what: format!("PCI device {}", options.address),
        reason: error.reason,
    })?;
    let control = VirtioPciPort::start(name, options, opened, &mtu, lanes.clone(), wake, time)?;
    let rx = lanes.rx.iter().map(|lane| {
        let driver = Receiver::new(Arc::clone(lane), lane.entries(), true);
        RxQueue::new(Box::new(driver), Arc::new(QueueStats::default()))
    });
    let tx = lanes.tx.iter().map(|lane| {
        let driver = Transmitter::new(Arc::clone(lane), Arc::clone(&mtu), true);
        TxQueue::new(Box::new(driver), Arc::new(QueueStats::default()))
    });
    let (rx, tx) = (rx.collect(), tx.collect());
    Ok(OpenPort::new(name, device, Box::new(control), rx, tx))
}
