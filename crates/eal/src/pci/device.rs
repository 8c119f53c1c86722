//! A PCI device that this process drives, whatever gives it access: VFIO or UIO.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::bar::Bar;
use super::error::PciError;
use super::info::DeviceInfo;
use crate::dma::DmaSpace;

/// A device that was taken from its kernel driver and belongs to this process.
///
/// Dropping it disables its interrupts and its bus mastering and resets it where it can be, so
/// that it stops reaching memory; should the process be killed, the kernel does that (VFIO), or the
/// next one to open it (UIO).
///
/// All of it is for control paths. What is fast goes through a [`Bar`], which is mapped once.
pub trait PciDevice: Send + Sync {
    /// What the device is, as found when it was opened.
    fn info(&self) -> &DeviceInfo;

    /// The address space in which the device sees memory. Devices may share one.
    fn dma(&self) -> &DmaSpace;

    /// Reads `into.len()` bytes of configuration space at `offset`.
    ///
    /// # Errors
    /// Outside of the space, or when the device is gone.
    fn read_config(&self, offset: u16, into: &mut [u8]) -> Result<(), PciError>;

    /// Writes bytes of configuration space at `offset`.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    fn write_config(&self, offset: u16, bytes: &[u8]) -> Result<(), PciError>;

    /// Maps base address register `index` (0 to 5). The mapping may outlive the device value; then
    /// reads give all ones or what is left there.
    ///
    /// # Errors
    /// When the register describes no memory, or the kernel does not let it be mapped.
    fn map_bar(&self, index: u8) -> Result<Bar, PciError>;

    /// Reads `into.len()` bytes, 1, 2 or 4, at `offset` of base address register `index`, which
    /// describes I/O ports.
    ///
    /// # Errors
    /// When the register describes no I/O ports or fewer, the kernel does not let them be
    /// reached, or the device is gone.
    fn read_io(&self, index: u8, offset: u64, into: &mut [u8]) -> Result<(), PciError> {
        let _ = (offset, into);
        Err(no_ports(self.info(), index))
    }

    /// Writes 1, 2 or 4 bytes at `offset` of base address register `index`, which describes I/O
    /// ports.
    ///
    /// # Errors
    /// As [`read_io`](Self::read_io).
    fn write_io(&self, index: u8, offset: u64, bytes: &[u8]) -> Result<(), PciError> {
        let _ = (offset, bytes);
        Err(no_ports(self.info(), index))
    }

    /// Lets the device reach memory, or keeps it from that.
    ///
    /// # Errors
    /// When the device is gone.
    fn set_bus_master(&self, on: bool) -> Result<(), PciError>;

    /// Resets the function (FLR or whatever the kernel has for it). Configuration space is
    /// restored, bus mastering is off.
    ///
    /// # Errors
    /// Where the kernel knows no way; the driver then resets by registers.
    fn reset(&self) -> Result<(), PciError>;

    /// Number of MSI-X vectors that can be used; 0 where there are none (UIO).
    fn msix_vectors(&self) -> u16;

    /// Has each vector signal its event from now on, vector 0 the first, `None` nobody, and
    /// switches MSI-X on. Replaces what was set before.
    ///
    /// # Errors
    /// When there are more than [`msix_vectors`](Self::msix_vectors).
    fn set_msix(&self, events: &[Option<BorrowedFd<'_>>]) -> Result<(), PciError>;

    /// Has MSI-X vector `vector`, of those that were [set](Self::set_msix), signal another event.
    /// The other vectors are not disturbed; of this one a signal may be lost meanwhile.
    ///
    /// # Errors
    /// When there is no such vector.
    fn change_msix(&self, vector: u16, event: Option<BorrowedFd<'_>>) -> Result<(), PciError> {
        let _ = event;
        Err(PciError::new(self.info().address, format!("it has no MSI-X vector {vector}")))
    }

    /// A file, and the offset in it in bytes, by which another process can map `len` bytes at
    /// `offset` of base address register `index`: whole pages. The file is the device's own, so
    /// whoever gets it can do with the device whatever this process can.
    ///
    /// # Errors
    /// When they are not memory of the device that can be mapped.
    fn share_bar(&self, index: u8, offset: u64, len: u64) -> Result<(OwnedFd, u64), PciError> {
        let _ = (offset, len);
        let reason = format!("register {index} cannot be mapped by others");
        Err(PciError::new(self.info().address, reason))
    }

    /// The device's line interrupt (INTx), where there is no MSI-X: becomes readable when it
    /// fires and is masked by then; `None` where the device has none.
    fn line_interrupt(&self) -> Option<BorrowedFd<'_>>;

    /// Clears and unmasks the line interrupt after it fired, or for the first time.
    ///
    /// # Errors
    /// When there is none.
    fn unmask_line_interrupt(&self) -> Result<(), PciError>;

    /// Becomes readable when the kernel wants the device back, since it is unplugged or taken from
    /// its driver, and waits for that; see [`give_back`](Self::give_back). `None` where it does not
    /// ask (UIO).
    fn release_request(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Gives the device back to the kernel, although there are values that refer to it: from now
    /// on it is to them as one that is gone. Registers read as all ones, and nothing else can be
    /// done with it. The device must have been stopped.
    fn give_back(&self) {}
}

impl fmt::Debug for dyn PciDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PciDevice(..)")
    }
}

fn no_ports(info: &DeviceInfo, index: u8) -> PciError {
    PciError::new(info.address, format!("the I/O ports of register {index} cannot be reached"))
}
