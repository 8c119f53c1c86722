//! The virtio-net driver: all of it that does not depend on how the device is reached.
//!
//! [`virtio_user`](crate::virtio_user) and [`virtio_pci`](crate::virtio_pci) find a device, agree
//! on features with it and tell it where the rings are. What goes on in the rings is here, and
//! the same for both:
//!
//! - `options`: what device strings of both can say
//! - `features`: which features to use of those that are offered
//! - `plan`: the rings of a session, and the memory that they take
//! - `memory`: memory that driver and device share, given out in parts
//! - `kick`: how a device is told that there is something in a ring
//! - `lane`: where a ring passes between the port's thread and its worker
//! - `link`: what both sides of a port's thread see, and changes of the port
//! - `receive`, `transmit`: the rings and queues that carry frames
//! - `store`: where received frames lie, and how they leave as packets
//! - `kept`: packets that a device sends from where they lie
//! - `control_queue`: commands to the device

pub(crate) mod control_queue;
pub(crate) mod features;
#[cfg(test)]
mod hostile_tests;
mod kept;
pub(crate) mod kick;
pub(crate) mod lane;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod options;
pub(crate) mod plan;
pub(crate) mod receive;
mod store;
pub(crate) mod transmit;
