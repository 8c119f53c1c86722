//! Notifications as messages (chapter "In-band notifications"), for simulations: each is a message
//! and its answer, where an eventfd would be a system call.
//!
//! Those of the back-end come to the [listener](Frontend::listen).

use super::{Frontend, FrontendError, ON_REQUEST};
use crate::protocol::{FrontendMessage, ProtocolFeatures, VringState};

/// What notifications as messages need: a channel for those of the back-end, and answers.
const NEEDED: ProtocolFeatures = ProtocolFeatures::BACKEND_REQ.union(ProtocolFeatures::REPLY_ACK);

/// `features` without that of notifications as messages, if what it needs is not among them.
pub(super) fn without_lonely(features: ProtocolFeatures) -> ProtocolFeatures {
    if features.contains(NEEDED) {
        return features;
    }
    features - ProtocolFeatures::INBAND_NOTIFICATIONS
}

impl Frontend {
    /// Has `features` negotiated, too, where the back-end offers them: INBAND_NOTIFICATIONS, with
    /// which rings are started without files. To be called before the
    /// [`handshake`](Self::handshake).
    pub fn want(&mut self, features: ProtocolFeatures) {
        self.wanted |= features & ON_REQUEST;
    }

    /// Notifies the device of ring `index`, and starts the ring if it does not run yet. Only where
    /// INBAND_NOTIFICATIONS was negotiated.
    ///
    /// # Errors
    /// When the back-end refuses.
    pub fn kick(&mut self, index: u8) -> Result<(), FrontendError> {
        self.tell(&FrontendMessage::VringKick(VringState { index: index.into(), num: 0 }))
    }
}
