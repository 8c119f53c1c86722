//! Messages about translations of I/O virtual addresses ("IOTLB message"), in both directions.

use super::Payload;
use super::payload::PayloadBuf;

/// A message about the I/O translation cache of the back-end. It has the layout of the kernel's
/// `struct vhost_iotlb_msg`, with the padding at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IotlbMessage {
    /// The first I/O virtual address.
    pub iova: u64,
    /// Bytes.
    pub size: u64,
    /// What lies there, in the front-end's own address space.
    pub user_addr: u64,
    /// Bit 0: it may be, or is to be, read; bit 1: written.
    pub access: u8,
    /// What the message says: one of the constants.
    pub kind: u8,
}

impl IotlbMessage {
    /// The back-end asks for a translation.
    pub const MISS: u8 = 1;
    /// The front-end gives one.
    pub const UPDATE: u8 = 2;
    /// The front-end takes those back that touch a range.
    pub const INVALIDATE: u8 = 3;
    /// The back-end reports an access that was not allowed.
    pub const ACCESS_FAIL: u8 = 4;
}

impl Payload for IotlbMessage {
    const SIZE: usize = 32;

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (iova, size, user_addr) = (u64::take(bytes)?, u64::take(bytes)?, u64::take(bytes)?);
        let [access, kind, ..] = u64::take(bytes)?.to_ne_bytes();
        Some(Self { iova, size, user_addr, access, kind })
    }

    fn put(&self, out: &mut PayloadBuf) {
        self.iova.put(out);
        self.size.put(out);
        self.user_addr.put(out);
        u64::from_ne_bytes([self.access, self.kind, 0, 0, 0, 0, 0, 0]).put(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_kernel() {
        let message = IotlbMessage {
            iova: 1,
            size: 2,
            user_addr: 3,
            access: 2,
            kind: IotlbMessage::INVALIDATE,
        };
        let bytes = message.encode();
        let numbers = [1_u64, 2, 3].map(u64::to_ne_bytes).concat();
        assert_eq!(bytes[..], [&numbers[..], &[2, 3, 0, 0, 0, 0, 0, 0]].concat());
        assert_eq!(IotlbMessage::decode("TEST", &bytes), Ok(message));
        for size in [0, 24, 31, 33] {
            assert!(IotlbMessage::decode("TEST", &vec![0; size]).is_err(), "{size}");
        }
    }
}
