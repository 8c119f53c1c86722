//! A vDPA device of the host kernel as a port (VDUSE): the host, or a container, gets an
//! interface of it (`virtio_vdpa`), or a VMM `/dev/vhost-vdpa-N` (`vhost_vdpa`).
//!
//! Its rings are served as those of a vhost-user guest, with the same code; see
//! [`vhost::vduse`] for the way they come here. The device stays in the kernel while it is used,
//! so that it survives a restart of this process: the next port of the same name takes it over.
//!
//! - `bus`: the vDPA bus and its drivers
//! - `netlink`: attaching a device to the bus
//! - `options`: the options of a port
//! - `port`: the control side

mod bus;
mod netlink;
pub(crate) mod options;
mod port;

use std::io;
use std::sync::Arc;

use eal::sandbox::{CapabilitySet, Needs, Reach};
use ethdev::{DeviceSpec, Error, OpenPort};
use vhost::backend::EventSink;
use vhost::vduse::{ControlFile, DeviceFile, Kernel as _, Offer, device};
use vhost_net::NetDevice;

pub use self::options::INFO;

use self::bus::{Bus, BusDriver};
use self::options::Options;
use self::port::{Attachment, VduseControl};
use crate::backend::{LinkState, SharedControl, queues, random_mac};

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
    load_modules(spec.take("bind").as_deref());
    let change = Reach::READ | Reach::WRITE;
    Needs::new()
        .capabilities(CapabilitySet::NET_ADMIN)
        .path("/sys", Reach::READ)
        .path("/sys/bus/vdpa", change)
        .path("/sys/devices", change)
        // The kernel makes nodes there for each device.
        .path("/dev", Reach::DEVICE)
}

/// Opens a port.
///
/// # Errors
/// When an option is wrong; when the kernel has no VDUSE, the process no permission, or another
/// process has the device; when the device exists and is another one.
pub(crate) fn open(
    name: &str,
    spec: DeviceSpec,
    control: &SharedControl,
) -> Result<OpenPort, Error> {
    let device_text = spec.text().to_owned();
    let options = Options::parse(spec)?;
    let what = format!("VDUSE device '{}'", options.name);
    let failed = |reason: String| Error::Device { what: what.clone(), reason };

    let net = NetDevice::new(name, options.queues).map_err(|error| failed(error.to_string()))?;
    let net = if options.offloads { net } else { net.without_offloads() };
    let mac = options.mac.unwrap_or_else(random_mac);
    let offer = Offer::of(&net, options.size, mac, options.mtu);
    let (rx, tx) = queues(&net);
    let (guest, slots) = (Arc::clone(net.state()), net.slots().to_vec());

    let bus = Bus::default();
    let files = open_control(&bus).map_err(failed)?;
    let Made { file, found } = make(&files, &bus, &options.name, &offer).map_err(failed)?;
    let link = Arc::new(LinkState::default());
    let events: EventSink = Box::new({
        let (name, link) = (name.to_owned(), Arc::clone(&link));
        move |event| link.take(&name, event)
    });
    let path = device::path(&options.name);
    let (file, net) = (Box::new(file), Box::new(net));
    let served = control
        .with(|control| control.add_vduse(path, file, offer, Some(events), net))
        .inspect_err(|_| {
            // Somebody uses what was found; the error says what to do.
            if !found {
                let _ = files.destroy(&options.name);
            }
        })
        .map_err(|error| failed(error.to_string()))?;
    let mut attachment = Attachment::new(&options.name, bus, files, Arc::clone(&link), served);
    attachment.attach(options.bind).map_err(failed)?;
    attachment.keep(options.keep);

    let control = VduseControl::new(attachment, link, guest, slots, options.mtu);
    Ok(OpenPort::new(name, &device_text, Box::new(control), rx, tx))
}

/// Loads what a port with option `bind` needs of the kernel, while the process may start programs.
pub(crate) fn load_modules(bind: Option<&str>) {
    let bus = Bus::default();
    bus.load("vduse");
    let driver = match bind {
        Some("virtio") => BusDriver::Virtio,
        Some("vhost") => BusDriver::Vhost,
        _ => return,
    };
    bus.load_for(driver);
}

/// Opens the file that devices are made with, after loading the module where that helps.
fn open_control(bus: &Bus) -> Result<ControlFile, String> {
    let mut opened = ControlFile::open();
    if opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        bus.load("vduse");
        opened = ControlFile::open();
    }
    opened.map_err(|error| {
        let file = device::path("control");
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; 'modprobe vduse' may help (Linux 6.9 or later)",
            io::ErrorKind::PermissionDenied => "; this takes root, or write access to the file",
            _ => "",
        };
        format!("cannot open {}: {error}{hint}", file.display())
    })
}

/// A device's open file, and whether the device was there.
struct Made {
    file: DeviceFile,
    found: bool,
}

/// Makes the device and opens it. One that is on the vDPA bus is taken as it is; one that is not
/// was left behind by somebody, and is made anew.
fn make(files: &ControlFile, bus: &Bus, name: &str, offer: &Offer) -> Result<Made, String> {
    if bus.has(name) {
        let file = open_device(name)?;
        if !is_given_up(&file) {
            return Ok(Made { file, found: true });
        }
        drop(file);
        release(bus, name)?;
    }
    let is = |error: &io::Error, code| error.raw_os_error() == Some(code);
    match files.create(name, offer) {
        Err(error) if is(&error, libc::EEXIST) => match files.destroy(name) {
            Ok(()) => files.create(name, offer),
            Err(error) if is(&error, libc::EBUSY) => {
                return Err("it exists, and another process serves it".into());
            }
            Err(error) => Err(error),
        },
        done => done,
    }
    .map_err(|error| refused(&error, offer))?;
    let set_up = |file: DeviceFile| {
        for index in 0..offer.rings {
            file.set_up_ring(index, offer.ring_size)
                .map_err(|error| format!("ring {index} cannot be set up: {error}"))?;
        }
        Ok(Made { file, found: false })
    };
    open_device(name).and_then(set_up).inspect_err(|_| {
        // The error before this one says more.
        let _ = files.destroy(name);
    })
}

/// Whether the kernel has stopped to talk about a device, since nobody answered for too long: it
/// never does again.
fn is_given_up(file: &DeviceFile) -> bool {
    file.features().is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

/// Takes a device that is of no use any more from the bus.
fn release(bus: &Bus, name: &str) -> Result<(), String> {
    let lost = "the kernel has given it up, because a request was not answered in time";
    if bus.is_open(name) {
        return Err(format!("{lost}; end the virtual machine that uses it, and start again"));
    }
    tracing::warn!(device = %name, "{lost}; it is made anew, and so is what it was used for");
    netlink::detach(name).map_err(|error| {
        format!(
            "{lost}, and it cannot be taken from the vDPA bus: {error}; try `vdpa dev del {name}`"
        )
    })
}

/// Why the kernel does not make the device.
fn refused(error: &io::Error, offer: &Offer) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => "this takes the capability CAP_NET_ADMIN",
        Some(libc::EINVAL) if offer.pairs > 1 => {
            "Linux from 6.9 on refuses the control queue that several queue pairs need; use queues=1"
        }
        Some(libc::EINVAL) => "Linux before 6.9 refuses network devices",
        _ => "it gives no other reason",
    };
    format!("the kernel does not make it: {error} ({hint})")
}

fn open_device(name: &str) -> Result<DeviceFile, String> {
    DeviceFile::open(name).map_err(|error| {
        let busy = error.raw_os_error() == Some(libc::EBUSY);
        let hint = if busy { "; another process serves it" } else { "" };
        format!("cannot open {}: {error}{hint}", device::path(name).display())
    })
}
