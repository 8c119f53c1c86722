//! What ports on interfaces of the host kernel have in common: AF_XDP, AF_PACKET and TAP.
//!
//! - `interface`: the interface that a device string names
//! - `link`: whether it is there and up, watched by a thread that sleeps until something happens
//! - `place`: whether it is in another network namespace, and what is known of it there
//! - `slot`: where the queues lie, so that sockets can be replaced under the workers
//! - `driver`: drivers, and what the control side knows of them
//! - `session`: a port's time with an interface; what it changes there is undone at the end
//! - `control`: the port's control side, which takes the interface up whenever it is there
//! - `news`: what the kernel says when something changes
//! - `options`: the options of all such ports
//! - `memory`: memory shared with the kernel
//! - `socket`: socket options
//! - `wait`: what a sleeping worker waits on

pub(crate) mod control;
pub(crate) mod driver;
pub(crate) mod interface;
pub(crate) mod link;
pub(crate) mod memory;
pub(crate) mod news;
pub(crate) mod options;
pub(crate) mod place;
pub(crate) mod session;
pub(crate) mod slot;
pub(crate) mod socket;
pub(crate) mod wait;
