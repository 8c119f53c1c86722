//! What a front-end has told about one ring.

use std::os::fd::AsFd;

use eal::{PeerEvent, PeerFd};
use virtio::Features;

use super::error::SessionError;
use crate::backend::RingSetup;
use crate::call::{Call, CallSocket};
use crate::protocol::{FrontendRequest, VringAddr};

/// Largest size of a ring (virtio 1.3 sections 2.7 and 2.8).
const MAX_RING_SIZE: u32 = 32_768;

/// A ring as the front-end has described it. Started and enabled are independent of each other
/// (chapter "Ring states").
#[derive(Debug, Default)]
pub(super) struct RingState {
    pub(super) size: Option<u16>,
    pub(super) addr: Option<VringAddr>,
    pub(super) base: u32,
    pub(super) started: bool,
    /// What SET_VRING_ENABLE said last.
    pub(super) enable: bool,
    /// The ring is drained where it is disabled: it was enabled before, or disabled while it ran, or
    /// nothing was said of it in time.
    pub(super) settled: bool,
    /// Kept while the ring is stopped: QEMU sends it once, and starts the ring many times.
    pub(super) call: Option<Call>,
    /// SET_VRING_CALL has come, with a file or without.
    pub(super) call_told: bool,
    pub(super) err: Option<Call>,
}

impl RingState {
    /// Everything that the device needs to start ring `index`.
    pub(super) fn setup(
        &self,
        index: u16,
        features: u64,
        enabled: bool,
        kick: Option<PeerEvent>,
    ) -> Result<RingSetup, SessionError> {
        let incomplete = |missing| SessionError::RingIncomplete { index, missing };
        let size = self.size.ok_or(incomplete("SET_VRING_NUM"))?;
        let addr = self.addr.ok_or(incomplete("SET_VRING_ADDR"))?;
        // Checked when they came, but then for features that may have changed since.
        check_size(size.into(), features)?;
        check_base(self.base, features)?;
        Ok(RingSetup {
            size,
            desc: addr.desc,
            avail: addr.avail,
            used: addr.used,
            log: addr.log_addr(),
            base: self.base,
            features,
            enabled,
            pending: !enabled && !self.settled,
            blank: false,
            inflight: None,
            kick,
            inband: false,
            call: self.call.clone(),
            err: self.err.clone(),
        })
    }

    /// Back to what it was when the front-end connected, but for its files.
    pub(super) fn reset(&mut self) {
        let (call, err, call_told) = (self.call.take(), self.err.take(), self.call_told);
        *self = Self { call, call_told, err, ..Self::default() };
    }
}

/// The size of a ring with these features, if it is possible.
pub(super) fn check_size(size: u32, features: u64) -> Result<u16, SessionError> {
    let packed = features & Features::RING_PACKED.bits() != 0;
    let possible = (1..=MAX_RING_SIZE).contains(&size) && (packed || size.is_power_of_two());
    u16::try_from(size).ok().filter(|_| possible).ok_or(SessionError::Value {
        request: FrontendRequest::SetVringNum.name(),
        what: "the size of the ring",
        value: size.into(),
        expected: "a power of two (packed: a number) from 1 to 32768",
    })
}

/// Whether a ring with these features can start at `base`.
pub(super) fn check_base(base: u32, features: u64) -> Result<(), SessionError> {
    if features & Features::RING_PACKED.bits() != 0 || base <= u16::MAX.into() {
        return Ok(());
    }
    Err(SessionError::Value {
        request: FrontendRequest::SetVringBase.name(),
        what: "the base of a split ring",
        value: base.into(),
        expected: "a number below 65536",
    })
}

/// By which a front-end wants to hear of used buffers.
pub(super) fn call_file(
    request: &'static str,
    fd: Option<PeerFd>,
) -> Result<Option<Call>, SessionError> {
    match fd.map(CallSocket::new) {
        None => Ok(None),
        Some(Ok(socket)) => Ok(Some(Call::Socket(socket))),
        Some(Err(fd)) => Ok(event_fd(request, Some(fd))?.map(Call::Event)),
    }
}

/// The eventfd that a front-end sent.
pub(super) fn event_fd(
    request: &'static str,
    fd: Option<PeerFd>,
) -> Result<Option<PeerEvent>, SessionError> {
    let Some(fd) = fd else { return Ok(None) };
    let failed = |source| SessionError::EventFd { request, source };
    if !PeerEvent::is_event(fd.as_fd()).map_err(failed)? {
        return Err(SessionError::NoEventFd { request, found: eal::file_name(fd.as_fd()) });
    }
    PeerEvent::from_fd(fd).map(Some).map_err(failed)
}
