//! Changes of flows.

use super::{Form, Kind, Message, Raw};
use crate::error::ErrorCode;
use crate::field::Field;
use crate::instruction::Instructions;
use crate::matching::oxm::Strictness;
use crate::matching::prerequisite::{ETH_TYPE_IP, ETH_TYPE_IPV6};
use crate::matching::{Match, oxm, v10, v11};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// The number that stands for all tables.
pub const ALL_TABLES: u8 = 0xFF;

/// The number that stands for any group.
pub const ANY_GROUP: u32 = 0xFFFF_FFFF;

/// The number that stands for no buffer.
pub const NO_BUFFER: u32 = 0xFFFF_FFFF;

/// The priority that a flow has where none is given.
pub const DEFAULT_PRIORITY: u16 = 0x8000;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Command {
    /// Add a flow, in place of one with the same match and priority.
    Add = 0,
    /// Change what flows do that match on no less.
    Modify = 1,
    /// Change what the flow does that has this match and priority.
    ModifyStrict = 2,
    /// Delete flows that match on no less.
    Delete = 3,
    /// Delete the flow that has this match and priority.
    DeleteStrict = 4,
}

impl Command {
    /// All of them, by number.
    const ALL: [Self; 5] =
        [Self::Add, Self::Modify, Self::ModifyStrict, Self::Delete, Self::DeleteStrict];

    fn from_wire(number: u8) -> Result<Self, ErrorCode> {
        let found = Self::ALL.get(usize::from(number)).copied();
        found.ok_or(ErrorCode::FmfcBadCommand)
    }

    /// Whether it deletes.
    #[must_use]
    pub const fn is_delete(self) -> bool {
        matches!(self, Self::Delete | Self::DeleteStrict)
    }
}

/// What a flow is to have beside what it does, as OpenFlow 1.3 numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowFlags(pub(super) u16);

impl FlowFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// Controllers are told when it ends.
    pub const SEND_FLOW_REMOVED: Self = Self(1);
    /// It is not added beside one of the same priority for some of the same packets.
    pub const CHECK_OVERLAP: Self = Self(2);
    /// Its counters begin anew.
    pub const RESET_COUNTS: Self = Self(4);
    /// Its packets are not counted.
    pub const NO_PACKET_COUNTS: Self = Self(8);
    /// Its bytes are not counted.
    pub const NO_BYTE_COUNTS: Self = Self(16);

    /// What bit 4 is in OpenFlow 1.0: it is for when there is no controller.
    const EMERGENCY: u16 = 4;

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

    /// These but for those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those of these that a version has.
    fn of(version: Version) -> u16 {
        match version {
            Version::V10 | Version::V11 => 3,
            Version::V12 => 7,
            _ => 31,
        }
    }

    /// Reads what a version has.
    ///
    /// # Errors
    /// `OFPFMFC_BAD_FLAGS`.
    pub(super) fn decode(bits: u16, version: Version) -> Result<Self, ErrorCode> {
        if bits & !Self::of(version) == 0 { Ok(Self(bits)) } else { Err(ErrorCode::FmfcBadFlags) }
    }

    /// As a version has them.
    pub(super) fn encode(self, version: Version) -> u16 {
        self.0 & Self::of(version)
    }
}

/// A change of flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowMod {
    /// What is done.
    pub command: Command,
    /// In which table; [`ALL_TABLES`]: in all, or, for what is added, in the one that the switch takes.
    pub table: u8,
    /// Which packets a flow is for, or what flows are changed.
    pub matching: Match,
    /// The flow's priority.
    pub priority: u16,
    /// Only flows with this cookie are changed: value and mask.
    pub cookie: (u64, u64),
    /// The cookie that flows get.
    pub new_cookie: u64,
    /// Whether flows that are changed get it, too.
    pub modify_cookie: bool,
    /// After how many seconds without a packet it ends; 0: never.
    pub idle_timeout: u16,
    /// After how many seconds it ends in any case; 0: never.
    pub hard_timeout: u16,
    /// How it ranks among flows that may be given up; only what is added from OpenFlow 1.4 on has it.
    pub importance: u16,
    /// A packet that is then treated by it.
    pub buffer: Option<u32>,
    /// Only flows that send to this port are deleted; [`PortNo::ANY`]: all.
    pub out_port: PortNo,
    /// Only flows that use this group are deleted; [`ANY_GROUP`]: all.
    pub out_group: u32,
    /// What it has beside.
    pub flags: FlowFlags,
    /// What it does.
    pub instructions: Instructions,
}

impl Default for FlowMod {
    fn default() -> Self {
        Self {
            command: Command::Add,
            table: ALL_TABLES,
            matching: Match::new(),
            priority: DEFAULT_PRIORITY,
            cookie: (0, 0),
            new_cookie: 0,
            modify_cookie: false,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            buffer: None,
            out_port: PortNo::ANY,
            out_group: ANY_GROUP,
            flags: FlowFlags::NONE,
            instructions: Instructions::default(),
        }
    }
}

impl FlowMod {
    /// Reads one, of all versions and forms. `has_table_id` is for OpenFlow 1.0: whether the upper byte
    /// of the command is a table, which a controller asks for before (`NXT_FLOW_MOD_TABLE_ID`).
    ///
    /// # Errors
    /// `OFPFMFC_BAD_COMMAND`, `OFPFMFC_BAD_TABLE_ID`, `OFPFMFC_BAD_FLAGS`, and those of matches and
    /// instructions.
    pub fn decode(raw: &Raw<'_>, has_table_id: bool) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let (mut change, flags) = match (raw.version, raw.form) {
            (_, Form::Nx) => decode_nx(&mut reader, has_table_id)?,
            (Version::V10, _) => decode_v10(&mut reader, has_table_id)?,
            _ => decode_v11(&mut reader, raw.version)?,
        };
        change.instructions = Instructions::decode(reader.rest(), raw.version)?;
        let is_emergency = raw.version == Version::V10 && flags & FlowFlags::EMERGENCY != 0;
        let flags = if is_emergency { flags & !FlowFlags::EMERGENCY } else { flags };
        change.flags = FlowFlags::decode(flags, raw.version)?;
        if raw.version <= Version::V11 && change.command == Command::Add {
            change.flags = change.flags.with(FlowFlags::RESET_COUNTS);
        }
        if is_emergency {
            let has_timeout = change.idle_timeout != 0 || change.hard_timeout != 0;
            let timed = ErrorCode::FmfcBadEmergTimeout;
            return Err(if has_timeout { timed } else { ErrorCode::FmfcTableFull });
        }
        change.instructions.check(&change.matching, change.table, raw.version)?;
        Ok(change)
    }

    /// The addresses that a connection had at first are those of the packets' kind.
    fn check_tracked(&self) -> Result<(), ErrorCode> {
        let eth_type = self.matching.eth_type();
        let has =
            |fields: [Field; 2]| fields.into_iter().any(|field| self.matching.get(field).is_some());
        let is_wrong = has([Field::CtNwSrc, Field::CtNwDst]) && eth_type != ETH_TYPE_IP
            || has([Field::CtIpv6Src, Field::CtIpv6Dst]) && eth_type != ETH_TYPE_IPV6;
        if is_wrong { Err(ErrorCode::BacMatchInconsistent) } else { Ok(()) }
    }

    /// The whole message in this form of a version. `with_table_id`: see [`decode`](Self::decode).
    #[must_use]
    pub fn encode(&self, version: Version, form: Form, with_table_id: bool, xid: u32) -> Vec<u8> {
        let mut message = Message::of_form(version, Kind::FlowMod, form, xid);
        let out = message.body();
        match (version, form) {
            (_, Form::Nx) => self.put_nx(with_table_id, out),
            (Version::V10, _) => self.put_v10(with_table_id, out),
            _ => self.put_v11(version, out),
        }
        self.instructions.encode_for(&self.matching, version, out);
        message.finish()
    }

    /// The command of OpenFlow 1.0, with the table in its upper byte.
    fn command_with_table(&self, with_table_id: bool) -> u16 {
        let table = if with_table_id { u16::from(self.table) << 8 } else { 0 };
        table | self.command as u16
    }

    /// What both forms of OpenFlow 1.0 have in the same order.
    fn put_common(&self, with_table_id: bool, out: &mut Vec<u8>) {
        out.u16(self.command_with_table(with_table_id));
        out.u16(self.idle_timeout);
        out.u16(self.hard_timeout);
        out.u16(self.priority);
        out.u32(self.buffer.unwrap_or(NO_BUFFER));
        out.u16(self.out_port.v10().unwrap_or(u16::MAX));
        out.u16(self.flags.encode(Version::V10));
    }

    fn put_v10(&self, with_table_id: bool, out: &mut Vec<u8>) {
        v10::encode(&self.matching, out);
        out.u64(self.new_cookie);
        self.put_common(with_table_id, out);
    }

    fn put_nx(&self, with_table_id: bool, out: &mut Vec<u8>) {
        out.u64(self.new_cookie);
        self.put_common(with_table_id, out);
        let list = oxm::encode(&self.matching, Version::V10, Some(self.cookie));
        out.u16(u16::try_from(list.len()).unwrap_or(u16::MAX));
        out.zeroes(6);
        let start = out.position();
        out.bytes(&list);
        out.pad8(start);
    }

    fn put_v11(&self, version: Version, out: &mut Vec<u8>) {
        let modifies = [Command::Modify, Command::ModifyStrict].contains(&self.command);
        let is_new = self.command == Command::Add
            || version == Version::V11 && modifies && self.cookie.1 == 0;
        out.u64(if is_new { self.new_cookie } else { self.cookie.0 & self.cookie.1 });
        out.u64(self.cookie.1);
        let may_be_all = version > Version::V11 && self.command.is_delete();
        out.u8(if self.table == ALL_TABLES && !may_be_all { 0 } else { self.table });
        out.u8(self.command as u8);
        out.u16(self.idle_timeout);
        out.u16(self.hard_timeout);
        out.u16(self.priority);
        out.u32(self.buffer.unwrap_or(NO_BUFFER));
        out.u32(self.out_port.0);
        out.u32(self.out_group);
        out.u16(self.flags.encode(version));
        let has_importance = version >= Version::V14 && self.command == Command::Add;
        out.u16(if has_importance { self.importance } else { 0 });
        v11::encode(&self.matching, version, out);
    }
}

/// Reads a match of Nicira's and the zeroes behind it.
pub(super) fn nx_match(
    reader: &mut Reader<'_>,
    len: u16,
    strictness: Strictness,
) -> Result<oxm::WithCookie, ErrorCode> {
    let padded = usize::from(len).next_multiple_of(8);
    let mut list = reader.sub(padded).map_err(|_| ErrorCode::BmcBadLen)?;
    let list = list.take(len.into())?;
    if strictness == Strictness::Strict {
        return oxm::decode_with_cookie(list);
    }
    Ok((oxm::decode(list, strictness)?, None))
}

/// The command and the table of OpenFlow 1.0.
fn command(number: u16, has_table_id: bool) -> Result<(Command, u8), ErrorCode> {
    let [table, low] = number.to_be_bytes();
    if has_table_id {
        return Ok((Command::from_wire(low)?, table));
    }
    let low = u8::try_from(number).map_err(|_| ErrorCode::FmfcBadCommand)?;
    Ok((Command::from_wire(low)?, ALL_TABLES))
}

fn buffer(number: u32) -> Option<u32> {
    (number != NO_BUFFER).then_some(number)
}

/// Reads what both forms of OpenFlow 1.0 have in the same order; returns the flags, too.
fn decode_common(
    reader: &mut Reader<'_>,
    has_table_id: bool,
    change: &mut FlowMod,
) -> Result<u16, ErrorCode> {
    let number = reader.u16()?;
    (change.idle_timeout, change.hard_timeout) = (reader.u16()?, reader.u16()?);
    change.priority = reader.u16()?;
    change.buffer = buffer(reader.u32()?);
    change.out_port = PortNo::from_v10(reader.u16()?);
    change.modify_cookie = change.new_cookie != u64::MAX;
    let flags = reader.u16()?;
    (change.command, change.table) = command(number, has_table_id)?;
    Ok(flags)
}

fn decode_v10(reader: &mut Reader<'_>, has_table_id: bool) -> Result<(FlowMod, u16), ErrorCode> {
    let mut change = FlowMod::default();
    let mut peek = *reader;
    // All bits that have a meaning.
    let is_exact = peek.u32()? & 0x003F_FFFF == 0;
    change.matching = v10::decode(reader)?;
    change.matching.normalize();
    change.new_cookie = reader.u64()?;
    let flags = decode_common(reader, has_table_id, &mut change)?;
    if is_exact {
        // Those for one kind of packets only come first.
        change.priority = u16::MAX;
    }
    Ok((change, flags))
}

fn decode_nx(reader: &mut Reader<'_>, has_table_id: bool) -> Result<(FlowMod, u16), ErrorCode> {
    let mut change = FlowMod { new_cookie: reader.u64()?, ..FlowMod::default() };
    let mut common = *reader;
    reader.skip(16)?;
    let len = reader.u16()?;
    reader.skip(6)?;
    let (matching, cookie) = nx_match(reader, len, Strictness::Strict)?;
    let flags = decode_common(&mut common, has_table_id, &mut change);
    (change.matching, change.cookie) = (matching, cookie.unwrap_or_default());
    if flags.is_ok() && change.command == Command::Add && change.cookie.1 != 0 {
        return Err(ErrorCode::NxbrcNxmInvalid);
    }
    change.check_tracked()?;
    Ok((change, flags?))
}

fn decode_v11(reader: &mut Reader<'_>, version: Version) -> Result<(FlowMod, u16), ErrorCode> {
    let mut change = FlowMod::default();
    let (cookie, mask) = (reader.u64()?, reader.u64()?);
    change.table = reader.u8()?;
    let number = reader.u8()?;
    (change.idle_timeout, change.hard_timeout) = (reader.u16()?, reader.u16()?);
    change.priority = reader.u16()?;
    change.buffer = buffer(reader.u32()?);
    let (out_port, out_group) = (PortNo(reader.u32()?), reader.u32()?);
    let (flags, importance) = (reader.u16()?, reader.u16()?);
    change.matching = v11::decode(reader, Strictness::Strict)?;
    let command = Command::from_wire(number);
    let is_delete = command.is_ok_and(Command::is_delete);
    if change.table == ALL_TABLES && (version == Version::V11 || !is_delete) {
        return Err(ErrorCode::FmfcBadTableId);
    }
    if out_port.v10().is_none() {
        return Err(ErrorCode::BacBadOutPort);
    }
    change.check_tracked()?;
    change.command = command?;
    let modifies = [Command::Modify, Command::ModifyStrict].contains(&change.command);
    let is_new = change.command == Command::Add || version == Version::V11 && modifies && mask == 0;
    if is_new {
        change.new_cookie = cookie;
    } else {
        (change.cookie, change.new_cookie) = ((cookie, mask), u64::MAX);
    }
    if version >= Version::V14 && change.command == Command::Add {
        change.importance = importance;
    }
    change.out_port = out_port;
    change.out_group = if is_delete { out_group } else { ANY_GROUP };
    Ok((change, flags))
}

#[cfg(test)]
mod tests;
