//! What tells a test frame from any other: a stamp, and a pattern behind it.
//!
//! The stamp is the first 18 bytes of what the headers carry, big-endian:
//!
//! | Bits | Content |
//! |---|---|
//! | 16 | kind: 0x5257 with a pattern, 0x5258 without |
//! | 16 | run |
//! | 20 | flow |
//! | 32 | sequence number in the flow |
//! | 36 | time, in units of [`TIME_SHIFT`] |
//! | 24 | check of all of these and of the length |
//!
//! The pattern is a function of run, flow and sequence number. A frame in which a part of another
//! one shows up does not pass. Every second of its words is the complement of the one before, so that
//! a pair of them adds nothing to a checksum.

/// Bytes of a stamp.
pub const STAMP_LEN: usize = 18;

/// Largest number of flows: they are told apart by 20 bits.
pub const MAX_FLOWS: u32 = 1 << 20;

/// Cycles of the clock in one unit of a stamp's time, as a power of two: 36 bits of them are more
/// than two minutes at any frequency that the clock has, and one of them is a few nanoseconds.
pub const TIME_SHIFT: u32 = if cfg!(target_arch = "x86_64") { 4 } else { 1 };

/// What is behind the stamp.
const KIND_PATTERN: u16 = 0x5257;
const KIND_PLAIN: u16 = 0x5258;

const TIME_MASK: u64 = (1 << 36) - 1;

/// What a test frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    kind: u16,
    /// The run of the generator that made it.
    pub run: u16,
    /// Its flow, below [`MAX_FLOWS`].
    pub flow: u32,
    /// Its number in the flow.
    pub sequence: u32,
    /// When it was sent, or due to be, in units.
    time: u64,
}

/// What a look at a frame's bytes shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No test frame.
    Foreign,
    /// A test frame with a good stamp.
    Stamped(Stamp),
    /// A test frame with a damaged stamp.
    Damaged,
}

impl Stamp {
    /// A stamp of a frame that is sent, or due, at `time` in cycles of [`eal::clock`].
    #[inline]
    pub const fn new(run: u16, pattern: bool, flow: u32, sequence: u32, time: u64) -> Self {
        let kind = if pattern { KIND_PATTERN } else { KIND_PLAIN };
        let (flow, time) = (flow & (MAX_FLOWS - 1), (time >> TIME_SHIFT) & TIME_MASK);
        Self { kind, run, flow, sequence, time }
    }

    /// Writes the stamp of a payload of `len` bytes, itself included, and returns what it adds to a
    /// checksum: a sum of big-endian words, not folded.
    #[inline]
    pub fn write(&self, to: &mut [u8; STAMP_LEN], len: usize) -> u64 {
        let number = self.fields() << 24 | u128::from(self.check(len));
        let [k0, k1] = self.kind.to_be_bytes();
        let bytes = number.to_be_bytes();
        [to[0], to[1]] = [k0, k1];
        let [_, _, rest @ ..] = to;
        *rest = bytes;
        #[allow(clippy::cast_possible_truncation, reason = "each half of it")]
        let (high, low) = ((number >> 64) as u64, number as u64);
        u64::from(self.kind) + halves(high) + halves(low)
    }

    /// Reads the stamp of a payload of `len` bytes that begins with `bytes`.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the bits of each field")]
    pub fn read(bytes: &[u8], len: usize) -> Seen {
        let Some(bytes) = bytes.first_chunk::<STAMP_LEN>() else { return Seen::Foreign };
        let [k0, k1, rest @ ..] = *bytes;
        let kind = u16::from_be_bytes([k0, k1]);
        if kind != KIND_PATTERN && kind != KIND_PLAIN {
            return Seen::Foreign;
        }
        let number = u128::from_be_bytes(rest);
        let stamp = Self {
            kind,
            run: (number >> 112) as u16,
            flow: (number >> 92) as u32 & (MAX_FLOWS - 1),
            sequence: (number >> 60) as u32,
            time: (number >> 24) as u64 & TIME_MASK,
        };
        if stamp.check(len) == number as u32 & 0xFF_FFFF {
            Seen::Stamped(stamp)
        } else {
            Seen::Damaged
        }
    }

    /// Cycles of the clock from the stamp's time to `now`; 0 where that is before.
    #[inline]
    pub const fn age(&self, now: u64) -> u64 {
        let age = (now >> TIME_SHIFT).wrapping_sub(self.time) & TIME_MASK;
        if age > TIME_MASK / 2 { 0 } else { age << TIME_SHIFT }
    }

    /// Whether a pattern follows.
    #[inline]
    pub const fn has_pattern(&self) -> bool {
        self.kind == KIND_PATTERN
    }

    /// Whether `rest`, everything behind the stamp, is the pattern that belongs to it.
    #[inline]
    pub fn pattern_matches(&self, rest: &[u8]) -> bool {
        check_pattern(rest, self.seed())
    }

    /// Fills `rest` with the pattern that belongs to the stamp, and returns what that adds to a
    /// checksum.
    #[inline]
    pub fn fill_pattern(&self, rest: &mut [u8]) -> u64 {
        fill_pattern(rest, self.seed())
    }

    fn fields(&self) -> u128 {
        let whom = u128::from(self.run) << 20 | u128::from(self.flow);
        (whom << 32 | u128::from(self.sequence)) << 36 | u128::from(self.time)
    }

    const fn seed(&self) -> u64 {
        mix(((self.run as u64) << 52) | ((self.flow as u64) << 32) | self.sequence as u64)
    }

    /// A sum of products, which shows any one bit that flips for certain: no power of two times one
    /// of these factors comes near zero. Any other change passes once in 16 million times.
    #[allow(clippy::cast_possible_truncation, reason = "24 bits")]
    const fn check(&self, len: usize) -> u32 {
        let whom = (self.run as u64) << 36 | (self.flow as u64) << 16 | (len as u64 & 0xFFFF);
        let when = self.time ^ (self.kind as u64) << 40;
        let sum = whom
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add((self.sequence as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93))
            .wrapping_add(when.wrapping_mul(0xBF58_476D_1CE4_E5B9));
        (sum >> 40) as u32
    }
}

/// Scrambles a number: one multiplication each way, so that every bit of the upper half depends
/// on every bit of the number.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (value ^ (value >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// The sum of the two halves of a number, which has the same one's complement sum of words.
pub const fn halves(value: u64) -> u64 {
    (value >> 32) + (value & 0xFFFF_FFFF)
}

/// An odd number, so that the pairs of words of a pattern differ from each other.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The bytes of a pair of words.
const fn pair(word: u64) -> u128 {
    (!word as u128) << 64 | word as u128
}

fn fill_pattern(rest: &mut [u8], seed: u64) -> u64 {
    let mut word = seed;
    let (whole, tail) = rest.as_chunks_mut::<16>();
    for chunk in whole {
        *chunk = pair(word).to_le_bytes();
        word = word.wrapping_add(STEP);
    }
    let bytes = pair(word).to_le_bytes();
    let mut sum = 0_u64;
    for (pair, values) in tail.chunks_mut(2).zip(bytes.chunks(2)) {
        for (byte, value) in pair.iter_mut().zip(values) {
            *byte = *value;
        }
        if let [high, rest @ ..] = pair {
            let low = rest.first().copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([*high, low]));
        }
    }
    sum
}

fn check_pattern(rest: &[u8], seed: u64) -> bool {
    let mut word = seed;
    let mut difference = 0;
    let (whole, tail) = rest.as_chunks::<16>();
    // Without an early exit, so that the compiler can use wide registers.
    for chunk in whole {
        difference |= u128::from_le_bytes(*chunk) ^ pair(word);
        word = word.wrapping_add(STEP);
    }
    difference == 0 && tail.iter().zip(pair(word).to_le_bytes()).all(|(byte, value)| *byte == value)
}

#[cfg(test)]
mod tests {
    use packet::checksum::checksum;
    use proptest::prelude::*;

    use super::*;

    /// A payload with stamp and pattern, and what it adds to a checksum.
    fn payload(len: usize, stamp: &Stamp) -> (Vec<u8>, u64) {
        let mut bytes = vec![0; len];
        let (head, rest) = bytes.split_first_chunk_mut().unwrap();
        let sum = stamp.write(head, len) + stamp.fill_pattern(rest);
        (bytes, sum)
    }

    fn good(bytes: &[u8]) -> bool {
        let seen = Stamp::read(bytes, bytes.len());
        matches!(seen, Seen::Stamped(stamp) if stamp.pattern_matches(&bytes[STAMP_LEN..]))
    }

    #[test]
    fn other_traffic_is_foreign() {
        assert_eq!(Stamp::read(&[0; 64], 64), Seen::Foreign);
        assert_eq!(Stamp::read(&[], 0), Seen::Foreign);
    }

    #[test]
    fn ages_go_on_when_the_time_starts_again() {
        let unit = 1 << TIME_SHIFT;
        for sent in [0, unit * 1000, u64::MAX - unit * 3] {
            let stamp = Stamp::new(1, true, 0, 0, sent);
            assert!(stamp.age(sent.wrapping_add(unit * 10)).abs_diff(unit * 10) <= unit);
            assert_eq!(stamp.age(sent.wrapping_sub(unit * 2)), 0);
        }
        let minute = eal::clock::cycles(std::time::Duration::from_secs(60));
        assert!(Stamp::new(1, true, 0, 0, 5).age(minute + 5).abs_diff(minute) <= unit);
    }

    #[test]
    fn any_flipped_bit_of_a_stamp_is_found() {
        let stamp = Stamp::new(7, true, 3, 0x1234_5678, 0x9_ABCD_EF01);
        let (bytes, _) = payload(40, &stamp);
        assert!(good(&bytes));
        for bit in 0..STAMP_LEN * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!good(&damaged), "{bit}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_its_checksum_known(
            len in STAMP_LEN..2000, run: u16, flow in 0..MAX_FLOWS, sequence: u32, time: u64,
        ) {
            let stamp = Stamp::new(run, true, flow, sequence, time);
            let (bytes, sum) = payload(len, &stamp);
            prop_assert_eq!(Stamp::read(&bytes, len), Seen::Stamped(stamp));
            prop_assert!(good(&bytes));
            prop_assert_eq!(sum % 0xFFFF, u64::from(!checksum(&bytes)) % 0xFFFF);
        }

        #[test]
        fn any_flipped_bit_of_the_pattern_is_found(
            len in STAMP_LEN + 1..300, sequence: u32, place: prop::sample::Index, bit in 0..8_u32,
        ) {
            let (mut bytes, _) = payload(len, &Stamp::new(7, true, 3, sequence, 4));
            let index = STAMP_LEN + place.index(len - STAMP_LEN);
            bytes[index] ^= 1 << bit;
            prop_assert!(!good(&bytes));
        }

        #[test]
        fn a_payload_that_was_cut_or_has_grown_is_found(
            len in STAMP_LEN + 1..300, other in STAMP_LEN..300_usize,
        ) {
            prop_assume!(len != other);
            let mut bytes = vec![0; len];
            Stamp::new(7, false, 3, 5, 4).write(bytes.first_chunk_mut().unwrap(), len);
            bytes.resize(other, 0);
            prop_assert_eq!(Stamp::read(&bytes, other), Seen::Damaged);
        }
    }
}
