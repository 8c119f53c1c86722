//! The kernel's requests on a device's file, and the answers to them.

use super::abi::MESSAGE_BYTES;

/// What the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tell how far this ring is (`VDUSE_GET_VQ_STATE`).
    RingState(u32),
    /// The driver wrote the device status byte (`VDUSE_SET_STATUS`); 0 resets the device.
    Status(u8),
    /// What backs these addresses, first and last, has changed (`VDUSE_UPDATE_IOTLB`).
    MemoryChanged(u64, u64),
    /// A request that this version does not know.
    Unknown(u32),
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number, which the answer repeats.
    pub id: u32,
    /// What is asked for.
    pub kind: Kind,
}

impl Request {
    /// Reads `struct vduse_dev_request`; `None` when it is cut short.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let long = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        let kind = match word(0)? {
            0 => Kind::RingState(word(PAYLOAD)?),
            1 => Kind::Status(*bytes.get(PAYLOAD)?),
            2 => Kind::MemoryChanged(long(PAYLOAD)?, long(PAYLOAD + 8)?),
            other => Kind::Unknown(other),
        };
        Some(Self { id: word(4)?, kind })
    }
}

/// Where the fields of a kind begin: behind two numbers and four reserved ones, in requests and
/// in answers.
const PAYLOAD: usize = 24;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the request.
    pub id: u32,
    /// Whether what was asked for was done.
    pub done: bool,
    /// The ring and its index in the available ring, where that was asked for.
    pub ring: Option<(u32, u16)>,
}

impl Answer {
    /// `struct vduse_dev_response`.
    #[must_use]
    pub fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        let (index, base) = self.ring.unwrap_or_default();
        let fields = [(0, self.id), (4, u32::from(!self.done)), (PAYLOAD, index)];
        let words = fields.map(|(at, word)| (at, word.to_ne_bytes()));
        let all = words.iter().flat_map(|(at, word)| (*at..).zip(word));
        for (at, byte) in all.chain((PAYLOAD + 4..).zip(&base.to_ne_bytes())) {
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(kind: u32, payload: &[u8]) -> Option<Request> {
        let mut bytes = vec![0; MESSAGE_BYTES];
        bytes[..4].copy_from_slice(&kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[24..24 + payload.len()].copy_from_slice(payload);
        Request::decode(&bytes)
    }

    #[test]
    fn requests_are_read() {
        let of = |kind| Some(Request { id: 7, kind });
        assert_eq!(request(0, &3_u32.to_ne_bytes()), of(Kind::RingState(3)));
        assert_eq!(request(1, &[15]), of(Kind::Status(15)));
        let range = [4096_u64.to_ne_bytes(), u64::MAX.to_ne_bytes()].concat();
        assert_eq!(request(2, &range), of(Kind::MemoryChanged(4096, u64::MAX)));
        assert_eq!(request(9, &[]), of(Kind::Unknown(9)));
    }

    #[test]
    fn answers_are_written() {
        let bytes = Answer { id: 5, done: false, ring: Some((2, 0x1234)) }.encode();
        assert_eq!(bytes[..4], 5_u32.to_ne_bytes());
        assert_eq!(bytes[4..8], 1_u32.to_ne_bytes());
        assert_eq!(bytes[8..24], [0; 16]);
        assert_eq!(bytes[24..28], 2_u32.to_ne_bytes());
        assert_eq!(bytes[28..30], 0x1234_u16.to_ne_bytes());
        assert!(bytes[30..].iter().all(|byte| *byte == 0));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            let _ = Request::decode(&bytes);
        }
    }
}
