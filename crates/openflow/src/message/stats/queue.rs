//! Statistics of queues. Which queues there are is in [`queue_config`](super::queue_config).

use std::time::Duration;

use crate::error::ErrorCode;
use crate::message::port::{decode_number, encode_number};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// All queues, in requests.
pub const ALL: u32 = u32::MAX;

/// Whose statistics are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRequest {
    /// Of which port; `PortNo::ANY`: of all.
    pub port: PortNo,
    /// Which queue; [`ALL`].
    pub queue: u32,
}

impl QueueRequest {
    /// Reads it, also where it asks for what queues there are, as from OpenFlow 1.4.
    ///
    /// # Errors
    /// `OFPBRC_BAD_PORT`, `OFPBRC_BAD_LEN`.
    pub fn decode(version: Version, body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let port = decode_number(version, &mut reader)?;
        if version == Version::V10 {
            reader.skip(2)?;
        }
        // OpenFlow 1.0 says ALL for all.
        let is_all = version == Version::V10 && port == PortNo::ALL;
        Ok(Self { port: if is_all { PortNo::ANY } else { port }, queue: reader.u32()? })
    }

    /// Appends it, as it asks for statistics.
    pub fn encode(self, version: Version, out: &mut Vec<u8>) {
        let is_all = version == Version::V10 && self.port == PortNo::ANY;
        encode_number(version, if is_all { PortNo::ALL } else { self.port }, out);
        if version == Version::V10 {
            out.zeroes(2);
        }
        out.u32(self.queue);
    }
}

/// Counters of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// Its port.
    pub port: PortNo,
    /// Its number.
    pub queue: u32,
    /// Bytes sent.
    pub bytes: u64,
    /// Packets sent.
    pub packets: u64,
    /// Packets dropped because it was full.
    pub errors: u64,
    /// How long it has been there, if that is known; from OpenFlow 1.3.
    pub age: Option<Duration>,
}

impl QueueStats {
    /// Reads one.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, `OFPBRC_BAD_PORT`.
    pub fn decode(version: Version, reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        if version >= Version::V14 {
            let mut entry = reader.entry(0)?;
            entry.skip(8)?;
            // Properties, which only experimenters have, are behind it.
            return Self::decode_figures(version, &mut entry);
        }
        Self::decode_figures(version, reader)
    }

    fn decode_figures(version: Version, reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let port = decode_number(version, reader)?;
        if version == Version::V10 {
            reader.skip(2)?;
        }
        let queue = reader.u32()?;
        let [bytes, packets, errors] = [reader.u64()?, reader.u64()?, reader.u64()?];
        let mut stats = Self { port, queue, bytes, packets, errors, age: None };
        if version >= Version::V13 {
            let (seconds, nanoseconds) = (reader.u32()?, reader.u32()?);
            let is_known = seconds != u32::MAX;
            stats.age = is_known.then(|| Duration::new(seconds.into(), nanoseconds));
        }
        Ok(stats)
    }

    /// Appends it.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.len();
        if version >= Version::V14 {
            out.zeroes(8);
        }
        encode_number(version, self.port, out);
        if version == Version::V10 {
            out.zeroes(2);
        }
        out.u32(self.queue);
        out.u64(self.bytes);
        out.u64(self.packets);
        out.u64(self.errors);
        if version >= Version::V13 {
            let whole = |age: Duration| u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
            out.u32(self.age.map_or(u32::MAX, whole));
            out.u32(self.age.map_or(u32::MAX, |age| age.subsec_nanos()));
        }
        if version >= Version::V14 {
            out.patch_length(start, start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_own_entry() {
        let age = Some(Duration::new(1, 2));
        let stats = QueueStats { port: PortNo(3), queue: 4, bytes: 5, packets: 6, errors: 7, age };
        let lengths = Version::ALL.map(|version| {
            let mut bytes = Vec::new();
            stats.encode(version, &mut bytes);
            bytes.len()
        });
        assert_eq!(lengths, [32, 32, 32, 40, 48, 48]);
    }

    #[test]
    fn figures_are_read_as_they_are_written() {
        let port = PortNo(3);
        for (version, age) in Version::ALL
            .into_iter()
            .flat_map(|version| [None, Some(Duration::new(1, 2))].map(|age| (version, age)))
        {
            let age = age.filter(|_| version >= Version::V13);
            let first = QueueStats { port, queue: 4, bytes: 5, packets: 6, errors: 7, age };
            let second = QueueStats { queue: 5, age: None, ..first };
            let mut bytes = Vec::new();
            [first, second].iter().for_each(|stats| stats.encode(version, &mut bytes));
            let mut reader = Reader::new(&bytes);
            let read = [0, 1].map(|_| QueueStats::decode(version, &mut reader));
            assert_eq!(read, [Ok(first), Ok(second)], "{version:?}");
            assert!(reader.is_empty());
            let mut cut = Reader::new(&bytes[..30]);
            assert_eq!(QueueStats::decode(version, &mut cut), Err(ErrorCode::BrcBadLen));
        }
        let mut short = Reader::new(&[0, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(QueueStats::decode(Version::V14, &mut short), Err(ErrorCode::BrcBadLen));
    }

    #[test]
    fn all_ports_are_asked_for_in_two_ways() {
        let all = Ok(QueueRequest { port: PortNo::ANY, queue: ALL });
        let v10 = [0xff, 0xfc, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(QueueRequest::decode(Version::V10, &v10), all);
        assert_eq!(QueueRequest::decode(Version::V13, &[0xff; 8]), all);
        assert_eq!(QueueRequest::decode(Version::V13, &[0xff; 7]), Err(ErrorCode::BrcBadLen));
    }
}
