//! Messages in a stream of bytes: each begins with a header of 8 bytes, which has its length.
//!
//! ```
//! use openflow::framing::Splitter;
//!
//! let mut splitter = Splitter::default();
//! splitter.push(&[1, 5, 0, 8, 0, 0]);
//! assert_eq!(splitter.next(), Ok(None));
//! splitter.push(&[0, 9, 1]);
//! assert_eq!(splitter.next(), Ok(Some(vec![1, 5, 0, 8, 0, 0, 0, 9])));
//! ```

use crate::wire::{Reader, Short};

/// Bytes of a header.
pub const HEADER: usize = 8;

/// What each message begins with, in all versions (OpenFlow 1.5, 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of its version.
    pub version: u8,
    /// The number of its type.
    pub kind: u8,
    /// Bytes of it, the header among them.
    pub length: u16,
    /// By which an answer is known to belong to it.
    pub xid: u32,
}

impl Header {
    /// Reads it.
    ///
    /// # Errors
    /// There are fewer than [`HEADER`] bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Short> {
        let mut reader = Reader::new(bytes);
        let (version, kind) = (reader.u8()?, reader.u8()?);
        Ok(Self { version, kind, length: reader.u16()?, xid: reader.u32()? })
    }
}

/// A stream that is none of messages: nothing more can be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes, which is less than a header")]
pub struct BadLength(pub u16);

/// Cuts a stream into messages. It keeps no more than a message, which has at most 65535 bytes, and
/// what was pushed last.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    bytes: Vec<u8>,
    /// How many of them are in messages that were taken.
    taken: usize,
}

impl Splitter {
    /// Appends what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken.min(self.bytes.len()));
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next message, if it is complete.
    ///
    /// # Errors
    /// Its length is less than that of a header.
    #[expect(clippy::should_implement_trait, reason = "there may be more after none")]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, BadLength> {
        let left = self.bytes.get(self.taken..).unwrap_or_default();
        let Ok(header) = Header::read(left) else { return Ok(None) };
        let length = usize::from(header.length);
        if length < HEADER {
            return Err(BadLength(header.length));
        }
        let Some(message) = left.get(..length) else { return Ok(None) };
        let message = message.to_vec();
        self.taken = self.taken.saturating_add(length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_below_a_header_ends_it() {
        let mut splitter = Splitter::default();
        splitter.push(&[1, 0, 0, 7, 0, 0, 0, 1]);
        assert_eq!(splitter.next(), Err(BadLength(7)));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cut in 1..30_usize,
        ) {
            let messages: Vec<Vec<u8>> = bodies
                .into_iter()
                .map(|body| {
                    let length = u16::try_from(HEADER + body.len()).unwrap().to_be_bytes();
                    [&[4, 2, length[0], length[1], 0, 0, 0, 1], &body[..]].concat()
                })
                .collect();
            let mut splitter = Splitter::default();
            let mut out = Vec::new();
            for chunk in messages.concat().chunks(cut) {
                splitter.push(chunk);
                while let Some(message) = splitter.next().unwrap() {
                    out.push(message);
                }
            }
            prop_assert_eq!(out, messages);
        }
    }
}
