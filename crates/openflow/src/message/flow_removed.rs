//! That a flow has ended.

use std::time::Duration;

use super::flow_mod::{ALL_TABLES, nx_match};
use super::oxs::{Oxs, duration, put_duration};
use super::{Form, Kind, Message, Raw};
use crate::error::ErrorCode;
use crate::matching::oxm::Strictness;
use crate::matching::{Match, oxm, v10, v11};
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// Why a flow has ended. There are more numbers than names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemovedReason(pub u8);

impl RemovedReason {
    /// No packet came for too long.
    pub const IDLE_TIMEOUT: Self = Self(0);
    /// Its time was over.
    pub const HARD_TIMEOUT: Self = Self(1);
    /// It was deleted.
    pub const DELETE: Self = Self(2);
    /// A group that it uses was deleted.
    pub const GROUP_DELETE: Self = Self(3);
    /// A meter that it uses was deleted.
    pub const METER_DELETE: Self = Self(4);
    /// There was no room for it any more.
    pub const EVICTION: Self = Self(5);
}

/// Its name, or its number.
impl std::fmt::Display for RemovedReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = ["idle", "hard", "delete", "group_delete", "meter_delete", "eviction"];
        match names.get(usize::from(self.0)) {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// That a flow has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRemoved {
    /// Its table; [`ALL_TABLES`]: not said, as in OpenFlow 1.0.
    pub table: u8,
    /// Which packets it was for.
    pub matching: Match,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// Why.
    pub reason: RemovedReason,
    /// How long it has been there.
    pub duration: Duration,
    /// After how many seconds without a packet it was to end; 0: never.
    pub idle_timeout: u16,
    /// After how many seconds it was to end in any case; OpenFlow 1.0 does not say it.
    pub hard_timeout: u16,
    /// Its packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl FlowRemoved {
    /// Reads one.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, and those of matches.
    pub fn decode(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut flow = Self {
            table: ALL_TABLES,
            matching: Match::new(),
            priority: 0,
            cookie: 0,
            reason: RemovedReason::DELETE,
            duration: Duration::ZERO,
            idle_timeout: 0,
            hard_timeout: 0,
            packets: 0,
            bytes: 0,
        };
        match (raw.version, raw.form) {
            (_, Form::Nx) => flow.read_nx(&mut reader)?,
            (Version::V10, _) => {
                flow.matching = v10::decode(&mut reader)?;
                flow.read_head(&mut reader)?;
                reader.skip(2)?;
                (flow.packets, flow.bytes) = (reader.u64()?, reader.u64()?);
                flow.table = ALL_TABLES;
            }
            (Version::V15, _) => flow.read_v15(&mut reader)?,
            _ => {
                flow.read_head(&mut reader)?;
                flow.hard_timeout = reader.u16()?;
                (flow.packets, flow.bytes) = (reader.u64()?, reader.u64()?);
                flow.matching = v11::decode(&mut reader, Strictness::Strict)?;
            }
        }
        Ok(flow)
    }

    /// Reads what all forms but the last have in the same order.
    fn read_head(&mut self, reader: &mut Reader<'_>) -> Result<(), ErrorCode> {
        self.cookie = reader.u64()?;
        self.priority = reader.u16()?;
        self.reason = RemovedReason(reader.u8()?);
        self.table = reader.u8()?;
        self.duration = duration(reader)?;
        self.idle_timeout = reader.u16()?;
        Ok(())
    }

    fn read_nx(&mut self, reader: &mut Reader<'_>) -> Result<(), ErrorCode> {
        self.read_head(reader)?;
        self.table = self.table.checked_sub(1).unwrap_or(ALL_TABLES);
        let len = reader.u16()?;
        (self.packets, self.bytes) = (reader.u64()?, reader.u64()?);
        self.matching = nx_match(reader, len, Strictness::Strict)?.0;
        if reader.is_empty() { Ok(()) } else { Err(ErrorCode::BrcBadLen) }
    }

    fn read_v15(&mut self, reader: &mut Reader<'_>) -> Result<(), ErrorCode> {
        self.table = reader.u8()?;
        self.reason = RemovedReason(reader.u8()?);
        self.priority = reader.u16()?;
        (self.idle_timeout, self.hard_timeout) = (reader.u16()?, reader.u16()?);
        self.cookie = reader.u64()?;
        self.matching = v11::decode(reader, Strictness::Strict)?;
        let counts = Oxs::decode(reader)?;
        self.duration = counts.duration.unwrap_or_default();
        self.packets = counts.packets.unwrap_or(u64::MAX);
        self.bytes = counts.bytes.unwrap_or(u64::MAX);
        Ok(())
    }

    /// The whole message in this form of a version.
    #[must_use]
    pub fn encode(&self, version: Version, form: Form) -> Vec<u8> {
        let mut message = Message::of_form(version, Kind::FlowRemoved, form, 0);
        let out = message.body();
        let is_new = self.reason != RemovedReason::METER_DELETE || version >= Version::V14;
        let reason = if is_new { self.reason } else { RemovedReason::DELETE };
        match (version, form) {
            (_, Form::Nx) => {
                let list = oxm::encode(&self.matching, Version::V10, None);
                self.put_head(reason, self.table.wrapping_add(1), out);
                out.u16(u16::try_from(list.len()).unwrap_or(u16::MAX));
                self.put_counts(out);
                let start = out.position();
                out.bytes(&list);
                out.pad8(start);
            }
            (Version::V10, _) => {
                v10::encode(&self.matching, out);
                self.put_head(reason, 0, out);
                out.zeroes(2);
                self.put_counts(out);
            }
            (Version::V15, _) => self.put_v15(out),
            _ => {
                self.put_head(reason, self.table, out);
                out.u16(self.hard_timeout);
                self.put_counts(out);
                v11::encode(&self.matching, version, out);
            }
        }
        message.finish()
    }

    fn put_head(&self, reason: RemovedReason, table: u8, out: &mut Vec<u8>) {
        out.u64(self.cookie);
        out.u16(self.priority);
        out.u8(reason.0);
        out.u8(table);
        put_duration(out, self.duration);
        out.u16(self.idle_timeout);
    }

    fn put_counts(&self, out: &mut Vec<u8>) {
        out.u64(self.packets);
        out.u64(self.bytes);
    }

    fn put_v15(&self, out: &mut Vec<u8>) {
        out.u8(self.table);
        out.u8(self.reason.0);
        out.u16(self.priority);
        out.u16(self.idle_timeout);
        out.u16(self.hard_timeout);
        out.u64(self.cookie);
        v11::encode(&self.matching, Version::V15, out);
        let (packets, bytes) = (Some(self.packets), Some(self.bytes));
        Oxs { duration: Some(self.duration), packets, bytes, ..Oxs::default() }.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Field;

    #[test]
    fn all_versions_are_read_as_written() {
        for version in Version::ALL {
            let forms =
                if version == Version::V10 { vec![Form::Of, Form::Nx] } else { vec![Form::Of] };
            for form in forms {
                let is_old = version == Version::V10;
                let flow = FlowRemoved {
                    table: if (version, form) == (Version::V10, Form::Of) { ALL_TABLES } else { 2 },
                    matching: Match::new().with(Field::InPort, 1),
                    priority: 3,
                    cookie: 4,
                    reason: RemovedReason::HARD_TIMEOUT,
                    duration: Duration::new(5, 6),
                    idle_timeout: 7,
                    hard_timeout: if is_old { 0 } else { 8 },
                    packets: 9,
                    bytes: 10,
                };
                let message = flow.encode(version, form);
                let raw = Raw::read(&message).unwrap();
                assert_eq!(FlowRemoved::decode(&raw), Ok(flow), "{version} {form:?}");
                for cut in 0..raw.body.len() {
                    let _ = FlowRemoved::decode(&Raw { body: &raw.body[..cut], ..raw });
                }
            }
        }
    }
}
