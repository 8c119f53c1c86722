//! Devices that the kernel drives: `/dev/vhost-vdpa-N` (Linux `drivers/vhost/vdpa.c`).
//!
//! Every vDPA device that the kernel has can be used this way: hardware that its drivers know,
//! and programs behind VDUSE. The kernel maps the guest's memory for the device, has its kick
//! files notify it and the device signal its call files; nothing of that passes through us.
//!
//! - [`list`](mod@list): which devices there are
//! - `device`: a device as a [`VdpaDevice`](crate::VdpaDevice)
//! - `offer`: what a device is and can do
//! - `session`: from one start to the next stop
//! - `memory`: what memory the device reaches
//! - `control`: its control queue
//! - `calls`: what is asked of the kernel
//! - `abi`: the kernel's interface
//!
//! The kernel could have the page mapped by which hardware is notified (`mmap` of the device's
//! file). No front-end is offered that: with the file it would get the whole device, which nobody
//! else could open as long as it holds it, and QEMU cannot map a page that is for writing only.
//! Kicks do not pass through us as it is.
//!
//! A device of a program (VDUSE) is asked by the kernel, which waits for it: 30 s, unless told
//! otherwise, for one that hangs. So it must not be served by the thread that uses it here.

use eal::sandbox::{CapabilitySet, Needs, Reach};
use ethdev::{DeviceSpec, DriverInfo, Error};

use crate::device::VdpaDevice;
use crate::registry::Found;

mod abi;
mod calls;
mod control;
mod device;
pub mod list;
mod memory;
#[cfg(test)]
mod model;
mod offer;
mod session;
#[cfg(test)]
mod tests;

pub use device::KernelDevice;
pub use list::{KernelVdpa, list};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "vhost-vdpa",
    syntax: "vhost-vdpa:NAME",
    summary: "a vDPA device of the kernel, bound to vhost_vdpa: vhost-vdpa-0 for \
              /dev/vhost-vdpa-0, or its name on the vDPA bus",
    options: &[],
};

/// Opens a device.
///
/// # Errors
/// A name that is missing; a device that [`KernelDevice::open`] cannot open.
pub fn open(spec: DeviceSpec) -> Result<Box<dyn VdpaDevice>, Error> {
    let name = spec.require_target("the name of a vDPA device, such as vhost-vdpa-0")?.to_owned();
    spec.finish("no options")?;
    match KernelDevice::open(&name) {
        Ok(device) => Ok(Box::new(device)),
        Err(error) => Err(Error::Device { what: format!("vDPA device {name}"), reason: error.0 }),
    }
}

/// What such a device needs of the system: those that are there now can be opened.
pub(crate) fn needs() -> Needs {
    let needs = Needs::new().capabilities(CapabilitySet::IPC_LOCK).path("/sys", Reach::READ);
    needs.nodes("/dev", "vhost-vdpa-")
}

/// The devices that the kernel has.
#[must_use]
pub fn find() -> Vec<Found> {
    list().unwrap_or_default().iter().map(found).collect()
}

fn found(device: &KernelVdpa) -> Found {
    let node = device.node.as_ref().map(|node| node.display().to_string());
    let driver = device.driver.as_deref().unwrap_or("no driver");
    Found {
        device: format!("{}:{}", INFO.name, device.name),
        description: node.unwrap_or_else(|| format!("bound to {driver}")),
        // Only who opens a device is told, and that resets it.
        queue_pairs: None,
        features: None,
        obstacle: device.obstacle(),
    }
}
