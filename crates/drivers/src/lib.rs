//! From a device string to an open port, whatever drives it.
//!
//! ```
//! use drivers::Drivers;
//!
//! // Frames from nowhere go to nobody.
//! let drivers = Drivers::new();
//! let mut from = drivers::open("in", "null:rx=on,size=64", &drivers)?;
//! let mut to = drivers::open("out", "null:", &drivers)?;
//! let burst = from.rx[0].rx_burst(32);
//! assert_eq!(burst.frames().len(), 32);
//! assert_eq!(to.tx[0].tx_burst(burst.frames()), 32);
//! # Ok::<(), ethdev::Error>(())
//! ```
//!
//! Drivers of network cards, of virtio devices and of interfaces of the host are crates of their
//! own, which know nothing of each other: `igb`, `virtio_net`, `host`. Each is a line in the table
//! of [`open`](mod@open), as are the kinds of ports that are here:
//!
//! - [`open`](mod@open): from a device string to an open port, and the list of drivers
//! - [`vduse`]: a vDPA device of the host kernel, for an interface or a virtual machine
//! - [`pcap`]: capture files
//! - [`null`]: nothing, or generated frames
//! - [`dummy`]: no device, and frames that a test has come in
//! - [`vhost_user`]: a virtual machine, through its vhost-user socket
//! - [`pci`]: PCI devices that there are drivers for here
//! - `backend`: what ports on the device side of virtio-net have in common
//! - `control`: the control side of ports without a device
//! - `shared`: what the ports of one process share

mod backend;
mod control;
pub mod dummy;
pub mod null;
pub mod open;
pub mod pcap;
pub mod pci;
mod shared;
pub mod vduse;
pub mod vhost_user;

pub use open::{list, needs, open};
pub use shared::Drivers;
