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
mod options;
mod port;

use std::io;
use std::sync::Arc;

use ethdev::{DeviceSpec, Error};
use vhost::backend::EventSink;
use vhost::net::NetDevice;
use vhost::vduse::{ControlFile, DeviceFile, Offer, device};

pub use self::options::INFO;

use self::bus::Bus;
use self::options::Options;
use self::port::{Attachment, VduseControl};
use crate::backend::{LinkState, SharedControl, queues, random_mac};
use crate::open::OpenPort;

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
    let made = make(&files, &bus, &options.name, &offer).map_err(failed)?;
    let link = Arc::new(LinkState::default());
    let mut attachment = Attachment::new(&options.name, bus, files, Arc::clone(&link));
    let events: EventSink = Box::new({
        let (name, link) = (name.to_owned(), Arc::clone(&link));
        move |event| link.take(&name, event)
    });
    let path = device::path(&options.name);
    let added = control.with(|control| {
        control.add_vduse(path, Box::new(made), offer, Some(events), Box::new(net))
    });
    attachment.serve(added.map_err(|error| failed(error.to_string()))?);
    attachment.attach(options.bind).map_err(failed)?;

    let control = VduseControl::new(attachment, link, guest, slots, options.mtu);
    Ok(OpenPort::new(name, &device_text, Box::new(control), rx, tx))
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

/// Makes the device and opens it. One that is on the vDPA bus is taken as it is; one that is not
/// was left behind by somebody, and is made anew.
fn make(files: &ControlFile, bus: &Bus, name: &str, offer: &Offer) -> Result<DeviceFile, String> {
    if bus.has(name) {
        return open_device(name);
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
        Ok(file)
    };
    open_device(name).and_then(set_up).inspect_err(|_| {
        // The error before this one says more.
        let _ = files.destroy(name);
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
