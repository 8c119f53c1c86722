//! One module per kind of port: virtual machines (vhost-user), their drivers (virtio-user,
//! virtio-pci), network cards (igb), interfaces of the host (AF_XDP, AF_PACKET, TAP, VDUSE), files,
//! nothing.
//!
//! - [`open`](mod@open): from a device string to an open port, and the list of drivers
//! - [`vduse`]: a vDPA device of the host kernel, for an interface or a virtual machine
//! - [`pcap`]: capture files
//! - [`null`]: nothing, or generated frames
//! - [`vhost_user`]: a virtual machine, through its vhost-user socket
//! - [`virtio_user`]: the driver of a vhost-user back-end
//! - [`virtio_pci`]: a virtio network device on the PCI bus
//! - `virtio`: what all virtio-net drivers share: rings, queues, features
//! - [`pci`]: PCI devices that there are drivers for here
//! - `backend`: what ports on the device side of virtio-net have in common
//! - `control`: the control side of ports without a device

mod backend;
mod control;
pub mod null;
pub mod open;
pub mod pcap;
pub mod pci;
pub mod vduse;
pub mod vhost_user;
mod virtio;
pub mod virtio_pci;
pub mod virtio_user;

pub use open::{Drivers, list, needs, open};
