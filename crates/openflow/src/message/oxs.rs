//! Statistics of flows as OpenFlow 1.5 has them: a list of those that are known (7.2.4.4).

use std::time::Duration;

use crate::error::ErrorCode;
use crate::wire::{Reader, Writer as _};

/// Their class.
const BASIC: u16 = 0x8002;
/// The class of extensions, whose length counts whose they are.
const EXPERIMENTER: u16 = 0xFFFF;

/// Their numbers.
const DURATION: u8 = 0;
const IDLE: u8 = 1;
const FLOWS: u8 = 3;
const PACKETS: u8 = 4;
const BYTES: u8 = 5;

/// Those that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Oxs {
    pub(super) duration: Option<Duration>,
    /// Seconds since the last packet.
    pub(super) idle: Option<u32>,
    pub(super) flows: Option<u32>,
    pub(super) packets: Option<u64>,
    pub(super) bytes: Option<u64>,
}

/// A duration as messages have it: seconds and nanoseconds.
pub(super) fn duration(reader: &mut Reader<'_>) -> Result<Duration, ErrorCode> {
    let (seconds, nanos) = (reader.u32()?, reader.u32()?);
    Ok(Duration::from_secs(seconds.into()).saturating_add(Duration::from_nanos(nanos.into())))
}

/// Writes a duration.
pub(super) fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    out.u32(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX));
    out.u32(duration.subsec_nanos());
}

impl Oxs {
    /// Reads them, with their header and the zeroes behind them.
    ///
    /// # Errors
    /// `OFPBMC_BAD_LEN`, `OFPBMC_BAD_FIELD`.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let bad_len = |_| ErrorCode::BmcBadLen;
        let mut header = *reader;
        header.skip(2).map_err(bad_len)?;
        let len = usize::from(header.u16().map_err(bad_len)?);
        let mut list = reader.sub(len.next_multiple_of(8)).map_err(bad_len)?;
        let mut list = list.sub(len).map_err(bad_len)?;
        list.skip(4).map_err(bad_len)?;
        let mut all = Self::default();
        while !list.is_empty() {
            all.entry(&mut list)?;
        }
        Ok(all)
    }

    fn entry(&mut self, list: &mut Reader<'_>) -> Result<(), ErrorCode> {
        let bad_len = |_| ErrorCode::BmcBadLen;
        let class = list.u16().map_err(bad_len)?;
        let (number, len) = (list.u8().map_err(bad_len)? >> 1, list.u8().map_err(bad_len)?);
        let mut value = list.sub(len.into()).map_err(bad_len)?;
        match (class, number, len) {
            (BASIC, DURATION, 8) => self.duration = Some(duration(&mut value)?),
            (BASIC, IDLE, 8) => self.idle = Some(value.u32()?),
            (BASIC, FLOWS, 4) => self.flows = Some(value.u32()?),
            (BASIC, PACKETS, 8) => self.packets = Some(value.u64()?),
            (BASIC, BYTES, 8) => self.bytes = Some(value.u64()?),
            (EXPERIMENTER, _, 4..) => {}
            _ => return Err(ErrorCode::BmcBadField),
        }
        Ok(())
    }

    /// Writes them.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.position();
        out.u32(0);
        let head = |out: &mut Vec<u8>, number: u8, len: u8| {
            out.u16(BASIC);
            out.u8(number << 1);
            out.u8(len);
        };
        if let Some(duration) = self.duration {
            head(out, DURATION, 8);
            put_duration(out, duration);
        }
        if let Some(idle) = self.idle {
            head(out, IDLE, 8);
            out.u32(idle);
            out.u32(0);
        }
        for (number, count) in [(PACKETS, self.packets), (BYTES, self.bytes)] {
            if let Some(count) = count {
                head(out, number, 8);
                out.u64(count);
            }
        }
        if let Some(flows) = self.flows {
            head(out, FLOWS, 4);
            out.u32(flows);
        }
        out.patch_length(start.saturating_add(2), start);
        out.pad8(start);
    }
}
