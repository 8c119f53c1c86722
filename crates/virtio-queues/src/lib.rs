//! The queues of virtio network devices, as their driver has them: all that frames pass through of
//! `virtio-net`, which finds a device, agrees on features with it and tells it where the rings are.
//!
//! - [`receive`], [`transmit`]: the rings and queues that carry frames
//! - [`store`]: where received frames lie, and how they leave as packets
//! - [`lane`]: where a ring passes between the port's thread and its worker
//! - [`memory`]: memory that driver and device share, given out in parts
//! - [`kick`]: how a device is told that there is something in a ring
//! - `kept`: packets that a device sends from where they lie

#[cfg(test)]
mod hostile_tests;
mod kept;
pub mod kick;
pub mod lane;
pub mod memory;
pub mod receive;
pub mod store;
pub mod transmit;
