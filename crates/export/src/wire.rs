//! Numbers and bytes as they are sent: the highest byte first, and what has any length filled up to words of
//! four bytes (XDR, RFC 4506).

/// What is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes behind their number, filled up.
    pub(crate) fn opaque(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).bytes(bytes);
        let filled = self.0.len().next_multiple_of(4);
        self.0.resize(filled, 0);
        self
    }

    /// Bytes behind their number, in as few bytes as that takes (RFC 7011, section 7).
    pub(crate) fn variable(&mut self, bytes: &[u8]) -> &mut Self {
        match u8::try_from(bytes.len()) {
            Ok(len @ ..=254) => self.bytes(&[len]).bytes(bytes),
            _ => {
                let bytes = bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes);
                self.bytes(&[255]).u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).bytes(bytes)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What `write` writes, behind a number that says what it is, and its length.
    pub(crate) fn block(&mut self, kind: u32, write: impl FnOnce(&mut Self)) -> &mut Self {
        let mut block = Self::default();
        write(&mut block);
        self.u32(kind).opaque(&block.0)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_any_length_is_filled_up() {
        let mut writer = Writer::default();
        writer.u64(0x0102_0304_0506_0708).opaque(b"abcde").block(9, |block| _ = block.u32(7));
        let expected = [
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[0, 0, 0, 5, b'a', b'b', b'c', b'd', b'e', 0, 0, 0][..],
            &[0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0, 7],
        ];
        assert_eq!(writer.into_bytes(), expected.concat());
    }
}
