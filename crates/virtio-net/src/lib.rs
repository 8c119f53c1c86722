//! The driver of virtio network devices.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("back-end.sock");
//! // The link comes up when somebody serves the socket, now or later.
//! let spec = format!("virtio-user:{},queues=2", path.display()).parse()?;
//! let sockets = eal::Access::default();
//! let port = virtio_net::user::open("port0", spec, &sockets, &eal::time::Time::system())?;
//! assert_eq!((port.rx.len(), port.tx.len()), (2, 2));
//! assert!(!port.port.control().link().up);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`pci`]: a device on the PCI bus
//! - [`user`]: a back-end behind a vhost-user socket
//!
//! These find a device, agree on features with it and tell it where the rings are. What goes on in
//! the rings is the same for both, and is the crate `virtio_queues`. What else they have in common:
//!
//! - `options`: what device strings of both can say
//! - `features`: which features to use of those that are offered
//! - `plan`: the rings of a session, and the memory that they take
//! - `link`: what both sides of a port's thread see, and changes of the port
//! - `control_queue`: commands to the device
//! - [`control`]: what drivers of such devices that do not carry frames have of all this: vDPA

pub mod control;
mod control_queue;
mod features;
mod link;
mod options;
pub mod pci;
mod plan;
pub mod user;
