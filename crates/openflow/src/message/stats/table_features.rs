//! What tables can do, as OpenFlow 1.3 and later ask for it: ours can do all that the version has.

use crate::error::ErrorCode;
use crate::field::{Field, entry};
use crate::version::Version;
use crate::wire::{Reader, Writer as _, text};

/// Bytes of a table's name.
const NAME: usize = 32;

/// Properties: each is followed by the one for packets that no rule is for, with the next number.
const INSTRUCTIONS: u16 = 0;
const NEXT_TABLES: u16 = 2;
const WRITE_ACTIONS: u16 = 4;
const APPLY_ACTIONS: u16 = 6;
const MATCH: u16 = 8;
const WILDCARDS: u16 = 10;
const WRITE_SETFIELD: u16 = 12;
const APPLY_SETFIELD: u16 = 14;

/// GOTO_TABLE, WRITE_METADATA, WRITE_ACTIONS, APPLY_ACTIONS, CLEAR_ACTIONS, METER.
const ALL_INSTRUCTIONS: [u16; 6] = [1, 2, 3, 4, 5, 6];

/// OUTPUT, and those from SET_MPLS_TTL to SET_FIELD that OpenFlow 1.3 has.
const ALL_ACTIONS: [u16; 12] = [0, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25];

/// What a table can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableFeatures {
    /// Its number.
    pub table: u8,
    /// Its name, for people.
    pub name: String,
    /// The most rules.
    pub max_entries: u32,
    /// The last table that there is: a rule leads to those behind its own.
    pub last: u8,
}

impl TableFeatures {
    /// Appends it.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let start = out.len();
        out.u16(0);
        out.u8(self.table);
        out.zeroes(5);
        out.text(&self.name, NAME);
        // All bits of metadata, to match on and to write.
        out.u64(u64::MAX);
        out.u64(u64::MAX);
        // It has neither eviction nor events of vacancy.
        out.u32(0);
        out.u32(self.max_entries);
        for miss in [0, 1] {
            self.put_instructions(miss, version, out);
        }
        let is_matched = |field: &Field| field.header(version).is_some();
        property(MATCH, out, |out| {
            for field in Field::all().iter().copied().filter(is_matched) {
                let is_masked = field.is_maskable();
                let bytes = field.bytes() * if is_masked { 2 } else { 1 };
                entry::put_header(out, field, version, is_masked, bytes);
            }
        });
        property(WILDCARDS, out, |out| {
            let fields = Field::all().iter().copied().filter(is_matched);
            fields.for_each(|field| entry::put_name(out, field, version));
        });
        out.patch_length(start, start);
    }

    fn put_instructions(&self, miss: u16, version: Version, out: &mut Vec<u8>) {
        let is_last = self.table >= self.last;
        let instructions = ALL_INSTRUCTIONS.iter().skip(usize::from(is_last));
        property(INSTRUCTIONS + miss, out, |out| put_types(instructions, out));
        property(NEXT_TABLES + miss, out, |out| {
            out.extend(self.table.saturating_add(1)..=self.last);
        });
        for (actions, fields) in [(WRITE_ACTIONS, WRITE_SETFIELD), (APPLY_ACTIONS, APPLY_SETFIELD)]
        {
            property(actions + miss, out, |out| put_types(ALL_ACTIONS.iter(), out));
            property(fields + miss, out, |out| {
                let writable = Field::all().iter().copied().filter(|field| field.is_writable());
                writable.for_each(|field| entry::put_name(out, field, version));
            });
        }
    }
}

/// What is to become of what tables can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeaturesCommand {
    /// The tables are those that are listed.
    Replace,
    /// Those that are listed change; from OpenFlow 1.5, like the others.
    Modify,
    /// They are used.
    Enable,
    /// They are not used.
    Disable,
}

/// What a table is to be able to do: as all can do all, this is its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeaturesWish {
    /// What is to be done.
    pub command: FeaturesCommand,
    /// The table.
    pub table: u8,
    /// Its name.
    pub name: String,
    /// The most rules, which nobody can change.
    pub max_entries: u32,
}

impl FeaturesWish {
    /// Reads all of a request, but for their properties, of which each table has all.
    ///
    /// # Errors
    /// `OFPTFFC_BAD_COMMAND`, `OFPBRC_BAD_LEN`.
    pub fn decode_all(version: Version, body: &[u8]) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(body);
        let mut all = Vec::new();
        while !reader.is_empty() {
            let mut entry = reader.entry(0)?;
            entry.skip(2)?;
            let (table, command) = (entry.u8()?, entry.u8()?);
            entry.skip(4)?;
            let name = text(entry.take(NAME)?);
            // The metadata, and what it can do beside.
            entry.skip(20)?;
            let command = match command {
                _ if version < Version::V15 => FeaturesCommand::Replace,
                0 => FeaturesCommand::Replace,
                1 => FeaturesCommand::Modify,
                2 => FeaturesCommand::Enable,
                3 => FeaturesCommand::Disable,
                _ => return Err(ErrorCode::TffcBadCommand),
            };
            all.push(Self { command, table, name, max_entries: entry.u32()? });
        }
        Ok(all)
    }
}

/// Types without values: each has a length of its own.
fn put_types<'t>(types: impl Iterator<Item = &'t u16>, out: &mut Vec<u8>) {
    for kind in types {
        out.u16(*kind);
        out.u16(4);
    }
}

fn property(kind: u16, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.u16(kind);
    out.u16(0);
    write(out);
    out.patch_length(start.saturating_add(2), start);
    out.pad8(start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::port;
    use crate::wire::Reader;

    #[test]
    fn wishes_are_what_tables_can_do() {
        for version in [Version::V13, Version::V15] {
            let mut bytes = Vec::new();
            let name = "x".to_owned();
            let features = TableFeatures { table: 3, name, max_entries: 9, last: 253 };
            features.encode(version, &mut bytes);
            features.encode(version, &mut bytes);
            let wishes = FeaturesWish::decode_all(version, &bytes).unwrap();
            let command = FeaturesCommand::Replace;
            let wish = FeaturesWish { command, table: 3, name: "x".to_owned(), max_entries: 9 };
            assert_eq!(wishes, [wish.clone(), wish]);
            for cut in 1..64 {
                assert!(FeaturesWish::decode_all(version, &bytes[..cut]).is_err());
            }
            bytes[3] = 9;
            let read = FeaturesWish::decode_all(version, &bytes);
            assert_eq!(read.is_ok(), version == Version::V13);
        }
    }

    #[test]
    fn properties_are_as_long_as_they_say() {
        for version in [Version::V13, Version::V14, Version::V15] {
            for table in [0, 252, 253] {
                let mut bytes = Vec::new();
                let features = TableFeatures { table, last: 253, ..TableFeatures::default() };
                features.encode(version, &mut bytes);
                assert_eq!(bytes.len(), usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
                let mut properties = Reader::new(&bytes[64..]);
                let mut kinds = Vec::new();
                while !properties.is_empty() {
                    let (kind, value) = port::property(&mut properties).unwrap();
                    if kind == NEXT_TABLES {
                        assert_eq!(value.len(), usize::from(253 - table));
                    }
                    kinds.push(kind);
                }
                assert_eq!(kinds, [0, 2, 4, 12, 6, 14, 1, 3, 5, 13, 7, 15, 8, 10]);
            }
        }
    }
}
