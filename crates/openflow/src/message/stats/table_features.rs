//! What tables can do, as OpenFlow 1.3 and later ask for it: ours can do all that the version has.

use super::field_list::{Kept, Listed};
use super::field_set::FieldSet;
use crate::action::wire::{property, unknown_property};
use crate::error::ErrorCode;
use crate::field::Field;
use crate::message::{Kind, Raw};
use crate::version::Version;
use crate::wire::{Reader, Writer as _, text};

/// Bytes of a table's name.
const NAME: usize = 32;

/// Bytes before the properties.
const BEGIN: usize = 64;

/// Properties: each is followed by the one for packets that no rule is for, with the next number.
const INSTRUCTIONS: u16 = 0;
const NEXT_TABLES: u16 = 2;
const WRITE_ACTIONS: u16 = 4;
const APPLY_ACTIONS: u16 = 6;
const MATCH: u16 = 8;
const WILDCARDS: u16 = 10;
const WRITE_SETFIELD: u16 = 12;
const APPLY_SETFIELD: u16 = 14;

/// Those that each table has, a bit for each.
const REQUIRED: u32 = 1 << INSTRUCTIONS
    | 1 << NEXT_TABLES
    | 1 << WRITE_ACTIONS
    | 1 << APPLY_ACTIONS
    | 1 << MATCH
    | 1 << WILDCARDS
    | 1 << WRITE_SETFIELD
    | 1 << APPLY_SETFIELD;

/// A type that somebody's extension has, which it says behind it.
const EXPERIMENTER: u16 = 0xFFFF;

/// GOTO_TABLE, WRITE_METADATA, WRITE_ACTIONS, APPLY_ACTIONS, CLEAR_ACTIONS, METER, as bits.
const ALL_INSTRUCTIONS: u32 = 0x7E;

/// GOTO_TABLE.
const GOTO_TABLE: u32 = 1 << 1;

/// OUTPUT, and those from SET_MPLS_TTL to SET_FIELD that OpenFlow 1.3 has, as bits.
const ALL_ACTIONS: u32 = 0x03FF_8001;

/// OFPTC_EVICTION, OFPTC_VACANCY_EVENTS.
const EVICTION: u32 = 1 << 2;
const VACANCY_EVENTS: u32 = 1 << 3;

/// What is to become of what tables can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FeaturesCommand {
    /// The tables are those that are listed.
    #[default]
    Replace,
    /// Those that are listed change; from OpenFlow 1.5, like the others.
    Modify,
    /// They are used.
    Enable,
    /// They are not used.
    Disable,
}

/// A set of tables, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSet([u64; 4]);

impl TableSet {
    /// Puts a table into it, or takes it out.
    pub fn set(&mut self, table: u8, is_in: bool) {
        let bit = 1 << (table % 64);
        if let Some(word) = self.0.get_mut(usize::from(table / 64)) {
            *word = if is_in { *word | bit } else { *word & !bit };
        }
    }

    /// Whether it has a table.
    #[must_use]
    pub fn has(&self, table: u8) -> bool {
        self.0.get(usize::from(table / 64)).is_some_and(|word| word >> (table % 64) & 1 != 0)
    }

    /// Its tables, in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|table| self.has(*table))
    }
}

/// Actions of one kind of rules' instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionFeatures {
    /// Bits of their types.
    pub actions: u32,
    /// Fields that they can set.
    pub fields: FieldSet,
}

/// What rules can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstructionFeatures {
    /// Bits of their types.
    pub instructions: u32,
    /// To which tables they lead.
    pub next: TableSet,
    /// What can be written into the action set.
    pub write: ActionFeatures,
    /// What can be applied at once.
    pub apply: ActionFeatures,
}

/// What a table can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableFeatures {
    /// In a request: what is to be done.
    pub command: FeaturesCommand,
    /// Its number.
    pub table: u8,
    /// Its name, for people.
    pub name: String,
    /// Bits of metadata to match on.
    pub metadata_match: u64,
    /// Bits of metadata that rules can write.
    pub metadata_write: u64,
    /// Whether it makes room by itself; from OpenFlow 1.4.
    pub eviction: bool,
    /// Whether it tells how much room there is; from OpenFlow 1.4.
    pub vacancy_events: bool,
    /// The most rules.
    pub max_entries: u32,
    /// What rules can do.
    pub rules: InstructionFeatures,
    /// What those can do that are for packets that no other rule is for.
    pub misses: InstructionFeatures,
    /// Fields that can be matched on.
    pub matched: FieldSet,
    /// Of these, those that may have any mask.
    pub masked: FieldSet,
    /// Of these, those that may be left out.
    pub optional: FieldSet,
    /// Whether it says nothing of what it can do, as from OpenFlow 1.5 on a request may that is about the rest.
    pub is_silent: bool,
}

impl TableFeatures {
    /// One of ours, which can do all; `last` is the last table that there is: a rule leads to those behind its own.
    #[must_use]
    pub fn full(version: Version, table: u8, name: String, max_entries: u32, last: u8) -> Self {
        let all = Field::all().iter().copied();
        let matched: FieldSet = all.filter(|field| field.header(version).is_some()).collect();
        let fields = matched.iter().filter(|field| field.is_writable()).collect();
        let actions = ActionFeatures { actions: ALL_ACTIONS, fields };
        let rules = InstructionFeatures {
            write: actions,
            apply: actions,
            ..InstructionFeatures::default()
        };
        let all = Self {
            // All bits, to match on and to write.
            metadata_match: u64::MAX,
            metadata_write: u64::MAX,
            rules,
            misses: rules,
            matched,
            masked: matched.iter().filter(|field| field.is_maskable()).collect(),
            optional: matched,
            ..Self::default()
        };
        all.of_table(table, name, max_entries, last)
    }

    /// Another one of ours, which can do the same.
    #[must_use]
    pub fn of_table(&self, table: u8, name: String, max_entries: u32, last: u8) -> Self {
        let mut next = TableSet::default();
        (table.saturating_add(1)..=last).for_each(|table| next.set(table, true));
        let is_last = table >= last;
        let instructions = if is_last { ALL_INSTRUCTIONS & !GOTO_TABLE } else { ALL_INSTRUCTIONS };
        let [rules, misses] = [self.rules, self.misses].map(|rules| InstructionFeatures {
            instructions,
            next,
            ..rules
        });
        Self { table, name, max_entries, rules, misses, ..self.clone() }
    }

    /// Appends it.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        Encoder::new(version).put(self, out);
    }

    fn encode_with(&self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        let version = encoder.version;
        let start = out.len();
        out.u16(0);
        out.u8(self.table);
        out.u8(if version < Version::V15 { 0 } else { self.command as u8 });
        out.zeroes(4);
        out.text(&self.name, NAME);
        out.u64(self.metadata_match);
        out.u64(self.metadata_write);
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let able = bit(self.eviction, EVICTION) | bit(self.vacancy_events, VACANCY_EVENTS);
        out.u32(if version < Version::V14 { 0 } else { able });
        out.u32(self.max_entries);
        if !self.is_silent {
            self.encode_properties(encoder, out);
        }
        out.patch_length(start, start);
    }

    fn encode_properties(&self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        for (miss, can) in [(0, &self.rules), (1, &self.misses)] {
            put_property(INSTRUCTIONS + miss, out, |out| put_types(can.instructions, out));
            put_property(NEXT_TABLES + miss, out, |out| out.extend(can.next.iter()));
            let write = (WRITE_ACTIONS, WRITE_SETFIELD, &can.write);
            for (actions, fields, can) in [write, (APPLY_ACTIONS, APPLY_SETFIELD, &can.apply)] {
                put_property(actions + miss, out, |out| put_types(can.actions, out));
                put_property(fields + miss, out, |out| encoder.names(can.fields, out));
            }
        }
        let masked = self.masked.and(self.matched);
        let matched = Listed { exact: self.matched.without(masked), masked };
        put_property(MATCH, out, |out| encoder.lists.write(matched, encoder.version, out));
        put_property(WILDCARDS, out, |out| encoder.names(self.optional, out));
    }

    /// Reads all of a request or an answer. In an answer, what is not known is passed over.
    ///
    /// # Errors
    /// `OFPTFFC_BAD_COMMAND`, `OFPTFFC_BAD_TABLE`; `OFPTFFC_BAD_FEATURES` where a property is there twice or is
    /// missing; `OFPBPC_BAD_LEN`, `OFPBPC_BAD_VALUE`, `OFPBPC_BAD_TYPE`, `OFPBMC_BAD_FIELD`, `OFPBMC_BAD_MASK`,
    /// `OFPBIC_UNKNOWN_INST`.
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let (mut reader, mut all) = (Reader::new(raw.body), Vec::new());
        let mut decoder =
            Decoder { is_loose: raw.kind == Kind::TableFeaturesReply, lists: Kept::default() };
        while !reader.is_empty() {
            let entry = reader.entry(0).map_err(|_| ErrorCode::BpcBadLen)?;
            if entry.len() < BEGIN || !entry.len().is_multiple_of(8) {
                return Err(ErrorCode::BpcBadLen);
            }
            all.push(Self::decode(raw.version, entry, &mut decoder)?);
        }
        Ok(all)
    }

    fn decode<'a>(
        version: Version,
        mut entry: Reader<'a>,
        decoder: &mut Decoder<'a>,
    ) -> Result<Self, ErrorCode> {
        entry.skip(2)?;
        let (table, command) = (entry.u8()?, entry.u8()?);
        entry.skip(4)?;
        let command = match command {
            _ if version < Version::V15 => FeaturesCommand::Replace,
            0 => FeaturesCommand::Replace,
            1 => FeaturesCommand::Modify,
            2 => FeaturesCommand::Enable,
            3 => FeaturesCommand::Disable,
            _ => return Err(ErrorCode::TffcBadCommand),
        };
        if table == u8::MAX {
            return Err(ErrorCode::TffcBadTable);
        }
        let mut made = Self { command, table, name: text(entry.take(NAME)?), ..Self::default() };
        (made.metadata_match, made.metadata_write) = (entry.u64()?, entry.u64()?);
        let able = if version < Version::V14 { 0 } else { u32::MAX } & entry.u32()?;
        (made.eviction, made.vacancy_events) = (able & EVICTION != 0, able & VACANCY_EVENTS != 0);
        made.max_entries = entry.u32()?;
        made.is_silent = entry.is_empty();
        let seen = made.decode_properties(entry, decoder)?;
        let is_missing = seen & REQUIRED != REQUIRED;
        if is_missing && (!made.is_silent || version < Version::V15) {
            return Err(ErrorCode::TffcBadFeatures);
        }
        made.complete(seen);
        Ok(made)
    }

    /// Reads properties; gives those that were there, a bit for each.
    fn decode_properties<'a>(
        &mut self,
        mut properties: Reader<'a>,
        decoder: &mut Decoder<'a>,
    ) -> Result<u32, ErrorCode> {
        let (mut seen, is_loose) = (0_u32, decoder.is_loose);
        while !properties.is_empty() {
            let (kind, value) = property(&mut properties)?;
            let bit = 1_u32.checked_shl(kind.into()).unwrap_or(0);
            if seen & bit != 0 {
                return Err(ErrorCode::TffcBadFeatures);
            }
            seen |= bit;
            let of_miss = kind % 2 == 1 && kind != MATCH;
            let can = if of_miss { &mut self.misses } else { &mut self.rules };
            match kind & !1 {
                INSTRUCTIONS => {
                    let types = pull_types(value)?;
                    if types & !ALL_INSTRUCTIONS != 0 && !is_loose {
                        return Err(ErrorCode::BicUnknownInst);
                    }
                    can.instructions = types & ALL_INSTRUCTIONS;
                }
                NEXT_TABLES => can.next = pull_tables(value)?,
                WRITE_ACTIONS => can.write.actions = pull_types(value)? & ALL_ACTIONS,
                APPLY_ACTIONS => can.apply.actions = pull_types(value)? & ALL_ACTIONS,
                WRITE_SETFIELD => can.write.fields = decoder.names(value)?,
                APPLY_SETFIELD => can.apply.fields = decoder.names(value)?,
                _ if kind == MATCH => {
                    let Listed { exact, masked } = decoder.lists.read(value, is_loose)?;
                    (self.matched, self.masked) = (exact, masked);
                }
                _ if kind == WILDCARDS => self.optional = decoder.names(value)?,
                _ if is_loose => {}
                _ => return Err(unknown_property(kind)),
            }
        }
        Ok(seen)
    }

    /// What is not said of misses is as for other packets; what may have a mask can be matched on and left out.
    fn complete(&mut self, seen: u32) {
        let is_said = |kind: u16| seen >> (kind + 1) & 1 != 0;
        let (rules, misses) = (self.rules, &mut self.misses);
        if !is_said(INSTRUCTIONS) {
            misses.instructions = rules.instructions;
        }
        if !is_said(NEXT_TABLES) {
            misses.next = rules.next;
        }
        if !is_said(WRITE_ACTIONS) {
            misses.write.actions = rules.write.actions;
        }
        if !is_said(APPLY_ACTIONS) {
            misses.apply.actions = rules.apply.actions;
        }
        if !is_said(WRITE_SETFIELD) {
            misses.write.fields = rules.write.fields;
        }
        if !is_said(APPLY_SETFIELD) {
            misses.apply.fields = rules.apply.fields;
        }
        self.matched = self.matched.or(self.masked);
        self.optional = self.optional.or(self.masked).and(self.matched);
    }
}

/// Writes what tables of one message can do.
#[derive(Debug)]
pub struct Encoder {
    version: Version,
    lists: Kept<Vec<u8>>,
}

impl Encoder {
    /// For messages of a version.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self { version, lists: Kept::default() }
    }

    /// Appends a table.
    pub fn put(&mut self, table: &TableFeatures, out: &mut Vec<u8>) {
        table.encode_with(self, out);
    }

    fn names(&mut self, fields: FieldSet, out: &mut Vec<u8>) {
        let listed = Listed { exact: fields, ..Listed::default() };
        self.lists.write(listed, self.version, out);
    }
}

/// Reads what tables of one message can do.
struct Decoder<'a> {
    /// Whether what is not known is passed over.
    is_loose: bool,
    lists: Kept<&'a [u8]>,
}

impl<'a> Decoder<'a> {
    /// A list of fields of which none has a mask.
    fn names(&mut self, list: Reader<'a>) -> Result<FieldSet, ErrorCode> {
        let Listed { exact, masked } = self.lists.read(list, self.is_loose)?;
        if masked.is_empty() { Ok(exact) } else { Err(ErrorCode::BmcBadMask) }
    }
}

/// Types without values: each has a length of its own.
fn put_types(types: u32, out: &mut Vec<u8>) {
    for kind in (0..32).filter(|kind| types >> kind & 1 != 0) {
        out.u16(kind);
        out.u16(4);
    }
}

/// Reads them as bits; those of extensions, and greater ones, are passed over.
fn pull_types(mut types: Reader<'_>) -> Result<u32, ErrorCode> {
    let bad = |_| ErrorCode::BpcBadLen;
    let mut bits = 0;
    while !types.is_empty() {
        let mut entry = types.entry(2).map_err(bad)?;
        let (kind, len) = (entry.u16().map_err(bad)?, entry.u16().map_err(bad)?);
        if kind == EXPERIMENTER && len < 8 {
            return Err(ErrorCode::BpcBadLen);
        }
        bits |= 1_u32.checked_shl(kind.into()).unwrap_or(0);
    }
    Ok(bits)
}

fn pull_tables(mut tables: Reader<'_>) -> Result<TableSet, ErrorCode> {
    let mut set = TableSet::default();
    for table in tables.rest() {
        if *table == u8::MAX {
            return Err(ErrorCode::BpcBadValue);
        }
        set.set(*table, true);
    }
    Ok(set)
}

fn put_property(kind: u16, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.u16(kind);
    out.u16(0);
    write(out);
    out.patch_length(start.saturating_add(2), start);
    out.pad8(start);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Message;

    fn message(version: Version, kind: Kind, tables: &[TableFeatures]) -> Vec<u8> {
        let mut message = Message::new(version, kind, 1);
        tables.iter().for_each(|table| table.encode(version, message.body()));
        message.finish()
    }

    fn read(bytes: &[u8]) -> Result<Vec<TableFeatures>, ErrorCode> {
        TableFeatures::decode_all(&Raw::read(bytes)?)
    }

    #[test]
    fn tables_are_read_as_they_are_written() {
        for version in [Version::V13, Version::V14, Version::V15] {
            let first = TableFeatures::full(version, 252, "x".to_owned(), 9, 253);
            let last = TableFeatures::full(version, 253, String::new(), 9, 253);
            assert_eq!(last.rules.instructions, 0x7C, "nothing is behind the last one");
            let tables = [first, last];
            let request = message(version, Kind::TableFeaturesRequest, &tables);
            assert_eq!(read(&request), Ok(tables.to_vec()), "{version}");
            let answer = message(version, Kind::TableFeaturesReply, &tables);
            assert_eq!(read(&answer), Ok(tables.to_vec()), "{version}");
        }
    }

    #[test]
    fn only_openflow_15_asks_for_nothing() {
        for version in [Version::V13, Version::V15] {
            let silent = TableFeatures { table: 3, is_silent: true, ..TableFeatures::default() };
            let one = message(version, Kind::TableFeaturesRequest, std::slice::from_ref(&silent));
            let read = read(&one);
            let bad = Err(ErrorCode::TffcBadFeatures);
            assert_eq!(read, if version == Version::V15 { Ok(vec![silent]) } else { bad });
        }
    }

    /// A request with one table, whose byte at `place` behind its begin is `byte`.
    fn damaged(place: usize, byte: u8) -> Result<Vec<TableFeatures>, ErrorCode> {
        let table = TableFeatures::full(Version::V15, 0, String::new(), 9, 253);
        let mut bytes = message(Version::V15, Kind::TableFeaturesRequest, &[table]);
        bytes[16 + place] = byte;
        read(&bytes)
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(damaged(2, 0xFF), Err(ErrorCode::TffcBadTable));
        assert_eq!(damaged(3, 4), Err(ErrorCode::TffcBadCommand));
        // The first property twice; an instruction that there is not; a length of none.
        assert_eq!(damaged(BEGIN + 1, 2), Err(ErrorCode::TffcBadFeatures));
        assert_eq!(damaged(BEGIN + 5, 9), Err(ErrorCode::BicUnknownInst));
        assert_eq!(damaged(BEGIN + 7, 0), Err(ErrorCode::BpcBadLen));
    }

    #[test]
    fn each_has_all_properties() {
        let mut bytes = Vec::new();
        TableFeatures::full(Version::V13, 0, String::new(), 1, 253)
            .encode(Version::V13, &mut bytes);
        let mut properties = Reader::new(&bytes[BEGIN..]);
        let mut kinds = Vec::new();
        while !properties.is_empty() {
            kinds.push(property(&mut properties).unwrap().0);
        }
        assert_eq!(kinds, [0, 2, 4, 12, 6, 14, 1, 3, 5, 13, 7, 15, 8, 10]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(
            changes in prop::collection::vec((0..2_000_usize, any::<u8>()), 1..8),
            is_answer: bool,
        ) {
            let kind = if is_answer { Kind::TableFeaturesReply } else { Kind::TableFeaturesRequest };
            let table = TableFeatures::full(Version::V15, 0, "x".to_owned(), 9, 253);
            let mut bytes = message(Version::V15, kind, &[table]);
            for (place, byte) in changes {
                if let Some(place) = bytes.get_mut(16 + place) {
                    *place = byte;
                }
            }
            let _ = read(&bytes);
        }
    }
}
