//! Making and removing a device, and its open file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use eal::PeerEvent;
use rustix::io::Errno;

use super::abi::{self, NAME_BYTES};
use super::kernel::{Extent, Kernel, RingInfo};
use super::message::{Answer, Request};
use super::offer::{LINK_STATUS_OFFSET, Offer, link_status};
use crate::call::Call;

/// The directory of all VDUSE files.
pub const DIRECTORY: &str = "/dev/vduse";

/// Longest name of a device in bytes: it is a file's name, too.
pub const MAX_NAME: usize = NAME_BYTES - 1;

/// The kernel's number of network devices (virtio 1.3 section 5).
const NETWORK_DEVICE: u32 = 1;

/// The file by which devices are made and removed.
#[derive(Debug)]
pub struct ControlFile(File);

impl ControlFile {
    /// Opens it.
    ///
    /// # Errors
    /// When the kernel has no VDUSE (`ENOENT`), the process no permission, or the kernel speaks
    /// no version that is known here.
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path("control"))?;
        abi::call(file.as_fd(), &abi::SET_API_VERSION, &mut abi::API_VERSION.clone())?;
        Ok(Self(file))
    }

    /// Makes device `name`, to be opened by its file.
    ///
    /// # Errors
    /// `EEXIST` where there is one of this name, `EPERM` without `CAP_NET_ADMIN`, `EINVAL` where
    /// the kernel refuses the features: those of Linux 6.9 and later do not take a control queue,
    /// those before no network devices at all.
    pub fn create(&self, name: &str, offer: &Offer) -> io::Result<()> {
        let head = abi::DeviceHead {
            name: name_bytes(name)?,
            vendor_id: 0,
            device_id: NETWORK_DEVICE,
            features: offer.features.bits(),
            ring_count: offer.rings.into(),
            ring_align: u32::try_from(rustix::param::page_size()).unwrap_or(4096),
            reserved: [0; 13],
            config_size: u32::try_from(abi::CONFIG_BYTES).unwrap_or(0),
        };
        let mut config = abi::DeviceConfig { head, config: offer.config() };
        abi::call(self.0.as_fd(), &abi::CREATE_DEV, &mut config).map(drop)
    }

    /// Removes device `name`.
    ///
    /// # Errors
    /// `EBUSY` while its file is open, or it is attached to the vDPA bus.
    pub fn destroy(&self, name: &str) -> io::Result<()> {
        abi::call(self.0.as_fd(), &abi::DESTROY_DEV, &mut name_bytes(name)?).map(drop)
    }
}

/// The file of device `name`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(name)
}

fn name_bytes(name: &str) -> io::Result<[u8; NAME_BYTES]> {
    let mut bytes = [0; NAME_BYTES];
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    bytes.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
    Ok(bytes)
}

/// The open file of a device. The kernel lets it be opened once at a time.
#[derive(Debug)]
pub struct DeviceFile(Arc<OwnedFd>);

impl DeviceFile {
    /// Opens device `name`.
    ///
    /// # Errors
    /// `EBUSY` where another process has it open, `ENOENT` where there is no such device.
    pub fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path(name))?;
        Ok(Self(Arc::new(file.into())))
    }

    /// Says how long ring `index` may be, before the device is attached to the vDPA bus.
    ///
    /// # Errors
    /// When there is no such ring.
    pub fn set_up_ring(&self, index: u16, max_size: u16) -> io::Result<()> {
        let mut config = abi::RingConfig { index: index.into(), max_size, ..Default::default() };
        self.ask(&abi::RING_SETUP, &mut config)
    }

    fn ask<T>(&self, request: &abi::Request<T>, argument: &mut T) -> io::Result<()> {
        abi::call(self.0.as_fd(), request, argument).map(drop)
    }
}

impl AsFd for DeviceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Kernel for DeviceFile {
    fn receive(&self) -> io::Result<Option<Request>> {
        let mut bytes = [0; abi::MESSAGE_BYTES];
        match rustix::io::read(&self.0, &mut bytes) {
            Ok(read) => bytes
                .get(..read)
                .and_then(Request::decode)
                .map(Some)
                .ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn answer(&self, answer: &Answer) -> io::Result<()> {
        match rustix::io::write(&self.0, &answer.encode()) {
            // Whoever asked has given up waiting.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn features(&self) -> io::Result<u64> {
        let mut features = 0;
        self.ask(&abi::GET_FEATURES, &mut features)?;
        Ok(features)
    }

    fn ring(&self, index: u16) -> io::Result<RingInfo> {
        let mut info = abi::RingInfo { index: index.into(), ..Default::default() };
        self.ask(&abi::RING_GET_INFO, &mut info)?;
        let abi::RingInfo { size, desc, driver, device, state: [base, ..], ready, .. } = info;
        Ok(RingInfo { size, desc, driver, device, base, ready: ready != 0 })
    }

    fn set_kick(&self, index: u16, kick: &PeerEvent) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;
        let fd = kick.as_fd().as_raw_fd();
        self.ask(&abi::RING_SET_KICK, &mut abi::RingEvent { index: index.into(), fd })
    }

    fn call(&self, index: u16) -> Call {
        Call::Interrupt(Interrupt { device: Arc::clone(&self.0), ring: index.into() })
    }

    fn lookup(&self, start: u64, last: u64) -> io::Result<Option<(Extent, OwnedFd)>> {
        let mut entry = abi::IotlbEntry { start, last, ..Default::default() };
        let fd = match abi::call(self.as_fd(), &abi::IOTLB_GET_FD, &mut entry) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has just opened the descriptor for us, and nobody else knows it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let abi::IotlbEntry { offset, start, last, access } = entry;
        Ok(Some((Extent { start, last, offset, writable: access == abi::ACCESS_RW }, file)))
    }

    fn set_link(&self, up: bool) -> io::Result<()> {
        let status = link_status(up);
        let head = abi::ConfigHead { offset: LINK_STATUS_OFFSET, length: 2 };
        self.ask(&abi::SET_CONFIG, &mut abi::ConfigStatus { head, status })
    }

    fn inject_config_irq(&self) -> io::Result<()> {
        self.ask(&abi::INJECT_CONFIG_IRQ, &mut ())
    }
}

/// The interrupt of one ring of a device.
#[derive(Clone, Debug)]
pub struct Interrupt {
    device: Arc<OwnedFd>,
    ring: u32,
}

impl Interrupt {
    /// Notifies the driver.
    ///
    /// # Errors
    /// While the driver is not ready, and once the kernel has given the device up.
    #[inline]
    pub fn signal(&self) -> io::Result<()> {
        abi::call(self.device.as_fd(), &abi::RING_INJECT_IRQ, &mut self.ring.clone()).map(drop)
    }
}
