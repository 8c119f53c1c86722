//! What a front-end says of its rings: where they are, how they are notified, when they run.

use eal::{PeerEvent, PeerFd};

use super::ring::{RingState, call_file, check_base, check_size, event_fd};
use super::{Device, PROTOCOL_FEATURES, Reply, Session, SessionError};
use crate::backend::Event;
use crate::call::Call;
use crate::protocol::{FrontendRequest, VringAddr, VringFile, VringState};

impl Session {
    /// The ring that `request` names, whose index is checked before it is made smaller.
    pub(super) fn ring(
        &mut self,
        request: FrontendRequest,
        index: u32,
    ) -> Result<(u16, &mut RingState), SessionError> {
        let count = u16::try_from(self.rings.len()).unwrap_or(u16::MAX);
        let error = SessionError::RingIndex { request: request.name(), index, count };
        let Some(index) = u16::try_from(index).ok().filter(|&index| index < count) else {
            return Err(error);
        };
        match self.rings.get_mut(usize::from(index)) {
            Some(ring) => Ok((index, ring)),
            None => Err(error),
        }
    }

    /// Refuses `request` while rings run.
    pub(super) fn check_stopped(&self, request: &'static str) -> Result<(), SessionError> {
        let runs = (0..).zip(&self.rings).find(|(_, ring)| ring.started);
        runs.map_or(Ok(()), |(index, _)| Err(SessionError::RingRuns { request, index }))
    }

    /// The same, if the ring does not run.
    fn stopped_ring(
        &mut self,
        request: FrontendRequest,
        index: u32,
    ) -> Result<&mut RingState, SessionError> {
        match self.ring(request, index)? {
            (_, ring) if !ring.started => Ok(ring),
            (index, _) => Err(SessionError::RingRuns { request: request.name(), index }),
        }
    }

    pub(super) fn set_size(&mut self, state: VringState) -> Result<(), SessionError> {
        let features = self.features.unwrap_or(0);
        let ring = self.stopped_ring(FrontendRequest::SetVringNum, state.index)?;
        ring.size = Some(check_size(state.num, features)?);
        Ok(())
    }

    pub(super) fn set_addr(
        &mut self,
        device: &mut Device,
        addr: &VringAddr,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::SetVringAddr;
        self.check_log_addr(addr)?;
        let (index, ring) = self.ring(request, addr.index)?;
        if addr.flags & !VringAddr::LOG != 0 {
            return Err(SessionError::Value {
                request: request.name(),
                what: "flags",
                value: addr.flags.into(),
                expected: "no bit but bit 0",
            });
        }
        // QEMU repeats the addresses of running rings, and has their used rings logged from then
        // on, or no longer; moving them is another matter.
        if ring.started && !ring.addr.is_some_and(|old| old.same_place(addr)) {
            return Err(SessionError::RingRuns { request: request.name(), index });
        }
        let before = ring.addr.replace(*addr);
        if ring.started && before.and_then(|old| old.log_addr()) != addr.log_addr() {
            device.backend.set_ring_log(index, addr.log_addr());
        }
        Ok(())
    }

    pub(super) fn set_base(&mut self, state: VringState) -> Result<(), SessionError> {
        let features = self.features.unwrap_or(0);
        let ring = self.stopped_ring(FrontendRequest::SetVringBase, state.index)?;
        check_base(state.num, features)?;
        ring.base = state.num;
        Ok(())
    }

    /// Stops a ring and tells where the device was in it.
    pub(super) fn get_base(
        &mut self,
        device: &mut Device,
        state: VringState,
    ) -> Result<Reply, SessionError> {
        let (index, _) = self.ring(FrontendRequest::GetVringBase, state.index)?;
        self.stop(device, index);
        self.inflight.forget(index, self.features.unwrap_or(0));
        let (_, ring) = self.ring(FrontendRequest::GetVringBase, state.index)?;
        Ok(Reply::VringState(VringState { index: state.index, num: ring.base }))
    }

    /// Starts a ring, or gives a running one another kick file.
    pub(super) fn set_kick(
        &mut self,
        device: &mut Device,
        file: VringFile<PeerFd>,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::SetVringKick;
        let kick = event_fd(request.name(), file.fd)?;
        let (index, ring) = self.ring(request, file.index.into())?;
        if ring.started {
            device.backend.set_ring_kick(index, kick);
            return Ok(());
        }
        self.start_ring(device, request, index, kick, false)
    }

    /// Starts ring `index`, which does not run.
    pub(super) fn start_ring(
        &mut self,
        device: &mut Device,
        request: FrontendRequest,
        index: u16,
        kick: Option<PeerEvent>,
        inband: bool,
    ) -> Result<(), SessionError> {
        let features = self.device_features();
        let shared = !self.memory.is_empty();
        let asking = self.check_asking(index);
        let (_, ring) = self.ring(request, index.into())?;
        if !shared {
            let missing =
                "SET_MEM_TABLE or ADD_MEM_REG: the VMM has to share its memory (QEMU: share=on)";
            return Err(SessionError::RingIncomplete { index, missing });
        }
        asking?;
        let enabled = ring.enable || features & PROTOCOL_FEATURES == 0;
        let mut setup = ring.setup(index, features, enabled, kick)?;
        setup.inband = inband;
        self.add_notes(index, &mut setup);
        setup.inflight = self.inflight.area(index, setup.size, features)?;
        // While pages are missing, a look would wait for them.
        setup.blank = !self.postcopy.is_under_way() && self.memory.turns_out_blank(setup.desc);
        let pending = setup.pending;
        let started = device.backend.start_ring(index, setup);
        started.map_err(|source| SessionError::Backend { request: request.name(), source })?;
        self.ring(request, index.into())?.1.started = true;
        if pending {
            self.begin_grace();
        }
        (device.events)(Event::RingState { index, enabled, started: true });
        Ok(())
    }

    pub(super) fn set_call(
        &mut self,
        device: &mut Device,
        file: VringFile<PeerFd>,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::SetVringCall;
        let call = call_file(request.name(), file.fd)?;
        let (index, ring) = self.ring(request, file.index.into())?;
        if ring.started {
            device.backend.set_ring_call(index, call.clone());
        }
        ring.call = call;
        ring.call_told = true;
        Ok(())
    }

    pub(super) fn set_err(
        &mut self,
        device: &mut Device,
        file: VringFile<PeerFd>,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::SetVringErr;
        let err = event_fd(request.name(), file.fd)?.map(Call::Event);
        let (index, ring) = self.ring(request, file.index.into())?;
        if ring.started {
            device.backend.set_ring_err(index, err.clone());
        }
        ring.err = err;
        Ok(())
    }

    pub(super) fn set_enable(
        &mut self,
        device: &mut Device,
        state: VringState,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::SetVringEnable;
        // QEMU sends it before SET_FEATURES when it connects again, so it is refused only once
        // the front-end has said that it does not want the bit.
        if self.features.is_some_and(|features| features & PROTOCOL_FEATURES == 0) {
            let feature = "(feature bit 30, PROTOCOL_FEATURES)";
            return Err(SessionError::NotNegotiated { request: request.name(), feature });
        }
        let negotiated = self.features.is_some();
        let (index, ring) = self.ring(request, state.index)?;
        let enable = match state.num {
            0 => false,
            1 => true,
            other => {
                return Err(SessionError::Value {
                    request: request.name(),
                    what: "the state",
                    value: other.into(),
                    expected: "0 or 1",
                });
            }
        };
        let changed = ring.enable != enable;
        let enabled = enable || !negotiated;
        if (changed || !ring.settled) && ring.started {
            let set = device.backend.set_ring_enabled(index, enabled);
            set.map_err(|source| SessionError::Backend { request: request.name(), source })?;
        }
        ring.enable = enable;
        ring.settled |= enable || ring.started;
        if changed {
            (device.events)(Event::RingState { index, enabled, started: ring.started });
        }
        Ok(())
    }

    /// Stops ring `index` if it runs.
    pub(super) fn stop(&mut self, device: &mut Device, index: u16) {
        let features = self.features.unwrap_or(0);
        let Some(ring) = self.rings.get_mut(usize::from(index)).filter(|ring| ring.started) else {
            return;
        };
        ring.base = device.backend.stop_ring(index);
        ring.started = false;
        let enabled = ring.enable || features & PROTOCOL_FEATURES == 0;
        (device.events)(Event::RingState { index, enabled, started: false });
    }

    pub(super) fn stop_all(&mut self, device: &mut Device) {
        for index in 0..u16::try_from(self.rings.len()).unwrap_or(u16::MAX) {
            self.stop(device, index);
        }
    }
}
