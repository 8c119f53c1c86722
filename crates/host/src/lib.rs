//! Interfaces of the host kernel as ports.
//!
//! ```no_run
//! // Frames that anybody sends on eth0; to nobody, so they are dropped when the burst ends.
//! let (device, time) = ("af-packet:eth0".parse()?, eal::time::Time::system());
//! let mut port = host::af_packet::open("uplink", device, &time)?;
//! let burst = port.rx[0].rx_burst(32);
//! println!("{} frames", burst.frames().len());
//! # Ok::<(), ethdev::Error>(())
//! ```
//!
//! - [`af_xdp`]: an interface by AF_XDP sockets, the fast way to a NIC that stays with the kernel
//! - [`af_packet`]: an interface by packet sockets, which works with any
//! - [`tap`]: a TAP interface, by which the host itself takes part
//! - `kernel`: what they have in common, and [`News`] of the kernel
//! - `interfaces`: interfaces of the host, by ioctl
//! - `gather`: frames of several pieces in one system call

pub mod af_packet;
pub mod af_xdp;
mod gather;
mod interfaces;
mod kernel;
pub mod tap;
#[cfg(test)]
mod testing;

pub use kernel::news::News;
