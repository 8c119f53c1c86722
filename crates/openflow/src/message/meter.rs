//! Meters: changes of them, what they are, and what they have done (OpenFlow 1.3, A.3.4.4).

use std::time::Duration;

use super::oxs::{duration, put_duration};
use super::{Kind, Message, Raw};
use crate::error::ErrorCode;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// The number that stands for all meters.
pub const ALL_METERS: u32 = 0xFFFF_FFFF;

/// Units of rates; both at once cannot be.
const KBPS: u16 = 1;
const PACKETS: u16 = 2;

/// How long a band is.
const BAND: u16 = 16;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum MeterCommand {
    /// Add a meter.
    Add = 0,
    /// Change a meter.
    Modify = 1,
    /// Delete a meter, or all.
    Delete = 2,
}

/// What becomes of packets beyond a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// By how much the drop precedence of packets goes up; `None`: they are dropped.
    pub remark: Option<u8>,
    /// The rate, in the meter's unit.
    pub rate: u32,
    /// How much may come at once, in the meter's unit.
    pub burst: u32,
}

/// A meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Its number.
    pub id: u32,
    /// In which unit its rates are, 1: kbit/s, 2: packets/s; 4: bursts count; 8: it has statistics.
    pub flags: u16,
    /// Its bands.
    pub bands: Vec<Band>,
}

/// A change of meters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterMod {
    /// What is done.
    pub command: MeterCommand,
    /// The meter; to delete, its number only, or [`ALL_METERS`].
    pub meter: Meter,
}

impl MeterMod {
    /// Reads one.
    ///
    /// # Errors
    /// `OFPMMFC_BAD_COMMAND`, `_BAD_FLAGS`, `_BAD_BAND`; `OFPBRC_BAD_LEN`.
    pub fn decode(raw: &Raw<'_>) -> Result<Self, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let command = match reader.u16()? {
            0 => MeterCommand::Add,
            1 => MeterCommand::Modify,
            2 => MeterCommand::Delete,
            _ => return Err(ErrorCode::MmfcBadCommand),
        };
        let (flags, id) = (reader.u16()?, reader.u32()?);
        if command == MeterCommand::Delete {
            return Ok(Self { command, meter: Meter { id, flags: 0, bands: Vec::new() } });
        }
        if flags & KBPS != 0 && flags & PACKETS != 0 {
            return Err(ErrorCode::MmfcBadFlags);
        }
        Ok(Self { command, meter: Meter { id, flags, bands: bands(reader)? } })
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self, version: Version, xid: u32) -> Vec<u8> {
        let mut message = Message::new(version, Kind::MeterMod, xid);
        let out = message.body();
        out.u16(self.command as u16);
        out.u16(self.meter.flags);
        out.u32(self.meter.id);
        put_bands(&self.meter.bands, out);
        message.finish()
    }
}

fn bands(mut reader: Reader<'_>) -> Result<Vec<Band>, ErrorCode> {
    let mut all = Vec::new();
    while !reader.is_empty() {
        let mut band = reader.sub(BAND.into())?;
        let (kind, len) = (band.u16()?, band.u16()?);
        if len != BAND {
            return Err(ErrorCode::BrcBadLen);
        }
        let (rate, burst, level) = (band.u32()?, band.u32()?, band.u8()?);
        let remark = match kind {
            1 => None,
            2 => Some(level),
            _ => return Err(ErrorCode::MmfcBadBand),
        };
        all.push(Band { remark, rate, burst });
    }
    Ok(all)
}

fn put_bands(bands: &[Band], out: &mut Vec<u8>) {
    for band in bands {
        out.u16(if band.remark.is_some() { 2 } else { 1 });
        out.u16(BAND);
        out.u32(band.rate);
        out.u32(band.burst);
        out.u8(band.remark.unwrap_or(0));
        out.zeroes(3);
    }
}

impl Meter {
    /// Reads all of an answer.
    ///
    /// # Errors
    /// Those of [`MeterMod::decode`].
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut all = Vec::new();
        while !reader.is_empty() {
            let mut entry = reader.entry(0)?;
            entry.skip(2)?;
            let (flags, id) = (entry.u16()?, entry.u32()?);
            all.push(Self { id, flags, bands: bands(entry)? });
        }
        Ok(all)
    }

    /// Writes it as an entry of an answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.position();
        out.u16(0);
        out.u16(self.flags);
        out.u32(self.id);
        put_bands(&self.bands, out);
        out.patch_length(start, start);
    }
}

/// What a meter has done, as an entry of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeterStats {
    /// Its number.
    pub id: u32,
    /// How many flows use it.
    pub flows: u32,
    /// Packets that it has seen and their bytes.
    pub counts: (u64, u64),
    /// How long it has been there.
    pub duration: Duration,
    /// Packets of each band and their bytes.
    pub bands: Vec<(u64, u64)>,
}

impl MeterStats {
    /// Reads all of an answer.
    ///
    /// # Errors
    /// `OFPBRC_BAD_LEN`.
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut all = Vec::new();
        while !reader.is_empty() {
            let mut entry = reader.entry(4)?;
            let mut stats = Self { id: entry.u32()?, ..Self::default() };
            entry.skip(8)?;
            stats.flows = entry.u32()?;
            stats.counts = (entry.u64()?, entry.u64()?);
            stats.duration = duration(&mut entry)?;
            while !entry.is_empty() {
                stats.bands.push((entry.u64()?, entry.u64()?));
            }
            all.push(stats);
        }
        Ok(all)
    }

    /// Writes it as an entry of an answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.position();
        out.u32(self.id);
        out.zeroes(8);
        out.u32(self.flows);
        out.u64(self.counts.0);
        out.u64(self.counts.1);
        put_duration(out, self.duration);
        for (packets, bytes) in &self.bands {
            out.u64(*packets);
            out.u64(*bytes);
        }
        out.patch_length(start.saturating_add(4), start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Form, Replies};

    #[test]
    fn all_versions_are_read_as_written() {
        let bands = vec![
            Band { remark: None, rate: 1_000, burst: 10 },
            Band { remark: Some(2), rate: 500, burst: 0 },
        ];
        let meter = Meter { id: 3, flags: 5, bands };
        let stats = MeterStats {
            id: 3,
            flows: 4,
            counts: (5, 6),
            duration: Duration::new(7, 8),
            bands: vec![(9, 10), (11, 12)],
        };
        for version in [Version::V13, Version::V14, Version::V15] {
            let change = MeterMod { command: MeterCommand::Modify, meter: meter.clone() };
            let message = change.encode(version, 1);
            let raw = Raw::read(&message).unwrap();
            assert_eq!(MeterMod::decode(&raw), Ok(change), "{version}");
            for cut in 0..raw.body.len() {
                let _ = MeterMod::decode(&Raw { body: &raw.body[..cut], ..raw });
            }
            let answer = |kind, write: &dyn Fn(&mut Vec<u8>)| {
                let mut replies = Replies::new(version, kind, Form::Reply, 1);
                replies.entry(write);
                replies.entry(write);
                replies.finish().swap_remove(0)
            };
            let message = answer(Kind::MeterConfigReply, &|out| meter.encode(out));
            let read = Meter::decode_all(&Raw::read(&message).unwrap());
            assert_eq!(read, Ok(vec![meter.clone(), meter.clone()]));
            let message = answer(Kind::MeterStatsReply, &|out| stats.encode(out));
            let read = MeterStats::decode_all(&Raw::read(&message).unwrap());
            assert_eq!(read, Ok(vec![stats.clone(), stats.clone()]));
        }
    }

    #[test]
    fn what_a_meter_cannot_be_is_refused() {
        let both = Meter { id: 1, flags: 3, bands: Vec::new() };
        let message = MeterMod { command: MeterCommand::Add, meter: both }.encode(Version::V13, 1);
        let read = MeterMod::decode(&Raw::read(&message).unwrap());
        assert_eq!(read, Err(ErrorCode::MmfcBadFlags));
    }

    #[test]
    fn a_recorded_meter_is_read_and_written() {
        // As ovn-controller sets one: 100 Mbit/s with a burst of 10 Mbit.
        let bytes = [
            0x06, 0x1D, 0x00, 0x20, 0x00, 0x00, 0x05, 0x1B, 0x00, 0x00, 0x00, 0x0D, 0x00, 0x00,
            0x00, 0x01, 0x00, 0x01, 0x00, 0x10, 0x00, 0x01, 0x86, 0xA0, 0x00, 0x00, 0x27, 0x10,
            0x00, 0x00, 0x00, 0x00,
        ];
        let raw = Raw::read(&bytes).unwrap();
        let change = MeterMod::decode(&raw).unwrap();
        let bands = vec![Band { remark: None, rate: 100_000, burst: 10_000 }];
        let meter = Meter { id: 1, flags: 13, bands };
        assert_eq!(change, MeterMod { command: MeterCommand::Add, meter });
        assert_eq!(change.encode(raw.version, raw.xid), bytes);
    }
}
