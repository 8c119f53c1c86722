//! Notifications as messages (chapter "In-band notifications").

use std::sync::Arc;

use super::error::SessionError;
use super::{Device, Session};
use crate::backend::RingSetup;
use crate::call::Call;
use crate::inband::Notifications;
use crate::protocol::{FrontendRequest, ProtocolFeatures, VringState};

/// Without these there are no notifications as messages.
const NEEDED: ProtocolFeatures = ProtocolFeatures::BACKEND_REQ.union(ProtocolFeatures::REPLY_ACK);

impl Session {
    /// What has to be told over the channel of the back-end, where that was negotiated.
    #[must_use]
    pub const fn notifications(&self) -> Option<&Arc<Notifications>> {
        self.notifications.as_ref()
    }

    /// Makes notifications messages, or no longer, as `features` want it.
    pub(super) fn set_inband(&mut self, features: ProtocolFeatures) -> Result<(), SessionError> {
        let request = FrontendRequest::SetProtocolFeatures.name();
        if !features.contains(ProtocolFeatures::INBAND_NOTIFICATIONS) {
            self.notifications = None;
        } else if !features.contains(NEEDED) {
            let feature = "BACKEND_REQ or REPLY_ACK, which INBAND_NOTIFICATIONS needs,";
            return Err(SessionError::NotNegotiated { request, feature });
        } else if self.notifications.is_none() {
            let made = Notifications::new();
            let made = made.map_err(|source| SessionError::EventFd { request, source })?;
            self.notifications = Some(made);
        }
        Ok(())
    }

    /// Has a ring tell in messages what no file is there for. A front-end that has said that there
    /// is none for calls polls.
    pub(super) fn add_notes(&self, index: u16, setup: &mut RingSetup) {
        let (Some(all), Ok(number)) = (&self.notifications, u8::try_from(index)) else { return };
        let told = self.rings.get(usize::from(index)).is_some_and(|ring| ring.call_told);
        if setup.call.is_none() && !told {
            setup.call = Some(Call::Message(all.call(number)));
        }
        if setup.err.is_none() {
            setup.err = Some(Call::Message(all.err(number)));
        }
    }

    /// Notifies the device of a ring, which this starts if it does not run (VRING_KICK).
    pub(super) fn kick(
        &mut self,
        device: &mut Device,
        state: VringState,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::VringKick;
        let (index, ring) = self.ring(request, state.index)?;
        if !ring.started {
            self.start_ring(device, request, index, None, true)?;
        }
        device.backend.kick_ring(index);
        Ok(())
    }
}
