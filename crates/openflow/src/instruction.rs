//! Instructions: what a flow does with a packet at its table.

use std::borrow::Cow;
use std::fmt;

use crate::action::wire::{self, Style};
use crate::action::{Action, Actions, check};
use crate::error::ErrorCode;
use crate::field::text::Hex;
use crate::matching::Match;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// The instructions of a flow, in the order in which they are done. In OpenFlow 1.0 there is only
/// `apply`.
///
/// A meter is an [`Action::Meter`] at the head of `apply`, as OpenFlow 1.5 has it; earlier versions,
/// where it is an instruction, have no other place for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instructions {
    /// Actions that are done at once.
    pub apply: Vec<Action>,
    /// Whether the action set is emptied.
    pub clear: bool,
    /// Actions that are put into the action set.
    pub write: Option<Vec<Action>>,
    /// Bits of the metadata that are written, and which: value, mask.
    pub metadata: Option<(u64, u64)>,
    /// The table that comes next.
    pub goto_table: Option<u8>,
}

impl Instructions {
    /// To do these at once, and nothing else.
    #[must_use]
    pub fn apply(actions: Vec<Action>) -> Self {
        Self { apply: actions, ..Self::default() }
    }

    /// Whether packets are dropped: nothing is done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// As ovs-ofctl shows them: actions, then `clear_actions`, `write_actions(...)` and the like; `drop` if
/// there is nothing.
impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("drop");
        }
        let mut parts = Vec::new();
        if !self.apply.is_empty() {
            parts.push(Actions(&self.apply).to_string());
        }
        if self.clear {
            parts.push("clear_actions".to_owned());
        }
        if let Some(actions) = &self.write {
            parts.push(format!("write_actions({})", Actions(actions)));
        }
        if let Some((value, mask)) = self.metadata {
            let part = format!("write_metadata:{}", Hex(value.into()));
            let is_whole = mask == u64::MAX;
            parts.push(if is_whole { part } else { format!("{part}/{}", Hex(mask.into())) });
        }
        if let Some(table) = self.goto_table {
            parts.push(format!("goto_table:{table}"));
        }
        f.write_str(&parts.join(","))
    }
}

/// Instructions' numbers (OpenFlow 1.3, A.2.4).
const GOTO_TABLE: u16 = 1;
const WRITE_METADATA: u16 = 2;
const WRITE_ACTIONS: u16 = 3;
const APPLY_ACTIONS: u16 = 4;
const CLEAR_ACTIONS: u16 = 5;
const METER: u16 = 6;
const EXPERIMENTER: u16 = 0xFFFF;

impl Instructions {
    /// Reads what a flow does, up to the end: actions in OpenFlow 1.0, instructions after that.
    ///
    /// # Errors
    /// `OFPBIC_UNKNOWN_INST`, `OFPBIC_BAD_LEN`, `OFPBIC_DUP_INST`, `OFPBIC_BAD_EXPERIMENTER`, and those
    /// of [actions](wire::decode).
    pub fn decode(bytes: &[u8], version: Version) -> Result<Self, ErrorCode> {
        if version == Version::V10 {
            let (apply, metadata) = wire::decode_with_metadata(bytes, version)?;
            return Ok(Self { apply, metadata, ..Self::default() });
        }
        let list = list(bytes, version)?;
        let get = |number: u16| list.iter().find(|(found, _)| *found == number);
        let mut all = Self::default();
        if let Some((_, body)) = get(APPLY_ACTIONS) {
            let mut body = *body;
            (all.apply, all.metadata) = wire::decode_with_metadata(body.rest(), version)?;
        }
        if let Some((_, body)) = get(METER) {
            let mut body = *body;
            all.apply.insert(0, Action::Meter(body.u32()?));
        }
        all.clear = get(CLEAR_ACTIONS).is_some();
        if let Some((_, body)) = get(WRITE_ACTIONS) {
            let mut body = *body;
            all.write = Some(wire::decode_set(body.rest(), version)?);
        }
        if let Some((_, body)) = get(WRITE_METADATA) {
            let mut body = *body;
            if all.metadata.replace((body.u64()?, body.u64()?)).is_some() {
                return Err(ErrorCode::BacUnsupportedOrder);
            }
        }
        if let Some((_, body)) = get(GOTO_TABLE) {
            let mut body = *body;
            all.goto_table = Some(body.u8()?);
        }
        Ok(all)
    }

    /// Writes what a flow does to the packets that it is for; see [`encode`](Self::encode).
    pub(crate) fn encode_for<'a>(
        &self,
        matching: &Match,
        version: impl Into<Style<'a>>,
        out: &mut Vec<u8>,
    ) {
        let version = version.into();
        if version < Version::V12 {
            return self.encode(version, out);
        }
        match check::fitted(&self.apply, matching) {
            Cow::Borrowed(_) => self.encode(version, out),
            Cow::Owned(apply) => Self { apply, ..self.clone() }.encode(version, out),
        }
    }

    /// Writes what a flow does, as [`decode`](Self::decode) reads it. What OpenFlow 1.0 does not have is
    /// left out, but for a next table, to which packets are submitted again.
    pub fn encode<'a>(&self, version: impl Into<Style<'a>>, out: &mut Vec<u8>) {
        let version = version.into();
        if version == Version::V10 {
            wire::encode(&self.apply, version, out);
            if let Some((value, mask)) = self.metadata {
                wire::encode_metadata(value, mask, version, out);
            }
            if let Some(table) = self.goto_table {
                wire::encode(&[Action::resubmit_table(table)], version, out);
            }
            return;
        }
        let (meter, apply) = match self.apply.split_first() {
            Some((Action::Meter(meter), rest)) if version < Version::V15 => (Some(*meter), rest),
            _ => (None, self.apply.as_slice()),
        };
        if let Some(meter) = meter {
            put(out, METER, |out| out.u32(meter));
        }
        if !apply.is_empty() {
            put(out, APPLY_ACTIONS, |out| {
                out.zeroes(4);
                wire::encode(apply, version, out);
            });
        }
        if self.clear {
            put(out, CLEAR_ACTIONS, |out| out.zeroes(4));
        }
        if let Some(actions) = &self.write {
            put(out, WRITE_ACTIONS, |out| {
                out.zeroes(4);
                wire::encode(actions, version, out);
            });
        }
        if let Some((value, mask)) = self.metadata {
            put(out, WRITE_METADATA, |out| {
                out.zeroes(4);
                out.u64(value);
                out.u64(mask);
            });
        }
        if let Some(table) = self.goto_table {
            put(out, GOTO_TABLE, |out| {
                out.u8(table);
                out.zeroes(3);
            });
        }
    }
}

/// Writes an instruction.
fn put(out: &mut Vec<u8>, number: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.position();
    out.u16(number);
    out.u16(0);
    write(out);
    out.patch_length(start.saturating_add(2), start);
}

/// The instructions of a list, each at most once, by number; what follows the number.
fn list(bytes: &[u8], version: Version) -> Result<Vec<(u16, Reader<'_>)>, ErrorCode> {
    let bad_len = |_| ErrorCode::BicBadLen;
    let mut reader = Reader::new(bytes);
    let mut list: Vec<(u16, Reader<'_>)> = Vec::new();
    if !bytes.len().is_multiple_of(8) {
        return Err(ErrorCode::BicBadLen);
    }
    while !reader.is_empty() {
        let mut header = reader;
        let (number, len) = (header.u16().map_err(bad_len)?, header.u16().map_err(bad_len)?);
        if len < 8 || !len.is_multiple_of(8) {
            return Err(ErrorCode::BicBadLen);
        }
        let mut body = reader.sub(len.into()).map_err(bad_len)?;
        let is_right = match number {
            GOTO_TABLE | CLEAR_ACTIONS => len == 8,
            WRITE_METADATA => len == 24,
            WRITE_ACTIONS | APPLY_ACTIONS => true,
            METER if version < Version::V15 || len != 8 => len == 8,
            EXPERIMENTER => return Err(ErrorCode::BicBadExperimenter),
            _ => return Err(ErrorCode::BicUnknownInst),
        };
        if !is_right {
            return Err(ErrorCode::BicBadLen);
        }
        // What follows the number of most are zeroes first.
        let head = if [GOTO_TABLE, METER].contains(&number) { 4 } else { 8 };
        body.skip(head).map_err(bad_len)?;
        if list.iter().any(|(found, _)| *found == number) {
            return Err(ErrorCode::BicDupInst);
        }
        list.push((number, body));
    }
    Ok(list)
}
