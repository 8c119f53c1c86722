//! What of the shared memory the back-end may use, and by which addresses (chapter "IOMMU support"):
//! where `VIRTIO_F_ACCESS_PLATFORM` was negotiated, rings and buffers have I/O virtual addresses.
//!
//! The back-end is told of each translation at once, so it need not ask; it may all the same, since
//! it may forget what it was told whenever it likes. A question is answered when the back-end has
//! acknowledged the translation: question and translation go over two sockets, and an answer that
//! comes first would say that there is none.

use virtio::iotlb::{Access, Translation};

use super::{Frontend, FrontendError};
use crate::protocol::{FrontendMessage, IotlbMessage};

/// Questions answered at once: a back-end that has more waits for its turn.
const BURST: usize = 64;

/// Whether `translation` says all about the access that `miss` asks for.
fn answers(translation: &Translation, miss: &IotlbMessage) -> bool {
    let offset = miss.iova.checked_sub(translation.iova);
    let wanted = Access::from_bits_truncate(miss.access);
    offset.is_some_and(|offset| offset < translation.len) && translation.access.contains(wanted)
}

impl Frontend {
    /// Lets the back-end use what `translation` says, until [`unmap_all`](Self::unmap_all). To be
    /// called when features are set and the memory is shared.
    ///
    /// # Errors
    /// When the back-end refuses it.
    pub fn map(&mut self, translation: Translation) -> Result<(), FrontendError> {
        self.tell_translation(&translation)?;
        self.translations.push(translation);
        Ok(())
    }

    /// Takes back whatever the back-end was allowed to use, which it does not use any more when this
    /// returns.
    ///
    /// # Errors
    /// When the back-end refuses.
    pub fn unmap_all(&mut self) -> Result<(), FrontendError> {
        for Translation { iova, len, .. } in std::mem::take(&mut self.translations) {
            let kind = IotlbMessage::INVALIDATE;
            let message = IotlbMessage { iova, size: len, kind, ..IotlbMessage::default() };
            self.tell(&FrontendMessage::IotlbMsg(message))?;
        }
        Ok(())
    }

    fn tell_translation(&mut self, translation: &Translation) -> Result<(), FrontendError> {
        let Translation { iova, len, user_addr, access } = *translation;
        let (access, kind) = (access.bits(), IotlbMessage::UPDATE);
        let message = IotlbMessage { iova, size: len, user_addr, access, kind };
        self.tell(&FrontendMessage::IotlbMsg(message))
    }

    /// Whether the back-end has asked for a translation and waits for it. It may do so within any
    /// call; then [`check`](Self::check) has something to do.
    #[must_use]
    pub fn has_misses(&self) -> bool {
        self.channel.as_ref().is_some_and(super::Channel::has_miss)
    }

    /// Takes messages of the back-end that have come, and tells the translations that it asks for.
    pub(super) fn answer_misses(&mut self) -> Result<(), FrontendError> {
        for _ in 0..BURST {
            self.serve_channel();
            let Some(miss) = self.channel.as_mut().and_then(super::Channel::take_miss) else {
                break;
            };
            let known = self.translations.iter().find(|known| answers(known, &miss.message));
            let told = match known.copied() {
                None => false,
                Some(translation) => match self.tell_translation(&translation) {
                    Ok(()) => true,
                    Err(FrontendError::Refused { .. }) => false,
                    Err(error) => return Err(error),
                },
            };
            if self.channel.as_mut().is_some_and(|channel| channel.answer(&miss, told).is_err()) {
                self.channel = None;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translation_answers_what_lies_in_it_and_is_allowed() {
        let (iova, len, access) = (0x1000, 0x2000, Access::READ);
        let translation = Translation { iova, len, user_addr: 0, access };
        let asks = |iova, access: Access| {
            let miss = IotlbMessage { iova, access: access.bits(), ..IotlbMessage::default() };
            answers(&translation, &miss)
        };
        for (at, inside) in [(0xfff, false), (0x1000, true), (0x2fff, true), (0x3000, false)] {
            assert_eq!(asks(at, Access::READ), inside, "{at:#x}");
            assert!(!asks(at, Access::WRITE) && !asks(at, Access::all()));
        }
        assert!(!asks(u64::MAX, Access::READ));
    }
}
