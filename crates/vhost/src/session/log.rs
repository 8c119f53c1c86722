//! The log of written pages while the guest is being migrated (SET_LOG_BASE, SET_LOG_FD and feature
//! bit 26; chapter "Migration").
//!
//! QEMU shares a log, sets the bit while rings run, and tells each ring where to log its used ring
//! (SET_VRING_ADDR). A ring that starts while the guest is being migrated has the bit first and
//! the log last.

use std::os::fd::AsFd;
use std::sync::Arc;

use eal::{Mapping, PeerEvent, PeerFd};
use virtio::{DirtyLog, Features};

use super::iotlb::TRANSLATED;
use super::ring::{RingState, event_fd};
use super::{Device, Reply, Session, SessionError};
use crate::protocol::{FrontendRequest, LogBase, VringAddr};

/// The bit that says that writes are to be logged.
pub(super) const LOG_ALL: u64 = Features::VHOST_LOG_ALL.bits();

/// The log of a session.
#[derive(Debug, Default)]
pub(super) struct LogState {
    log: Option<Arc<DirtyLog>>,
    event: Option<PeerEvent>,
    /// Whether the device has been given a log.
    given: bool,
}

impl LogState {
    /// Refuses a log that ends before address `end`.
    fn check_covers(&self, request: FrontendRequest, end: u64) -> Result<(), SessionError> {
        self.log.as_deref().map_or(Ok(()), |log| check_covers(log, request, end))
    }
}

fn check_covers(log: &DirtyLog, request: FrontendRequest, end: u64) -> Result<(), SessionError> {
    if log.covers(end) {
        return Ok(());
    }
    Err(SessionError::LogTooSmall { request: request.name(), end, len: log.len() })
}

impl Session {
    /// Whether the front-end wants writes to be logged.
    const fn is_logging(&self) -> bool {
        matches!(self.features, Some(features) if features & LOG_ALL != 0)
    }

    /// What was negotiated, without the bit that switches the log.
    pub(super) fn device_features(&self) -> u64 {
        self.features.unwrap_or(0) & !LOG_ALL
    }

    /// Maps another log, and has the device go on in it if it logs.
    pub(super) fn set_log_base(
        &mut self,
        device: &mut Device,
        base: LogBase,
        fd: &PeerFd,
    ) -> Result<Reply, SessionError> {
        let request = FrontendRequest::SetLogBase;
        let map = Mapping::map(fd.as_fd(), base.offset, base.size)
            .map_err(|source| SessionError::MapLog { source })?
            .closed_by(fd.closer());
        let log = DirtyLog::new(Arc::new(map), self.log.event.clone());
        check_covers(&log, request, self.memory.end())?;
        let rings = self.rings.iter().filter(|ring| ring.started);
        for end in rings.filter_map(|ring| log_end(ring, self.features.unwrap_or(0))) {
            check_covers(&log, request, end)?;
        }
        self.log.log = Some(Arc::new(log));
        self.give_log(device);
        // The chapter names no payload. QEMU takes any, and rust-vmm's front-end wants this one.
        Ok(Reply::LogBase(base))
    }

    /// Notes by which file the front-end wants to hear of marks in the log.
    pub(super) fn set_log_fd(
        &mut self,
        device: &mut Device,
        fd: PeerFd,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::SetLogFd.name();
        let event = event_fd(request, Some(fd))?;
        if let Some(log) = &self.log.log {
            let log = log.with_event(event.clone());
            self.log.log = Some(Arc::new(log));
            self.give_log(device);
        }
        self.log.event = event;
        Ok(())
    }

    /// Refuses features with which writes would be logged past the end of the log.
    pub(super) fn check_log_features(&self, new: u64) -> Result<(), SessionError> {
        let starts = new & LOG_ALL != 0 && !self.is_logging();
        let end = if starts { self.memory.end() } else { 0 };
        self.log.check_covers(FrontendRequest::SetFeatures, end)
    }

    /// Refuses memory that the log, while there is one in use, does not cover.
    pub(super) fn check_log_memory(
        &self,
        request: FrontendRequest,
        end: u64,
    ) -> Result<(), SessionError> {
        self.log.check_covers(request, if self.is_logging() { end } else { 0 })
    }

    /// Refuses addresses with which writes to the used ring would be logged past the log's end.
    pub(super) fn check_log_addr(&self, addr: &VringAddr) -> Result<(), SessionError> {
        if !self.is_logging() {
            return Ok(());
        }
        let index = usize::try_from(addr.index).unwrap_or(usize::MAX);
        let size = self.rings.get(index).and_then(|ring| ring.size);
        let ring = RingState { size, addr: Some(*addr), ..RingState::default() };
        let end = log_end(&ring, self.features.unwrap_or(0)).unwrap_or(0);
        self.log.check_covers(FrontendRequest::SetVringAddr, end)
    }

    /// Has the device log, or not, as the features now say. `before` are those until now.
    pub(super) fn switch_log(&mut self, device: &mut Device, before: Option<u64>) {
        let was_logging = before.is_some_and(|features| features & LOG_ALL != 0);
        if was_logging && !self.is_logging() {
            // The front-end has no use for it any more, and shares another one next time.
            self.log.log = None;
        }
        if was_logging != self.is_logging() {
            self.give_log(device);
        }
    }

    /// Tells the device which log to use now.
    fn give_log(&mut self, device: &mut Device) {
        let log = self.log.log.as_ref().filter(|_| self.is_logging());
        let given = std::mem::replace(&mut self.log.given, log.is_some());
        if given || log.is_some() {
            device.backend.set_log(log.cloned());
        }
    }

    /// Takes the log away from the device for good.
    pub(super) fn close_log(&mut self, device: &mut Device) {
        self.log.log = None;
        self.give_log(device);
    }
}

/// The first address behind those that writes to the used ring (packed: the device's event
/// structure) of `ring` are logged at, if they are.
fn log_end(ring: &RingState, features: u64) -> Option<u64> {
    let start = ring.addr?.log_addr()?;
    if features & TRANSLATED != 0 {
        // It is an I/O virtual address: the device logs where the ring lies in memory.
        return None;
    }
    let packed = features & Features::RING_PACKED.bits() != 0;
    // Virtio 1.3 sections 2.7.8 and 2.8.10.
    let len = if packed { 4 } else { 6 + 8 * u64::from(ring.size?) };
    Some(start.saturating_add(len))
}
