//! A whole message of the back-end (chapter "Back-end message types"), its payload and
//! descriptors checked together.

use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use eal::PeerFd;

use super::message::{Fds, empty};
use super::payload::PayloadBuf;
use super::{
    BackendRequest, IotlbMessage, MAX_FDS, Payload, ProtocolError, ProtocolFeatures, VringFile,
    VringState,
};

/// A message from the back-end. `F` is [`PeerFd`] in what was received, and may be
/// [`BorrowedFd`] in what is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendMessage<F> {
    /// The device's configuration has changed.
    ConfigChange,
    /// The doorbell of a ring can be mapped, or no longer.
    HostNotifier(VringArea<F>),
    /// There are used buffers in the ring of this index.
    VringCall(u8),
    /// The ring of this index is broken.
    VringErr(u8),
    /// A translation is missing, or an access was not allowed.
    Iotlb(IotlbMessage),
}

/// Where the doorbell of a ring is ("Vring area description").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VringArea<F> {
    /// Index of the ring.
    pub index: u8,
    /// The file, and size and offset in it, in bytes; `None` takes the doorbell back.
    pub area: Option<(F, u64, u64)>,
}

impl<F> BackendMessage<F> {
    /// Which message it is.
    #[must_use]
    pub const fn request(&self) -> BackendRequest {
        match self {
            Self::ConfigChange => BackendRequest::ConfigChangeMsg,
            Self::HostNotifier(_) => BackendRequest::VringHostNotifierMsg,
            Self::VringCall(_) => BackendRequest::VringCall,
            Self::VringErr(_) => BackendRequest::VringErr,
            Self::Iotlb(_) => BackendRequest::IotlbMsg,
        }
    }

    /// The protocol features without which it may not be sent.
    #[must_use]
    pub const fn needs(&self) -> ProtocolFeatures {
        let kind = match self {
            Self::ConfigChange => ProtocolFeatures::CONFIG,
            Self::HostNotifier(_) => {
                ProtocolFeatures::HOST_NOTIFIER.union(ProtocolFeatures::BACKEND_SEND_FD)
            }
            Self::VringCall(_) | Self::VringErr(_) => ProtocolFeatures::INBAND_NOTIFICATIONS,
            // Its feature is one of virtio.
            Self::Iotlb(_) => ProtocolFeatures::empty(),
        };
        ProtocolFeatures::BACKEND_REQ.union(kind)
    }

    /// Its payload as bytes.
    #[must_use]
    pub fn payload(&self) -> PayloadBuf {
        match self {
            Self::ConfigChange => PayloadBuf::new(),
            Self::VringCall(index) | Self::VringErr(index) => {
                VringState { index: (*index).into(), num: 0 }.encode()
            }
            Self::Iotlb(message) => message.encode(),
            Self::HostNotifier(VringArea { index, area }) => {
                let (size, offset) = area.as_ref().map_or((0, 0), |(_, size, at)| (*size, *at));
                let mut out = VringFile { index: *index, fd: area.as_ref() }.value().encode();
                size.put(&mut out);
                offset.put(&mut out);
                out
            }
        }
    }
}

impl<F: AsFd> BackendMessage<F> {
    /// The descriptors that go with it.
    pub fn fds(&self) -> ArrayVec<BorrowedFd<'_>, MAX_FDS> {
        match self {
            Self::HostNotifier(VringArea { area: Some((fd, ..)), .. }) => {
                std::iter::once(fd.as_fd()).collect()
            }
            _ => ArrayVec::new(),
        }
    }
}

impl BackendMessage<PeerFd> {
    /// The message that a header with `number`, a payload and its descriptors make up. Whatever
    /// is wrong with it, all descriptors that it does not keep are closed.
    ///
    /// # Errors
    /// When the request is unknown, or payload or descriptors are not what it asks for.
    pub fn decode(
        number: u32,
        payload: &[u8],
        fds: ArrayVec<PeerFd, MAX_FDS>,
    ) -> Result<Self, ProtocolError> {
        let request = BackendRequest::try_from(number)?;
        let name = request.name();
        let fds = Fds { request: name, fds };
        match request {
            BackendRequest::ConfigChangeMsg => {
                empty(name, payload)?;
                fds.none()?;
                Ok(Self::ConfigChange)
            }
            BackendRequest::VringHostNotifierMsg => {
                decode_area(name, payload, fds).map(Self::HostNotifier)
            }
            BackendRequest::VringCall => decode_ring(name, payload, fds).map(Self::VringCall),
            BackendRequest::VringErr => decode_ring(name, payload, fds).map(Self::VringErr),
            BackendRequest::IotlbMsg => {
                let message = Payload::decode(name, payload)?;
                fds.none()?;
                Ok(Self::Iotlb(message))
            }
        }
    }
}

/// The ring of a notification; the number beside it is reserved.
fn decode_ring(request: &'static str, payload: &[u8], fds: Fds) -> Result<u8, ProtocolError> {
    let VringState { index, .. } = Payload::decode(request, payload)?;
    fds.none()?;
    u8::try_from(index).map_err(|_| ProtocolError::VringFile { request, value: index.into() })
}

fn decode_area(
    request: &'static str,
    payload: &[u8],
    fds: Fds,
) -> Result<VringArea<PeerFd>, ProtocolError> {
    let mut rest = payload;
    let (Some(value), Some(size), Some(offset), true) =
        (u64::take(&mut rest), u64::take(&mut rest), u64::take(&mut rest), rest.is_empty())
    else {
        return Err(ProtocolError::PayloadSize { request, got: payload.len(), expected: 24 });
    };
    let no_fd = VringFile::<PeerFd>::NO_FD;
    let Ok(index) = u8::try_from(value & !no_fd) else {
        return Err(ProtocolError::VringFile { request, value });
    };
    if value & no_fd != 0 {
        fds.none()?;
        return Ok(VringArea { index, area: None });
    }
    Ok(VringArea { index, area: Some((fds.one()?, size, offset)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> PeerFd {
        crate::testing::null().into()
    }

    fn samples() -> Vec<BackendMessage<PeerFd>> {
        vec![
            BackendMessage::ConfigChange,
            BackendMessage::HostNotifier(VringArea { index: 3, area: Some((fd(), 4096, 8192)) }),
            BackendMessage::HostNotifier(VringArea { index: 255, area: None }),
            BackendMessage::VringCall(7),
            BackendMessage::VringErr(255),
            BackendMessage::Iotlb(IotlbMessage { kind: IotlbMessage::MISS, ..Default::default() }),
        ]
    }

    #[test]
    fn every_message_goes_both_ways_and_checks_its_size_and_descriptors() {
        for message in samples() {
            let (number, payload) = (message.request().number(), message.payload());
            let with = message.fds().len();
            for count in 0..=MAX_FDS {
                let fds: ArrayVec<_, MAX_FDS> = (0..count).map(|_| fd()).collect();
                let decoded = BackendMessage::decode(number, &payload, fds);
                assert_eq!(decoded.is_ok(), count == with, "{message:?} with {count}");
                if let Ok(decoded) = decoded {
                    assert_eq!(decoded.payload(), payload);
                }
            }
            for bytes in [[&payload[..], &[0]].concat(), payload.iter().skip(1).copied().collect()]
            {
                if bytes.len() != payload.len() {
                    let fds = (0..with).map(|_| fd()).collect();
                    let error = BackendMessage::decode(number, &bytes, fds).unwrap_err();
                    assert!(matches!(error, ProtocolError::PayloadSize { .. }), "{error}");
                }
            }
        }
    }

    #[test]
    fn other_messages_and_reserved_bits_are_refused() {
        for number in [0, 6, 9, u32::MAX] {
            let error = BackendMessage::decode(number, &[], ArrayVec::new()).unwrap_err();
            assert_eq!(error, ProtocolError::UnknownRequest(number));
        }
        let payload = [[0_u8, 2, 0, 0, 0, 0, 0, 0], [0; 8], [0; 8]].concat();
        let fds = std::iter::once(fd()).collect();
        let error = BackendMessage::decode(3, &payload, fds).unwrap_err();
        assert!(matches!(error, ProtocolError::VringFile { value: 0x200, .. }), "{error}");
    }
}
