//! Translations of I/O virtual addresses (IOTLB_MSG; chapter "IOMMU support"), for devices behind
//! the guest's virtual IOMMU.

use virtio::Features;
use virtio::iotlb::{Access, Translation};

use super::{Device, Session, SessionError};
use crate::protocol::{FrontendRequest, IotlbMessage, ProtocolFeatures};

/// The bit that says that the device is behind an IOMMU.
pub(super) const TRANSLATED: u64 = Features::ACCESS_PLATFORM.bits();

/// What it takes to ask for a translation, and to hear that there is none.
const ASKING: ProtocolFeatures = ProtocolFeatures::BACKEND_REQ.union(ProtocolFeatures::REPLY_ACK);

/// What to do about bits that were not offered.
pub(super) const fn hint(unknown: u64) -> &'static str {
    if unknown & TRANSLATED == 0 {
        return "";
    }
    "; a device behind the guest's IOMMU (QEMU: iommu_platform=on) needs iommu=on at its port"
}

impl Session {
    /// Whether addresses in rings, and those of rings, are I/O virtual ones.
    pub(super) const fn is_translated(&self) -> bool {
        matches!(self.features, Some(features) if features & TRANSLATED != 0)
    }

    /// Refuses to start ring `index` where its addresses mean nothing for ever.
    pub(super) fn check_asking(&self, index: u16) -> Result<(), SessionError> {
        if !self.is_translated() || self.protocol_features.contains(ASKING) {
            return Ok(());
        }
        let missing = "the protocol features BACKEND_REQ and REPLY_ACK are negotiated, without \
                       which no device can be behind an IOMMU";
        Err(SessionError::RingIncomplete { index, missing })
    }

    /// Hands a translation to the device, or has it forget some.
    pub(super) fn iotlb(
        &self,
        device: &mut Device,
        message: IotlbMessage,
    ) -> Result<(), SessionError> {
        let request = FrontendRequest::IotlbMsg.name();
        if !self.is_translated() {
            let feature = "(feature bit 33, ACCESS_PLATFORM)";
            return Err(SessionError::NotNegotiated { request, feature });
        }
        let IotlbMessage { iova, size, user_addr, access, kind } = message;
        match kind {
            IotlbMessage::UPDATE => {
                let access = Access::from_bits_truncate(access);
                let translation = Translation { iova, len: size, user_addr, access };
                let done = device.backend.update_translation(translation);
                done.map_err(|source| SessionError::Backend { request, source })
            }
            IotlbMessage::INVALIDATE => {
                device.backend.forget_translations(iova, size);
                Ok(())
            }
            other => Err(SessionError::Value {
                request,
                what: "the type",
                value: other.into(),
                expected: "2 for an update or 3 to invalidate",
            }),
        }
    }
}
