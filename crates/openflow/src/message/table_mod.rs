//! Settings of tables.

use super::stats::table::TableDesc;
use super::{Kind, Message};
use crate::action::wire::{property, unknown_property};
use crate::error::ErrorCode;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// What becomes of packets that no rule of a table is for; OpenFlow 1.1 and 1.2 say it, later ones
/// by a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Miss {
    /// As the version has it.
    #[default]
    Default,
    /// They go to the controller.
    Controller,
    /// They go on with the next table.
    Continue,
    /// They are dropped.
    Drop,
}

impl Miss {
    /// As OpenFlow 1.1 and 1.2 have it in the settings of a table.
    #[must_use]
    pub const fn config(self) -> u32 {
        match self {
            Self::Default | Self::Controller => 0,
            Self::Continue => 1,
            Self::Drop => 2,
        }
    }
}

/// The percentages of free rules at which a controller is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vacancy {
    /// When it falls below.
    pub down: u8,
    /// When it rises above.
    pub up: u8,
}

/// What of a table is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableMod {
    /// Which one; 0xff: all.
    pub table: u8,
    /// What becomes of packets without a rule.
    pub miss: Miss,
    /// Whether rules may be removed to make room; from OpenFlow 1.4.
    pub eviction: Option<bool>,
    /// By what it is chosen which ones: bits of OFPTMPEF.
    pub eviction_flags: Option<u32>,
    /// Whether events of vacancy are told, and when; from OpenFlow 1.4.
    pub vacancy: Option<Option<Vacancy>>,
}

/// OFPTC_EVICTION, OFPTC_VACANCY_EVENTS.
const EVICTION: u32 = 1 << 2;
const VACANCY_EVENTS: u32 = 1 << 3;

/// OFPTMPT_EVICTION, OFPTMPT_VACANCY.
const EVICTION_PROPERTY: u16 = 2;
const VACANCY_PROPERTY: u16 = 3;

impl TableMod {
    /// Reads it.
    ///
    /// # Errors
    /// `OFPTMFC_BAD_CONFIG` if it has bits that the version does not have; `OFPBPC_BAD_VALUE`,
    /// `OFPBPC_BAD_TYPE` and `OFPBPC_BAD_LEN` for properties; `OFPBRC_BAD_LEN`.
    pub fn decode(version: Version, body: &[u8]) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(body);
        let table = reader.u8()?;
        reader.skip(3)?;
        let config = reader.u32()?;
        let (miss, eviction, vacancy) = (Miss::Default, None, None);
        let mut made = Self { table, miss, eviction, eviction_flags: None, vacancy };
        if version < Version::V13 {
            made.miss = match config {
                0 => Miss::Controller,
                1 => Miss::Continue,
                2 => Miss::Drop,
                _ => return Err(ErrorCode::TmfcBadConfig),
            };
        } else if version < Version::V14 {
            if config & !3 != 0 {
                return Err(ErrorCode::TmfcBadConfig);
            }
        } else {
            if config & !(3 | EVICTION | VACANCY_EVENTS) != 0 {
                return Err(ErrorCode::TmfcBadConfig);
            }
            made.eviction = Some(config & EVICTION != 0);
            let tells = config & VACANCY_EVENTS != 0;
            made.vacancy = Some(tells.then(Vacancy::default));
            made.decode_properties(reader, tells)?;
        }
        Ok(made)
    }

    /// Appends it.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        out.u8(self.table);
        out.zeroes(3);
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let events = self.vacancy.flatten();
        if version < Version::V14 {
            return out.u32(if version < Version::V13 { self.miss.config() } else { 0 });
        }
        let eviction = bit(self.eviction == Some(true), EVICTION);
        out.u32(eviction | bit(events.is_some(), VACANCY_EVENTS));
        if let Some(flags) = self.eviction_flags {
            out.u16(EVICTION_PROPERTY);
            out.u16(8);
            out.u32(flags);
        }
        if let Some(Vacancy { down, up }) = events {
            out.u16(VACANCY_PROPERTY);
            out.u16(8);
            out.bytes(&[down, up, 0, 0]);
        }
    }

    fn decode_properties(
        &mut self,
        mut properties: Reader<'_>,
        tells: bool,
    ) -> Result<(), ErrorCode> {
        while !properties.is_empty() {
            let (kind, mut value) = property(&mut properties)?;
            match kind {
                EVICTION_PROPERTY => {
                    let flags = value.u32().map_err(|_| ErrorCode::BpcBadLen)?;
                    // Open vSwitch has no eviction by lifetime or importance that could be chosen.
                    if flags & !7 != 0 {
                        return Err(ErrorCode::BpcBadValue);
                    }
                    self.eviction_flags = Some(flags);
                }
                VACANCY_PROPERTY => {
                    let bad = |_| ErrorCode::BpcBadLen;
                    let (down, up) = (value.u8().map_err(bad)?, value.u8().map_err(bad)?);
                    if down > 100 || up > 100 || down > up {
                        return Err(ErrorCode::BpcBadValue);
                    }
                    self.vacancy = Some(tells.then_some(Vacancy { down, up }));
                }
                _ => return Err(unknown_property(kind)),
            }
        }
        Ok(())
    }
}

/// There is less room in a table than a controller wanted to be told, or more again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum VacancyEvent {
    /// Less.
    Down = 3,
    /// More.
    Up = 4,
}

/// Reads that message, without the header.
///
/// # Errors
/// `OFPBPC_BAD_VALUE` of an event that there is not; those of [`TableDesc::decode_all`].
pub fn decode_status(body: &[u8]) -> Result<(VacancyEvent, TableDesc), ErrorCode> {
    let mut reader = Reader::new(body);
    let event = match reader.u8()? {
        3 => VacancyEvent::Down,
        4 => VacancyEvent::Up,
        _ => return Err(ErrorCode::BpcBadValue),
    };
    reader.skip(7)?;
    let desc = TableDesc::decode_all(reader.rest())?.into_iter().next();
    Ok((event, desc.ok_or(ErrorCode::BrcBadLen)?))
}

/// The whole message by which that is told; from OpenFlow 1.4.
#[must_use]
pub fn encode_status(event: VacancyEvent, desc: &TableDesc, version: Version) -> Vec<u8> {
    let mut message = Message::new(version, Kind::TableStatus, 0);
    let out = message.body();
    out.u8(event as u8);
    out.zeroes(7);
    desc.encode(out);
    message.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_version_has_its_own_settings() {
        let drops = TableMod::decode(Version::V11, &[0xff, 0, 0, 0, 0, 0, 0, 2]).unwrap();
        assert_eq!((drops.table, drops.miss, drops.eviction), (0xff, Miss::Drop, None));
        let evicts = [7, 0, 0, 0, 0, 0, 0, 4, 0, 2, 0, 8, 0, 0, 0, 2];
        let evicts = TableMod::decode(Version::V14, &evicts).unwrap();
        assert_eq!((evicts.eviction, evicts.eviction_flags), (Some(true), Some(2)));
        assert_eq!(evicts.vacancy, Some(None));
        let tells = [7, 0, 0, 0, 0, 0, 0, 8, 0, 3, 0, 8, 20, 80, 0, 0];
        let tells = TableMod::decode(Version::V15, &tells).unwrap();
        assert_eq!(tells.vacancy, Some(Some(Vacancy { down: 20, up: 80 })));
        for (version, change) in
            [(Version::V11, drops), (Version::V14, evicts), (Version::V15, tells)]
        {
            let mut bytes = Vec::new();
            change.encode(version, &mut bytes);
            assert_eq!(TableMod::decode(version, &bytes), Ok(change));
        }
        let unknown = TableMod::decode(Version::V13, &[0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(unknown, Err(ErrorCode::TmfcBadConfig));
    }

    #[test]
    fn what_is_told_of_a_table_has_its_settings() {
        let desc = TableDesc { table: 7, vacancy: Some((20, 80, 10)), ..TableDesc::default() };
        let message = encode_status(VacancyEvent::Down, &desc, Version::V14);
        assert_eq!((message[1], message[8], message.len()), (31, 3, 16 + 24));
        assert_eq!(message[16 + 2], 7);
        assert_eq!(decode_status(&message[8..]), Ok((VacancyEvent::Down, desc)));
        assert_eq!(decode_status(&message[8..16]), Err(ErrorCode::BrcBadLen));
        assert_eq!(decode_status(&[5; 8]), Err(ErrorCode::BpcBadValue));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(body in prop::collection::vec(any::<u8>(), 0..40), at in 0..6_usize) {
            let _ = TableMod::decode(Version::ALL[at], &body);
        }
    }
}
