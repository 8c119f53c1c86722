//! The vDPA driver for virtio network hardware on the PCI bus, behind an IOMMU.
//!
//! The device is programmed with the addresses that the guest knows: the IOMMU maps the guest's
//! memory at its guest-physical addresses. So the device reads and writes the guest's rings and
//! buffers itself, its interrupts go straight to the guest's files, and where the front-end maps the
//! page of the doorbell, nothing at all comes past this process.
//!
//! A device that keeps to the virtio standard begins each ring at index 0, and cannot be told to
//! begin elsewhere. So a ring that is new is served by the device itself, and one that goes on
//! where it was (after other memory came, or a migration) through a
//! [shadow ring](virtio::shadow): descriptors are copied, frames are not.
//!
//! - `plan`: features, and which ring is served how
//! - `session`: from the start of the device to its stop
//! - `relay`: the thread beside it
//! - `counters`: what is counted

mod counters;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod guest;
mod plan;
mod relay;
mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use eal::pci::spaces::VFIO_PCI;
use eal::pci::{DeviceInfo, PciAddress, PciDevice, PciError, Spaces, Sysfs};
use eal::{EventFd, PeerEvent};
use ethdev::{DeviceSpec, DriverInfo, Error};
use virtio::{DirtyLog, Features};
use virtio_net::pci::capability::Layout;
use virtio_net::pci::config::NetConfig;
use virtio_net::pci::hardware::{Hardware, check_kind};
use virtio_net::pci::registers::{DRIVER_OK, NEEDS_RESET};
use virtio_net::pci::window::{MappedBars, Windows};

use crate::device::{DeviceError, NotifyArea, Setup, Statistic, VdpaDevice};
use crate::registry::Found;
use counters::Counters;
use session::{Parts, Session};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "virtio-pci",
    syntax: "virtio-pci:ADDRESS",
    summary: "a virtio network device at PCI address ADDRESS, bound to vfio-pci, behind an IOMMU",
    options: &[],
};

/// A virtio network device on the PCI bus as a vDPA device.
pub struct VirtioPci {
    name: String,
    /// Before the hardware, so that it goes first.
    session: Option<Session>,
    hardware: Hardware,
    layout: Layout,
    offered: Features,
    pairs: u16,
    config: EventFd,
    counters: Arc<Counters>,
    log: Option<Arc<DirtyLog>>,
    /// Where the rings were left when the device did not start again for logging.
    left: Vec<(u16, u32)>,
}

/// Opens the device of a string such as `virtio-pci:0000:01:00.0`.
///
/// # Errors
/// Options that make no sense; a device that is not there, is no modern virtio network device, is
/// not bound to `vfio-pci`, or is behind no IOMMU.
pub fn open(spec: DeviceSpec) -> Result<Box<dyn VdpaDevice>, Error> {
    let text = spec.require_target("a PCI address such as 0000:01:00.0")?;
    let address: PciAddress = text.parse().map_err(|error| spec.error(format!("{error}")))?;
    spec.finish(&INFO.option_names())?;
    let failed = |reason: String| Error::Device { what: format!("PCI device {address}"), reason };
    check(address).map_err(|error| failed(error.reason))?;
    // A space of its own: what the device sees there is its guest's, at the guest's addresses.
    let pci = eal::pci::open(address, &Spaces::new()).map_err(|error| failed(error.reason))?;
    let pci: Arc<dyn PciDevice> = Arc::from(pci);
    let windows = Box::new(MappedBars::new(Arc::clone(&pci)));
    let device = VirtioPci::new(pci, windows).map_err(|error| failed(error.0))?;
    Ok(Box::new(device))
}

/// The devices of this machine that this driver could open.
#[must_use]
pub fn find() -> Vec<Found> {
    let sysfs = Sysfs::default();
    let devices = sysfs.devices().unwrap_or_default().into_iter();
    let network = devices.filter(|info| check_kind(info).is_ok());
    network
        .map(|info| Found {
            device: format!("{}:{}", INFO.name, info.address),
            description: "virtio network device".to_owned(),
            queue_pairs: None,
            features: None,
            obstacle: obstacle(&info, &sysfs),
        })
        .collect()
}

/// What is in the way of using a device, and what to do about it.
fn obstacle(info: &DeviceInfo, sysfs: &Sysfs) -> Option<String> {
    let address = info.address;
    if info.iommu_group.is_none_or(|group| sysfs.group_is_without_iommu(group)) {
        return Some(
            "vDPA needs VFIO with an IOMMU, and it is behind none: switch the IOMMU on (VT-d or \
             AMD-Vi in the firmware, and intel_iommu=on on the kernel's command line)"
                .to_owned(),
        );
    }
    match info.driver.as_deref() {
        Some(VFIO_PCI) => None,
        Some(driver) => Some(format!(
            "vDPA needs VFIO with an IOMMU, and it is bound to kernel driver '{driver}'; type: \
             ringway devices bind {address} --driver {VFIO_PCI}"
        )),
        None => Some(format!(
            "it is bound to no driver; type: ringway devices bind {address} --driver {VFIO_PCI}"
        )),
    }
}

/// Refuses a device before it is touched where something is in the way.
fn check(address: PciAddress) -> Result<(), PciError> {
    let sysfs = Sysfs::default();
    let info = sysfs.device(address)?;
    check_kind(&info)?;
    match obstacle(&info, &sysfs) {
        Some(reason) => Err(PciError::new(address, reason)),
        None => Ok(()),
    }
}

impl VirtioPci {
    /// On a device that belongs to this process already.
    fn new(pci: Arc<dyn PciDevice>, windows: Box<dyn Windows>) -> Result<Self, DeviceError> {
        let failed = |error: PciError| DeviceError(error.reason);
        if pci.dma().piece_len() != usize::MAX {
            return Err(DeviceError("vDPA needs VFIO with an IOMMU".to_owned()));
        }
        let name = pci.info().address.to_string();
        let (hardware, layout) = Hardware::open(pci, windows).map_err(failed)?;
        hardware.greet().map_err(|trouble| DeviceError(trouble.to_string()))?;
        let offered = hardware.registers.offered();
        let config = NetConfig::read(&*hardware.registers, offered);
        hardware.halt();
        hardware.pci.set_bus_master(false).map_err(failed)?;
        if !offered.contains(Features::ACCESS_PLATFORM) {
            return Err(DeviceError(
                "it does not offer ACCESS_PLATFORM, so it goes past the IOMMU; start QEMU with \
                 iommu_platform=on for it"
                    .to_owned(),
            ));
        }
        let several = plan::offered(offered).contains(Features::MQ);
        // Rings are numbered by 16 bits, and the control queue is behind them.
        let pairs = if several { config.pairs.clamp(1, 0x4000) } else { 1 };
        let config = EventFd::new().map_err(|error| DeviceError(error.to_string()))?;
        let counters = Arc::new(Counters::new(2 * pairs));
        let (session, log, left) = (None, None, Vec::new());
        Ok(Self { name, session, hardware, layout, offered, pairs, config, counters, log, left })
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            name: &self.name,
            hardware: &self.hardware,
            offered: self.offered,
            config: &self.config,
            counters: &self.counters,
            log: self.log.as_ref(),
        }
    }

    fn session(&mut self) -> Result<&mut Session, DeviceError> {
        self.session.as_mut().ok_or_else(|| DeviceError("it does not run".to_owned()))
    }
}

impl VdpaDevice for VirtioPci {
    fn name(&self) -> &str {
        &self.name
    }

    fn queue_pairs(&self) -> u16 {
        self.pairs
    }

    fn features(&self) -> u64 {
        plan::offered(self.offered).bits()
    }

    fn start(&mut self, setup: Setup) -> Result<(), DeviceError> {
        if self.session.is_some() {
            return Err(DeviceError("it runs already".to_owned()));
        }
        self.left.clear();
        match Session::start(self.parts(), setup) {
            Ok(session) => {
                self.session = Some(session);
                self.counters.starts.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) => {
                self.counters.failed_starts.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    fn stop(&mut self) -> Vec<(u16, u32)> {
        match self.session.take() {
            Some(session) => session.stop(self.parts()),
            None => std::mem::take(&mut self.left),
        }
    }

    fn is_running(&self) -> bool {
        // All ones, which a device that is gone reads as, say that it needs a reset, too.
        let status = || self.hardware.registers.status();
        self.session.is_some() && status() & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    fn set_ring_enabled(&mut self, index: u16, enabled: bool) -> Result<(), DeviceError> {
        self.session()?.set_enabled(index, enabled)
    }

    fn set_ring_kick(&mut self, index: u16, kick: Option<PeerEvent>) -> Result<(), DeviceError> {
        self.session()?.set_kick(index, kick)
    }

    fn set_ring_call(&mut self, index: u16, call: Option<PeerEvent>) -> Result<(), DeviceError> {
        let mut session = self.session.take();
        let set = match &mut session {
            Some(session) => session.set_call(self.parts(), index, call),
            None => Err(DeviceError("it does not run".to_owned())),
        };
        self.session = session;
        set
    }

    fn notify_area(&self, index: u16) -> Option<NotifyArea> {
        let number = self.session.as_ref()?.notify_number(index)?;
        let page = rustix::param::page_size() as u64;
        let notify = self.layout.notify;
        let at = self.layout.notify_at(number, 2)?;
        let offset = u64::from(notify.offset) + u64::from(at);
        let end = u64::from(notify.offset) + u64::from(notify.len);
        // Guests write to the first bytes of the page, and must reach nothing but doorbells there.
        if !offset.is_multiple_of(page) || offset + page > end {
            return None;
        }
        let (file, offset) = self.hardware.pci.share_bar(notify.bar, offset, page).ok()?;
        Some(NotifyArea { file, offset, len: page })
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let start = offset as usize;
        let has = self.layout.device.len as usize;
        if start.checked_add(bytes.len()).is_none_or(|end| end > has) {
            return Err(DeviceError(format!(
                "its configuration has {has} bytes, not {} at {offset}",
                bytes.len()
            )));
        }
        self.hardware.registers.read_config(start, bytes);
        if self.hardware.is_gone() {
            return Err(DeviceError("the device is gone".to_owned()));
        }
        Ok(())
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), DeviceError> {
        let len = bytes.len();
        let reason = format!("its configuration is read only ({len} bytes at {offset})");
        Err(DeviceError(reason))
    }

    fn config_changed(&self) -> Option<&EventFd> {
        Some(&self.config)
    }

    fn statistics(&self) -> Vec<Statistic> {
        let session = self.session.as_ref();
        let bytes = session.map_or(0, Session::mapped_bytes);
        self.counters.statistics(bytes, session.map_or(0, Session::shadow_rings))
    }

    fn reset_statistics(&mut self) {
        self.counters.reset();
    }

    fn can_log(&self) -> bool {
        true
    }

    /// A device of the standard does not log what it writes, so all rings go through shadows while
    /// somebody wants to know.
    fn set_dirty_log(&mut self, log: Option<Arc<DirtyLog>>) -> Result<(), DeviceError> {
        self.log.clone_from(&log);
        match self.session.take() {
            Some(session) if log.is_some() && !session.is_all_shadow() => {
                let suspended = session.suspend(self.parts());
                self.left = suspended.bases();
                let session = Session::resume(self.parts(), suspended)?;
                self.left.clear();
                self.counters.starts.fetch_add(1, Relaxed);
                // Interrupts may have been lost meanwhile.
                self.session.insert(session).call_all();
                Ok(())
            }
            Some(session) => self.session.insert(session).set_log(log),
            None => Ok(()),
        }
    }
}

impl Drop for VirtioPci {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for VirtioPci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioPci")
            .field("name", &self.name)
            .field("runs", &self.session.is_some())
            .finish_non_exhaustive()
    }
}
