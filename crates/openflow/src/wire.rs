//! Reading and writing of big-endian fields, of which messages consist.

/// Bytes end before what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too short")]
pub struct Short;

/// What is left to be read.
///
/// ```
/// use openflow::wire::{Reader, Short};
///
/// let mut reader = Reader::new(&[0, 7, 1]);
/// assert_eq!(reader.u16(), Ok(7));
/// assert_eq!(reader.u32(), Err(Short));
/// assert_eq!(reader.rest(), [1]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Takes this many bytes.
    ///
    /// # Errors
    /// There are fewer; then none is taken, which holds for all that follow.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (taken, left) = self.left.split_at_checked(count).ok_or(Short)?;
        self.left = left;
        Ok(taken)
    }

    /// Takes a reader of this many bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn sub(&mut self, count: usize) -> Result<Self, Short> {
        self.take(count).map(Self::new)
    }

    /// Takes an entry of a list that says itself how long it is: the 16 bits at `place` within it count
    /// all of its bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn entry(&mut self, place: usize) -> Result<Self, Short> {
        let mut header = *self;
        header.skip(place)?;
        let len = header.u16()?;
        self.sub(len.into())
    }

    /// Passes over this many bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn skip(&mut self, count: usize) -> Result<(), Short> {
        self.take(count).map(drop)
    }

    /// Takes all that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// What is left, which stays.
    #[must_use]
    pub const fn peek(&self) -> &'a [u8] {
        self.left
    }

    /// Takes an array.
    ///
    /// # Errors
    /// Fewer bytes are left.
    pub fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (taken, left) = self.left.split_first_chunk().ok_or(Short)?;
        self.left = left;
        Ok(*taken)
    }

    /// Takes a byte.
    ///
    /// # Errors
    /// None is left.
    pub fn u8(&mut self) -> Result<u8, Short> {
        self.bytes().map(u8::from_be_bytes)
    }

    /// Takes 2 bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u16(&mut self) -> Result<u16, Short> {
        self.bytes().map(u16::from_be_bytes)
    }

    /// Takes 4 bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u32(&mut self) -> Result<u32, Short> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// Takes 8 bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u64(&mut self) -> Result<u64, Short> {
        self.bytes().map(u64::from_be_bytes)
    }

    /// Takes 16 bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u128(&mut self) -> Result<u128, Short> {
        self.bytes().map(u128::from_be_bytes)
    }
}

/// Appends fields to bytes.
///
/// ```
/// use openflow::wire::Writer as _;
///
/// let mut bytes = Vec::new();
/// bytes.u16(7);
/// bytes.zeroes(2);
/// assert_eq!(bytes, [0, 7, 0, 0]);
/// ```
pub trait Writer {
    /// Appends these bytes.
    fn bytes(&mut self, bytes: &[u8]);

    /// How many bytes there are.
    fn position(&self) -> usize;

    /// Overwrites what was written at `position`; nothing where there are too few bytes.
    fn patch(&mut self, position: usize, bytes: &[u8]);

    /// Appends a byte.
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Appends 2 bytes.
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends 4 bytes.
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends 8 bytes.
    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends 16 bytes.
    fn u128(&mut self, value: u128) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends this many zeroes.
    fn zeroes(&mut self, count: usize) {
        for _ in 0..count {
            self.u8(0);
        }
    }

    /// Appends zeroes up to a multiple of 8, counted from `start`.
    fn pad8(&mut self, start: usize) {
        let length = self.position().saturating_sub(start);
        self.zeroes(length.next_multiple_of(8) - length);
    }

    /// Appends `text` in a field of `width` bytes, cut so that a zero ends it.
    fn text(&mut self, text: &str, width: usize) {
        let bytes = text.as_bytes();
        let bytes = bytes.get(..width.saturating_sub(1)).unwrap_or(bytes);
        self.bytes(bytes);
        self.zeroes(width.saturating_sub(bytes.len()));
    }

    /// Writes the 16 bits at `position` anew: how many bytes there are since `start`.
    fn patch_length(&mut self, position: usize, start: usize) {
        let length = self.position().saturating_sub(start);
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.patch(position, &length.to_be_bytes());
    }
}

impl Writer for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn position(&self) -> usize {
        self.len()
    }

    fn patch(&mut self, position: usize, bytes: &[u8]) {
        let end = position.saturating_add(bytes.len());
        if let Some(place) = self.get_mut(position..end) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The text of a field that a zero ends, if it is not full.
#[must_use]
pub fn text(field: &[u8]) -> String {
    let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(field).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_short_takes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u64(), Err(Short));
        assert_eq!(reader.take(4), Err(Short));
        assert_eq!((reader.u16(), reader.peek(), reader.len()), (Ok(0x0102), &[3][..], 1));
        assert_eq!((reader.skip(1), reader.is_empty()), (Ok(()), true));
    }

    #[test]
    fn texts_are_cut_and_filled() {
        let mut bytes = vec![9];
        bytes.text("abcdef", 4);
        bytes.text("x", 3);
        bytes.pad8(1);
        assert_eq!(bytes, *b"\x09abc\0x\0\0\0");
        assert_eq!((text(&bytes[1..5]), text(b"full")), ("abc".to_owned(), "full".to_owned()));
        bytes.patch_length(0, 0);
        assert_eq!(bytes[..2], [0, 9]);
        bytes.patch(8, &[1, 2]);
        assert_eq!(bytes[8], 0, "nothing is written beyond the end");
    }
}
