//! Actions in messages.
//!
//! - `ct`: tracking of connections, and translation of addresses
//! - `decode`: reading
//! - `encode`: writing
//! - `kinds`: which numbers stand for which actions, in which versions
//! - `learn`: flows that are learnt
//! - `verify`: which actions may be together

mod ct;
mod decode;
mod encode;
mod kinds;
mod learn;
mod verify;

use super::Action;
use crate::error::ErrorCode;
use crate::field::{Field, Subfield};
use crate::version::Version;
use crate::wire::Reader;

pub(crate) use decode::{property, unknown_property};
pub(crate) use encode::encode_metadata;
pub use encode::{Lengths, Style, encode};
pub(crate) use verify::{Place, list as verify};

/// How deep lists of actions may lie in each other.
const DEPTH: u8 = 32;

/// Actions of a list, and the metadata that OpenFlow 1.0 and Open vSwitch have written by an action.
pub(crate) type WithMetadata = (Vec<Action>, Option<(u64, u64)>);

/// Reads a list of actions up to its end.
///
/// # Errors
/// What Open vSwitch answers, too: `OFPBAC_BAD_TYPE`, `OFPBAC_BAD_LEN`, `OFPBAC_BAD_VENDOR`,
/// `OFPBAC_BAD_VENDOR_TYPE`, and what is wrong with each action.
pub fn decode(bytes: &[u8], version: Version) -> Result<Vec<Action>, ErrorCode> {
    let actions = decode_with_meter(bytes, version)?;
    if actions.iter().any(|action| matches!(action, Action::Meter(_))) {
        return Err(ErrorCode::BacBadType);
    }
    Ok(actions)
}

/// The same of a list that may send packets through a meter.
pub(crate) fn decode_with_meter(bytes: &[u8], version: Version) -> Result<Vec<Action>, ErrorCode> {
    let (actions, metadata) = decode_with_metadata(bytes, version)?;
    if metadata.is_some() {
        return Err(ErrorCode::BicUnsupInst);
    }
    check_learning(&actions)?;
    Ok(actions)
}

/// Checks what is learnt, in lists in lists, too, where nobody does it who knows the packets.
fn check_learning(actions: &[Action]) -> Result<(), ErrorCode> {
    actions.iter().try_for_each(|action| match action {
        Action::Learn(learn) => learn::check(learn),
        Action::Clone(actions) => check_learning(actions),
        _ => Ok(()),
    })
}

/// Reads a list of actions, all of which a flow may have.
pub(crate) fn decode_with_metadata(
    bytes: &[u8],
    version: Version,
) -> Result<WithMetadata, ErrorCode> {
    if !bytes.len().is_multiple_of(8) {
        return Err(ErrorCode::BrcBadLen);
    }
    let found = decode::list(Reader::new(bytes), version, DEPTH)?;
    verify::list(&found.0, Place::Apply)?;
    Ok(found)
}

/// Reads a list of actions for an action set.
pub(crate) fn decode_set(bytes: &[u8], version: Version) -> Result<Vec<Action>, ErrorCode> {
    let (actions, metadata) = decode::list(Reader::new(bytes), version, DEPTH)?;
    if metadata.is_some() || !actions.iter().all(verify::may_be_in_set) {
        return Err(ErrorCode::BacBadType);
    }
    verify::list(&actions, Place::Write)?;
    Ok(actions)
}

/// Whether these bits can be read.
pub(crate) fn check_source(part: Subfield) -> Result<(), ErrorCode> {
    let width = u32::from(part.field.bits());
    let end = u32::from(part.offset).saturating_add(part.bits.into());
    if part.bits == 0 || end > width { Err(ErrorCode::BacBadSetLen) } else { Ok(()) }
}

/// Whether these bits can be written.
pub(crate) fn check_target(part: Subfield) -> Result<(), ErrorCode> {
    check_source(part)?;
    if part.field.is_writable() { Ok(()) } else { Err(ErrorCode::BacBadSetArgument) }
}

/// Some bits of a field, of which the offset and one less than the number are in one value.
fn packed(field: Field, offset_and_bits: u16) -> Subfield {
    Subfield {
        field,
        offset: offset_and_bits >> 6,
        bits: (offset_and_bits & 0x3F).saturating_add(1),
    }
}

/// The way back.
fn pack(part: Subfield) -> u16 {
    part.offset << 6 | part.bits.saturating_sub(1) & 0x3F
}

/// Whether all bytes that are left are 0.
fn is_zero(reader: Reader<'_>) -> bool {
    reader.peek().iter().all(|byte| *byte == 0)
}
