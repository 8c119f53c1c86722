//! The payload of GET_INFLIGHT_FD and SET_INFLIGHT_FD ("Inflight description").

use super::payload::{PayloadBuf, append};
use super::{Payload, ProtocolError};

/// A region for records of chains in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InflightRegion {
    /// Its size in bytes; no meaning in the request for one.
    pub size: u64,
    /// Where it starts in its file, in bytes; no meaning in the request for one.
    pub offset: u64,
    /// Rings that it is for.
    pub rings: u16,
    /// Entries of each of them.
    pub entries: u16,
}

impl InflightRegion {
    /// Its fields in bytes, one after the other.
    const FIELDS: usize = 20;
    /// Its size in bytes with the padding that C puts behind it, which is what QEMU, DPDK and
    /// rust-vmm send and expect.
    pub const SIZE: usize = 24;

    /// Reads it from `payload`, that of `request`; with the padding or without.
    ///
    /// # Errors
    /// When the payload has another size.
    pub fn decode(request: &'static str, payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut rest = payload;
        let (size, offset) = (u64::take(&mut rest), u64::take(&mut rest));
        match (size, offset, rest) {
            (Some(size), Some(offset), &[a, b, c, d, ref padding @ ..])
                if padding.is_empty() || padding.len() == Self::SIZE - Self::FIELDS =>
            {
                let (rings, entries) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
                Ok(Self { size, offset, rings, entries })
            }
            _ => {
                let (got, expected) = (payload.len(), Self::SIZE);
                Err(ProtocolError::PayloadSize { request, got, expected })
            }
        }
    }

    /// Its bytes as a payload.
    #[must_use]
    pub fn encode(&self) -> PayloadBuf {
        let mut out = self.size.encode();
        self.offset.put(&mut out);
        append(&mut out, &self.rings.to_ne_bytes());
        append(&mut out, &self.entries.to_ne_bytes());
        append(&mut out, &[0; Self::SIZE - Self::FIELDS]);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn goes_both_ways(size: u64, offset: u64, rings: u16, entries: u16) {
            let region = InflightRegion { size, offset, rings, entries };
            let bytes = region.encode();
            prop_assert_eq!(bytes.len(), 24);
            prop_assert_eq!(InflightRegion::decode("TEST", &bytes), Ok(region));
            prop_assert_eq!(InflightRegion::decode("TEST", &bytes[..20]), Ok(region));
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        for got in (0..20).chain(21..24).chain([25, 40]) {
            let error = InflightRegion::decode("TEST", &vec![0; got]).unwrap_err();
            assert_eq!(error, ProtocolError::PayloadSize { request: "TEST", got, expected: 24 });
        }
    }
}
