//! Statistics of ports.

use std::time::Duration;

use crate::action::wire::property;
use crate::error::ErrorCode;
use crate::message::port::{decode_number, encode_number};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// What is said of a figure that is not known.
pub const UNKNOWN: u64 = u64::MAX;

/// The property that has figures of Ethernet.
const ETHERNET: u16 = 0;

/// The property that has figures of an extension: Intel's, of a port's own names.
const EXPERIMENTER: u16 = 0xFFFF;
const INTEL: u32 = 0xAA01;
const CUSTOM: u32 = 2;

/// The figures that all versions have, in their order.
pub const FIGURES: usize = 12;

/// Counters of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStats {
    /// Its number.
    pub port: PortNo,
    /// How long it has been there; from OpenFlow 1.3.
    pub age: Duration,
    /// Packets received, sent; bytes received, sent; received and sent ones dropped; errors of
    /// receiving, of sending; alignment errors, overruns, checksum errors, collisions. [`UNKNOWN`]
    /// where that is not counted.
    pub figures: [u64; FIGURES],
    /// Figures by names of the port's own; from OpenFlow 1.4. Names have 255 bytes at most.
    pub custom: Vec<(String, u64)>,
}

/// Appends figures by names, if there are any.
fn encode_custom(custom: &[(String, u64)], out: &mut Vec<u8>) {
    if custom.is_empty() {
        return;
    }
    let start = out.len();
    out.u16(EXPERIMENTER);
    out.u16(0);
    out.u32(INTEL);
    out.u32(CUSTOM);
    out.u16(0);
    out.u16(u16::try_from(custom.len()).unwrap_or(u16::MAX));
    for (name, figure) in custom.iter().take(u16::MAX.into()) {
        let name = name.as_bytes();
        let name = name.get(..u8::MAX.into()).unwrap_or(name);
        out.u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.bytes(name);
        out.u64(*figure);
    }
    out.patch_length(start.saturating_add(2), start);
    out.pad8(start);
}

/// Reads figures by names; those of other extensions are passed over.
fn decode_custom(mut value: Reader<'_>) -> Result<Vec<(String, u64)>, crate::wire::Short> {
    if (value.u32()?, value.u32()?) != (INTEL, CUSTOM) {
        return Ok(Vec::new());
    }
    value.skip(2)?;
    let count = value.u16()?;
    let mut all = Vec::new();
    for _ in 0..count {
        let len = value.u8()?;
        let name = String::from_utf8_lossy(value.take(len.into())?).into_owned();
        all.push((name, value.u64()?));
    }
    Ok(all)
}

/// Where the figures of a property begin.
const OF_PROPERTY: usize = 8;

/// Reads whose statistics are asked for, and of those of a port's description from OpenFlow 1.5;
/// `PortNo::ANY`: of all.
///
/// # Errors
/// `OFPBRC_BAD_PORT`, `OFPBRC_BAD_LEN`.
pub fn decode_request(version: Version, body: &[u8]) -> Result<PortNo, ErrorCode> {
    decode_number(version, &mut Reader::new(body))
}

impl PortStats {
    /// Appends it.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.len();
        let seconds = u32::try_from(self.age.as_secs()).unwrap_or(u32::MAX);
        let (common, ethernet) = self.figures.split_at(OF_PROPERTY);
        if version >= Version::V14 {
            out.zeroes(4);
            out.u32(self.port.0);
            out.u32(seconds);
            out.u32(self.age.subsec_nanos());
            common.iter().for_each(|figure| out.u64(*figure));
            out.u16(ETHERNET);
            out.u16(40);
            out.zeroes(4);
            ethernet.iter().for_each(|figure| out.u64(*figure));
            encode_custom(&self.custom, out);
            out.patch_length(start, start);
            return;
        }
        encode_number(version, self.port, out);
        out.zeroes(if version == Version::V10 { 6 } else { 4 });
        self.figures.iter().for_each(|figure| out.u64(*figure));
        if version == Version::V13 {
            out.u32(seconds);
            out.u32(self.age.subsec_nanos());
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, `OFPBRC_BAD_PORT`, `OFPBPC_BAD_LEN`.
    pub fn decode(version: Version, reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let (figures, custom) = ([UNKNOWN; FIGURES], Vec::new());
        let mut stats = Self { port: PortNo(0), age: Duration::ZERO, figures, custom };
        if version >= Version::V14 {
            let whole = usize::from(Reader::new(reader.peek()).u16()?);
            let mut entry = reader.sub(whole)?;
            entry.skip(4)?;
            stats.port = decode_number(version, &mut entry)?;
            stats.age = decode_age(&mut entry)?;
            for figure in stats.figures.iter_mut().take(OF_PROPERTY) {
                *figure = entry.u64()?;
            }
            while !entry.is_empty() {
                let (kind, mut value) = property(&mut entry)?;
                if kind == EXPERIMENTER {
                    stats.custom = decode_custom(value).map_err(|_| ErrorCode::BpcBadLen)?;
                }
                if kind != ETHERNET {
                    continue;
                }
                value.skip(4).map_err(|_| ErrorCode::BpcBadLen)?;
                for figure in stats.figures.iter_mut().skip(OF_PROPERTY) {
                    *figure = value.u64().map_err(|_| ErrorCode::BpcBadLen)?;
                }
            }
            return Ok(stats);
        }
        stats.port = decode_number(version, reader)?;
        reader.skip(if version == Version::V10 { 6 } else { 4 })?;
        for figure in &mut stats.figures {
            *figure = reader.u64()?;
        }
        if version == Version::V13 {
            stats.age = decode_age(reader)?;
        }
        Ok(stats)
    }
}

/// Reads seconds and nanoseconds; more of these than a second has are taken as they are.
fn decode_age(reader: &mut Reader<'_>) -> Result<Duration, ErrorCode> {
    let (seconds, nanoseconds) = (reader.u32()?, reader.u32()?);
    Ok(Duration::from_secs(seconds.into()) + Duration::from_nanos(nanoseconds.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn they_are_read_as_they_are_written() {
        for version in Version::ALL {
            let mut figures = [0; FIGURES];
            (1..).zip(&mut figures).for_each(|(at, figure)| *figure = at);
            let is_timed = version >= Version::V13;
            let age = if is_timed { Duration::new(7, 8) } else { Duration::ZERO };
            let custom = Vec::new();
            let stats = PortStats { port: PortNo::LOCAL, age, figures, custom };
            let mut bytes = Vec::new();
            stats.encode(version, &mut bytes);
            let length = match version {
                Version::V10 | Version::V11 | Version::V12 => 104,
                Version::V13 => 112,
                Version::V14 | Version::V15 => 120,
            };
            assert_eq!(bytes.len(), length);
            assert_eq!(PortStats::decode(version, &mut Reader::new(&bytes)), Ok(stats));
            let cut = PortStats::decode(version, &mut Reader::new(&bytes[..length - 1]));
            assert!(cut.is_err());
        }
    }

    #[test]
    fn figures_have_names_of_the_ports_own() {
        let custom = [("rx_custom_packets_1", 7), ("tx_q0_bytes", u64::MAX)];
        let custom = custom.map(|(name, figure)| (name.to_owned(), figure)).to_vec();
        let (port, age, figures) = (PortNo(1), Duration::ZERO, [0; FIGURES]);
        let stats = PortStats { port, age, figures, custom };
        let mut bytes = Vec::new();
        stats.encode(Version::V14, &mut bytes);
        // As Open vSwitch has it: a head of 16 bytes, and what is in it filled to 8.
        assert_eq!(bytes.len(), 120 + 16 + 28 + 20);
        assert_eq!(bytes[120..136], [255, 255, 0, 64, 0, 0, 0xAA, 1, 0, 0, 0, 2, 0, 0, 0, 2]);
        assert_eq!(PortStats::decode(Version::V14, &mut Reader::new(&bytes)), Ok(stats));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(body in prop::collection::vec(any::<u8>(), 0..160), at in 0..6_usize) {
            let _ = PortStats::decode(Version::ALL[at], &mut Reader::new(&body));
            let _ = decode_request(Version::ALL[at], &body);
        }
    }
}
