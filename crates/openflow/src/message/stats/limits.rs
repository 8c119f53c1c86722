//! How many groups and meters there may be, and what they can do.

use crate::error::ErrorCode;
use crate::wire::{Reader, Writer as _};

/// Types of groups, of which statistics have a figure each.
const TYPES: usize = 4;

/// What groups there may be; from OpenFlow 1.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupFeatures {
    /// Bits of the types: all, select, indirect, fast failover.
    pub types: u32,
    /// Bits: weights, liveness, chaining, checks for loops.
    pub capabilities: u32,
    /// The most groups of each type.
    pub max_groups: [u32; TYPES],
    /// Bits of actions that each type may have.
    pub actions: [u32; TYPES],
}

impl GroupFeatures {
    /// Reads it.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let mut features =
            Self { types: reader.u32()?, capabilities: reader.u32()?, ..Self::default() };
        for field in features.max_groups.iter_mut().chain(&mut features.actions) {
            *field = reader.u32()?;
        }
        Ok(features)
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.types);
        out.u32(self.capabilities);
        for field in self.max_groups.iter().chain(&self.actions) {
            out.u32(*field);
        }
    }
}

/// What meters there may be; from OpenFlow 1.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterFeatures {
    /// The most meters.
    pub max_meters: u32,
    /// Bits of the types of bands: drop, DSCP remark.
    pub band_types: u32,
    /// Bits of flags: kb/s, packets/s, bursts, statistics.
    pub capabilities: u32,
    /// The most bands of a meter.
    pub max_bands: u8,
    /// The most colours.
    pub max_color: u8,
}

impl MeterFeatures {
    /// Reads it.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`.
    pub fn decode(body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        Ok(Self {
            max_meters: reader.u32()?,
            band_types: reader.u32()?,
            capabilities: reader.u32()?,
            max_bands: reader.u8()?,
            max_color: reader.u8()?,
        })
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.u32(self.max_meters);
        out.u32(self.band_types);
        out.u32(self.capabilities);
        out.u8(self.max_bands);
        out.u8(self.max_color);
        out.zeroes(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_are_written() {
        let groups = GroupFeatures {
            types: 0xf,
            capabilities: 7,
            max_groups: [1, 2, 3, 4],
            actions: [5, 6, 7, 8],
        };
        let meters = MeterFeatures {
            max_meters: 9,
            band_types: 2,
            capabilities: 0xf,
            max_bands: 8,
            max_color: 1,
        };
        let mut bytes = Vec::new();
        groups.encode(&mut bytes);
        assert_eq!((bytes.len(), GroupFeatures::decode(&bytes)), (40, Ok(groups)));
        bytes.clear();
        meters.encode(&mut bytes);
        assert_eq!((bytes.len(), MeterFeatures::decode(&bytes)), (16, Ok(meters)));
        assert_eq!(MeterFeatures::decode(&bytes[..12]), Err(ErrorCode::BrcBadLen));
    }
}
