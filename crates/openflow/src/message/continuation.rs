//! What a controller gives back unread, so that a packet goes on where it was stopped (nicira-ext.h,
//! NXT_RESUME).
//!
//! It is a matter between a switch and itself, in properties as Open vSwitch has them, so that its
//! programs show them. Actions that the version of a message cannot say exactly, and instructions, are
//! in properties of our own, as OpenFlow 1.5 writes them.

use crate::action::Action;
use crate::action::wire::{self, property, unknown_property};
use crate::error::ErrorCode;
use crate::instruction::Instructions;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

const BRIDGE: u16 = 0x8000;
const STACK: u16 = 0x8001;
const MIRRORS: u16 = 0x8002;
const CONNTRACKED: u16 = 0x8003;
const TABLE_ID: u16 = 0x8004;
const COOKIE: u16 = 0x8005;
const ACTIONS: u16 = 0x8006;
const ACTION_SET: u16 = 0x8007;
const ODP_PORT: u16 = 0x8008;
/// Our own: all that is left of a rule, and an action set.
const INSTRUCTIONS: u16 = 0x8100;
const WRITTEN: u16 = 0x8101;

/// The version in which all that there is can be said.
const EXACT: Version = Version::V15;

/// The most lists of what is left that are read.
const MAX_REST: usize = 4_096;

/// What it takes to go on with a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continuation {
    /// Which bridge has stopped it.
    pub bridge: u128,
    /// The stack, its top last.
    pub stack: Vec<u128>,
    /// Mirrors that have a copy of it already, a bit for each.
    pub mirrors: u32,
    /// Whether its connection was tracked.
    pub is_tracked: bool,
    /// What is left of rules, the innermost first.
    pub rest: Vec<Rest>,
    /// The action set.
    pub set: Vec<Action>,
}

/// What is left of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rest {
    /// The rule's table.
    pub table: u8,
    /// Its cookie.
    pub cookie: u64,
    /// What is not done yet.
    pub instructions: Instructions,
}

impl Continuation {
    /// Writes it for a controller that speaks `version`.
    #[must_use]
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, BRIDGE, |out| out.u128(self.bridge));
        for value in self.stack.iter().rev() {
            put(&mut out, STACK, |out| out.u128(*value));
        }
        if self.mirrors != 0 {
            put(&mut out, MIRRORS, |out| out.u32(self.mirrors));
        }
        if self.is_tracked {
            put(&mut out, CONNTRACKED, |_| {});
        }
        let (mut table, mut cookie) = (0, 0);
        for rest in &self.rest {
            if std::mem::replace(&mut table, rest.table) != table {
                put(&mut out, TABLE_ID, |out| out.u8(table));
            }
            if std::mem::replace(&mut cookie, rest.cookie) != cookie {
                put_nested(&mut out, COOKIE, |out| out.u64(cookie));
            }
            rest.encode(version, &mut out);
        }
        let written = exact(&self.set, version, wire::decode_set);
        match written {
            _ if self.set.is_empty() => {}
            Some(bytes) => put_nested(&mut out, ACTION_SET, |out| out.bytes(&bytes)),
            None => put_nested(&mut out, WRITTEN, |out| wire::encode(&self.set, EXACT, out)),
        }
        out
    }

    /// Reads what a controller that speaks `version` gives back. Actions are right by themselves;
    /// whether there are the groups and meters that they name is not known here.
    ///
    /// # Errors
    /// `OFPBPC_BAD_LEN`, `OFPBPC_BAD_TYPE`, and those of actions and instructions.
    pub fn decode(bytes: &[u8], version: Version) -> Result<Self, ErrorCode> {
        let bad_len = |_| ErrorCode::BpcBadLen;
        let mut all = Self::default();
        let (mut table, mut cookie) = (0, 0);
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let (kind, mut value) = property(&mut reader)?;
            match kind {
                BRIDGE => all.bridge = whole(&mut value, Reader::u128)?,
                STACK => all.stack.push(stacked(value.rest())?),
                MIRRORS => all.mirrors = whole(&mut value, Reader::u32)?,
                CONNTRACKED => all.is_tracked = true,
                TABLE_ID => table = whole(&mut value, Reader::u8)?,
                COOKIE => {
                    value.skip(4).map_err(bad_len)?;
                    cookie = whole(&mut value, Reader::u64)?;
                }
                ACTIONS | INSTRUCTIONS => {
                    value.skip(4).map_err(bad_len)?;
                    let instructions = match kind {
                        ACTIONS => Instructions::apply(wire::decode(value.rest(), version)?),
                        _ => Instructions::decode(value.rest(), EXACT)?,
                    };
                    if all.rest.len() >= MAX_REST {
                        return Err(ErrorCode::BpcTooMany);
                    }
                    all.rest.push(Rest { table, cookie, instructions });
                }
                ACTION_SET | WRITTEN => {
                    value.skip(4).map_err(bad_len)?;
                    let version = if kind == WRITTEN { EXACT } else { version };
                    all.set = wire::decode_set(value.rest(), version)?;
                }
                // Where it came in on a datapath of Open vSwitch: of no meaning here.
                ODP_PORT => {}
                _ => return Err(unknown_property(kind)),
            }
        }
        all.stack.reverse();
        Ok(all)
    }
}

impl Rest {
    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let Instructions { apply, .. } = &self.instructions;
        let is_plain = self.instructions == Instructions::apply(apply.clone());
        match exact(apply, version, wire::decode).filter(|_| is_plain) {
            Some(bytes) => put_nested(out, ACTIONS, |out| out.bytes(&bytes)),
            None => put_nested(out, INSTRUCTIONS, |out| self.instructions.encode(EXACT, out)),
        }
    }
}

/// Actions as a version has them, if they are read as the same.
fn exact(
    actions: &[Action],
    version: Version,
    decode: impl FnOnce(&[u8], Version) -> Result<Vec<Action>, ErrorCode>,
) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    wire::encode(actions, version, &mut bytes);
    let read = decode(&bytes, version);
    (read.as_deref() == Ok(actions)).then_some(bytes)
}

/// The one value that a property has.
fn whole<'r, T, E>(
    value: &mut Reader<'r>,
    read: impl FnOnce(&mut Reader<'r>) -> Result<T, E>,
) -> Result<T, ErrorCode> {
    let read = read(value).map_err(|_| ErrorCode::BpcBadLen)?;
    if value.is_empty() { Ok(read) } else { Err(ErrorCode::BpcBadLen) }
}

/// A value of the stack: as many bytes as its field has.
fn stacked(bytes: &[u8]) -> Result<u128, ErrorCode> {
    if bytes.len() > size_of::<u128>() {
        return Err(ErrorCode::BpcBadLen);
    }
    Ok(bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
}

/// Writes a property and the zeroes behind it.
fn put(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.position();
    out.u16(kind);
    out.u16(0);
    write(out);
    out.patch_length(start.saturating_add(2), start);
    out.pad8(start);
}

/// The same, with zeroes before what it has, so that that begins at a multiple of 8.
fn put_nested(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    put(out, kind, |out| {
        out.zeroes(4);
        write(out);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Field;
    use crate::port_no::PortNo;

    fn continuation() -> Continuation {
        let output = || vec![Action::output(PortNo(2))];
        let rest = |table, cookie, instructions| Rest { table, cookie, instructions };
        let whole = Instructions {
            apply: output(),
            clear: true,
            write: Some(output()),
            metadata: Some((1, 3)),
            goto_table: Some(9),
        };
        let set = Action::SetField { field: Field::Reg0, value: 5, mask: u32::MAX.into() };
        Continuation {
            bridge: 7 << 100 | 3,
            stack: vec![1, u128::MAX],
            mirrors: 5,
            is_tracked: true,
            rest: vec![
                rest(3, 0, Instructions::apply(output())),
                rest(3, 7, whole),
                rest(0, 7, Instructions::apply(vec![set])),
            ],
            set: output(),
        }
    }

    #[test]
    fn what_a_packet_goes_on_with_is_read_as_written_in_all_versions() {
        for version in Version::ALL {
            let bytes = continuation().encode(version);
            assert_eq!(bytes.len() % 8, 0);
            assert_eq!(Continuation::decode(&bytes, version), Ok(continuation()), "{version}");
            assert_eq!(Continuation::decode(&[], version), Ok(Continuation::default()));
        }
    }

    #[test]
    fn what_was_damaged_on_the_way_is_refused_or_something_else() {
        for version in Version::ALL {
            let bytes = continuation().encode(version);
            for at in 0..bytes.len() {
                let _ = Continuation::decode(&bytes[..at], version);
                for bit in 0..8 {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= 1 << bit;
                    let _ = Continuation::decode(&damaged, version);
                }
            }
        }
        let long = [0x80, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Continuation::decode(&long, Version::V10), Err(ErrorCode::BpcBadLen));
        let unknown = [0x80, 0x50, 0, 4, 0, 0, 0, 0];
        assert_eq!(Continuation::decode(&unknown, Version::V10), Err(ErrorCode::BpcBadType));
    }
}
