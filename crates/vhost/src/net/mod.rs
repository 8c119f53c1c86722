//! The device side of virtio-net: the rings of one guest, shared between the control thread,
//! which starts and stops them, and the workers, which poll them.
//!
//! - [`announce`](mod@announce): the frame by which a guest that has moved is announced
//! - [`command`]: commands of the control queue
//! - [`control_ring`]: the control queue, served on the control thread
//! - [`device`]: the control side: starts and stops rings
//! - `dirty`: where the rings log what they write
//! - `gate`: what a worker may touch while pages of the guest are missing
//! - `iommu`: the device behind a virtual IOMMU
//! - [`filter`]: which frames a guest wants to receive
//! - `postcopy`: a guest that runs before all of its memory is there
//! - [`ring`]: a running ring and the slot in which it passes between the two sides
//! - `start`: how a ring starts
//! - `state`: what moves to another back-end with the guest
//! - [`receive`]: frames that the guest sends, borrowed from its ring
//! - [`transmit`]: frames for the guest, copied into the buffers that it offers

pub mod announce;
pub mod command;
pub mod control_ring;
pub mod device;
mod dirty;
pub mod filter;
pub mod gate;
mod iommu;
mod postcopy;
pub mod receive;
pub mod ring;
mod start;
mod state;
#[cfg(test)]
mod tests;
pub mod transmit;

pub use device::NetDevice;
pub use receive::NetReceiver;
pub use ring::{Ring, RingSlot};
pub use transmit::NetTransmitter;
