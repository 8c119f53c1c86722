//! The network service header (RFC 8300).

use arrayvec::ArrayVec;

/// Length of what each has: the base header, and the service path header.
pub const HEADER_LEN: usize = 8;

/// The longest one: its length is in words of four bytes, and has six bits.
pub const MAX_LEN: usize = 252;

/// Length of one with metadata of type 1, which has four words of context.
pub const MD1_LEN: usize = HEADER_LEN + 16;

/// Metadata of this type are four words.
pub const MD1: u8 = 1;

/// Metadata of this type are values, each with its own type and length.
pub const MD2: u8 = 2;

/// What the header says, but for its metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nsh {
    /// Two bits behind the version, the first of which tells operators' packets.
    pub flags: u8,
    /// Time to live, six bits.
    pub ttl: u8,
    /// What kind of metadata follows.
    pub md_type: u8,
    /// What is behind the header.
    pub next: u8,
    /// The service path, 24 bits, and the place on it, eight bits.
    pub path: u32,
}

impl Nsh {
    /// The header that begins so, and how long it is; `None` where it is of another version, or its length is none
    /// that its metadata can have, or more than `there`, the bytes that there are.
    #[must_use]
    pub fn read(first: [u8; HEADER_LEN], there: usize) -> Option<(Self, usize)> {
        let [a, b, md_type, next, p, q, r, s] = first;
        let word = u16::from_be_bytes([a, b]);
        let len = usize::from(word & 0x3F) * 4;
        let is_right = match md_type {
            MD1 => len == MD1_LEN,
            _ => len >= HEADER_LEN,
        };
        let [flags, ttl] = [word >> 12 & 3, word >> 6 & 0x3F].map(|bits| bits.to_be_bytes()[1]);
        let path = u32::from_be_bytes([p, q, r, s]);
        let header = Self { flags, ttl, md_type, next, path };
        (word >> 14 == 0 && is_right && len <= there).then_some((header, len))
    }

    /// The whole header; `None` if that is too long, or no multiple of four bytes.
    #[must_use]
    pub fn to_bytes(self, metadata: &[u8]) -> Option<ArrayVec<u8, MAX_LEN>> {
        let Self { flags, ttl, md_type, next, path } = self;
        let len = HEADER_LEN.checked_add(metadata.len())?;
        let words = u16::try_from(len / 4).ok().filter(|words| *words <= 0x3F && len % 4 == 0)?;
        let word = u16::from(flags & 3) << 12 | u16::from(ttl & 0x3F) << 6 | words;
        let mut bytes = ArrayVec::new();
        bytes.try_extend_from_slice(&word.to_be_bytes()).ok()?;
        bytes.try_extend_from_slice(&[md_type, next]).ok()?;
        bytes.try_extend_from_slice(&path.to_be_bytes()).ok()?;
        bytes.try_extend_from_slice(metadata).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_that_contradict_themselves_are_none() {
        let header = |word: u16, md_type: u8| {
            let [a, b] = word.to_be_bytes();
            [a, b, md_type, 3, 0, 0x12, 0x34, 0xFF]
        };
        let nsh = Nsh { flags: 2, ttl: 63, md_type: MD1, next: 3, path: 0x1234FF };
        assert_eq!(Nsh::read(header(0x2FC6, MD1), 24), Some((nsh, 24)));
        // More than there is, another version, and lengths that are not those of the metadata.
        assert_eq!(Nsh::read(header(0x2FC6, MD1), 23), None);
        assert_eq!(Nsh::read(header(0x6FC6, MD1), 24), None);
        assert_eq!(Nsh::read(header(0x2FC5, MD1), 99), None);
        assert_eq!(Nsh::read(header(0x2FC1, MD2), 99), None);
        assert_eq!(Nsh::read(header(0x2FC0, 7), 99), None);
        let len = |word, md_type| Nsh::read(header(word, md_type), 300).map(|(_, len)| len);
        assert_eq!(
            (len(0x2FC2, MD2), len(0x2FFF, MD2), len(2, 7)),
            (Some(8), Some(MAX_LEN), Some(8))
        );
        assert!(nsh.to_bytes(&[0; 15]).is_none() && nsh.to_bytes(&[0; 248]).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (flags, ttl, next, path) in (0..4_u8, 0..64_u8, any::<u8>(), any::<u32>()),
            words in 0..=61_usize,
        ) {
            let metadata: Vec<u8> = (0..words * 4).map(|at| u8::try_from(at).unwrap()).collect();
            let md_type = if words == 4 { MD1 } else { MD2 };
            let nsh = Nsh { flags, ttl, md_type, next, path };
            let bytes = nsh.to_bytes(&metadata).unwrap();
            let first = *bytes.first_chunk().unwrap();
            prop_assert_eq!(Nsh::read(first, bytes.len()), Some((nsh, bytes.len())));
            prop_assert_eq!(&bytes[HEADER_LEN..], &metadata[..]);
        }
    }
}
