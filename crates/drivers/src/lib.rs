//! One module per kind of port: vhost-user, virtio-user, virtio-pci, TAP, pcap, null.
//!
//! - [`open`](mod@open): from a device string to an open port, and the list of drivers
//! - [`tap`]: a TAP interface of the host kernel
//! - [`pcap`]: capture files
//! - [`null`]: nothing, or generated frames
//! - [`vhost_user`]: a virtual machine, through its vhost-user socket
//! - [`virtio_user`]: the driver of a vhost-user back-end
//! - [`virtio_pci`]: a virtio network device on the PCI bus
//! - `virtio`: what all virtio-net drivers share: rings, queues, features
//! - [`pci`]: PCI devices that there are drivers for here
//! - `control`: the control side of ports without a device
//! - `slots`: memory for the frames that a driver receives by copying

mod control;
pub mod null;
pub mod open;
pub mod pcap;
pub mod pci;
mod slots;
pub mod tap;
pub mod vhost_user;
mod virtio;
pub mod virtio_pci;
pub mod virtio_user;

pub use open::{DriverInfo, Drivers, OpenPort, OptionInfo, list, open};
