//! One module per kind of port: virtual machines (vhost-user), their drivers (virtio-user,
//! virtio-pci), network cards (igb), interfaces of the host (AF_XDP, AF_PACKET, TAP, VDUSE), files,
//! nothing.
//!
//! - [`open`](mod@open): from a device string to an open port, and the list of drivers
//! - [`af_xdp`]: an interface of the host, by AF_XDP sockets
//! - [`af_packet`]: an interface of the host, by packet sockets
//! - [`tap`]: a TAP interface of the host kernel
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
//! - `kernel`: what ports on interfaces of the host have in common
//! - `interfaces`: interfaces of the host, by ioctl
//! - `gather`: frames of several pieces in one system call
//! - `slots`: memory for the frames that a driver receives by copying

pub mod af_packet;
pub mod af_xdp;
mod backend;
mod control;
mod gather;
mod interfaces;
mod kernel;
mod netlink;
pub mod null;
pub mod open;
pub mod pcap;
pub mod pci;
mod slots;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod vduse;
pub mod vhost_user;
mod virtio;
pub mod virtio_pci;
pub mod virtio_user;

pub use open::{Drivers, list, needs, open};
