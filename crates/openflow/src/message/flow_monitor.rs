//! Monitors of flows: a controller is told how flows change (nicira-ext.h; OpenFlow 1.4, 7.3.5.13).
//!
//! OpenFlow 1.0 to 1.2 have Nicira's messages, 1.3 those of the ONF's extension, later ones those of
//! the specification.

use super::flow_mod::{ALL_TABLES, ANY_GROUP, nx_match};
use super::flow_removed::RemovedReason;
use super::{Form, Kind, Message, Raw, Replies};
use crate::action::{check, wire};
use crate::error::ErrorCode;
use crate::instruction::Instructions;
use crate::matching::oxm::Strictness;
use crate::matching::{Match, oxm, v11};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// What is to become of a monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum MonitorCommand {
    /// It is new.
    #[default]
    Add = 0,
    /// It is to be otherwise.
    Modify = 1,
    /// It ends.
    Delete = 2,
}

/// What a monitor tells, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MonitorFlags(u16);

impl MonitorFlags {
    /// Flows that are there when it begins.
    pub const INITIAL: Self = Self(1);
    /// Flows that are added.
    pub const ADD: Self = Self(1 << 1);
    /// Flows that go.
    pub const REMOVED: Self = Self(1 << 2);
    /// Flows that change.
    pub const MODIFY: Self = Self(1 << 3);
    /// What flows do is told, too.
    pub const INSTRUCTIONS: Self = Self(1 << 4);
    /// What the controller itself changes is told in full.
    pub const OWN: Self = Self(1 << 5);

    const ALL: u16 = 0x3F;

    /// OFPFMF_ONLY_OWN, by which Open vSwitch means what [`OWN`](Self::OWN) is.
    const ONLY_OWN: u16 = 1 << 6;

    /// Whether it has all of `other`.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Reads them.
    fn decode(bits: u16, version: Version) -> Result<Self, ErrorCode> {
        let is_own = version >= Version::V14 && bits & Self::ONLY_OWN != 0;
        let known = if version >= Version::V14 { bits & !Self::ONLY_OWN } else { bits };
        let changes = Self::ADD.with(Self::REMOVED).with(Self::MODIFY).0;
        if known & !Self::ALL != 0 || known & changes == 0 {
            return Err(ErrorCode::MofcBadFlags);
        }
        Ok(if is_own { Self(known).with(Self::OWN) } else { Self(known) })
    }

    /// As they are written.
    const fn encode(self, version: Version) -> u16 {
        let is_own = self.0 & Self::OWN.0 != 0;
        match version {
            Version::V14 | Version::V15 if is_own => self.0 & !Self::OWN.0 | Self::ONLY_OWN,
            _ => self.0,
        }
    }
}

/// A monitor that is to begin, to be otherwise, or to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowMonitorRequest {
    /// Its number, of those of the connection.
    pub id: u32,
    /// What is to become of it; before OpenFlow 1.4 it can only begin.
    pub command: MonitorCommand,
    /// What it tells.
    pub flags: MonitorFlags,
    /// Only flows that send to this port; [`PortNo::ANY`]: all.
    pub out_port: PortNo,
    /// Only flows that use this group; [`ANY_GROUP`]: all.
    pub out_group: u32,
    /// Only flows of this table; [`ALL_TABLES`]: of all.
    pub table: u8,
    /// Only flows that match on no less.
    pub matching: Match,
}

impl Default for FlowMonitorRequest {
    fn default() -> Self {
        Self {
            id: 0,
            command: MonitorCommand::Add,
            flags: MonitorFlags(MonitorFlags::ALL),
            out_port: PortNo::ANY,
            out_group: ANY_GROUP,
            table: ALL_TABLES,
            matching: Match::new(),
        }
    }
}

impl FlowMonitorRequest {
    /// Reads all of a request.
    ///
    /// # Errors
    /// `OFPMOFC_BAD_FLAGS`, `OFPMOFC_BAD_COMMAND`, `NXBRC_MUST_BE_ZERO`, `OFPBAC_BAD_OUT_PORT`,
    /// `OFPBRC_BAD_LEN`, and those of matches.
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut all = Vec::new();
        while !reader.is_empty() {
            all.push(match raw.version {
                Version::V10 | Version::V11 | Version::V12 => Self::decode_nx(&mut reader)?,
                Version::V13 => Self::decode_onf(&mut reader)?,
                version => Self::decode_v14(&mut reader, version)?,
            });
        }
        Ok(all)
    }

    fn decode_nx(reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let (id, flags) = (reader.u32()?, reader.u16()?);
        let out_port = PortNo::from_v10(reader.u16()?);
        let (len, table) = (reader.u16()?, reader.u8()?);
        let flags = MonitorFlags::decode(flags, Version::V10)?;
        must_be_zero(reader.bytes::<5>()?)?;
        let (matching, cookie) = nx_match(reader, len, Strictness::Strict)?;
        if cookie.is_some() {
            return Err(ErrorCode::BmcBadField);
        }
        Ok(Self { id, flags, out_port, table, matching, ..Self::default() })
    }

    fn decode_onf(reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let (id, flags) = (reader.u32()?, reader.u16()?);
        // The length of the match, which says it itself.
        reader.skip(2)?;
        let (out_port, table) = (port(reader.u32()?)?, reader.u8()?);
        let flags = MonitorFlags::decode(flags, Version::V13)?;
        must_be_zero(reader.bytes::<3>()?)?;
        let matching = v11::decode(reader, Strictness::Strict)?;
        Ok(Self { id, flags, out_port, table, matching, ..Self::default() })
    }

    fn decode_v14(reader: &mut Reader<'_>, version: Version) -> Result<Self, ErrorCode> {
        let mut monitor = Self { id: reader.u32()?, ..Self::default() };
        let (out_port, out_group) = (reader.u32()?, reader.u32()?);
        let (flags, table) = (reader.u16()?, reader.u8()?);
        monitor.command = match reader.u8()? {
            0 => MonitorCommand::Add,
            1 => MonitorCommand::Modify,
            2 => MonitorCommand::Delete,
            _ => return Err(ErrorCode::MofcBadCommand),
        };
        if monitor.command == MonitorCommand::Delete && reader.is_empty() {
            // Open vSwitch's own programs leave out the match here.
            return Ok(monitor);
        }
        if monitor.command != MonitorCommand::Delete {
            monitor.flags = MonitorFlags::decode(flags, version)?;
            (monitor.out_port, monitor.out_group) = (port(out_port)?, out_group);
            monitor.table = table;
        }
        monitor.matching = v11::decode(reader, Strictness::Strict)?;
        Ok(monitor)
    }

    /// The whole message, with these.
    #[must_use]
    pub fn encode_all(all: &[Self], version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::FlowMonitorRequest, xid);
        all.iter().for_each(|monitor| monitor.put(version, message.body()));
        message.finish()
    }

    fn put(&self, version: Version, out: &mut Vec<u8>) {
        out.u32(self.id);
        match version {
            Version::V10 | Version::V11 | Version::V12 => {
                out.u16(self.flags.encode(version));
                out.u16(self.out_port.v10().unwrap_or(u16::MAX));
                let list = oxm::encode(&self.matching, Version::V10, None);
                out.u16(length(&list));
                out.u8(self.table);
                out.zeroes(5);
                let start = out.position();
                out.bytes(&list);
                out.pad8(start);
            }
            Version::V13 => {
                out.u16(self.flags.encode(version));
                let place = out.position();
                out.zeroes(2);
                out.u32(self.out_port.0);
                out.u8(self.table);
                out.zeroes(3);
                put_match(&self.matching, version, place, out);
            }
            _ => {
                out.u32(self.out_port.0);
                out.u32(self.out_group);
                out.u16(self.flags.encode(version));
                out.u8(self.table);
                out.u8(self.command as u8);
                v11::encode(&self.matching, version, out);
            }
        }
    }
}

/// Reads a message by which a monitor ends: its number.
///
/// # Errors
/// `OFPBRC_BAD_LEN`.
pub fn decode_cancel(body: &[u8]) -> Result<u32, ErrorCode> {
    Ok(Reader::new(body).u32()?)
}

fn port(number: u32) -> Result<PortNo, ErrorCode> {
    let port = PortNo(number);
    port.v10().map(|_| port).ok_or(ErrorCode::BacBadOutPort)
}

fn must_be_zero<const N: usize>(bytes: [u8; N]) -> Result<(), ErrorCode> {
    if bytes == [0; N] { Ok(()) } else { Err(ErrorCode::NxbrcMustBeZero) }
}

fn length(list: &[u8]) -> u16 {
    u16::try_from(list.len()).unwrap_or(u16::MAX)
}

/// Writes a match, and its length without the zeroes behind it at `place`.
fn put_match(matching: &Match, version: Version, place: usize, out: &mut Vec<u8>) {
    let start = out.position();
    v11::encode(matching, version, out);
    let len = out.get(start.saturating_add(2)..start.saturating_add(4)).map(<[u8]>::to_vec);
    out.patch(place, &len.unwrap_or_default());
}

/// What has become of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// It was there when the monitor began.
    Initial,
    /// It was added.
    Added,
    /// It has gone.
    Removed(RemovedReason),
    /// It does something else, or has another cookie.
    Modified,
}

impl FlowEvent {
    const fn number(self, version: Version) -> u16 {
        let is_nx = matches!(version, Version::V10 | Version::V11 | Version::V12 | Version::V13);
        match (self, is_nx) {
            (Self::Initial | Self::Added, true) | (Self::Initial, false) => 0,
            (Self::Removed(_), true) | (Self::Added, false) => 1,
            (Self::Modified, true) | (Self::Removed(_), false) => 2,
            (Self::Modified, false) => 3,
        }
    }

    const fn reason(self) -> u8 {
        match self {
            Self::Removed(reason) => reason.0,
            _ => 0,
        }
    }
}

/// The events that say nothing of a flow, by number before OpenFlow 1.4 and since.
const ABBREVIATED: [u16; 2] = [3, 4];
const PAUSED: u16 = 5;
const RESUMED: u16 = 6;

/// A flow that a monitor tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowUpdate<'a> {
    /// What has become of it.
    pub event: FlowEvent,
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// After how many seconds without a packet it ends; 0: never.
    pub idle_timeout: u16,
    /// After how many seconds it ends in any case; 0: never.
    pub hard_timeout: u16,
    /// Which packets it is for.
    pub matching: &'a Match,
    /// What it does, if that is told.
    pub instructions: Option<&'a Instructions>,
}

impl FlowUpdate<'_> {
    /// Writes it as an entry of an answer, for [`Replies::entry`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.position();
        out.u16(0);
        out.u16(self.event.number(version));
        if version >= Version::V14 {
            out.u8(self.table);
            out.u8(self.event.reason());
            out.u16(self.idle_timeout);
            out.u16(self.hard_timeout);
            out.u16(self.priority);
            out.zeroes(4);
            out.u64(self.cookie);
            v11::encode(self.matching, version, out);
        } else {
            self.put_nx(version, out);
        }
        if let Some(instructions) = self.instructions {
            self.put_instructions(instructions, version, out);
        }
        out.patch_length(start, start);
    }

    /// Writes what versions before 1.4 have, but what it does.
    fn put_nx(&self, version: Version, out: &mut Vec<u8>) {
        out.u16(self.event.reason().into());
        out.u16(self.priority);
        out.u16(self.idle_timeout);
        out.u16(self.hard_timeout);
        let place = out.position();
        out.zeroes(2);
        out.u8(self.table);
        out.zeroes(1);
        out.u64(self.cookie);
        if version == Version::V13 {
            put_match(self.matching, version, place, out);
            return;
        }
        let list = oxm::encode(self.matching, Version::V10, None);
        out.patch(place, &length(&list).to_be_bytes());
        let start = out.position();
        out.bytes(&list);
        out.pad8(start);
    }

    /// Nicira's messages have actions in all versions.
    fn put_instructions(&self, does: &Instructions, version: Version, out: &mut Vec<u8>) {
        if matches!(version, Version::V11 | Version::V12) {
            wire::encode(&check::fitted(&does.apply, self.matching), version, out);
        } else {
            does.encode_for(self.matching, version, out);
        }
    }
}

/// Writes, as an entry of an answer, that the message with this `xid` has changed flows.
pub fn encode_abbreviated(xid: u32, version: Version, out: &mut Vec<u8>) {
    let [old, new] = ABBREVIATED;
    out.u16(8);
    out.u16(if version >= Version::V14 { new } else { old });
    out.u32(xid);
}

/// Answers that nobody asked for: those of monitors after the first.
#[must_use]
pub fn updates(version: Version) -> Replies {
    answers(version, 0)
}

/// Answers to the request with this `xid`.
#[must_use]
pub fn answers(version: Version, xid: u32) -> Replies {
    let form = match version {
        Version::V10 | Version::V11 | Version::V12 => Form::NxReply,
        Version::V13 => Form::OnfReply,
        _ => Form::Reply,
    };
    Replies::new(version, Kind::FlowMonitorReply, form, xid)
}

/// The message that monitors tell nothing for a while, or that they do again.
#[must_use]
pub fn encode_pause(is_paused: bool, version: Version) -> Vec<u8> {
    if version < Version::V14 {
        let paused = Kind::FlowMonitorPaused;
        let kind = if is_paused { paused } else { Kind::FlowMonitorResumed };
        return Message::new(version, kind, 0).finish();
    }
    let mut message = Message::new(version, Kind::FlowMonitorReply, 0);
    encode_plain(is_paused, message.body());
    message.finish()
}

/// Writes the same as an entry of an answer, as from OpenFlow 1.4.
pub(super) fn encode_plain(is_paused: bool, out: &mut Vec<u8>) {
    out.u16(8);
    out.u16(if is_paused { PAUSED } else { RESUMED });
    out.zeroes(4);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::Action;
    use crate::field::Field;

    #[test]
    fn requests_are_read_as_written() {
        for version in Version::ALL {
            let first = FlowMonitorRequest {
                id: 7,
                out_port: PortNo(3),
                table: 4,
                matching: Match::new().with(Field::InPort, 1).with(Field::EthType, 0x806),
                ..FlowMonitorRequest::default()
            };
            let flags = MonitorFlags::ADD.with(MonitorFlags::INITIAL);
            let second = FlowMonitorRequest { id: 8, flags, ..FlowMonitorRequest::default() };
            let all = [first, second];
            let message = FlowMonitorRequest::encode_all(&all, version, 1);
            let raw = Raw::read(&message).unwrap();
            let read = FlowMonitorRequest::decode_all(&raw);
            assert_eq!(read.as_deref(), Ok(&all[..]), "{version}");
            for cut in 1..raw.body.len() {
                let _ = FlowMonitorRequest::decode_all(&Raw { body: &raw.body[..cut], ..raw });
            }
        }
    }

    #[test]
    fn what_tells_nothing_or_is_unknown_is_refused() {
        let refused = |version, flags: u16| {
            let monitor =
                FlowMonitorRequest { flags: MonitorFlags(flags), ..FlowMonitorRequest::default() };
            let message = FlowMonitorRequest::encode_all(&[monitor], version, 1);
            FlowMonitorRequest::decode_all(&Raw::read(&message).unwrap()).err()
        };
        for version in Version::ALL {
            assert_eq!(refused(version, 0x11), Some(ErrorCode::MofcBadFlags), "{version}");
            assert_eq!(refused(version, 0x82), Some(ErrorCode::MofcBadFlags), "{version}");
        }
        assert_eq!(refused(Version::V13, 0x42), Some(ErrorCode::MofcBadFlags));
    }

    /// A flow as ovs-ofctl reads it: as long as it says, with the numbers of the version.
    #[test]
    fn updates_are_of_whole_words() {
        let matching = Match::new().with(Field::InPort, 1).with(Field::EthType, 0x806);
        let does = Instructions::apply(vec![Action::output(PortNo(2))]);
        for version in Version::ALL {
            let update = FlowUpdate {
                event: FlowEvent::Removed(RemovedReason::DELETE),
                table: 3,
                priority: 5,
                cookie: 6,
                idle_timeout: 7,
                hard_timeout: 8,
                matching: &matching,
                instructions: Some(&does),
            };
            let mut replies = updates(version);
            replies.entry(|out| update.encode(version, out));
            replies.entry(|out| encode_abbreviated(0x1234, version, out));
            let all = replies.finish();
            let raw = Raw::read(&all[0]).unwrap();
            assert_eq!((raw.kind, raw.xid, all.len()), (Kind::FlowMonitorReply, 0, 1));
            let mut reader = Reader::new(raw.body);
            let mut first = reader.entry(0).unwrap();
            let removed = if version >= Version::V14 { 2 } else { 1 };
            assert_eq!(first.len() % 8, 0, "{version}");
            first.skip(2).unwrap();
            assert_eq!(first.u16(), Ok(removed));
            let last = if version >= Version::V14 { 4 } else { 3 };
            assert_eq!(reader.rest(), [0, 8, 0, last, 0, 0, 0x12, 0x34], "{version}");
        }
    }

    #[test]
    fn pauses_are_messages_of_their_own_or_answers() {
        for version in Version::ALL {
            let kinds = [true, false].map(|is_paused| {
                let message = encode_pause(is_paused, version);
                Raw::read(&message).unwrap().kind
            });
            let own = [Kind::FlowMonitorPaused, Kind::FlowMonitorResumed];
            let answers = [Kind::FlowMonitorReply; 2];
            assert_eq!(kinds, if version >= Version::V14 { answers } else { own });
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(
            body in prop::collection::vec(any::<u8>(), 0..80), version in 0..6_usize,
        ) {
            let version = Version::ALL[version];
            let mut message = Message::new(version, Kind::FlowMonitorRequest, 1);
            message.body().bytes(&body);
            let message = message.finish();
            if let Ok(raw) = Raw::read(&message) {
                let _ = FlowMonitorRequest::decode_all(&raw);
            }
        }
    }
}
