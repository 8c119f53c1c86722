//! What monitors of flows tell, as whoever has asked for it reads it.

use super::Raw;
use super::flow_mod::nx_match;
use super::flow_monitor::{FlowEvent, FlowUpdate, encode_abbreviated, encode_plain};
use super::flow_removed::RemovedReason;
use crate::action::wire;
use crate::error::ErrorCode;
use crate::instruction::Instructions;
use crate::matching::oxm::Strictness;
use crate::matching::{Match, v11};
use crate::version::Version;
use crate::wire::Reader;

/// An entry of what a monitor tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToldByMonitor {
    /// Of a flow.
    Flow(Box<ToldFlow>),
    /// That the own message of this number has changed flows.
    Own(u32),
    /// That nothing is told for a while.
    Paused,
    /// That everything is told again.
    Resumed,
}

/// A flow that is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldFlow {
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
    pub matching: Match,
    /// What it does, if that is told.
    pub instructions: Option<Instructions>,
}

impl ToldByMonitor {
    /// Reads all that a message tells.
    ///
    /// # Errors
    /// `NXBRC_FM_BAD_EVENT`, `OFPBRC_BAD_LEN`, and those of matches and instructions.
    pub fn decode_all(raw: &Raw<'_>) -> Result<Vec<Self>, ErrorCode> {
        let mut reader = Reader::new(raw.body);
        let mut all = Vec::new();
        while !reader.is_empty() {
            let mut entry = reader.entry(0)?;
            entry.skip(2)?;
            all.push(Self::decode(&mut entry, raw.version)?);
        }
        Ok(all)
    }

    /// Reads what is behind the length.
    fn decode(entry: &mut Reader<'_>, version: Version) -> Result<Self, ErrorCode> {
        let is_nx = version < Version::V14;
        let told = match (entry.u16()?, is_nx) {
            (3, true) | (4, false) => Self::Own(entry.u32()?),
            (5, false) => Self::Paused,
            (6, false) => Self::Resumed,
            (number, is_nx) => {
                let event = match (number, is_nx) {
                    (0, false) => FlowEvent::Initial,
                    (0, true) | (1, false) => FlowEvent::Added,
                    (1, true) | (2, false) => FlowEvent::Removed(RemovedReason(0)),
                    (2, true) | (3, false) => FlowEvent::Modified,
                    _ => return Err(ErrorCode::NxbrcFmBadEvent),
                };
                let flow = if is_nx { ToldFlow::decode_nx } else { ToldFlow::decode_v14 };
                return Ok(Self::Flow(Box::new(flow(entry, event, version)?)));
            }
        };
        // The others are of 8 bytes.
        if matches!(told, Self::Paused | Self::Resumed) {
            entry.skip(4)?;
        }
        if entry.is_empty() { Ok(told) } else { Err(ErrorCode::BrcBadLen) }
    }

    /// Writes it as an entry of an answer.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        match self {
            Self::Flow(flow) => flow.update().encode(version, out),
            Self::Own(xid) => encode_abbreviated(*xid, version, out),
            Self::Paused => encode_plain(true, out),
            Self::Resumed => encode_plain(false, out),
        }
    }
}

impl ToldFlow {
    /// As it is told.
    #[must_use]
    pub const fn update(&self) -> FlowUpdate<'_> {
        let Self { event, table, priority, cookie, idle_timeout, hard_timeout, .. } = *self;
        let (matching, instructions) = (&self.matching, self.instructions.as_ref());
        FlowUpdate {
            event,
            table,
            priority,
            cookie,
            idle_timeout,
            hard_timeout,
            matching,
            instructions,
        }
    }

    /// Reads what is behind the event, as OpenFlow 1.4 and later have it.
    fn decode_v14(
        entry: &mut Reader<'_>,
        event: FlowEvent,
        version: Version,
    ) -> Result<Self, ErrorCode> {
        let (table, reason) = (entry.u8()?, entry.u8()?);
        let (idle_timeout, hard_timeout) = (entry.u16()?, entry.u16()?);
        let priority = entry.u16()?;
        entry.skip(4)?;
        let cookie = entry.u64()?;
        let matching = v11::decode(entry, Strictness::Strict)?;
        let instructions = instructions(entry, version)?;
        let event = because(event, reason.into());
        Ok(Self {
            event,
            table,
            priority,
            cookie,
            idle_timeout,
            hard_timeout,
            matching,
            instructions,
        })
    }

    /// The same for those before.
    fn decode_nx(
        entry: &mut Reader<'_>,
        event: FlowEvent,
        version: Version,
    ) -> Result<Self, ErrorCode> {
        let (reason, priority) = (entry.u16()?, entry.u16()?);
        let (idle_timeout, hard_timeout) = (entry.u16()?, entry.u16()?);
        let (len, table) = (entry.u16()?, entry.u8()?);
        entry.skip(1)?;
        let cookie = entry.u64()?;
        let matching = match version {
            Version::V13 => v11::decode(entry, Strictness::Strict)?,
            _ => match nx_match(entry, len, Strictness::Strict)? {
                (matching, None) => matching,
                (_, Some(_)) => return Err(ErrorCode::BmcBadField),
            },
        };
        let instructions = instructions(entry, version)?;
        let event = because(event, reason);
        Ok(Self {
            event,
            table,
            priority,
            cookie,
            idle_timeout,
            hard_timeout,
            matching,
            instructions,
        })
    }
}

/// Why a flow has gone, if it has.
fn because(event: FlowEvent, reason: u16) -> FlowEvent {
    match event {
        FlowEvent::Removed(_) => {
            FlowEvent::Removed(RemovedReason(u8::try_from(reason).unwrap_or(u8::MAX)))
        }
        event => event,
    }
}

/// Nicira's messages have actions in all versions.
fn instructions(
    entry: &mut Reader<'_>,
    version: Version,
) -> Result<Option<Instructions>, ErrorCode> {
    if entry.is_empty() {
        return Ok(None);
    }
    Ok(Some(match version {
        Version::V11 | Version::V12 => Instructions::apply(wire::decode(entry.rest(), version)?),
        _ => Instructions::decode(entry.rest(), version)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Action;
    use crate::field::Field;
    use crate::message::flow_monitor::{answers, updates};
    use crate::port_no::PortNo;

    fn all(version: Version) -> Vec<ToldByMonitor> {
        let matching = Match::new().with(Field::InPort, 1).with(Field::EthType, 0x806);
        let gone = ToldFlow {
            event: FlowEvent::Removed(RemovedReason::DELETE),
            table: 3,
            priority: 5,
            cookie: 6,
            idle_timeout: 7,
            hard_timeout: 8,
            matching,
            instructions: Some(Instructions::apply(vec![Action::output(PortNo(2))])),
        };
        let silent = ToldFlow { event: FlowEvent::Modified, instructions: None, ..gone.clone() };
        let flow = |flow| ToldByMonitor::Flow(Box::new(flow));
        let own = ToldByMonitor::Own(0x1234);
        let mut all = vec![flow(gone), flow(silent.clone()), own];
        if version >= Version::V14 {
            let first = ToldFlow { event: FlowEvent::Initial, ..silent };
            all.extend([flow(first), ToldByMonitor::Paused, ToldByMonitor::Resumed]);
        }
        all
    }

    #[test]
    fn what_is_told_is_read_again() {
        for version in Version::ALL {
            let all = all(version);
            let mut replies = updates(version);
            assert!(all.iter().all(|told| replies.entry(|out| told.encode(version, out))));
            let message = replies.finish().swap_remove(0);
            let raw = Raw::read(&message).unwrap();
            assert_eq!(ToldByMonitor::decode_all(&raw).as_ref(), Ok(&all), "{version}");
            for cut in 0..raw.body.len() {
                let _ = ToldByMonitor::decode_all(&Raw { body: &raw.body[..cut], ..raw });
            }
        }
    }

    #[test]
    fn events_that_there_are_not_are_refused() {
        for (version, number) in [(Version::V10, 5), (Version::V15, 7)] {
            let mut replies = answers(version, 1);
            replies.entry(|out| out.extend([0, 8, 0, number, 0, 0, 0, 0]));
            let message = replies.finish().swap_remove(0);
            let told = ToldByMonitor::decode_all(&Raw::read(&message).unwrap());
            assert_eq!(told, Err(ErrorCode::NxbrcFmBadEvent));
        }
    }
}
