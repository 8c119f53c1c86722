//! A device bound to `uio_pci_generic`: for machines without an IOMMU.
//!
//! The kernel gives its interrupt and nothing else; the registers and the configuration space come
//! from sysfs. Should the process be killed, the kernel switches bus mastering off (since Linux
//! 4.18) and the next one to open the device does so again; what the device wrote in between went
//! to huge pages that the kernel may already have given to others. VFIO has no such gap.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::bar::Bar;
use super::capability::{
    COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_MEMORY, change_command, has_interrupt_pin,
};
use super::device::PciDevice;
use super::error::PciError;
use super::info::DeviceInfo;
use super::sysfs::{Sysfs, names_in, write_attribute};
use crate::dma::DmaSpace;

/// A device bound to `uio_pci_generic`.
pub struct UioDevice {
    info: DeviceInfo,
    sysfs: Sysfs,
    /// Its directory in sysfs.
    dir: PathBuf,
    /// Its interrupt, and the lock that makes it ours.
    uio: File,
    config: File,
    space: DmaSpace,
    has_line: bool,
    /// The I/O ports of each base address register, once they are used.
    ports: [OnceLock<File>; 6],
}

impl UioDevice {
    /// Takes a device, with interrupts and bus mastering off.
    pub fn open(info: DeviceInfo, sysfs: &Sysfs, space: DmaSpace) -> Result<Self, PciError> {
        let address = info.address;
        let failed = |path: &Path, cause: &io::Error| {
            let hint = match cause.kind() {
                io::ErrorKind::PermissionDenied => {
                    "; UIO needs root, and a kernel that is not locked down (Secure Boot)"
                }
                _ => "",
            };
            PciError::new(address, format!("cannot open {}: {cause}{hint}", path.display()))
        };
        check_iommu(&info, sysfs)?;
        let dir = sysfs.device_path(address);
        let node = node(&dir)
            .ok_or_else(|| PciError::new(address, "the kernel made no UIO device for it"))?;
        let uio = open_node(&node).map_err(|cause| failed(&node, &cause))?;
        lock(&uio).map_err(|_| {
            PciError::new(address, format!("another process uses {}", node.display()))
        })?;
        let path = dir.join("config");
        let config = File::options().read(true).write(true).open(&path);
        let config = config.map_err(|cause| failed(&path, &cause))?;
        let mut this = Self {
            info,
            sysfs: sysfs.clone(),
            dir,
            uio,
            config,
            space,
            has_line: false,
            ports: Default::default(),
        };
        // Whoever had it before may have been killed.
        change_command(&this, COMMAND_MEMORY | COMMAND_INTX_DISABLE, COMMAND_BUS_MASTER)?;
        this.has_line = has_interrupt_pin(&this);
        Ok(this)
    }

    fn failed(&self, what: &str, cause: &io::Error) -> PciError {
        PciError::system(self.info.address, what, cause)
    }

    /// The file of a base address register that describes I/O ports.
    fn ports(&self, index: u8) -> Result<&File, PciError> {
        let slot = self.ports.get(usize::from(index));
        let slot = slot.ok_or_else(|| self.refused(format!("it has no BAR {index}")))?;
        if let Some(file) = slot.get() {
            return Ok(file);
        }
        let resources = self.sysfs.resources(self.info.address)?;
        if !resources.iter().any(|resource| resource.index == index && !resource.is_memory) {
            return Err(self.refused(format!("it has no I/O ports in BAR {index}")));
        }
        let path = self.dir.join(format!("resource{index}"));
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(|cause| self.failed("open its I/O ports", &cause))?;
        Ok(slot.get_or_init(|| file))
    }

    fn refused(&self, reason: impl Into<String>) -> PciError {
        PciError::new(self.info.address, reason)
    }
}

/// Physical addresses mean nothing to a device behind an IOMMU that translates.
fn check_iommu(info: &DeviceInfo, sysfs: &Sysfs) -> Result<(), PciError> {
    let Some(group) = info.iommu_group else { return Ok(()) };
    match sysfs.group_type(group) {
        Some(kind) if kind != "identity" => Err(PciError::new(
            info.address,
            format!(
                "it is behind an IOMMU that translates (type {kind}), so UIO's physical addresses \
                 do not reach memory; type: ringway devices bind {} --driver vfio-pci",
                info.address
            ),
        )),
        _ => Ok(()),
    }
}

/// The file of the UIO device that the kernel made of the PCI device in `dir`.
pub(super) fn node(dir: &Path) -> Option<PathBuf> {
    let name = names_in(&dir.join("uio")).into_iter().find(|name| name.starts_with("uio"))?;
    Some(Path::new("/dev").join(name))
}

/// Opens the file of a UIO device.
pub(super) fn open_node(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).write(true).custom_flags(flags).open(path)
}

/// Makes the device ours: UIO itself would let any number of processes have it.
pub(super) fn lock(uio: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(uio, FlockOperation::NonBlockingLockExclusive)?)
}

impl PciDevice for UioDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn dma(&self) -> &DmaSpace {
        &self.space
    }

    fn read_config(&self, offset: u16, into: &mut [u8]) -> Result<(), PciError> {
        self.config
            .read_exact_at(into, u64::from(offset))
            .map_err(|cause| self.failed("read its configuration space", &cause))
    }

    fn write_config(&self, offset: u16, bytes: &[u8]) -> Result<(), PciError> {
        self.config
            .write_all_at(bytes, u64::from(offset))
            .map_err(|cause| self.failed("write its configuration space", &cause))
    }

    fn map_bar(&self, index: u8) -> Result<Bar, PciError> {
        let resources = self.sysfs.resources(self.info.address)?;
        let found = resources.iter().find(|resource| resource.index == index);
        let found = found.ok_or_else(|| self.refused(format!("it has no BAR {index}")))?;
        if !found.is_memory {
            return Err(self.refused(format!("its BAR {index} is I/O ports")));
        }
        let page = rustix::param::page_size();
        let (Ok(len), Ok(skip)) =
            (usize::try_from(found.len), usize::try_from(found.start % page as u64))
        else {
            return Err(self.refused(format!("its BAR {index} has {} bytes", found.len)));
        };
        let failed = |cause: io::Error| self.failed(&format!("map its BAR {index}"), &cause);
        let path = self.dir.join(format!("resource{index}"));
        let file = File::options().read(true).write(true).open(path).map_err(failed)?;
        let whole = (skip + len).next_multiple_of(page);
        Bar::map(file.as_fd(), 0, skip, len, &[(0, whole)], None).map_err(failed)
    }

    fn read_io(&self, index: u8, offset: u64, into: &mut [u8]) -> Result<(), PciError> {
        self.ports(index)?
            .read_exact_at(into, offset)
            .map_err(|cause| self.failed("read its I/O ports", &cause))
    }

    fn write_io(&self, index: u8, offset: u64, bytes: &[u8]) -> Result<(), PciError> {
        self.ports(index)?
            .write_all_at(bytes, offset)
            .map_err(|cause| self.failed("write its I/O ports", &cause))
    }

    fn set_bus_master(&self, on: bool) -> Result<(), PciError> {
        let (set, clear) = if on { (COMMAND_BUS_MASTER, 0) } else { (0, COMMAND_BUS_MASTER) };
        change_command(self, set, clear)
    }

    fn reset(&self) -> Result<(), PciError> {
        // The kernel restores the command register as it was.
        self.set_bus_master(false)?;
        write_attribute(&self.dir.join("reset"), "1").map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => self.refused("the kernel knows no way to reset it"),
            _ => self.failed("reset it", &cause),
        })
    }

    fn msix_vectors(&self) -> u16 {
        0
    }

    fn set_msix(&self, events: &[Option<BorrowedFd<'_>>]) -> Result<(), PciError> {
        if events.is_empty() {
            return Ok(());
        }
        Err(self.refused("uio_pci_generic has no MSI-X, only the line interrupt"))
    }

    fn line_interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.has_line.then(|| self.uio.as_fd())
    }

    fn unmask_line_interrupt(&self) -> Result<(), PciError> {
        if !self.has_line {
            return Err(self.refused("it has no line interrupt"));
        }
        // The kernel masks the interrupt when it fires, by the bit that is cleared here.
        let mut count = [0; 4];
        match rustix::io::read(&self.uio, &mut count) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(self.failed("clear its line interrupt", &errno.into())),
        }
        change_command(self, 0, COMMAND_INTX_DISABLE)
    }
}

impl Drop for UioDevice {
    fn drop(&mut self) {
        // What fails here fails because the device is gone.
        let _ = change_command(self, COMMAND_INTX_DISABLE, COMMAND_BUS_MASTER);
        let _ = self.reset();
    }
}

impl fmt::Debug for UioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UioDevice").field("address", &self.info.address).finish_non_exhaustive()
    }
}
