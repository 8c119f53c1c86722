//! Lists of fields in messages. Nearly all tables of an answer have the same ones, and each has a hundred fields or
//! more: what was read and written last is kept, and taken once more where it is the same.

use super::field_set::FieldSet;
use crate::error::ErrorCode;
use crate::field::entry;
use crate::version::Version;
use crate::wire::Reader;

/// How many lists are kept: as many as a table has that differ.
const KEPT: usize = 4;

/// What a list has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// Fields that have no mask.
    pub(super) exact: FieldSet,
    /// Those that have one.
    pub(super) masked: FieldSet,
}

impl Listed {
    /// Reads a list. If it `is_loose`, what is not known is passed over.
    fn read(mut list: Reader<'_>, is_loose: bool) -> Result<Self, ErrorCode> {
        let mut read = Self::default();
        while !list.is_empty() {
            match entry::pull_header(&mut list) {
                Ok((field, true)) => read.masked.insert(field),
                Ok((field, false)) => read.exact.insert(field),
                Err(ErrorCode::BmcBadField) if is_loose => {}
                Err(code) => return Err(code),
            }
        }
        Ok(read)
    }

    /// Writes all its fields, in their order.
    fn write(&self, version: Version, out: &mut Vec<u8>) {
        for field in self.exact.or(self.masked).iter() {
            let is_masked = self.masked.has(field);
            let bytes = field.bytes() * if is_masked { 2 } else { 1 };
            entry::put_header(out, field, version, is_masked, bytes);
        }
    }
}

/// The last of them that were read, by their bytes, or written.
#[derive(Debug)]
pub(super) struct Kept<B>(Vec<(Listed, B)>);

impl<B> Default for Kept<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B> Kept<B> {
    fn keep(&mut self, listed: Listed, bytes: B) {
        if self.0.len() >= KEPT {
            self.0.remove(0);
        }
        self.0.push((listed, bytes));
    }
}

impl<'a> Kept<&'a [u8]> {
    /// Reads a list.
    ///
    /// # Errors
    /// `OFPBMC_BAD_LEN`, or `OFPBMC_BAD_FIELD` unless it `is_loose`, which is the same for all that are read.
    pub(super) fn read(&mut self, list: Reader<'a>, is_loose: bool) -> Result<Listed, ErrorCode> {
        if let Some((listed, _)) = self.0.iter().find(|(_, bytes)| *bytes == list.peek()) {
            return Ok(*listed);
        }
        let listed = Listed::read(list, is_loose)?;
        self.keep(listed, list.peek());
        Ok(listed)
    }
}

impl Kept<Vec<u8>> {
    /// Appends a list of a message of `version`, which is the same for all that are written.
    pub(super) fn write(&mut self, listed: Listed, version: Version, out: &mut Vec<u8>) {
        if let Some((_, bytes)) = self.0.iter().find(|(kept, _)| *kept == listed) {
            return out.extend_from_slice(bytes);
        }
        let mut bytes = Vec::new();
        listed.write(version, &mut bytes);
        out.extend_from_slice(&bytes);
        self.keep(listed, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Field;

    #[test]
    fn lists_are_read_and_written_the_same_again_and_again() {
        let fields =
            Field::all().iter().copied().filter(|field| field.header(Version::V13).is_some());
        let fields: Vec<Field> = fields.collect();
        let lists: Vec<Listed> = (1..12)
            .map(|step| {
                let some = |from: usize| fields.iter().copied().skip(from).step_by(step).collect();
                let (all, masked): (FieldSet, FieldSet) = (some(0), some(step));
                let exact = all.iter().filter(|field| !masked.has(*field)).collect();
                Listed { exact, masked }
            })
            .collect();
        // Each is there again when it is still kept, and when it is not any more.
        let order = [0, 0, 1, 0, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 10, 1];
        let (mut written, mut read) = (Kept::<Vec<u8>>::default(), Kept::<&[u8]>::default());
        let all: Vec<Vec<u8>> = order
            .iter()
            .map(|at| {
                let (mut bytes, mut once) = (Vec::new(), Vec::new());
                written.write(lists[*at], Version::V13, &mut bytes);
                lists[*at].write(Version::V13, &mut once);
                assert_eq!(bytes, once);
                bytes
            })
            .collect();
        for (at, bytes) in order.iter().zip(&all) {
            assert_eq!(read.read(Reader::new(bytes), false), Ok(lists[*at]));
        }
        assert_eq!((written.0.len(), read.0.len()), (KEPT, KEPT));
    }

    #[test]
    fn what_is_wrong_is_not_kept() {
        let unknown = [0, 1, 127 << 1, 4];
        let mut kept = Kept::default();
        for _ in 0..2 {
            assert_eq!(kept.read(Reader::new(&unknown), false), Err(ErrorCode::BmcBadField));
        }
        assert_eq!(Kept::default().read(Reader::new(&unknown), true), Ok(Listed::default()));
        assert_eq!(kept.read(Reader::new(&unknown[..3]), true), Err(ErrorCode::BmcBadLen));
    }
}
