//! Fixed-size payloads, to and from bytes. Reading happens on a private copy of the bytes and
//! checks their number; what the values mean is checked by whoever uses them.

use arrayvec::ArrayVec;

use super::{MAX_CONFIG, ProtocolError};

/// Room for the largest payload that Ringway sends: a part of configuration space, which is a
/// little larger than a full memory table.
pub type PayloadBuf = ArrayVec<u8, { ConfigSpace::HEADER + MAX_CONFIG }>;

/// A payload of fixed size.
pub trait Payload: Sized {
    /// Its size in bytes.
    const SIZE: usize;

    /// Reads it from the front of `bytes` and moves `bytes` behind it; `None` when there are too
    /// few.
    fn take(bytes: &mut &[u8]) -> Option<Self>;

    /// Appends it to `out`.
    fn put(&self, out: &mut PayloadBuf);

    /// Reads it from `bytes`, the payload of `request`.
    ///
    /// # Errors
    /// When the payload does not have exactly this size.
    fn decode(request: &'static str, bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut rest = bytes;
        match Self::take(&mut rest) {
            Some(payload) if rest.is_empty() => Ok(payload),
            _ => {
                let (got, expected) = (bytes.len(), Self::SIZE);
                Err(ProtocolError::PayloadSize { request, got, expected })
            }
        }
    }

    /// Its bytes.
    fn encode(&self) -> PayloadBuf {
        let mut out = PayloadBuf::new();
        self.put(&mut out);
        out
    }
}

/// Appends what fits, which is everything: the buffer holds the largest payload there is.
pub(super) fn append(out: &mut PayloadBuf, bytes: &[u8]) {
    debug_assert!(bytes.len() <= out.remaining_capacity());
    out.extend(bytes.iter().copied().take(out.remaining_capacity()));
}

macro_rules! integer_payload {
    ($($int:ty)*) => {$(
        impl Payload for $int {
            const SIZE: usize = size_of::<$int>();

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                let (first, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_ne_bytes(*first))
            }

            fn put(&self, out: &mut PayloadBuf) {
                append(out, &self.to_ne_bytes());
            }
        }
    )*};
}

integer_payload!(u32 u64);

/// A struct whose fields follow each other without gaps.
macro_rules! struct_payload {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Payload for $name {
            const SIZE: usize = 0 $(+ size_of::<$type>())*;

            fn take(bytes: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Payload::take(bytes)?,)* })
            }

            fn put(&self, out: &mut PayloadBuf) {
                $(self.$field.put(out);)*
            }
        }
    };
}

struct_payload! {
    /// A ring and a number that belongs to it ("A vring state description").
    VringState {
        /// Index of the ring.
        index: u32,
        /// Size, base, or 0 and 1 for disabled and enabled.
        num: u32,
    }
}

struct_payload! {
    /// Where a ring is ("A vring address description"). Addresses are those of the front-end.
    VringAddr {
        /// Index of the ring.
        index: u32,
        /// Bit 0: writes to the used ring are logged.
        flags: u32,
        /// Address of the descriptor table.
        desc: u64,
        /// Address of the used ring.
        used: u64,
        /// Address of the available ring.
        avail: u64,
        /// Guest-physical address for the log of the used ring.
        log: u64,
    }
}

struct_payload! {
    /// A piece of guest memory ("Memory region description").
    MemoryRegion {
        /// Guest-physical address.
        guest_addr: u64,
        /// Size in bytes.
        size: u64,
        /// Address in the front-end's own address space.
        user_addr: u64,
        /// Where it starts in the file, in bytes.
        mmap_offset: u64,
    }
}

struct_payload! {
    /// Where the log of written pages is ("Log description").
    LogBase {
        /// Size in bytes.
        size: u64,
        /// Where it starts in the file, in bytes.
        offset: u64,
    }
}

/// A part of the device's configuration space ("Virtio device config space").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSpace {
    /// Where it starts, in bytes.
    pub offset: u32,
    /// Bit 0: a migration writes it, and may write what is read only for the driver.
    pub flags: u32,
    /// The bytes; in a request to read them, as many without meaning.
    pub bytes: ArrayVec<u8, MAX_CONFIG>,
}

impl ConfigSpace {
    /// The flag of a write that belongs to a migration.
    pub const MIGRATION: u32 = 1;

    /// Bytes before the part itself: offset, size and flags.
    const HEADER: usize = 12;

    /// Reads it from `payload`, that of `request`.
    ///
    /// # Errors
    /// When its size is none or too large, or not that of the payload.
    pub fn decode(request: &'static str, payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut rest = payload;
        let wrong = |expected| ProtocolError::PayloadSize { request, got: payload.len(), expected };
        let (Some(offset), Some(size), Some(flags)) =
            (u32::take(&mut rest), u32::take(&mut rest), u32::take(&mut rest))
        else {
            return Err(wrong(Self::HEADER));
        };
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        if len == 0 || len > MAX_CONFIG {
            return Err(ProtocolError::ConfigSize { request, size });
        }
        let bytes = ArrayVec::try_from(rest).ok().filter(|bytes| bytes.len() == len);
        let bytes = bytes.ok_or_else(|| wrong(Self::HEADER + len))?;
        Ok(Self { offset, flags, bytes })
    }

    /// Its bytes as a payload.
    #[must_use]
    pub fn encode(&self) -> PayloadBuf {
        let mut out = self.offset.encode();
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).put(&mut out);
        self.flags.put(&mut out);
        append(&mut out, &self.bytes);
        out
    }
}

impl VringAddr {
    /// The bit of [`flags`](Self::flags) that asks to log writes to the used ring.
    pub const LOG: u32 = 1;

    /// The address that writes to the used ring are logged at, if they are to be logged.
    #[must_use]
    pub const fn log_addr(&self) -> Option<u64> {
        if self.flags & Self::LOG == 0 { None } else { Some(self.log) }
    }

    /// Whether `other` has the ring in the same place, whatever is to be logged.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        let place = |addr: &Self| Self { flags: 0, log: 0, ..*addr };
        place(self) == place(other)
    }
}

/// The payload of SET_VRING_KICK, CALL and ERR, with its descriptor: an index of 8 bits, and in
/// bit 8 that there is none ("A vring descriptor index").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringFile<F> {
    /// Index of the ring.
    pub index: u8,
    /// The eventfd; `None` asks for polling.
    pub fd: Option<F>,
}

impl<F> VringFile<F> {
    /// The bit that tells that no descriptor comes along.
    pub const NO_FD: u64 = 1 << 8;

    /// The payload.
    #[must_use]
    pub fn value(&self) -> u64 {
        u64::from(self.index) | if self.fd.is_none() { Self::NO_FD } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn goes_both_ways<P: Payload + PartialEq + std::fmt::Debug>(payload: &P) {
        let bytes = payload.encode();
        assert_eq!(bytes.len(), P::SIZE);
        assert_eq!(P::decode("TEST", &bytes).as_ref(), Ok(payload));
        let wrong = |got| ProtocolError::PayloadSize { request: "TEST", got, expected: P::SIZE };
        assert_eq!(P::decode("TEST", &bytes[1..]), Err(wrong(P::SIZE - 1)));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(P::decode("TEST", &longer), Err(wrong(P::SIZE + 1)));
    }

    #[test]
    fn layout_is_that_of_the_specification() {
        assert_eq!(VringState::SIZE, 8);
        assert_eq!(VringAddr::SIZE, 40);
        assert_eq!(MemoryRegion::SIZE, 32);
        assert_eq!(LogBase::SIZE, 16);
        let addr = VringAddr { index: 1, flags: 2, desc: 3, used: 4, avail: 5, log: 6 };
        let bytes = addr.encode();
        assert_eq!(bytes[..8], [1_u32.to_ne_bytes(), 2_u32.to_ne_bytes()].concat());
        assert_eq!(bytes[16..24], 4_u64.to_ne_bytes());
        assert_eq!(VringFile::<()> { index: 3, fd: None }.value(), 0x103);
    }

    proptest! {
        #[test]
        fn all_go_both_ways(a: u32, b: u32, c: u64, d: u64, e: u64, f: u64) {
            goes_both_ways(&c);
            goes_both_ways(&VringState { index: a, num: b });
            goes_both_ways(&VringAddr { index: a, flags: b, desc: c, used: d, avail: e, log: f });
            let (guest_addr, size, user_addr, mmap_offset) = (c, d, e, f);
            goes_both_ways(&MemoryRegion { guest_addr, size, user_addr, mmap_offset });
            goes_both_ways(&LogBase { size: c, offset: d });
        }

        #[test]
        fn parts_of_configuration_space_go_both_ways(
            offset: u32,
            flags: u32,
            bytes in prop::collection::vec(any::<u8>(), 1..=MAX_CONFIG),
        ) {
            let bytes = ArrayVec::try_from(&bytes[..]).unwrap();
            let part = ConfigSpace { offset, flags, bytes };
            assert_eq!(ConfigSpace::decode("TEST", &part.encode()), Ok(part));
        }
    }

    #[test]
    fn a_part_of_configuration_space_has_bytes_and_not_too_many() {
        let payload = |size: u32, len: usize| {
            let head = [0, size, 0].map(u32::to_ne_bytes).concat();
            [head, vec![0; len]].concat()
        };
        let decode = |size, len| ConfigSpace::decode("TEST", &payload(size, len));
        for size in [0, 257, u32::MAX] {
            let error = Err(ProtocolError::ConfigSize { request: "TEST", size });
            assert_eq!(decode(size, 4), error);
        }
        for len in [0, 3, 5, 256] {
            assert!(matches!(decode(4, len), Err(ProtocolError::PayloadSize { .. })), "{len}");
        }
        assert!(ConfigSpace::decode("TEST", &[0; 11]).is_err());
        assert_eq!(decode(256, 256).unwrap().bytes.len(), 256);
    }
}
