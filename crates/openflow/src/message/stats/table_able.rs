//! What tables can do, as statistics of tables say it up to OpenFlow 1.2.

use super::field_set::FieldSet;
use super::table_features::{ActionFeatures, InstructionFeatures, TableFeatures};
use crate::error::ErrorCode;
use crate::field::{Class, Field};
use crate::version::Version;
use crate::wire::{Reader, text};

/// Bytes of a table's name.
const NAME: usize = 32;

/// Fields of OpenFlow 1.0 by their bits: those of addresses have six each.
const FIELDS_V10: [(u32, Field); 12] = [
    (1 << 0, Field::InPort),
    (1 << 1, Field::VlanVid),
    (1 << 2, Field::EthSrc),
    (1 << 3, Field::EthDst),
    (1 << 4, Field::EthType),
    (1 << 5, Field::IpProto),
    (1 << 6, Field::TcpSrc),
    (1 << 7, Field::TcpDst),
    (0x3F << 8, Field::IpSrc),
    (0x3F << 14, Field::IpDst),
    (1 << 20, Field::VlanPcp),
    (1 << 21, Field::NwTos),
];

/// Those of OpenFlow 1.1.
const FIELDS_V11: [(u32, Field); 15] = [
    (1 << 0, Field::InPort),
    (1 << 1, Field::VlanVid),
    (1 << 2, Field::VlanPcp),
    (1 << 3, Field::EthType),
    (1 << 4, Field::NwTos),
    (1 << 5, Field::IpProto),
    (1 << 6, Field::TcpSrc),
    (1 << 7, Field::TcpDst),
    (1 << 8, Field::MplsLabel),
    (1 << 9, Field::MplsTc),
    (1 << 11, Field::EthSrc),
    (1 << 12, Field::EthDst),
    (1 << 13, Field::IpSrc),
    (1 << 14, Field::IpDst),
    (1 << 15, Field::Metadata),
];

fn fields(bits: u32, known: &[(u32, Field)]) -> FieldSet {
    known.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, field)| *field).collect()
}

/// Those of OpenFlow 1.2: a bit for each number of the specification's.
fn fields_v12(bits: u64) -> FieldSet {
    let is_in = |field: &Field| {
        let header = field.header(Version::V12);
        let header = header.filter(|header| header.since <= Version::V12);
        header.is_some_and(|header| {
            header.class == Class::OXM_OF
                && bits.checked_shr(header.number.into()).unwrap_or(0) & 1 != 0
        })
    };
    Field::all().iter().copied().filter(is_in).collect()
}

impl TableFeatures {
    /// What the statistics of a table say of what it can do; nothing from OpenFlow 1.3 on.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`.
    pub fn of_stats(version: Version, mut entry: Reader<'_>) -> Result<Self, ErrorCode> {
        let mut made = Self { table: entry.u8()?, ..Self::default() };
        if version >= Version::V13 {
            return Ok(made);
        }
        entry.skip(if version == Version::V10 { 3 } else { 7 })?;
        made.name = text(entry.take(NAME)?);
        match version {
            Version::V10 => made.optional = fields(entry.u32()?, &FIELDS_V10),
            Version::V11 => {
                made.optional = fields(entry.u32()?, &FIELDS_V11);
                made.matched = fields(entry.u32()?, &FIELDS_V11);
                let instructions = entry.u32()?;
                let [write, apply] = [entry.u32()?, entry.u32()?]
                    .map(|actions| ActionFeatures { actions, ..ActionFeatures::default() });
                let rest = InstructionFeatures::default();
                made.rules = InstructionFeatures { instructions, write, apply, ..rest };
                entry.skip(4)?;
            }
            _ => made.v12(&mut entry)?,
        }
        made.matched = made.matched.or(made.optional);
        made.misses = made.rules;
        made.max_entries = entry.u32()?;
        Ok(made)
    }

    fn v12(&mut self, entry: &mut Reader<'_>) -> Result<(), ErrorCode> {
        self.matched = fields_v12(entry.u64()?);
        self.optional = fields_v12(entry.u64()?);
        (self.rules.write.actions, self.rules.apply.actions) = (entry.u32()?, entry.u32()?);
        self.rules.write.fields = fields_v12(entry.u64()?);
        self.rules.apply.fields = fields_v12(entry.u64()?);
        (self.metadata_match, self.metadata_write) = (entry.u64()?, entry.u64()?);
        self.rules.instructions = entry.u32()?;
        entry.skip(4)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::stats::table::TableStats;

    #[test]
    fn each_version_says_what_it_has() {
        let of = |version| {
            let stats = TableStats { table: 3, max_entries: 9, ..TableStats::default() };
            let mut bytes = Vec::new();
            stats.encode(version, &mut bytes);
            TableFeatures::of_stats(version, Reader::new(&bytes)).unwrap()
        };
        let counts = Version::ALL.map(|version| {
            let features = of(version);
            assert_eq!(features.table, 3);
            let InstructionFeatures { instructions, write, apply, .. } = features.rules;
            assert_eq!((features.misses, write), (features.rules, apply));
            let (matched, written) = (features.matched.iter().count(), apply.fields.iter().count());
            (matched, features.optional.iter().count(), instructions, written, features.max_entries)
        });
        let none = (0, 0, 0, 0, 0);
        let expected =
            [(12, 12, 0, 0, 9), (15, 15, 0x3E, 0, 9), (35, 35, 0x3E, 33, 9), none, none, none];
        assert_eq!(counts, expected);
        let short = TableFeatures::of_stats(Version::V12, Reader::new(&[0; 100]));
        assert_eq!(short, Err(ErrorCode::BrcBadLen));
    }
}
