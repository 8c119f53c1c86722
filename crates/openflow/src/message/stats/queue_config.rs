//! Which queues there are: an answer of its own up to OpenFlow 1.3, QUEUE_DESC from 1.4 on.

use super::queue::{ALL, QueueRequest};
use crate::action::wire::property;
use crate::error::ErrorCode;
use crate::message::Raw;
use crate::message::port::{decode_number, encode_number};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// Properties of a queue: what it has at least, and at most.
const MIN_RATE: u16 = 1;
const MAX_RATE: u16 = 2;

/// A rate that is not said.
const NO_RATE: u16 = u16::MAX;

/// Bytes of a property up to OpenFlow 1.3, and of its begin.
const OLD_PROPERTY: u16 = 16;
const OLD_BEGIN: u16 = 8;

/// What is told of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Its port.
    pub port: PortNo,
    /// Its number.
    pub queue: u32,
    /// The rate that it has at least, in tenths of a percent of its port's; above 1000: none is promised.
    pub min_rate: Option<u16>,
    /// The rate that it has at most.
    pub max_rate: Option<u16>,
}

/// Reads whose queues are asked for: of a port, from OpenFlow 1.4 on also one of them.
///
/// # Errors
/// `OFPQOFC_BAD_PORT` where a reserved port is asked about, but for all of them; that of
/// [`decode_number`]; `OFPBRC_BAD_LEN`.
pub fn decode_request(version: Version, body: &[u8]) -> Result<QueueRequest, ErrorCode> {
    if version >= Version::V14 {
        return QueueRequest::decode(version, body);
    }
    let port = decode_number(version, &mut Reader::new(body))?;
    let is_any = port == PortNo::ANY && version > Version::V10;
    if port < PortNo::MAX || is_any {
        Ok(QueueRequest { port, queue: ALL })
    } else {
        Err(ErrorCode::QofcBadPort)
    }
}

/// Appends what is asked for.
pub fn encode_request(version: Version, request: QueueRequest, out: &mut Vec<u8>) {
    encode_number(version, request.port, out);
    match version {
        Version::V10 => out.zeroes(2),
        Version::V11 | Version::V12 | Version::V13 => out.zeroes(4),
        Version::V14 | Version::V15 => out.u32(request.queue),
    }
}

/// Appends the port that an answer is about; from OpenFlow 1.4 on, each queue says it.
pub fn encode_port(version: Version, port: PortNo, out: &mut Vec<u8>) {
    if version < Version::V14 {
        encode_number(version, port, out);
        out.zeroes(if version == Version::V10 { 6 } else { 4 });
    }
}

impl QueueConfig {
    /// A queue of which no rates are known.
    #[must_use]
    pub const fn new(port: PortNo, queue: u32) -> Self {
        Self { port, queue, min_rate: None, max_rate: None }
    }

    /// Reads all of an answer.
    ///
    /// # Errors
    /// That of [`decode_number`]; `OFPBRC_BAD_LEN`, `OFPBPC_BAD_LEN`.
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let (version, mut reader) = (raw.version, Reader::new(raw.body));
        let mut of = PortNo::ANY;
        if version < Version::V14 {
            of = decode_number(version, &mut reader)?;
            reader.skip(if version == Version::V10 { 6 } else { 4 })?;
        }
        let mut all = Vec::new();
        while !reader.is_empty() {
            all.push(Self::decode(version, of, &mut reader)?);
        }
        Ok(all)
    }

    /// Reads one; `of` is the port that is said before.
    fn decode(version: Version, of: PortNo, reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let place = match version {
            Version::V10 | Version::V11 => 4,
            _ => 8,
        };
        let mut entry = reader.entry(place)?;
        if !entry.len().is_multiple_of(8) {
            return Err(ErrorCode::BrcBadLen);
        }
        let mut made = Self::new(of, 0);
        if version >= Version::V14 {
            made.port = decode_number(version, &mut entry)?;
        }
        made.queue = entry.u32()?;
        if version < Version::V14 {
            // Those of all ports say which one they are of.
            if place == 8 {
                made.port = decode_number(version, &mut entry)?;
            }
            entry.skip(place)?;
            return made.decode_old(entry);
        }
        entry.skip(8)?;
        while !entry.is_empty() {
            let (kind, mut value) = property(&mut entry)?;
            if let Some(rate) = made.rate(kind) {
                *rate = Some(value.u16().map_err(|_| ErrorCode::BpcBadLen)?);
            }
        }
        Ok(made)
    }

    /// Reads properties as they were up to OpenFlow 1.3.
    fn decode_old(mut self, mut properties: Reader<'_>) -> Result<Self, ErrorCode> {
        while !properties.is_empty() {
            let mut value = properties.entry(2)?;
            let len = value.len();
            let kind = value.u16()?;
            value.skip(6)?;
            if !len.is_multiple_of(8) {
                return Err(ErrorCode::BrcBadLen);
            }
            if let Some(rate) = self.rate(kind) {
                if len != usize::from(OLD_PROPERTY) {
                    return Err(ErrorCode::BrcBadLen);
                }
                *rate = Some(value.u16()?);
            }
        }
        Ok(self)
    }

    const fn rate(&mut self, property: u16) -> Option<&mut Option<u16>> {
        match property {
            MIN_RATE => Some(&mut self.min_rate),
            MAX_RATE => Some(&mut self.max_rate),
            _ => None,
        }
    }

    /// Appends it, as one of those behind a port's number in OpenFlow 1.0 to 1.3, or by itself.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.len();
        if version >= Version::V14 {
            encode_number(version, self.port, out);
        }
        out.u32(self.queue);
        if matches!(version, Version::V12 | Version::V13) {
            encode_number(version, self.port, out);
        }
        let place = out.len();
        out.zeroes(if version < Version::V12 { 4 } else { 8 });
        for (kind, rate) in [(MIN_RATE, self.min_rate), (MAX_RATE, self.max_rate)] {
            if let Some(rate) = rate.filter(|rate| *rate != NO_RATE) {
                encode_rate(version, kind, rate, out);
            }
        }
        out.patch_length(place, start);
    }
}

fn encode_rate(version: Version, kind: u16, rate: u16, out: &mut Vec<u8>) {
    out.u16(kind);
    if version >= Version::V14 {
        out.u16(6);
        out.u16(rate);
        return out.zeroes(2);
    }
    out.u16(OLD_PROPERTY);
    out.zeroes(4);
    out.u16(rate);
    out.zeroes(usize::from(OLD_PROPERTY - OLD_BEGIN - 2));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Kind, Message};

    /// The whole answer about queues of one port.
    fn answer(version: Version, queues: &[QueueConfig]) -> Vec<u8> {
        let mut message = Message::new(version, Kind::QueueGetConfigReply, 1);
        encode_port(version, PortNo(3), message.body());
        queues.iter().for_each(|queue| queue.encode(version, message.body()));
        message.finish()
    }

    #[test]
    fn each_version_has_its_own_entry() {
        let lengths = Version::ALL.map(|version| {
            let mut bytes = Vec::new();
            QueueConfig::new(PortNo(3), 4).encode(version, &mut bytes);
            bytes.len()
        });
        assert_eq!(lengths, [8, 8, 16, 16, 16, 16]);
    }

    #[test]
    fn queues_are_read_as_they_are_written() {
        let plain = QueueConfig::new(PortNo(3), 4);
        let full = QueueConfig { queue: 5, min_rate: Some(500), max_rate: Some(1001), ..plain };
        for version in Version::ALL {
            let bytes = answer(version, &[plain, full]);
            let raw = Raw::read(&bytes).unwrap();
            assert_eq!(QueueConfig::decode_all(&raw), Ok(vec![plain, full]), "{version}");
            assert_eq!(answer(version, &QueueConfig::decode_all(&raw).unwrap()), bytes);
            let cut = Raw { body: &raw.body[..raw.body.len() - 8], ..raw };
            assert_eq!(QueueConfig::decode_all(&cut), Err(ErrorCode::BrcBadLen));
        }
    }

    #[test]
    fn requests_are_read_as_they_are_written() {
        for version in Version::ALL {
            let queue = if version >= Version::V14 { 7 } else { ALL };
            let request = QueueRequest { port: PortNo(3), queue };
            let mut bytes = Vec::new();
            encode_request(version, request, &mut bytes);
            assert_eq!(decode_request(version, &bytes), Ok(request), "{version}");
        }
        let bad = Err(ErrorCode::QofcBadPort);
        assert_eq!(decode_request(Version::V10, &[0xff, 0xff, 0, 0]), bad);
        assert_eq!(decode_request(Version::V13, &[0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0]), bad);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(body in prop::collection::vec(any::<u8>(), 0..64), at in 0..6_usize) {
            let version = Version::ALL[at];
            let mut bytes = Message::new(version, Kind::QueueGetConfigReply, 1).finish();
            bytes.extend([&[0; 8], &body[..]].concat());
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes[2..4].copy_from_slice(&length);
            if let Ok(raw) = Raw::read(&bytes) {
                let _ = QueueConfig::decode_all(&raw);
            }
        }
    }
}
