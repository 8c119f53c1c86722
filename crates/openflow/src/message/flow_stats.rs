//! Flows and their statistics, one by one and summed up.

use std::time::Duration;

use super::flow_mod::{ALL_TABLES, ANY_GROUP, FlowFlags, nx_match};
use super::oxs::{Oxs, duration, put_duration};
use super::{Form, Kind, Message, Raw};
use crate::action::wire::Style;
use crate::error::ErrorCode;
use crate::instruction::Instructions;
use crate::matching::oxm::Strictness;
use crate::matching::{Match, oxm, v10, v11};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// How a count says that it is not known.
const UNKNOWN: u64 = u64::MAX;

/// A request for flows, or for the sum of their statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStatsRequest {
    /// Only those of this table; [`ALL_TABLES`]: of all.
    pub table: u8,
    /// Only those that send to this port; [`PortNo::ANY`]: all.
    pub out_port: PortNo,
    /// Only those that use this group; [`ANY_GROUP`]: all.
    pub out_group: u32,
    /// Only those with this cookie: value and mask.
    pub cookie: (u64, u64),
    /// Only those that match on no less.
    pub matching: Match,
}

impl Default for FlowStatsRequest {
    fn default() -> Self {
        Self {
            table: ALL_TABLES,
            out_port: PortNo::ANY,
            out_group: ANY_GROUP,
            cookie: (0, 0),
            matching: Match::new(),
        }
    }
}

impl FlowStatsRequest {
    /// Reads one, for flows or for their sum.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, `OFPBAC_BAD_OUT_PORT`, and those of matches.
    pub fn decode(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut request = Self::default();
        match (raw.version, raw.form) {
            (_, Form::NxRequest) => {
                request.out_port = PortNo::from_v10(reader.u16()?);
                let len = reader.u16()?;
                request.table = reader.u8()?;
                reader.skip(3)?;
                let (matching, cookie) = nx_match(&mut reader, len, Strictness::Strict)?;
                (request.matching, request.cookie) = (matching, cookie.unwrap_or_default());
                if !reader.is_empty() {
                    return Err(ErrorCode::BrcBadLen);
                }
            }
            (Version::V10, _) => {
                request.matching = v10::decode(&mut reader)?;
                request.table = reader.u8()?;
                reader.skip(1)?;
                request.out_port = PortNo::from_v10(reader.u16()?);
            }
            _ => {
                request.table = reader.u8()?;
                reader.skip(3)?;
                request.out_port = PortNo(reader.u32()?);
                request.out_group = reader.u32()?;
                reader.skip(4)?;
                request.cookie = (reader.u64()?, reader.u64()?);
                if request.out_port.v10().is_none() {
                    return Err(ErrorCode::BacBadOutPort);
                }
                request.matching = v11::decode(&mut reader, Strictness::Strict)?;
            }
        }
        Ok(request)
    }

    /// The whole message of this kind and form, for flows ([`Kind::FlowStatsRequest`]) or for their sum.
    #[must_use]
    pub fn encode(&self, version: Version, kind: Kind, form: Form, xid: u32) -> Vec<u8> {
        let mut message = Message::of_form(version, kind, form, xid);
        let out = message.body();
        let port16 = self.out_port.v10().unwrap_or(u16::MAX);
        match (version, form) {
            (_, Form::NxRequest) => {
                let list = oxm::encode(&self.matching, Version::V10, Some(self.cookie));
                out.u16(port16);
                out.u16(u16::try_from(list.len()).unwrap_or(u16::MAX));
                out.u8(self.table);
                out.zeroes(3);
                let start = out.position();
                out.bytes(&list);
                out.pad8(start);
            }
            (Version::V10, _) => {
                v10::encode(&self.matching, out);
                out.u8(self.table);
                out.zeroes(1);
                out.u16(port16);
            }
            _ => {
                out.u8(self.table);
                out.zeroes(3);
                out.u32(self.out_port.0);
                out.u32(self.out_group);
                out.zeroes(4);
                out.u64(self.cookie.0);
                out.u64(self.cookie.1);
                v11::encode(&self.matching, version, out);
            }
        }
        message.finish()
    }
}

/// A flow and its statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Its table.
    pub table: u8,
    /// Which packets it is for.
    pub matching: Match,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// How long it has been there.
    pub duration: Duration,
    /// After how many seconds without a packet it ends; 0: never.
    pub idle_timeout: u16,
    /// After how many seconds it ends in any case; 0: never.
    pub hard_timeout: u16,
    /// How it ranks among flows that may be given up (OpenFlow 1.4).
    pub importance: u16,
    /// What it has beside (OpenFlow 1.3).
    pub flags: FlowFlags,
    /// Seconds since its last packet (Nicira's, when asked for, and OpenFlow 1.5).
    pub idle_age: Option<u32>,
    /// Seconds since it was changed (Nicira's, when asked for).
    pub hard_age: Option<u32>,
    /// Its packets, if they are counted.
    pub packets: Option<u64>,
    /// Their bytes, if they are counted.
    pub bytes: Option<u64>,
    /// What it does.
    pub instructions: Instructions,
}

/// A count as messages before OpenFlow 1.5 have it.
fn known(count: u64) -> Option<u64> {
    (count != UNKNOWN).then_some(count)
}

/// An age as Nicira's messages have it: one more, or 0 where it is not known.
fn put_age(out: &mut Vec<u8>, age: Option<u32>) {
    let more = |age: u32| u16::try_from(age.saturating_add(1)).unwrap_or(u16::MAX);
    out.u16(age.map_or(0, more));
}

impl FlowStats {
    /// Reads all flows of an answer.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, and those of matches and instructions.
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut all = Vec::new();
        while !reader.is_empty() {
            let mut entry = reader.entry(0)?;
            entry.skip(2)?;
            all.push(Self::decode(entry, raw.version, raw.form)?);
        }
        Ok(all)
    }

    /// Reads what is behind the length.
    fn decode(mut entry: Reader<'_>, version: Version, form: Form) -> Result<Self, ErrorCode> {
        let mut flow = match (version, form) {
            (_, Form::NxReply) => Self::decode_nx(&mut entry)?,
            (Version::V10, _) => Self::decode_v10(&mut entry)?,
            (Version::V15, _) => Self::decode_v15(&mut entry)?,
            _ => Self::decode_v11(&mut entry, version)?,
        };
        flow.instructions = Instructions::decode(entry.rest(), version)?;
        Ok(flow)
    }

    fn decode_v10(entry: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let table = entry.u8()?;
        entry.skip(1)?;
        let mut flow = Self { table, matching: v10::decode(entry)?, ..Self::default() };
        flow.duration = duration(entry)?;
        flow.priority = entry.u16()?;
        (flow.idle_timeout, flow.hard_timeout) = (entry.u16()?, entry.u16()?);
        entry.skip(6)?;
        flow.counts(entry)?;
        Ok(flow)
    }

    /// Reads the cookie and the counts.
    fn counts(&mut self, entry: &mut Reader<'_>) -> Result<(), ErrorCode> {
        self.cookie = entry.u64()?;
        (self.packets, self.bytes) = (known(entry.u64()?), known(entry.u64()?));
        Ok(())
    }

    fn decode_nx(entry: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let mut flow = Self { table: entry.u8()?, ..Self::default() };
        entry.skip(1)?;
        flow.duration = duration(entry)?;
        flow.priority = entry.u16()?;
        (flow.idle_timeout, flow.hard_timeout) = (entry.u16()?, entry.u16()?);
        let len = entry.u16()?;
        let age = |more: u16| more.checked_sub(1).map(u32::from);
        (flow.idle_age, flow.hard_age) = (age(entry.u16()?), age(entry.u16()?));
        flow.counts(entry)?;
        flow.matching = nx_match(entry, len, Strictness::Strict)?.0;
        Ok(flow)
    }

    fn decode_v11(entry: &mut Reader<'_>, version: Version) -> Result<Self, ErrorCode> {
        let mut flow = Self { table: entry.u8()?, ..Self::default() };
        entry.skip(1)?;
        flow.duration = duration(entry)?;
        flow.priority = entry.u16()?;
        (flow.idle_timeout, flow.hard_timeout) = (entry.u16()?, entry.u16()?);
        let (flags, importance) = (entry.u16()?, entry.u16()?);
        if version >= Version::V13 {
            flow.flags = FlowFlags::decode(flags, version)?;
        }
        if version >= Version::V14 {
            flow.importance = importance;
        }
        entry.skip(2)?;
        flow.counts(entry)?;
        flow.matching = v11::decode(entry, Strictness::Strict)?;
        Ok(flow)
    }

    fn decode_v15(entry: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        entry.skip(2)?;
        let mut flow = Self { table: entry.u8()?, ..Self::default() };
        entry.skip(1)?;
        flow.priority = entry.u16()?;
        (flow.idle_timeout, flow.hard_timeout) = (entry.u16()?, entry.u16()?);
        flow.flags = FlowFlags::decode(entry.u16()?, Version::V15)?;
        flow.importance = entry.u16()?;
        flow.cookie = entry.u64()?;
        flow.matching = v11::decode(entry, Strictness::Strict)?;
        let counts = Oxs::decode(entry)?;
        flow.duration = counts.duration.unwrap_or_default();
        (flow.idle_age, flow.packets, flow.bytes) = (counts.idle, counts.packets, counts.bytes);
        Ok(flow)
    }

    /// Writes it as an entry of an answer of this form, for [`Replies::entry`](super::Replies::entry).
    pub fn encode(&self, version: Version, form: Form, out: &mut Vec<u8>) {
        self.encode_in(version, form, out);
    }

    /// The same, with options of tunnels in actions as long as a bridge says.
    pub fn encode_in<'a>(&self, style: impl Into<Style<'a>>, form: Form, out: &mut Vec<u8>) {
        let style = style.into();
        let version = style.version();
        let start = out.position();
        out.u16(0);
        match (version, form) {
            (_, Form::NxReply) => self.put_nx(out),
            (Version::V10, _) => self.put_v10(out),
            (Version::V15, _) => self.put_v15(out),
            _ => self.put_v11(version, out),
        }
        self.instructions.encode_for(&self.matching, style, out);
        out.patch_length(start, start);
    }

    /// Writes the cookie and the counts, and `unknown` for those that are not known.
    fn put_counts(&self, unknown: u64, out: &mut Vec<u8>) {
        out.u64(self.cookie);
        out.u64(self.packets.unwrap_or(unknown));
        out.u64(self.bytes.unwrap_or(unknown));
    }

    fn put_v10(&self, out: &mut Vec<u8>) {
        out.u8(self.table);
        out.u8(0);
        v10::encode(&self.matching, out);
        put_duration(out, self.duration);
        out.u16(self.priority);
        out.u16(self.idle_timeout);
        out.u16(self.hard_timeout);
        out.zeroes(6);
        self.put_counts(0, out);
    }

    fn put_nx(&self, out: &mut Vec<u8>) {
        let list = oxm::encode(&self.matching, Version::V10, None);
        out.u8(self.table);
        out.u8(0);
        put_duration(out, self.duration);
        out.u16(self.priority);
        out.u16(self.idle_timeout);
        out.u16(self.hard_timeout);
        out.u16(u16::try_from(list.len()).unwrap_or(u16::MAX));
        put_age(out, self.idle_age);
        put_age(out, self.hard_age);
        self.put_counts(UNKNOWN, out);
        let start = out.position();
        out.bytes(&list);
        out.pad8(start);
    }

    fn put_v11(&self, version: Version, out: &mut Vec<u8>) {
        out.u8(self.table);
        out.u8(0);
        put_duration(out, self.duration);
        out.u16(self.priority);
        out.u16(self.idle_timeout);
        out.u16(self.hard_timeout);
        out.u16(if version >= Version::V13 { self.flags.encode(version) } else { 0 });
        out.u16(if version >= Version::V14 { self.importance } else { 0 });
        out.zeroes(2);
        self.put_counts(0, out);
        v11::encode(&self.matching, version, out);
    }

    fn put_v15(&self, out: &mut Vec<u8>) {
        out.zeroes(2);
        out.u8(self.table);
        out.u8(0);
        out.u16(self.priority);
        out.u16(self.idle_timeout);
        out.u16(self.hard_timeout);
        out.u16(self.flags.encode(Version::V15));
        out.u16(self.importance);
        out.u64(self.cookie);
        v11::encode(&self.matching, Version::V15, out);
        let (duration, idle) = (Some(self.duration), self.idle_age);
        Oxs { duration, idle, packets: self.packets, bytes: self.bytes, flows: None }.encode(out);
    }
}

/// The sum of the statistics of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AggregateStats {
    /// Packets, if they are counted.
    pub packets: Option<u64>,
    /// Their bytes, if they are counted.
    pub bytes: Option<u64>,
    /// How many flows.
    pub flows: u32,
}

impl AggregateStats {
    /// Reads an answer.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, and those of lists of statistics.
    pub fn decode(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        if raw.version >= Version::V15 {
            let counts = Oxs::decode(&mut reader)?;
            let flows = counts.flows.unwrap_or_default();
            return Ok(Self { packets: counts.packets, bytes: counts.bytes, flows });
        }
        let (packets, bytes) = (known(reader.u64()?), known(reader.u64()?));
        Ok(Self { packets, bytes, flows: reader.u32()? })
    }

    /// The whole answer, to a request of this form.
    #[must_use]
    pub fn encode(&self, version: Version, form: Form, xid: u32) -> Vec<u8> {
        let mut message = Message::of_form(version, Kind::AggregateStatsReply, form, xid);
        let out = message.body();
        if version >= Version::V15 {
            let flows = Some(self.flows);
            let (packets, bytes) = (self.packets, self.bytes);
            Oxs { flows, packets, bytes, ..Oxs::default() }.encode(out);
        } else {
            let unknown = if form == Form::NxReply { UNKNOWN } else { 0 };
            out.u64(self.packets.unwrap_or(unknown));
            out.u64(self.bytes.unwrap_or(unknown));
            out.u32(self.flows);
            out.zeroes(4);
        }
        message.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;
    use crate::field::Field;
    use crate::message::Replies;

    fn forms(version: Version, nx: Form, of: Form) -> Vec<Form> {
        if version == Version::V10 { vec![of, nx] } else { vec![of] }
    }

    #[test]
    fn flows_are_read_as_written() {
        for version in Version::ALL {
            for form in forms(version, Form::NxReply, Form::Reply) {
                let flow = |table: u8| FlowStats {
                    table,
                    matching: Match::new().with(Field::InPort, 1).with(Field::EthType, 0x806),
                    priority: 7,
                    cookie: 8,
                    duration: Duration::new(9, 10),
                    idle_timeout: 11,
                    hard_timeout: 12,
                    importance: if version >= Version::V14 { 13 } else { 0 },
                    flags: FlowFlags(if version >= Version::V13 { 25 } else { 0 }),
                    idle_age: (form == Form::NxReply || version == Version::V15).then_some(14),
                    hard_age: (form == Form::NxReply).then_some(15),
                    packets: Some(16),
                    bytes: Some(17),
                    instructions: Instructions::apply(vec![Action::output(PortNo::NORMAL)]),
                };
                let flows: Vec<FlowStats> = (0..4).map(flow).collect();
                let mut replies = Replies::new(version, Kind::FlowStatsReply, form, 3);
                for flow in &flows {
                    replies.entry(|out| flow.encode(version, form, out));
                }
                let [message] = &replies.finish()[..] else { panic!("several") };
                let raw = Raw::read(message).unwrap();
                assert_eq!(FlowStats::decode_all(&raw), Ok(flows), "{version} {form:?}");
                for cut in 0..message.len() {
                    let body = raw.body.get(..cut).unwrap_or(raw.body);
                    let _ = FlowStats::decode_all(&Raw { body, ..raw });
                }
            }
        }
    }

    #[test]
    fn requests_and_sums_are_read_as_written() {
        for version in Version::ALL {
            for form in forms(version, Form::NxRequest, Form::Request) {
                let request = FlowStatsRequest {
                    table: 3,
                    out_port: PortNo::LOCAL,
                    matching: Match::new().with(Field::InPort, 1),
                    cookie: if (version, form) == (Version::V10, Form::Request) {
                        (0, 0)
                    } else {
                        (4, 5)
                    },
                    ..FlowStatsRequest::default()
                };
                for kind in [Kind::FlowStatsRequest, Kind::AggregateStatsRequest] {
                    let message = request.encode(version, kind, form, 1);
                    let raw = Raw::read(&message).unwrap();
                    assert_eq!(FlowStatsRequest::decode(&raw), Ok(request.clone()), "{version}");
                }
            }
            for form in forms(version, Form::NxReply, Form::Reply) {
                let sum = AggregateStats { packets: Some(1), bytes: Some(2), flows: 3 };
                let message = sum.encode(version, form, 1);
                assert_eq!(AggregateStats::decode(&Raw::read(&message).unwrap()), Ok(sum));
            }
        }
    }
}
