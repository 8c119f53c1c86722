//! A device bound to `vfio-pci`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::abi::{self, Region};
use super::container::Container;
use super::handle::Handle;
use crate::dma::DmaSpace;
use crate::event::EventFd;
use crate::pci::bar::Bar;
use crate::pci::capability::{
    COMMAND_BUS_MASTER, COMMAND_MEMORY, change_command, has_interrupt_pin,
};
use crate::pci::device::PciDevice;
use crate::pci::error::PciError;
use crate::pci::info::DeviceInfo;
use crate::pci::sysfs::Sysfs;

/// Which interrupts are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Interrupts {
    #[default]
    None,
    Line,
    Msix,
}

/// A device bound to `vfio-pci`.
pub struct VfioDevice {
    info: DeviceInfo,
    handle: Arc<Handle>,
    space: DmaSpace,
    config: Region,
    flags: u32,
    msix_vectors: u16,
    /// What the line interrupt signals, where there is one.
    line: Option<EventFd>,
    /// What the kernel signals when it wants the device back, where it does.
    request: Option<EventFd>,
    interrupts: Mutex<Interrupts>,
    /// Position in the device's file and length of base address registers, once their I/O ports
    /// are used.
    ports: [OnceLock<(u64, u64)>; 6],
}

impl VfioDevice {
    /// Takes a device. It comes reset, as far as the kernel can do that, and without bus mastering.
    pub fn open(
        info: DeviceInfo,
        sysfs: &Sysfs,
        container: &Arc<Container>,
        space: DmaSpace,
    ) -> Result<Self, PciError> {
        let address = info.address;
        let failed = |what: &str, cause: &io::Error| PciError::system(address, what, cause);
        let (fd, group) =
            container.open(&info, sysfs).map_err(|reason| PciError::new(address, reason))?;
        let handle = Arc::new(Handle::new(fd, group));
        let device = handle.fd();
        let flags =
            abi::device_flags(device).map_err(|cause| failed("ask VFIO about it", &cause))?;
        if flags & abi::DEVICE_IS_PCI == 0 {
            return Err(PciError::new(address, "VFIO says that it is no PCI device"));
        }
        let config = abi::region(device, abi::CONFIG_REGION)
            .map_err(|cause| failed("find its configuration space", &cause))?;
        let vectors = abi::irq_count(device, abi::IRQ_MSIX).unwrap_or(0);
        let lines = abi::irq_count(device, abi::IRQ_INTX).unwrap_or(0);
        let request = request_event(device);
        let mut this = Self {
            info,
            handle,
            space,
            config,
            flags,
            msix_vectors: u16::try_from(vectors).unwrap_or(0),
            line: None,
            request,
            interrupts: Mutex::default(),
            ports: Default::default(),
        };
        if lines > 0 && has_interrupt_pin(&this) {
            this.line = Some(EventFd::new().map_err(|cause| failed("make an eventfd", &cause))?);
        }
        change_command(&this, COMMAND_MEMORY, COMMAND_BUS_MASTER)?;
        Ok(this)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.handle.fd()
    }

    /// Keeps the device from interrupting and from memory. What fails here fails because the
    /// device is gone.
    fn calm(&self) {
        let mut on = self.lock_interrupts();
        let _ = self.stop_interrupts(&mut on);
        drop(on);
        let _ = self.set_bus_master(false);
        if self.flags & abi::DEVICE_HAS_RESET != 0 {
            let _ = abi::reset(self.fd());
        }
    }

    fn failed(&self, what: &str, cause: &io::Error) -> PciError {
        PciError::system(self.info.address, what, cause)
    }

    fn refused(&self, reason: impl Into<String>) -> PciError {
        PciError::new(self.info.address, reason)
    }

    fn lock_interrupts(&self) -> MutexGuard<'_, Interrupts> {
        self.interrupts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches off whatever interrupts are on: the kernel allows one kind at a time.
    fn stop_interrupts(&self, on: &mut Interrupts) -> io::Result<()> {
        match std::mem::take(on) {
            Interrupts::None => Ok(()),
            Interrupts::Line => abi::disable_irqs(self.fd(), abi::IRQ_INTX),
            Interrupts::Msix => abi::disable_irqs(self.fd(), abi::IRQ_MSIX),
        }
    }

    /// Where `len` bytes at `offset` of base address register `index` are in the device's file.
    fn port_position(&self, index: u8, offset: u64, len: usize) -> Result<u64, PciError> {
        let slot = self.ports.get(usize::from(index));
        let slot = slot.ok_or_else(|| self.refused(format!("it has no BAR {index}")))?;
        let (position, size) = match slot.get() {
            Some(known) => *known,
            None => {
                let region = abi::region(self.fd(), u32::from(index))
                    .map_err(|cause| self.failed(&format!("find its BAR {index}"), &cause))?;
                *slot.get_or_init(|| (region.offset, region.size))
            }
        };
        let end = offset.saturating_add(len as u64);
        if end > size {
            return Err(self.refused(format!(
                "{len} bytes at {offset:#x} are outside of its BAR {index} of {size} bytes"
            )));
        }
        Ok(position.saturating_add(offset))
    }

    /// Where `len` bytes at `offset` of configuration space are in the device's file.
    fn config_position(&self, offset: u16, len: usize) -> Result<u64, PciError> {
        let end = u64::from(offset).saturating_add(len as u64);
        if end > self.config.size {
            let size = self.config.size;
            return Err(self.refused(format!(
                "{len} bytes at {offset:#x} are outside of its configuration space of {size} bytes"
            )));
        }
        Ok(self.config.offset.saturating_add(u64::from(offset)))
    }
}

impl PciDevice for VfioDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn dma(&self) -> &DmaSpace {
        &self.space
    }

    fn read_config(&self, offset: u16, into: &mut [u8]) -> Result<(), PciError> {
        let position = self.config_position(offset, into.len())?;
        let wanted = into.len();
        match rustix::io::pread(self.fd(), into, position) {
            Ok(read) if read == wanted => Ok(()),
            Ok(_) => Err(self.refused(format!("its configuration space ends at {offset:#x}"))),
            Err(errno) => Err(self.failed("read its configuration space", &errno.into())),
        }
    }

    fn write_config(&self, offset: u16, bytes: &[u8]) -> Result<(), PciError> {
        let position = self.config_position(offset, bytes.len())?;
        match rustix::io::pwrite(self.fd(), bytes, position) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(self.refused(format!("its configuration space ends at {offset:#x}"))),
            Err(errno) => Err(self.failed("write its configuration space", &errno.into())),
        }
    }

    fn map_bar(&self, index: u8) -> Result<Bar, PciError> {
        let failed = |cause: io::Error| self.failed(&format!("map its BAR {index}"), &cause);
        let none = || self.refused(format!("it has no BAR {index}"));
        if index > 5 {
            return Err(none());
        }
        let region = abi::region(self.fd(), u32::from(index)).map_err(failed)?;
        if region.size == 0 {
            return Err(none());
        }
        if region.flags & abi::REGION_MMAP == 0 {
            return Err(self.refused(format!("its BAR {index} is I/O ports, or too small to map")));
        }
        let len = usize::try_from(region.size).map_err(|_| none())?;
        let areas = areas(&region, len).ok_or_else(|| {
            self.refused(format!("VFIO gives areas of BAR {index} that are not inside it"))
        })?;
        self.handle.map(region.offset, len, &areas).map_err(failed)
    }

    fn read_io(&self, index: u8, offset: u64, into: &mut [u8]) -> Result<(), PciError> {
        let position = self.port_position(index, offset, into.len())?;
        let wanted = into.len();
        match rustix::io::pread(self.fd(), into, position) {
            Ok(read) if read == wanted => Ok(()),
            Ok(_) => Err(self.refused(format!("its BAR {index} ends at {offset:#x}"))),
            Err(errno) => Err(self.failed("read its I/O ports", &errno.into())),
        }
    }

    fn write_io(&self, index: u8, offset: u64, bytes: &[u8]) -> Result<(), PciError> {
        let position = self.port_position(index, offset, bytes.len())?;
        match rustix::io::pwrite(self.fd(), bytes, position) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(_) => Err(self.refused(format!("its BAR {index} ends at {offset:#x}"))),
            Err(errno) => Err(self.failed("write its I/O ports", &errno.into())),
        }
    }

    fn set_bus_master(&self, on: bool) -> Result<(), PciError> {
        let (set, clear) = if on { (COMMAND_BUS_MASTER, 0) } else { (0, COMMAND_BUS_MASTER) };
        change_command(self, set, clear)
    }

    fn reset(&self) -> Result<(), PciError> {
        if self.flags & abi::DEVICE_HAS_RESET == 0 {
            return Err(self.refused("the kernel knows no way to reset it"));
        }
        // The kernel restores the command register as it was.
        self.set_bus_master(false)?;
        abi::reset(self.fd()).map_err(|cause| self.failed("reset it", &cause))
    }

    fn msix_vectors(&self) -> u16 {
        self.msix_vectors
    }

    fn set_msix(&self, events: &[Option<BorrowedFd<'_>>]) -> Result<(), PciError> {
        if events.len() > usize::from(self.msix_vectors) {
            return Err(self.refused(format!(
                "{} MSI-X vectors asked for, it has {}",
                events.len(),
                self.msix_vectors
            )));
        }
        let mut on = self.lock_interrupts();
        self.stop_interrupts(&mut on)
            .map_err(|cause| self.failed("switch its interrupts off", &cause))?;
        if events.is_empty() {
            return Ok(());
        }
        abi::enable_irqs(self.fd(), abi::IRQ_MSIX, events).map_err(|cause| {
            self.failed(&format!("switch {} MSI-X vectors on", events.len()), &cause)
        })?;
        *on = Interrupts::Msix;
        Ok(())
    }

    fn change_msix(&self, vector: u16, event: Option<BorrowedFd<'_>>) -> Result<(), PciError> {
        let on = self.lock_interrupts();
        if *on != Interrupts::Msix || vector >= self.msix_vectors {
            return Err(self.refused(format!("MSI-X vector {vector} is not in use")));
        }
        abi::change_irq(self.fd(), abi::IRQ_MSIX, vector.into(), event)
            .map_err(|cause| self.failed(&format!("change MSI-X vector {vector}"), &cause))
    }

    fn share_bar(&self, index: u8, offset: u64, len: u64) -> Result<(OwnedFd, u64), PciError> {
        let failed = |cause: io::Error| self.failed(&format!("share its BAR {index}"), &cause);
        if index > 5 {
            return Err(self.refused(format!("it has no BAR {index}")));
        }
        let region = abi::region(self.fd(), u32::from(index)).map_err(failed)?;
        if !is_shareable(&region, offset, len) {
            return Err(self.refused(format!(
                "{len} bytes at {offset:#x} of its BAR {index} cannot be mapped"
            )));
        }
        let file = self.fd().try_clone_to_owned().map_err(failed)?;
        Ok((file, region.offset.saturating_add(offset)))
    }

    fn line_interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(|event| event.as_fd())
    }

    fn unmask_line_interrupt(&self) -> Result<(), PciError> {
        let failed = |cause: io::Error| self.failed("unmask its line interrupt", &cause);
        let event = self.line.as_ref().ok_or_else(|| self.refused("it has no line interrupt"))?;
        event.drain().map_err(failed)?;
        let mut on = self.lock_interrupts();
        if *on == Interrupts::Line {
            return abi::unmask_irq(self.fd(), abi::IRQ_INTX).map_err(failed);
        }
        self.stop_interrupts(&mut on).map_err(failed)?;
        // It is unmasked to begin with.
        abi::enable_irqs(self.fd(), abi::IRQ_INTX, &[Some(event.as_fd())]).map_err(failed)?;
        *on = Interrupts::Line;
        Ok(())
    }

    fn release_request(&self) -> Option<BorrowedFd<'_>> {
        self.request.as_ref().map(|event| event.as_fd())
    }

    fn give_back(&self) {
        self.calm();
        if let Err(error) = self.handle.revoke() {
            let address = self.info.address;
            tracing::error!("{address} is not given back until its port is closed: {error}");
        }
    }
}

/// Has the kernel say when it wants the device back. Where it cannot, it waits without a word.
fn request_event(device: BorrowedFd<'_>) -> Option<EventFd> {
    if abi::irq_count(device, abi::IRQ_REQUEST).unwrap_or(0) == 0 {
        return None;
    }
    let event = EventFd::new().ok()?;
    abi::enable_irqs(device, abi::IRQ_REQUEST, &[Some(event.as_fd())]).ok()?;
    Some(event)
}

/// The parts of a register that can be mapped, as whole pages; `None` when they are not inside.
fn areas(region: &Region, len: usize) -> Option<Vec<(usize, usize)>> {
    let page = rustix::param::page_size();
    let whole = len.checked_next_multiple_of(page)?;
    let Some(areas) = &region.areas else { return Some(vec![(0, whole)]) };
    let convert = |(offset, bytes): &(u64, u64)| {
        let (offset, bytes) = (usize::try_from(*offset).ok()?, usize::try_from(*bytes).ok()?);
        offset.checked_add(bytes).filter(|end| *end <= whole)?;
        Some((offset, bytes))
    };
    areas.iter().filter(|(_, bytes)| *bytes > 0).map(convert).collect()
}

/// Whether `len` bytes at `offset` are whole pages, all of which can be mapped.
fn is_shareable(region: &Region, offset: u64, len: u64) -> bool {
    let page = rustix::param::page_size() as u64;
    let Some(end) = offset.checked_add(len) else { return false };
    let whole = offset.is_multiple_of(page) && len.is_multiple_of(page) && len > 0;
    let inside = |(start, bytes): &(u64, u64)| {
        *start <= offset && start.checked_add(*bytes).is_some_and(|last| end <= last)
    };
    let area = match &region.areas {
        Some(areas) => areas.iter().any(inside),
        None => inside(&(0, region.size)),
    };
    region.flags & abi::REGION_MMAP != 0 && whole && area
}

impl Drop for VfioDevice {
    fn drop(&mut self) {
        // A mapping may keep the file open, so the kernel's own clean-up may come late.
        self.calm();
    }
}

impl fmt::Debug for VfioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioDevice").field("address", &self.info.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn areas_are_whole_pages_inside() {
        let page = rustix::param::page_size();
        let bytes = page as u64;
        let region = |areas| Region { areas, size: 4 * bytes, ..Region::default() };
        assert_eq!(areas(&region(None), 4 * page), Some(vec![(0, 4 * page)]));
        assert_eq!(areas(&region(None), 16), Some(vec![(0, page)]));
        let around = vec![(0, bytes), (2 * bytes, 2 * bytes), (0, 0)];
        let expected = vec![(0, page), (2 * page, 2 * page)];
        assert_eq!(areas(&region(Some(around)), 4 * page), Some(expected));
        assert_eq!(areas(&region(Some(vec![(bytes, 4 * bytes)])), 4 * page), None);
        assert_eq!(areas(&region(Some(vec![(u64::MAX, 2)])), 4 * page), None);
    }

    #[test]
    fn whole_pages_that_can_be_mapped_are_shared() {
        let page = rustix::param::page_size() as u64;
        let flags = abi::REGION_MMAP;
        let region = |areas| Region { flags, areas, size: 4 * page, ..Region::default() };
        let all = region(None);
        assert!(is_shareable(&all, 3 * page, page) && is_shareable(&all, 0, 4 * page));
        assert!(!is_shareable(&all, 4 * page, page) && !is_shareable(&all, 16, page));
        assert!(!is_shareable(&all, 0, 0) && !is_shareable(&all, u64::MAX - 1, page));
        let some = region(Some(vec![(0, page), (2 * page, 2 * page)]));
        assert!(is_shareable(&some, 3 * page, page) && !is_shareable(&some, page, page));
        assert!(!is_shareable(&Region { flags: 0, ..all }, 0, page));
    }
}
