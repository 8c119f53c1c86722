//! Statistics and settings of tables.
//!
//! Up to OpenFlow 1.2, statistics also say what a table can do; ours can do all that the version
//! has.

use crate::error::ErrorCode;
use crate::message::table_mod::Miss;
use crate::version::Version;
use crate::wire::{Reader, Writer as _, text};

/// Bytes of a table's name.
const NAME: usize = 32;

/// Counters of a table, and what there may be in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Its number.
    pub table: u8,
    /// Its name, for people.
    pub name: String,
    /// The most rules.
    pub max_entries: u32,
    /// Rules in it.
    pub active: u32,
    /// Packets looked up.
    pub lookups: u64,
    /// Packets that there was a rule for.
    pub matches: u64,
    /// Whether there is none behind it.
    pub is_last: bool,
    /// What becomes of packets without a rule; OpenFlow 1.1 and 1.2 say it.
    pub miss: Miss,
}

/// All fields of OpenFlow 1.0, as bits of what a table can leave open.
const FIELDS_V10: u32 = 0x003f_ffff;

/// All fields of OpenFlow 1.1 but `type`, of which nobody knows what it means.
const FIELDS_V11: u32 = 0xfbff;

/// All actions of OpenFlow 1.1.
const ACTIONS_V11: u32 = 0x01ff_e7ff;

/// All fields of OpenFlow 1.2 that can be matched on: without the port that is outside of a port.
const FIELDS_V12: u64 = 0x101f_ffff_fffd;

/// Those that can be written.
const WRITABLE_V12: u64 = 0x000f_ffff_fbdd;

/// All actions of OpenFlow 1.2.
const ACTIONS_V12: u32 = 0x03ff_8001;

/// GOTO_TABLE, WRITE_METADATA, WRITE_ACTIONS, APPLY_ACTIONS, CLEAR_ACTIONS, as bits.
const INSTRUCTIONS: u32 = 0x3e;

/// GOTO_TABLE alone.
const GOTO_TABLE: u32 = 0x02;

impl TableStats {
    /// Appends it.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.u8(self.table);
        match version {
            Version::V10 => {
                out.zeroes(3);
                out.text(&self.name, NAME);
                out.u32(FIELDS_V10);
                out.u32(self.max_entries);
            }
            Version::V11 => {
                out.zeroes(7);
                out.text(&self.name, NAME);
                out.u32(FIELDS_V11);
                out.u32(FIELDS_V11);
                out.u32(self.instructions());
                out.u32(ACTIONS_V11);
                out.u32(ACTIONS_V11);
                out.u32(self.miss.config());
                out.u32(self.max_entries);
            }
            Version::V12 => self.encode_v12(out),
            Version::V13 | Version::V14 | Version::V15 => out.zeroes(3),
        }
        out.u32(self.active);
        out.u64(self.lookups);
        out.u64(self.matches);
    }

    fn encode_v12(&self, out: &mut Vec<u8>) {
        out.zeroes(7);
        out.text(&self.name, NAME);
        out.u64(FIELDS_V12);
        out.u64(FIELDS_V12);
        out.u32(ACTIONS_V12);
        out.u32(ACTIONS_V12);
        out.u64(WRITABLE_V12);
        out.u64(WRITABLE_V12);
        // All bits of metadata, to match on and to write.
        out.u64(u64::MAX);
        out.u64(u64::MAX);
        out.u32(self.instructions());
        out.u32(self.miss.config());
        out.u32(self.max_entries);
    }

    /// Reads the next one; what it can do is passed over.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`.
    pub fn decode(version: Version, reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let mut stats = Self { table: reader.u8()?, ..Self::default() };
        if version >= Version::V13 {
            reader.skip(3)?;
        } else {
            reader.skip(if version == Version::V10 { 3 } else { 7 })?;
            stats.name = text(reader.take(NAME)?);
            // Fields and actions that it has, up to the instructions.
            reader.skip(match version {
                Version::V10 => 4,
                Version::V11 => 8,
                _ => 56,
            })?;
            if version > Version::V10 {
                stats.is_last = reader.u32()? & GOTO_TABLE == 0;
                reader.skip(if version == Version::V11 { 8 } else { 0 })?;
                stats.miss = match reader.u32()? {
                    1 => Miss::Continue,
                    2 => Miss::Drop,
                    _ => Miss::Controller,
                };
            }
            stats.max_entries = reader.u32()?;
        }
        stats.active = reader.u32()?;
        (stats.lookups, stats.matches) = (reader.u64()?, reader.u64()?);
        Ok(stats)
    }

    const fn instructions(&self) -> u32 {
        if self.is_last { INSTRUCTIONS & !GOTO_TABLE } else { INSTRUCTIONS }
    }
}

/// Settings of a table; from OpenFlow 1.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableDesc {
    /// Its number.
    pub table: u8,
    /// Whether rules may be removed to make room.
    pub eviction: bool,
    /// By what it is chosen which ones: bits of OFPTMPEF.
    pub eviction_flags: u32,
    /// The percentages of free rules at which a controller is told, if it is: going down, going up;
    /// and how many are free.
    pub vacancy: Option<(u8, u8, u8)>,
}

/// OFPTMPT_EVICTION, OFPTMPT_VACANCY.
const EVICTION: u16 = 2;
const VACANCY: u16 = 3;

impl TableDesc {
    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.zeroes(2);
        out.u8(self.table);
        out.u8(0);
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        out.u32(bit(self.eviction, EVICTION_CONFIG) | bit(self.vacancy.is_some(), VACANCY_CONFIG));
        out.u16(EVICTION);
        out.u16(8);
        out.u32(self.eviction_flags);
        if let Some((down, up, free)) = self.vacancy {
            out.u16(VACANCY);
            out.u16(8);
            out.bytes(&[down, up, free, 0]);
        }
        out.patch_length(start, start);
    }

    /// Reads all of an answer; properties that are not known are passed over.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`, `OFPBPC_BAD_LEN`.
    pub fn decode_all(body: &[u8]) -> Result<Vec<Self>, ErrorCode> {
        let (mut reader, mut all) = (Reader::new(body), Vec::new());
        while !reader.is_empty() {
            let mut entry = reader.entry(0)?;
            entry.skip(2)?;
            all.push(Self::decode(&mut entry)?);
        }
        Ok(all)
    }

    /// Reads what is behind the length.
    fn decode(entry: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let table = entry.u8()?;
        entry.skip(1)?;
        let config = entry.u32()?;
        let vacancy = (config & VACANCY_CONFIG != 0).then_some((0, 0, 0));
        let eviction = config & EVICTION_CONFIG != 0;
        let mut desc = Self { table, eviction, eviction_flags: u32::MAX, vacancy };
        while !entry.is_empty() {
            let mut property = entry.entry(2).map_err(|_| ErrorCode::BpcBadLen)?;
            let len = property.len();
            let kind = property.u16().map_err(|_| ErrorCode::BpcBadLen)?;
            property.skip(2).map_err(|_| ErrorCode::BpcBadLen)?;
            match (kind, property.rest()) {
                (EVICTION, &[a, b, c, d]) => desc.eviction_flags = u32::from_be_bytes([a, b, c, d]),
                (VACANCY, &[down, up, free, _]) => {
                    desc.vacancy = desc.vacancy.map(|_| (down, up, free));
                }
                (EVICTION | VACANCY, _) => return Err(ErrorCode::BpcBadLen),
                _ => {}
            }
            entry.skip(len.next_multiple_of(8) - len).map_err(|_| ErrorCode::BpcBadLen)?;
        }
        Ok(desc)
    }
}

/// As OpenFlow 1.4 has it in the settings of a table: OFPTC_EVICTION, OFPTC_VACANCY_EVENTS.
const EVICTION_CONFIG: u32 = 1 << 2;
const VACANCY_CONFIG: u32 = 1 << 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn encoded(version: Version, stats: &TableStats) -> String {
        let mut bytes = Vec::new();
        stats.encode(version, &mut bytes);
        hex(&bytes)
    }

    /// As Debian's Open vSwitch answers of its first table.
    #[test]
    fn what_a_table_can_do_is_what_open_vswitch_says() {
        let stats = TableStats { max_entries: 1_000_000, active: 1, ..TableStats::default() };
        let name = "0".repeat(64);
        let tail = format!("000f424000000001{}", "0".repeat(32));
        let v10 = format!("00000000{name}003fffff{tail}");
        assert_eq!(encoded(Version::V10, &stats), v10);
        let able = "0000fbff0000fbff0000003e01ffe7ff01ffe7ff00000000";
        assert_eq!(encoded(Version::V11, &stats), format!("{}{name}{able}{tail}", "0".repeat(16)));
        let able = "0000101ffffffffd0000101ffffffffd03ff800103ff80010000000ffffffbdd0000000ffffffbdd\
                    ffffffffffffffffffffffffffffffff0000003e00000000";
        assert_eq!(encoded(Version::V12, &stats), format!("{}{name}{able}{tail}", "0".repeat(16)));
        let v13 = format!("0000000000000001{}", "0".repeat(32));
        assert_eq!(encoded(Version::V13, &stats), v13);
        assert_eq!(encoded(Version::V15, &stats), v13);
    }

    #[test]
    fn nothing_is_behind_the_last_table() {
        let stats = TableStats { is_last: true, ..TableStats::default() };
        assert!(encoded(Version::V12, &stats).contains("0000003c00000000"));
    }

    #[test]
    fn counters_are_read_as_they_are_written() {
        for version in Version::ALL {
            let has_name = version < Version::V13;
            let says_miss = [Version::V11, Version::V12].contains(&version);
            let stats = TableStats {
                table: 3,
                name: if has_name { "three".to_owned() } else { String::new() },
                max_entries: if has_name { 9 } else { 0 },
                active: 4,
                lookups: 1 << 40,
                matches: 5,
                is_last: says_miss,
                miss: if says_miss { Miss::Drop } else { Miss::default() },
            };
            let mut bytes = Vec::new();
            [&stats, &stats].iter().for_each(|stats| stats.encode(version, &mut bytes));
            let mut reader = Reader::new(&bytes);
            let read = [0, 1].map(|_| TableStats::decode(version, &mut reader));
            assert_eq!(read, [Ok(stats.clone()), Ok(stats)], "{version}");
            let cut = TableStats::decode(version, &mut Reader::new(&bytes[..20]));
            assert_eq!(cut, Err(ErrorCode::BrcBadLen));
        }
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let first = TableDesc { table: 7, eviction: true, eviction_flags: 1, vacancy: None };
        let second = TableDesc { vacancy: Some((20, 80, 99)), ..first };
        let mut bytes = Vec::new();
        first.encode(&mut bytes);
        second.encode(&mut bytes);
        assert_eq!(TableDesc::decode_all(&bytes), Ok(vec![first, second]));
        // What is not known is passed over, with what fills its place.
        bytes.truncate(16);
        bytes.extend([0xFF, 0xFF, 0, 5, 1, 0, 0, 0]);
        bytes[1] = 24;
        assert_eq!(TableDesc::decode_all(&bytes), Ok(vec![first]));
        bytes[11] = 6;
        assert_eq!(TableDesc::decode_all(&bytes), Err(ErrorCode::BpcBadLen));
        assert_eq!(TableDesc::decode_all(&[0, 0, 0, 0]), Err(ErrorCode::BrcBadLen));
    }

    #[test]
    fn settings_have_properties() {
        let mut bytes = Vec::new();
        let desc = TableDesc { table: 7, eviction: true, eviction_flags: 1, vacancy: None };
        desc.encode(&mut bytes);
        assert_eq!(hex(&bytes), "0010070000000004000200080000000".to_owned() + "1");
        bytes.clear();
        TableDesc { vacancy: Some((20, 80, 99)), ..desc }.encode(&mut bytes);
        assert_eq!((bytes.len(), bytes[7], &bytes[20..]), (24, 12, &[20, 80, 99, 0][..]));
    }
}
