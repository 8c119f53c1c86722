//! Groups: changes of them, what they are, and what they have done.

use std::time::Duration;

use super::flow_mod::ANY_GROUP;
use super::oxs::{duration, put_duration};
use super::{Form, Kind, Message, Raw};
use crate::action::wire::{property, unknown_property};
use crate::action::{Action, wire};
use crate::error::ErrorCode;
use crate::field::Field;
use crate::field::entry::{Entry, RawHeader};
use crate::port_no::PortNo;
use crate::version::Version;
use crate::wire::{Reader, Writer as _, text};

/// The numbers that stand for all buckets, the last and the first.
pub const ALL_BUCKETS: u32 = 0xFFFF_FFFF;
/// The last bucket.
pub const LAST_BUCKET: u32 = 0xFFFF_FFFE;
/// The first bucket.
pub const FIRST_BUCKET: u32 = 0xFFFF_FFFD;
/// The largest number of a bucket.
pub const MAX_BUCKET: u32 = 0xFFFF_FF00;

/// Who has defined how members are selected (Netronome), and the number of that.
const NTR: u32 = 0x154D;
/// The number that Open vSwitch had for them before.
const NTR_OLD: u32 = 0x1540;
const SELECTION: u32 = 1;
const EXPERIMENTER: u16 = 0xFFFF;

/// Properties of buckets (OpenFlow 1.5).
const WEIGHT: u16 = 0;
const WATCH_PORT: u16 = 1;
const WATCH_GROUP: u16 = 2;

/// What a group does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GroupType {
    /// What all buckets say, each with a packet of its own.
    All = 0,
    /// What one bucket says, which is selected by the packet.
    Select = 1,
    /// What its only bucket says.
    Indirect = 2,
    /// What the first bucket says whose port or group is alive.
    FastFailover = 3,
}

impl GroupType {
    fn from_wire(number: u8) -> Result<Self, ErrorCode> {
        let all = [Self::All, Self::Select, Self::Indirect, Self::FastFailover];
        all.get(usize::from(number)).copied().ok_or(ErrorCode::GmfcBadType)
    }
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum GroupCommand {
    /// Add a group.
    Add = 0,
    /// Change a group.
    Modify = 1,
    /// Delete a group, or all.
    Delete = 2,
    /// Put buckets into a group (OpenFlow 1.5).
    InsertBucket = 3,
    /// Take buckets out of a group (OpenFlow 1.5).
    RemoveBucket = 5,
    /// Add a group, or change it if it is there.
    AddOrModify = 0x8000,
}

impl GroupCommand {
    fn from_wire(number: u16) -> Result<Self, ErrorCode> {
        let all = [
            Self::Add,
            Self::Modify,
            Self::Delete,
            Self::InsertBucket,
            Self::RemoveBucket,
            Self::AddOrModify,
        ];
        let found = all.into_iter().find(|command| *command as u16 == number);
        found.ok_or(ErrorCode::GmfcBadCommand)
    }
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its number; before OpenFlow 1.5 that of its place.
    pub id: u32,
    /// How often it is selected, beside others.
    pub weight: u16,
    /// It is alive as long as this port is; [`PortNo::ANY`]: that does not count.
    pub watch_port: PortNo,
    /// It is alive as long as this group is; [`ANY_GROUP`]: that does not count.
    pub watch_group: u32,
    /// What it does.
    pub actions: Vec<Action>,
}

impl Bucket {
    /// Whether something says if it is alive.
    #[must_use]
    pub fn has_watch(&self) -> bool {
        self.watch_port != PortNo::ANY || self.watch_group != ANY_GROUP
    }
}

/// How a bucket is selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// `hash` or `dp_hash`.
    pub method: String,
    /// A number that changes the hash; for `dp_hash` the algorithm in the upper half.
    pub parameter: u64,
    /// The fields of `hash`, and which bits of each; those that are usual if there are none.
    pub fields: Vec<(Field, u128)>,
}

/// A change of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMod {
    /// What is done.
    pub command: GroupCommand,
    /// What the group does.
    pub kind: GroupType,
    /// The group; to delete: [`ALL_GROUPS`].
    pub group: u32,
    /// The bucket behind which others are put, or that is taken out; otherwise [`ALL_BUCKETS`].
    pub bucket: u32,
    /// Buckets.
    pub buckets: Vec<Bucket>,
    /// How one is selected, if it is said.
    pub selection: Option<Selection>,
}

/// The number that stands for all groups.
pub const ALL_GROUPS: u32 = 0xFFFF_FFFC;

/// Whether messages have buckets as in OpenFlow 1.5, as Nicira's do.
fn is_new(version: Version) -> bool {
    matches!(version, Version::V10 | Version::V15)
}

impl GroupMod {
    /// Reads one.
    ///
    /// # Errors
    /// `OFPGMFC_BAD_BUCKET`, `_BAD_TYPE`, `_BAD_COMMAND`, `_BAD_WATCH`, `_INVALID_GROUP`,
    /// `_WATCH_UNSUPPORTED`, and those of actions and properties.
    pub fn decode(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let (command, kind) = (reader.u16()?, reader.u8()?);
        reader.skip(1)?;
        let group = reader.u32()?;
        let mut bucket = ALL_BUCKETS;
        let mut selection = None;
        let buckets = if is_new(raw.version) {
            let len = reader.u16()?;
            reader.skip(2)?;
            bucket = reader.u32()?;
            check_bucket(command, bucket)?;
            let list = reader.sub(len.into())?;
            let buckets = buckets_v15(list, raw.version, kind)?;
            selection = properties(reader, kind)?;
            buckets
        } else {
            buckets_v11(reader, raw.version)?
        };
        let is_delete = command == GroupCommand::Delete as u16;
        if (Version::V13..=Version::V14).contains(&raw.version) && is_delete && !buckets.is_empty()
        {
            return Err(ErrorCode::GmfcInvalidGroup);
        }
        let kind = GroupType::from_wire(kind)?;
        if kind == GroupType::Indirect && !is_delete && buckets.len() != 1 {
            return Err(ErrorCode::GmfcInvalidGroup);
        }
        let command = GroupCommand::from_wire(command)?;
        if command == GroupCommand::RemoveBucket && !buckets.is_empty() {
            return Err(ErrorCode::GmfcBadBucket);
        }
        let change = Self { command, kind, group, bucket, buckets, selection };
        change.buckets.iter().try_for_each(|bucket| change.check(bucket))?;
        Ok(change)
    }

    fn check(&self, bucket: &Bucket) -> Result<(), ErrorCode> {
        let may_weigh =
            self.kind == GroupType::Select || self.command == GroupCommand::InsertBucket;
        if bucket.weight != 0 && !may_weigh {
            return Err(ErrorCode::GmfcInvalidGroup);
        }
        match self.kind {
            GroupType::All | GroupType::Indirect if bucket.has_watch() => {
                Err(ErrorCode::GmfcWatchUnsupported)
            }
            GroupType::FastFailover if !bucket.has_watch() => Err(ErrorCode::GmfcInvalidGroup),
            _ => Ok(()),
        }
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::GroupMod, xid);
        let out = message.body();
        out.u16(self.command as u16);
        out.u8(self.kind as u8);
        out.u8(0);
        out.u32(self.group);
        if is_new(version) {
            let place = out.position();
            out.u32(0);
            out.u32(self.bucket);
            let start = out.position();
            self.buckets.iter().for_each(|bucket| put_v15(bucket, version, out));
            out.patch_length(place, start);
            put_selection(self.selection.as_ref(), out);
        } else {
            self.buckets.iter().for_each(|bucket| put_v11(bucket, version, out));
        }
        message.finish()
    }
}

/// Whether a bucket's number is one that a command may have.
fn check_bucket(command: u16, bucket: u32) -> Result<(), ErrorCode> {
    let is_one = bucket <= MAX_BUCKET || [FIRST_BUCKET, LAST_BUCKET].contains(&bucket);
    let is_right = match GroupCommand::from_wire(command) {
        Ok(GroupCommand::InsertBucket) => is_one,
        Ok(GroupCommand::RemoveBucket) => is_one || bucket == ALL_BUCKETS,
        _ => bucket == ALL_BUCKETS,
    };
    if is_right { Ok(()) } else { Err(ErrorCode::GmfcBadBucket) }
}

fn watched(port: u32) -> Result<PortNo, ErrorCode> {
    Some(PortNo(port)).filter(|port| port.v10().is_some()).ok_or(ErrorCode::GmfcBadWatch)
}

fn buckets_v11(mut reader: Reader<'_>, version: Version) -> Result<Vec<Bucket>, ErrorCode> {
    let bad = |_| ErrorCode::GmfcBadBucket;
    let mut all = Vec::new();
    while !reader.is_empty() {
        let mut bucket = reader.entry(0).map_err(bad)?;
        bucket.skip(2).map_err(bad)?;
        let weight = bucket.u16().map_err(bad)?;
        let (port, watch_group) = (bucket.u32().map_err(bad)?, bucket.u32().map_err(bad)?);
        bucket.skip(4).map_err(bad)?;
        let actions = actions(bucket.rest(), version)?;
        let id = u32::try_from(all.len()).unwrap_or(MAX_BUCKET);
        all.push(Bucket { id, weight, watch_port: watched(port)?, watch_group, actions });
    }
    Ok(all)
}

fn actions(bytes: &[u8], version: Version) -> Result<Vec<Action>, ErrorCode> {
    if bytes.len().is_multiple_of(8) {
        // A meter is an action of any list from 1.5 on (OpenFlow 1.5, 5.6).
        wire::decode_with_meter(bytes, version)
    } else {
        Err(ErrorCode::BrcBadLen)
    }
}

fn buckets_v15(
    mut reader: Reader<'_>,
    version: Version,
    kind: u8,
) -> Result<Vec<Bucket>, ErrorCode> {
    let bad = |_| ErrorCode::GmfcBadBucket;
    let mut all: Vec<Bucket> = Vec::new();
    while !reader.is_empty() {
        let mut bucket = reader.entry(0).map_err(bad)?;
        bucket.skip(2).map_err(bad)?;
        let actions_len = usize::from(bucket.u16().map_err(bad)?);
        let id = bucket.u32().map_err(bad)?;
        let actions = actions(bucket.take(actions_len).map_err(bad)?, version)?;
        let mut found = Bucket {
            id,
            weight: u16::from(kind == GroupType::Select as u8),
            watch_port: PortNo::ANY,
            watch_group: ANY_GROUP,
            actions,
        };
        while !bucket.is_empty() {
            let (kind, mut value) = property(&mut bucket)?;
            let bad_len = |_| ErrorCode::BpcBadLen;
            match kind {
                WEIGHT => found.weight = value.u16().map_err(bad_len)?,
                WATCH_PORT => found.watch_port = watched(value.u32().map_err(bad_len)?)?,
                WATCH_GROUP => found.watch_group = value.u32().map_err(bad_len)?,
                _ => return Err(unknown_property(kind)),
            }
        }
        if id > MAX_BUCKET || all.iter().any(|other| other.id == id) {
            return Err(ErrorCode::GmfcBadBucket);
        }
        all.push(found);
    }
    Ok(all)
}

fn put_v11(bucket: &Bucket, version: Version, out: &mut Vec<u8>) {
    let start = out.position();
    out.u16(0);
    out.u16(bucket.weight);
    out.u32(bucket.watch_port.0);
    out.u32(bucket.watch_group);
    out.zeroes(4);
    wire::encode(&bucket.actions, version, out);
    out.patch_length(start, start);
}

fn put_v15(bucket: &Bucket, version: Version, out: &mut Vec<u8>) {
    let start = out.position();
    out.u32(0);
    out.u32(bucket.id);
    let actions = out.position();
    wire::encode(&bucket.actions, version, out);
    out.patch_length(start.saturating_add(2), actions);
    out.u16(WEIGHT);
    out.u16(8);
    out.u16(bucket.weight);
    out.u16(0);
    let watches = [
        (WATCH_PORT, bucket.watch_port.0, bucket.watch_port != PortNo::ANY),
        (WATCH_GROUP, bucket.watch_group, bucket.watch_group != ANY_GROUP),
    ];
    for (kind, value, _) in watches.into_iter().filter(|(.., is_there)| *is_there) {
        out.u16(kind);
        out.u16(8);
        out.u32(value);
    }
    out.patch_length(start, start);
}

/// Reads a group's properties, of which there is one.
fn properties(mut reader: Reader<'_>, kind: u8) -> Result<Option<Selection>, ErrorCode> {
    let mut selection = None;
    while !reader.is_empty() {
        let (number, mut value) = property(&mut reader)?;
        if number != EXPERIMENTER {
            return Err(ErrorCode::BpcBadType);
        }
        let bad_len = |_| ErrorCode::BpcBadLen;
        let (owner, number) = (value.u32().map_err(bad_len)?, value.u32().map_err(bad_len)?);
        match (owner, number) {
            (NTR | NTR_OLD, SELECTION) if kind == GroupType::Select as u8 => {
                selection = Some(read_selection(value)?);
            }
            (NTR | NTR_OLD, SELECTION) => return Err(ErrorCode::BpcBadValue),
            _ => return Err(ErrorCode::BpcBadExpType),
        }
    }
    Ok(selection)
}

fn read_selection(mut value: Reader<'_>) -> Result<Selection, ErrorCode> {
    let bad_len = |_| ErrorCode::BpcBadLen;
    value.skip(4).map_err(bad_len)?;
    let method = text(value.take(16).map_err(bad_len)?);
    let parameter = value.u64().map_err(bad_len)?;
    if !["hash", "dp_hash"].contains(&method.as_str()) || method == "dp_hash" && !value.is_empty() {
        return Err(ErrorCode::BpcBadValue);
    }
    let mut fields: Vec<(Field, u128)> = Vec::new();
    while !value.is_empty() {
        let header = RawHeader::read(&mut value)?;
        let field = header.field().ok_or(ErrorCode::BmcBadField)?;
        let entry = Entry::read(field, header, &mut value)?;
        if entry.mask.is_some() {
            return Err(ErrorCode::BmcBadMask);
        }
        if fields.iter().any(|(other, _)| *other == field) {
            return Err(ErrorCode::BmcDupField);
        }
        fields.push((field, entry.value));
    }
    Ok(Selection { method, parameter, fields })
}

fn put_selection(selection: Option<&Selection>, out: &mut Vec<u8>) {
    let Some(selection) = selection else { return };
    let start = out.position();
    out.u16(EXPERIMENTER);
    out.u16(0);
    out.u32(NTR);
    out.u32(SELECTION);
    out.zeroes(4);
    out.text(&selection.method, 16);
    out.u64(selection.parameter);
    for (field, value) in &selection.fields {
        Entry { field: *field, value: *value, mask: None }.put(out, Version::V15);
    }
    out.patch_length(start.saturating_add(2), start);
    out.pad8(start);
}

/// What a group is, as an entry of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDesc {
    /// The group.
    pub group: u32,
    /// What it does.
    pub kind: GroupType,
    /// Its buckets.
    pub buckets: Vec<Bucket>,
    /// How one is selected, if it is said.
    pub selection: Option<Selection>,
}

impl GroupDesc {
    /// Reads all of an answer.
    ///
    /// # Errors
    /// Those of [`GroupMod::decode`].
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut all = Vec::new();
        while !reader.is_empty() {
            let mut entry = reader.entry(0)?;
            entry.skip(2)?;
            let kind = entry.u8()?;
            entry.skip(1)?;
            let group = entry.u32()?;
            let (buckets, selection) = if is_new(raw.version) {
                let len = entry.u16()?;
                entry.skip(6)?;
                let list = entry.sub(len.into())?;
                (buckets_v15(list, raw.version, kind)?, properties(entry, kind)?)
            } else {
                (buckets_v11(entry, raw.version)?, None)
            };
            all.push(Self { group, kind: GroupType::from_wire(kind)?, buckets, selection });
        }
        Ok(all)
    }

    /// Writes it as an entry of an answer.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.position();
        out.u16(0);
        out.u8(self.kind as u8);
        out.u8(0);
        out.u32(self.group);
        if is_new(version) {
            let place = out.position();
            out.zeroes(8);
            let list = out.position();
            self.buckets.iter().for_each(|bucket| put_v15(bucket, version, out));
            out.patch_length(place, list);
            put_selection(self.selection.as_ref(), out);
        } else {
            self.buckets.iter().for_each(|bucket| put_v11(bucket, version, out));
        }
        out.patch_length(start, start);
    }
}

/// What a group has done, as an entry of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// The group.
    pub group: u32,
    /// How many flows and groups use it.
    pub references: u32,
    /// Its packets and their bytes.
    pub counts: (u64, u64),
    /// How long it has been there (OpenFlow 1.3).
    pub duration: Duration,
    /// Packets of each bucket and their bytes.
    pub buckets: Vec<(u64, u64)>,
}

impl GroupStats {
    /// Reads all of an answer.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`.
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut all = Vec::new();
        while !reader.is_empty() {
            let mut entry = reader.entry(0)?;
            entry.skip(4)?;
            let mut stats = Self { group: entry.u32()?, ..Self::default() };
            stats.references = entry.u32()?;
            entry.skip(4)?;
            stats.counts = (entry.u64()?, entry.u64()?);
            if has_duration(raw.version) {
                stats.duration = duration(&mut entry)?;
            }
            while !entry.is_empty() {
                stats.buckets.push((entry.u64()?, entry.u64()?));
            }
            all.push(stats);
        }
        Ok(all)
    }

    /// Writes it as an entry of an answer.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.position();
        out.u32(0);
        out.u32(self.group);
        out.u32(self.references);
        out.zeroes(4);
        let counts = |out: &mut Vec<u8>, (packets, bytes): (u64, u64)| {
            out.u64(packets);
            out.u64(bytes);
        };
        counts(out, self.counts);
        if has_duration(version) {
            put_duration(out, self.duration);
        }
        self.buckets.iter().for_each(|bucket| counts(out, *bucket));
        out.patch_length(start, start);
    }
}

/// Nicira's, which OpenFlow 1.0 has, are as those of 1.5.
fn has_duration(version: Version) -> bool {
    version >= Version::V13 || version == Version::V10
}

/// Which group is asked for, in requests for statistics and descriptions; [`ALL_GROUPS`]: all, as where
/// the version does not say it.
///
/// # Errors
/// `OFPBRC_BAD_LEN`.
pub fn asked(raw: &Raw<'_>) -> Result<u32, ErrorCode> {
    if raw.body.is_empty() { Ok(ALL_GROUPS) } else { Ok(Reader::new(raw.body).u32()?) }
}

/// The request for statistics or descriptions of a group.
#[must_use]
pub fn ask(version: Version, kind: Kind, group: u32, xid: u32) -> Vec<u8> {
    let mut message = Message::new(version, kind, xid);
    let has_group = kind != Kind::GroupDescRequest || is_new(version);
    if has_group {
        message.body().u32(group);
        message.body().zeroes(4);
    }
    message.finish()
}

/// The form of answers about groups.
#[must_use]
pub const fn reply_form(version: Version) -> Form {
    if matches!(version, Version::V10) { Form::NxReply } else { Form::Reply }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Replies;

    fn bucket(id: u32, version: Version) -> Bucket {
        let actions = vec![Action::output(PortNo(id + 1)), Action::Exit];
        let has_watch = version != Version::V12;
        let watch_port = if has_watch { PortNo(4) } else { PortNo::ANY };
        Bucket { id, weight: 7, watch_port, watch_group: ANY_GROUP, actions }
    }

    fn selection(version: Version) -> Option<Selection> {
        let fields = vec![(Field::IpSrc, 0xFFFF_FFFF), (Field::TcpDst, 0xFFFF)];
        let selection = Selection { method: "hash".to_owned(), parameter: 9, fields };
        is_new(version).then_some(selection)
    }

    /// OpenFlow 1.5, 5.6: from that version on a meter is an action.
    #[test]
    fn buckets_have_meters_from_1_5_on() {
        let read = |version| {
            let mut metered = bucket(0, version);
            metered.actions = vec![Action::Meter(7), Action::output(PortNo(1))];
            let change = GroupMod {
                command: GroupCommand::Add,
                kind: GroupType::Select,
                group: 5,
                bucket: ALL_BUCKETS,
                buckets: vec![metered],
                selection: selection(version),
            };
            let message = change.encode(version, 1);
            let read = GroupMod::decode(&Raw::read(&message).unwrap()).unwrap();
            read.buckets[0].actions.len()
        };
        assert_eq!(
            [Version::V11, Version::V13, Version::V14, Version::V15].map(read),
            [1, 1, 1, 2]
        );
    }

    #[test]
    fn all_versions_are_read_as_written() {
        for version in Version::ALL {
            let buckets: Vec<Bucket> = (0..3).map(|id| bucket(id, version)).collect();
            let (kind, group) = (GroupType::Select, 5);
            let change = GroupMod {
                command: GroupCommand::Add,
                kind,
                group,
                bucket: ALL_BUCKETS,
                buckets: buckets.clone(),
                selection: selection(version),
            };
            let message = change.encode(version, 1);
            let raw = Raw::read(&message).unwrap();
            assert_eq!(GroupMod::decode(&raw), Ok(change), "{version}");
            for cut in 0..raw.body.len() {
                let _ = GroupMod::decode(&Raw { body: &raw.body[..cut], ..raw });
            }
            let desc = GroupDesc { group, kind, buckets, selection: selection(version) };
            let form = reply_form(version);
            let mut replies = Replies::new(version, Kind::GroupDescReply, form, 1);
            replies.entry(|out| desc.encode(version, out));
            replies.entry(|out| desc.encode(version, out));
            let message = replies.finish().swap_remove(0);
            let read = GroupDesc::decode_all(&Raw::read(&message).unwrap());
            assert_eq!(read, Ok(vec![desc.clone(), desc]), "{version}");
            let stats = GroupStats {
                group,
                references: 2,
                counts: (3, 4),
                duration: Duration::from_secs(if has_duration(version) { 5 } else { 0 }),
                buckets: vec![(1, 2), (3, 4)],
            };
            let mut replies = Replies::new(version, Kind::GroupStatsReply, form, 1);
            replies.entry(|out| stats.encode(version, out));
            let message = replies.finish().swap_remove(0);
            assert_eq!(GroupStats::decode_all(&Raw::read(&message).unwrap()), Ok(vec![stats]));
        }
    }

    #[test]
    fn what_a_group_cannot_be_is_refused() {
        let version = Version::V15;
        let wrong = |kind, command, buckets: Vec<Bucket>| {
            let change =
                GroupMod { command, kind, group: 1, bucket: ALL_BUCKETS, buckets, selection: None };
            GroupMod::decode(&Raw::read(&change.encode(version, 1)).unwrap()).unwrap_err()
        };
        let one = |weight, watch_port| vec![Bucket { weight, watch_port, ..bucket(0, version) }];
        let add = GroupCommand::Add;
        let cases = [
            (wrong(GroupType::Indirect, add, Vec::new()), ErrorCode::GmfcInvalidGroup),
            (wrong(GroupType::All, add, one(1, PortNo::ANY)), ErrorCode::GmfcInvalidGroup),
            (wrong(GroupType::All, add, one(0, PortNo(1))), ErrorCode::GmfcWatchUnsupported),
            (wrong(GroupType::FastFailover, add, one(0, PortNo::ANY)), ErrorCode::GmfcInvalidGroup),
            (
                wrong(GroupType::Select, GroupCommand::InsertBucket, Vec::new()),
                ErrorCode::GmfcBadBucket,
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    /// A load balancer of two servers, as ovn-controller sets it up.
    const RECORDED: &str = "060f00e00000037a000001000000000100a00000ffffffff0050004000000000ffff004000002320\
        0023000100011a04000f150000000000ffff00180000232000240000000200110a00000100500000\
        001900100001d708000000020000000200000008006400000050004000000001ffff004000002320\
        0023000100011a04000f150000000000ffff00180000232000240000000200110a00000200500000\
        001900100001d70800000002000000020000000800640000ffff00280000154d0000000100000000\
        64705f686173680000000000000000000000000000000000";

    #[test]
    fn a_recorded_group_is_read_and_written() {
        let byte = |at: usize| u8::from_str_radix(&RECORDED[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..RECORDED.len()).step_by(2).map(byte).collect();
        let raw = Raw::read(&bytes).unwrap();
        let change = GroupMod::decode(&raw).unwrap();
        assert_eq!((change.kind, change.group, change.buckets.len()), (GroupType::Select, 1, 2));
        assert_eq!(change.selection.as_ref().unwrap().method, "dp_hash");
        assert_eq!(change.encode(raw.version, raw.xid), bytes);
        let place = bytes.windows(4).position(|four| four == [0, 0, 0x15, 0x4d]).unwrap();
        let mut old = bytes.clone();
        old[place + 3] = 0x40;
        assert_eq!(GroupMod::decode(&Raw::read(&old).unwrap()), Ok(change));
    }
}
