//! What goes wrong with PCI devices.

use std::io;

use super::info::PciAddress;

/// Why a PCI device cannot be used, or changed.
#[derive(Debug, thiserror::Error)]
#[error("PCI device {address}: {reason}")]
pub struct PciError {
    /// The device.
    pub address: PciAddress,
    /// What happened, what was expected, and what to do about it.
    pub reason: String,
}

impl PciError {
    /// An error about the device at `address`.
    #[must_use]
    pub fn new(address: PciAddress, reason: impl Into<String>) -> Self {
        Self { address, reason: reason.into() }
    }

    /// An error of the kernel's about the device at `address`; `what` is what was tried.
    #[must_use]
    pub fn system(address: PciAddress, what: &str, cause: &io::Error) -> Self {
        Self::new(address, format!("cannot {what}: {cause}"))
    }
}
