//! A device of the kernel as a vDPA device.

use std::io;
use std::path::Path;

use eal::{EventFd, PeerEvent};

use super::abi::VhostFile;
use super::calls::Calls;
use super::offer::{Offer, failed};
use super::session::{Session, is_running};
use super::{list, memory};
use crate::device::{DeviceError, Setup, Statistic, VdpaDevice};

/// A device that the kernel drives: `/dev/vhost-vdpa-N`.
///
/// Opening it takes it: one process at a time has it, and it is reset by that.
#[derive(Debug)]
pub struct KernelDevice {
    name: String,
    calls: Box<dyn Calls>,
    offer: Offer,
    config_call: EventFd,
    session: Option<Session>,
    starts: u64,
}

impl KernelDevice {
    /// Opens the device called `name`: `vhost-vdpa-0`, `/dev/vhost-vdpa-0`, or the name that it
    /// has among the kernel's vDPA devices (`vdpa dev show`).
    ///
    /// # Errors
    /// When there is no such device, it is not a network device, is not bound to the driver
    /// `vhost_vdpa`, or belongs to another process or user.
    pub fn open(name: &str) -> Result<Self, DeviceError> {
        let node = list::node(name)?;
        let file = VhostFile::open(&node).map_err(|error| open_error(&node, &error))?;
        Self::new(name, Box::new(file))
    }

    /// The device behind `calls`, which was just opened.
    pub(super) fn new(name: &str, calls: Box<dyn Calls>) -> Result<Self, DeviceError> {
        let offer = Offer::read(&*calls)?;
        memory::forget_others(&*calls, &offer);
        let config_call = EventFd::new().map_err(failed("eventfd"))?;
        let name = name.to_owned();
        Ok(Self { name, calls, offer, config_call, session: None, starts: 0 })
    }

    /// The session of the running device.
    fn running(&mut self) -> Result<(&mut Session, &dyn Calls, &Offer), DeviceError> {
        let session = self.session.as_mut();
        let session = session.ok_or_else(|| DeviceError("the device does not run".to_owned()))?;
        Ok((session, &*self.calls, &self.offer))
    }

    /// Checks that `len` bytes at `offset` are in the configuration space.
    fn check_config(&self, offset: u32, len: usize) -> Result<(), DeviceError> {
        let size = self.offer.config_size;
        let end = u32::try_from(len).ok().and_then(|len| offset.checked_add(len));
        if end.is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(DeviceError(format!(
            "{len} bytes at offset {offset} are not in the configuration of {size} bytes"
        )))
    }
}

fn open_error(node: &Path, error: &io::Error) -> DeviceError {
    let node = node.display();
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "; load the module vhost_vdpa, and see 'vdpa dev show' for the devices there are"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "; run as root, or give this user access to the device file"
        }
        Some(libc::EBUSY) => "; another process has the device, such as a running QEMU",
        Some(libc::EIO) => "; the device does not answer, or the program behind it (VDUSE)",
        _ => "",
    };
    DeviceError(format!("{node} cannot be opened: {error}{hint}"))
}

impl VdpaDevice for KernelDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn queue_pairs(&self) -> u16 {
        self.offer.pairs
    }

    fn features(&self) -> u64 {
        self.offer.guest_features().bits()
    }

    fn start(&mut self, setup: Setup) -> Result<(), DeviceError> {
        if self.session.is_some() {
            return Err(DeviceError("the device runs already".to_owned()));
        }
        let call = &self.config_call;
        self.session = Some(Session::start(&*self.calls, &self.offer, setup, call)?);
        self.starts += 1;
        Ok(())
    }

    fn stop(&mut self) -> Vec<(u16, u32)> {
        let session = self.session.take();
        session.map_or_else(Vec::new, |session| session.stop(&*self.calls, &self.offer))
    }

    fn is_running(&self) -> bool {
        self.session.is_some() && is_running(&*self.calls)
    }

    fn set_ring_enabled(&mut self, index: u16, enabled: bool) -> Result<(), DeviceError> {
        let (session, calls, offer) = self.running()?;
        session.set_ring_enabled(calls, offer, index, enabled)
    }

    fn set_ring_kick(&mut self, index: u16, kick: Option<PeerEvent>) -> Result<(), DeviceError> {
        let (session, calls, _) = self.running()?;
        session.set_ring_kick(calls, index, kick)
    }

    fn set_ring_call(&mut self, index: u16, call: Option<PeerEvent>) -> Result<(), DeviceError> {
        let (session, calls, _) = self.running()?;
        session.set_ring_call(calls, index, call)
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.check_config(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.calls.read_config(offset, bytes).map_err(failed("VHOST_VDPA_GET_CONFIG"))
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check_config(offset, bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.calls.write_config(offset, bytes).map_err(failed("VHOST_VDPA_SET_CONFIG"))
    }

    fn config_changed(&self) -> Option<&EventFd> {
        Some(&self.config_call)
    }

    fn statistics(&self) -> Vec<Statistic> {
        let mapped = self.session.as_ref().map_or(0, Session::mapped_bytes);
        let counters = [("starts", self.starts), ("mapped_bytes", mapped)];
        let named = |(name, value): (&str, u64)| Statistic { name: name.to_owned(), value };
        counters.map(named).into()
    }

    fn reset_statistics(&mut self) {
        self.starts = 0;
    }
}

impl Drop for KernelDevice {
    fn drop(&mut self) {
        self.stop();
    }
}
