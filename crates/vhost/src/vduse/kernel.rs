//! The kernel's side of a device.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use eal::PeerEvent;

use super::message::{Answer, Request};
use crate::call::Call;

/// What the kernel knows about a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingInfo {
    /// Number of descriptors; 0 while the driver has not said it.
    pub size: u32,
    /// Address of the descriptor table in the device's address space.
    pub desc: u64,
    /// Address of the available ring.
    pub driver: u64,
    /// Address of the used ring.
    pub device: u64,
    /// Index in the available ring to begin at.
    pub base: u16,
    /// Whether the driver wants it to run.
    pub ready: bool,
}

/// A piece of the device's address space that is backed by one piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// Whether the device may both read and write it.
    pub writable: bool,
}

/// What the kernel answers about one device, as `linux/vduse.h` documents it. The file of
/// [`AsFd`] is readable while requests wait.
///
/// Everything fails with `EPERM` once the kernel has given the device up, because a request was
/// not answered within `msg_timeout` seconds.
#[allow(clippy::missing_errors_doc, reason = "above, and whatever the kernel says")]
pub trait Kernel: AsFd + Send {
    /// The next request, if any.
    fn receive(&self) -> io::Result<Option<Request>>;

    /// Answers a request.
    fn answer(&self, answer: &Answer) -> io::Result<()>;

    /// The features that the driver has accepted; 0 before it has.
    fn features(&self) -> io::Result<u64>;

    /// What is known about ring `index`; `EINVAL` where there is no such ring.
    fn ring(&self, index: u16) -> io::Result<RingInfo>;

    /// Makes the driver's notifications of ring `index` signal `kick`. They are lost with the
    /// former file, and kept without one. A reset of the device undoes it.
    fn set_kick(&self, index: u16, kick: &PeerEvent) -> io::Result<()>;

    /// By which a worker notifies the driver of ring `index`.
    fn call(&self, index: u16) -> Call;

    /// The first extent that has an address from `start` to `last`, and its file.
    fn lookup(&self, start: u64, last: u64) -> io::Result<Option<(Extent, OwnedFd)>>;

    /// Writes the link status into the configuration space.
    fn set_link(&self, up: bool) -> io::Result<()>;

    /// Tells the driver that the configuration space has changed. `EINVAL` while the driver is
    /// not ready (`DRIVER_OK`).
    fn inject_config_irq(&self) -> io::Result<()>;
}

impl fmt::Debug for dyn Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel(..)")
    }
}
