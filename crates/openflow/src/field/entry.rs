//! Fields in messages: a header with the field's number and the size of what follows, its value, and
//! perhaps a mask (OpenFlow 1.2, A.2.3.2).

use super::{Class, Field};
use crate::error::ErrorCode;
use crate::version::Version;
use crate::wire::{Reader, Writer as _};

/// The largest value that a header can name without one more bit, in bytes.
const LARGEST: usize = 127;

/// A field with a value and, where it has one, a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) field: Field,
    pub(crate) value: u128,
    pub(crate) mask: Option<u128>,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawHeader {
    pub(crate) class: Class,
    pub(crate) number: u8,
    pub(crate) has_mask: bool,
    /// The size of what follows.
    pub(crate) len: usize,
}

impl RawHeader {
    /// Reads one.
    ///
    /// # Errors
    /// There are too few bytes, or it says so.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let class = reader.u16().map_err(|_| ErrorCode::BmcBadLen)?;
        let number = reader.u8().map_err(|_| ErrorCode::BmcBadLen)?;
        let mut len = usize::from(reader.u8().map_err(|_| ErrorCode::BmcBadLen)?);
        let mut experimenter = 0;
        if class == Class::EXPERIMENTER {
            experimenter = reader.u32().map_err(|_| ErrorCode::BmcBadLen)?;
            len = len.checked_sub(4).ok_or(ErrorCode::BmcBadLen)?;
        }
        let class = Class { class, experimenter };
        Ok(Self { class, number: number >> 1, has_mask: number & 1 != 0, len })
    }

    /// The size of a value.
    pub(crate) const fn width(self) -> usize {
        if self.has_mask { self.len / 2 } else { self.len }
    }

    /// Passes over what follows, where the field is not known.
    ///
    /// # Errors
    /// There are too few bytes, or a value has bits that its mask has not.
    pub(crate) fn skip(self, reader: &mut Reader<'_>) -> Result<(), ErrorCode> {
        let payload = reader.take(self.len).map_err(|_| ErrorCode::BmcBadLen)?;
        let (value, mask) = payload.split_at(self.width().min(payload.len()));
        let is_beyond = value.iter().zip(mask).any(|(value, mask)| value & !mask != 0);
        if self.has_mask && is_beyond { Err(ErrorCode::BmcBadWildcards) } else { Ok(()) }
    }

    /// The field, if it is known and of this size. Where there is a mask, a byte may be behind it that
    /// does not matter, as to Open vSwitch.
    pub(crate) fn field(self) -> Option<Field> {
        let field = self.known()?;
        (self.width() == field.bytes() || field.is_tun_metadata()).then_some(field)
    }

    /// The field that has this number. None has values that are larger than options of tunnels.
    fn known(self) -> Option<Field> {
        let field = Field::by_header(self.class, self.number)?;
        (self.width() <= LARGEST).then_some(field)
    }
}

/// A number of any size of which all but the lowest 128 bits are 0.
fn number(bytes: &[u8]) -> Option<u128> {
    let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
    let value = low.iter().fold(0, |value, byte| value << 8 | u128::from(*byte));
    high.iter().all(|byte| *byte == 0).then_some(value)
}

impl Entry {
    /// Reads what follows a header.
    ///
    /// # Errors
    /// There are too few bytes, the value has bits that the mask has not, or more than 128 bits.
    pub(crate) fn read(
        field: Field,
        header: RawHeader,
        reader: &mut Reader<'_>,
    ) -> Result<Self, ErrorCode> {
        let mut payload = reader.sub(header.len).map_err(|_| ErrorCode::BmcBadLen)?;
        let value = payload.take(header.width()).map_err(|_| ErrorCode::BmcBadLen)?;
        let value = number(value).ok_or(ErrorCode::BmcBadValue)?;
        let mask = if header.has_mask {
            let mask = payload.take(header.width()).map_err(|_| ErrorCode::BmcBadLen)?;
            // What is beyond 128 bits of the mask does not matter, since the value is 0 there.
            let low = mask.len().saturating_sub(16);
            Some(number(mask.get(low..).unwrap_or_default()).unwrap_or_default())
        } else {
            None
        };
        if mask.is_some_and(|mask| value & !mask != 0) {
            return Err(ErrorCode::BmcBadWildcards);
        }
        Ok(Self { field, value, mask })
    }

    /// Reads one for an action that sets it.
    ///
    /// # Errors
    /// It is wrong, or the field is not known.
    pub(crate) fn pull(reader: &mut Reader<'_>) -> Result<Self, ErrorCode> {
        let header = RawHeader::read(reader)?;
        let Some(field) = header.field() else {
            let has_size = header.known().is_some() && header.width() != 0;
            return Err(if has_size { ErrorCode::BacBadSetLen } else { ErrorCode::BacBadSetType });
        };
        Self::read(field, header, reader)
    }

    /// How many bytes its value takes.
    fn width(self) -> usize {
        if !self.field.is_tun_metadata() {
            return self.field.bytes();
        }
        let mask = self.mask.unwrap_or_default();
        let bits = 128 - (self.value | mask).leading_zeros();
        (bits as usize).div_ceil(32).max(1).saturating_mul(4)
    }

    /// Writes it as messages of a version have it. Fields without a number are left out.
    pub(crate) fn put(self, out: &mut Vec<u8>, version: Version) {
        let width = self.width();
        let len = if self.mask.is_some() { width * 2 } else { width };
        if !put_header(out, self.field, version, self.mask.is_some(), len) {
            return;
        }
        put_number(out, self.value, width);
        if let Some(mask) = self.mask {
            put_number(out, mask, width);
        }
    }
}

/// Writes the lowest `width` bytes of a number.
fn put_number(out: &mut Vec<u8>, value: u128, width: usize) {
    let bytes = value.to_be_bytes();
    let from = bytes.len().saturating_sub(width);
    out.zeroes(width.saturating_sub(bytes.len()));
    out.bytes(bytes.get(from..).unwrap_or_default());
}

/// Writes the header of a field; returns whether it has one.
pub(crate) fn put_header(
    out: &mut Vec<u8>,
    field: Field,
    version: Version,
    has_mask: bool,
    len: usize,
) -> bool {
    let Some(header) = field.header(version) else { return false };
    let is_experimenter = header.class.class == Class::EXPERIMENTER;
    let len = if is_experimenter { len + 4 } else { len };
    out.u16(header.class.class);
    out.u8(header.number << 1 | u8::from(has_mask));
    out.u8(u8::try_from(len).unwrap_or(u8::MAX));
    if is_experimenter {
        out.u32(header.class.experimenter);
    }
    true
}

/// Writes the header of a field, of which no value follows.
pub(crate) fn put_name(out: &mut Vec<u8>, field: Field, version: Version) {
    put_header(out, field, version, false, field.bytes());
}

/// Reads a header of which no value follows.
///
/// # Errors
/// It is wrong, the field is not known, or it has a mask.
pub(crate) fn pull_name(reader: &mut Reader<'_>) -> Result<Field, ErrorCode> {
    let (field, has_mask) = pull_header(reader)?;
    if has_mask { Err(ErrorCode::BmcBadMask) } else { Ok(field) }
}

/// Reads a header of which no value follows, and whether it is one with a mask.
///
/// # Errors
/// It is wrong, or the field is not known.
pub(crate) fn pull_header(reader: &mut Reader<'_>) -> Result<(Field, bool), ErrorCode> {
    let header = RawHeader::read(reader)?;
    let field = header.field().ok_or(ErrorCode::BmcBadField)?;
    Ok((field, header.has_mask))
}

/// Reads a header in the place of an old one of 4 bytes.
///
/// # Errors
/// The field is not known.
pub(crate) fn name_of(header: u32) -> Result<Field, ErrorCode> {
    let bytes = header.to_be_bytes();
    let known = RawHeader::read(&mut Reader::new(&bytes)).ok().and_then(RawHeader::field);
    known.ok_or(ErrorCode::BacBadSetType)
}
