//! Test frames: Ethernet, IPv4, UDP, a stamp and a pattern.
//!
//! | Bytes | Content |
//! |---|---|
//! | 0..14 | Ethernet header |
//! | 14..34 | IPv4 header: source 198.18.0.0 + flow, destination 198.19.0.0 + run (the networks that RFC 2544 appendix C.2.2 sets aside for tests) |
//! | 34..42 | UDP header: source port 0xC000 + flow mod 0x4000, destination port 9 (discard), no checksum |
//! | 42..60 | stamp: kind, sequence number, time, check; big-endian |
//! | 60.. | pattern, a function of run, flow and sequence number |
//!
//! The check covers the length, run, flow, sequence number and time; the pattern covers the
//! rest. A frame in which a part of another one shows up does not pass.

use packet::checksum::{checksum, update};

/// Smallest test frame in bytes: the smallest Ethernet frame, without frame check sequence.
pub const MIN_SIZE: usize = 60;

/// Largest number of flows: they are told apart by 16 bits.
pub const MAX_FLOWS: u32 = 65_536;

/// What is behind the stamp.
const KIND_PATTERN: u16 = 0x5257;
const KIND_PLAIN: u16 = 0x5258;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const UDP_PORT: [u8; 2] = [0, 9];
const SOURCE_NET: u16 = 0xC612;
const DESTINATION_NET: u16 = 0xC613;

/// Writes test frames.
#[derive(Clone, Debug)]
pub struct Builder {
    head: [u8; MIN_SIZE],
    run: u16,
    pattern: bool,
    /// Checksum of the IPv4 header with length and flow left at 0.
    ip_checksum: u16,
}

impl Builder {
    /// A builder for frames from `src` to `dst`. Frames of different runs are never confused.
    pub fn new(dst: packet::MacAddr, src: packet::MacAddr, run: u16, pattern: bool) -> Self {
        let mut head = [0; MIN_SIZE];
        let run_bytes = run.to_be_bytes();
        head[0..6].copy_from_slice(&dst.0);
        head[6..12].copy_from_slice(&src.0);
        head[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        // Version 4, 5 words, no fragments, TTL 64, UDP.
        head[14] = 0x45;
        head[20] = 0x40;
        head[22] = 64;
        head[23] = 17;
        head[26..28].copy_from_slice(&SOURCE_NET.to_be_bytes());
        head[30..32].copy_from_slice(&DESTINATION_NET.to_be_bytes());
        head[32..34].copy_from_slice(&run_bytes);
        head[36..38].copy_from_slice(&UDP_PORT);
        let ip_checksum = checksum(&head[14..34]);
        Self { head, run, pattern, ip_checksum }
    }

    /// Writes a frame that fills `frame`, which must have [`MIN_SIZE`] bytes to 65,535 (it is
    /// left alone otherwise).
    #[inline]
    pub fn write(&self, frame: &mut [u8], flow: u16, sequence: u32, time: u64) {
        let Ok(len) = u16::try_from(frame.len()) else { return };
        let Some((head, rest)) = frame.split_first_chunk_mut::<MIN_SIZE>() else { return };
        let ip_len = len - 14;
        *head = self.head;
        head[16..18].copy_from_slice(&ip_len.to_be_bytes());
        let checksum = update(update(self.ip_checksum, 0, ip_len), 0, flow);
        head[24..26].copy_from_slice(&checksum.to_be_bytes());
        head[28..30].copy_from_slice(&flow.to_be_bytes());
        head[34..36].copy_from_slice(&(0xC000 | (flow & 0x3FFF)).to_be_bytes());
        head[38..40].copy_from_slice(&(len - 34).to_be_bytes());
        let kind = if self.pattern { KIND_PATTERN } else { KIND_PLAIN };
        let stamp = Stamp { kind, run: self.run, flow, sequence, time };
        head[42..44].copy_from_slice(&kind.to_be_bytes());
        head[44..48].copy_from_slice(&sequence.to_be_bytes());
        head[48..56].copy_from_slice(&time.to_be_bytes());
        head[56..60].copy_from_slice(&stamp.check(len).to_be_bytes());
        if self.pattern {
            fill_pattern(rest, stamp.seed());
        }
    }
}

/// What a test frame says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    kind: u16,
    /// The run of the generator that made it.
    pub run: u16,
    /// Its flow.
    pub flow: u16,
    /// Its number in the flow.
    pub sequence: u32,
    /// When it was sent, or due to be, in cycles of [`eal::clock`].
    pub time: u64,
}

/// What a look at a frame's first bytes shows.
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
    /// Reads the stamp of a frame that is `len` bytes long and begins with `head`.
    #[inline]
    pub fn read(head: &[u8], len: usize) -> Seen {
        let Some(head) = head.first_chunk::<MIN_SIZE>() else { return Seen::Foreign };
        let kind = u16::from_be_bytes([head[42], head[43]]);
        let ours = head[12..14] == ETHERTYPE_IPV4
            && head[30..32] == DESTINATION_NET.to_be_bytes()
            && head[36..38] == UDP_PORT;
        if !ours {
            return Seen::Foreign;
        }
        let [.., s0, s1, s2, s3, t0, t1, t2, t3, t4, t5, t6, t7, c0, c1, c2, c3] = *head;
        let stamp = Self {
            kind,
            run: u16::from_be_bytes([head[32], head[33]]),
            flow: u16::from_be_bytes([head[28], head[29]]),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            time: u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        };
        let length = u16::try_from(len).unwrap_or(0);
        let known = kind == KIND_PATTERN || kind == KIND_PLAIN;
        if known && stamp.check(length) == u32::from_be_bytes([c0, c1, c2, c3]) {
            Seen::Stamped(stamp)
        } else {
            Seen::Damaged
        }
    }

    /// Whether a pattern follows.
    #[inline]
    pub const fn has_pattern(&self) -> bool {
        self.kind == KIND_PATTERN
    }

    /// Whether `rest`, everything from byte 60 on, is the pattern that belongs to this stamp.
    #[inline]
    pub fn pattern_matches(&self, rest: &[u8]) -> bool {
        check_pattern(rest, self.seed())
    }

    const fn seed(&self) -> u64 {
        mix(((self.run as u64) << 48) | ((self.flow as u64) << 32) | self.sequence as u64)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the upper half of a 64-bit hash")]
    const fn check(&self, len: u16) -> u32 {
        let rest = self.time ^ (((self.kind as u64) << 16 | len as u64) << 32);
        (mix(self.seed() ^ mix(rest)) >> 32) as u32
    }
}

/// Scrambles a number: one multiplication each way, so that every bit of the upper half depends
/// on every bit of the number.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (value ^ (value >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// An odd number, so that the words of a pattern differ from each other.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn fill_pattern(rest: &mut [u8], seed: u64) {
    let mut word = seed;
    let (whole, tail) = rest.as_chunks_mut::<8>();
    for chunk in whole {
        *chunk = word.to_le_bytes();
        word = word.wrapping_add(STEP);
    }
    for (byte, value) in tail.iter_mut().zip(word.to_le_bytes()) {
        *byte = value;
    }
}

fn check_pattern(rest: &[u8], seed: u64) -> bool {
    let mut word = seed;
    let mut difference = 0;
    let (whole, tail) = rest.as_chunks::<8>();
    // Without an early exit, so that the compiler can use wide registers.
    for chunk in whole {
        difference |= u64::from_le_bytes(*chunk) ^ word;
        word = word.wrapping_add(STEP);
    }
    difference == 0 && tail.iter().zip(word.to_le_bytes()).all(|(byte, value)| *byte == value)
}

#[cfg(test)]
mod tests {
    use packet::MacAddr;
    use proptest::prelude::*;

    use super::*;

    const DST: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const SRC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn stamp(bytes: &[u8]) -> Option<Stamp> {
        match Stamp::read(bytes, bytes.len()) {
            Seen::Stamped(stamp) => Some(stamp),
            Seen::Foreign | Seen::Damaged => None,
        }
    }

    #[test]
    fn the_ipv4_header_is_sound() {
        let mut bytes = [0; 100];
        Builder::new(DST, SRC, 0xFFFF, true).write(&mut bytes, 0xFFFF, 1, 2);
        assert_eq!(checksum(&bytes[14..34]), 0);
        assert_eq!(bytes[16..18], 86_u16.to_be_bytes());
        assert_eq!(bytes[38..40], 66_u16.to_be_bytes());
        assert_eq!((&bytes[..6], &bytes[6..12]), (&DST.0[..], &SRC.0[..]));
    }

    #[test]
    fn other_traffic_is_foreign() {
        assert_eq!(Stamp::read(&[0; 64], 64), Seen::Foreign);
        assert_eq!(Stamp::read(&[], 0), Seen::Foreign);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            len in MIN_SIZE..2000_usize, run: u16, flow: u16, sequence: u32, time: u64,
        ) {
            let mut bytes = vec![0; len];
            Builder::new(DST, SRC, run, true).write(&mut bytes, flow, sequence, time);
            let stamp = stamp(&bytes).unwrap();
            prop_assert_eq!((stamp.run, stamp.flow, stamp.sequence, stamp.time),
                (run, flow, sequence, time));
            prop_assert!(stamp.pattern_matches(&bytes[MIN_SIZE..]));
        }

        #[test]
        fn any_flipped_bit_behind_the_udp_header_is_found(
            len in MIN_SIZE..300_usize, sequence: u32, place: prop::sample::Index, bit in 0..8_u32,
        ) {
            let mut bytes = vec![0; len];
            Builder::new(DST, SRC, 7, true).write(&mut bytes, 3, sequence, 4);
            let index = 42 + place.index(len - 42);
            bytes[index] ^= 1 << bit;
            let good = stamp(&bytes).is_some_and(|s| s.pattern_matches(&bytes[MIN_SIZE..]));
            prop_assert!(!good);
        }

        #[test]
        fn a_frame_that_was_cut_or_has_grown_is_found(
            len in MIN_SIZE + 1..300_usize, other in MIN_SIZE..300_usize,
        ) {
            prop_assume!(len != other);
            let mut bytes = vec![0; len];
            Builder::new(DST, SRC, 7, false).write(&mut bytes, 3, 5, 4);
            bytes.resize(other, 0);
            prop_assert_eq!(Stamp::read(&bytes, other), Seen::Damaged);
        }
    }
}
