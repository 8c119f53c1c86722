//! What ports on interfaces of the host kernel have in common: AF_XDP and AF_PACKET.
//!
//! - `interface`: the interface that a device string names
//! - `link`: whether it is there and up, watched by a thread that sleeps until something happens
//! - `control`: the port's control side; what it changes on the interface is undone at the end
//! - `options`: the options of all such ports
//! - `memory`: memory shared with the kernel
//! - `socket`: socket options
//! - `wait`: what a sleeping worker waits on

pub(crate) mod control;
pub(crate) mod interface;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod options;
pub(crate) mod socket;
pub(crate) mod wait;
