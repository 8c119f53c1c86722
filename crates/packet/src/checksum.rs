//! The Internet checksum (RFC 1071), its pseudo headers and its incremental update (RFC 1624).
//!
//! Sums are taken over native-endian words: the one's complement sum of byte-swapped words is
//! the byte-swapped sum (RFC 1071, section 2 B), so only the result is put in network order.

/// Bytes after which the wide sum is folded: its 64-bit lanes hold far more than that.
const BLOCK: usize = 1 << 20;

/// A checksum in the making, over any number of parts, each of any length.
///
/// ```
/// use packet::checksum::Checksum;
///
/// // The example of RFC 1071, section 3, in two parts of odd length.
/// let mut checksum = Checksum::new();
/// checksum.add(&[0x00, 0x01, 0xf2]);
/// checksum.add(&[0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
/// assert_eq!(checksum.finish(), !0xddf2);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// One's complement sum so far, folded, of native-endian words.
    sum: u16,
    /// Whether an odd number of bytes came before, so that the next part is out of step.
    odd: bool,
}

impl Checksum {
    /// The checksum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// Starts with the pseudo header of TCP or UDP over IPv4 (RFC 9293, section 3.1): `len` is
    /// that of the transport header and its payload.
    #[must_use]
    pub fn pseudo_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, len: u16) -> Self {
        let mut checksum = Self::new();
        checksum.add(&source);
        checksum.add(&destination);
        checksum.add_u16(u16::from(protocol));
        checksum.add_u16(len);
        checksum
    }

    /// Starts with the pseudo header of IPv6 (RFC 8200, section 8.1): `len` is that of the
    /// upper-layer header and its payload.
    #[must_use]
    pub fn pseudo_v6(source: [u8; 16], destination: [u8; 16], protocol: u8, len: u32) -> Self {
        let mut checksum = Self::new();
        checksum.add(&source);
        checksum.add(&destination);
        checksum.add(&len.to_be_bytes());
        checksum.add_u16(u16::from(protocol));
        checksum
    }

    /// Adds the next bytes.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let sum = sum(bytes);
        let sum = if self.odd { sum.swap_bytes() } else { sum };
        self.sum = add_words(self.sum, sum);
        self.odd ^= !bytes.len().is_multiple_of(2);
    }

    /// Adds the next two bytes, as a number.
    #[inline]
    pub fn add_u16(&mut self, value: u16) {
        self.add(&value.to_be_bytes());
    }

    /// The one's complement sum so far, not inverted, as a number: what a partial checksum field
    /// holds when the rest is left to the device (virtio 1.3, section 5.1.6.2).
    #[must_use]
    pub const fn partial(&self) -> u16 {
        u16::from_be(self.sum)
    }

    /// The checksum, as the number that goes into the field.
    #[must_use]
    pub const fn finish(&self) -> u16 {
        !self.partial()
    }

    /// The checksum for UDP, where 0 would mean "none" and is sent as 0xFFFF (RFC 768).
    #[must_use]
    pub const fn finish_udp(&self) -> u16 {
        match self.finish() {
            0 => 0xFFFF,
            checksum => checksum,
        }
    }

    /// Whether what was added, a correct checksum field included, sums up as it should.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        self.sum == 0xFFFF
    }
}

/// The checksum of one slice.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !u16::from_be(sum(bytes))
}

/// The checksum after a 16-bit word under it changed from `old` to `new` (RFC 1624, equation 3).
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !add_words(add_words(!checksum, !old), new)
}

/// The checksum after an aligned 32-bit value under it changed, such as an IPv4 address.
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let [a, b, c, d] = old.to_be_bytes();
    let [e, f, g, h] = new.to_be_bytes();
    let first = update(checksum, u16::from_be_bytes([a, b]), u16::from_be_bytes([e, f]));
    update(first, u16::from_be_bytes([c, d]), u16::from_be_bytes([g, h]))
}

/// One's complement addition.
#[inline]
const fn add_words(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // With a carry the sum is at most 0xFFFE.
    sum.wrapping_add(carry as u16)
}

/// Sum of native-endian words, the last one padded with a zero byte.
#[inline]
fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(BLOCK).fold(0, |total, block| add_words(total, sum_block(block)))
}

/// Eight independent lanes, for the compiler to make vector instructions of.
fn sum_block(block: &[u8]) -> u16 {
    let (wide, rest) = block.as_chunks::<32>();
    let mut lanes = [0_u64; 8];
    for chunk in wide {
        let (words, _) = chunk.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            // 2^20 bytes are at most 2^15 additions of 32 bits: no overflow.
            *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
    }
    let mut total = lanes.iter().fold(0_u64, |total, lane| total.wrapping_add(*lane));
    let (words, last) = rest.as_chunks::<2>();
    for word in words {
        total = total.wrapping_add(u64::from(u16::from_ne_bytes(*word)));
    }
    if let [byte] = last {
        total = total.wrapping_add(u64::from(u16::from_ne_bytes([*byte, 0])));
    }
    fold(total)
}

/// Adds a wide sum's 16-bit words to one.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xFFFF_FFFF);
    let sum = (sum >> 32) + (sum & 0xFFFF_FFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    #[allow(clippy::cast_possible_truncation, reason = "at most 0xFFFF after two folds")]
    {
        sum as u16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As RFC 1071 defines it, word by word.
    fn model(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn a_real_ipv4_header_is_valid_and_a_wrong_one_is_not() {
        // Written by a Linux kernel.
        let header: [u8; 20] = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        let mut sum = Checksum::new();
        sum.add(&header);
        assert!(sum.is_valid());
        let mut wrong = header;
        wrong[3] ^= 1;
        assert_ne!(checksum(&wrong), 0);
        let mut zeroed = header;
        zeroed[10..12].fill(0);
        assert_eq!(checksum(&zeroed), 0xb861);
    }

    #[test]
    fn long_input_of_the_worst_bytes_does_not_overflow() {
        for len in [65_535, 3 * BLOCK + 1] {
            let bytes = vec![0xFF; len];
            assert_eq!(checksum(&bytes), model(&bytes));
        }
    }

    #[test]
    fn udp_never_sends_zero() {
        let mut sum = Checksum::new();
        sum.add(&[0xFF, 0xFF]);
        assert_eq!((sum.finish(), sum.finish_udp()), (0, 0xFFFF));
    }

    #[test]
    fn pseudo_headers_are_the_bytes_of_the_standards() {
        let v4 = Checksum::pseudo_v4([192, 0, 2, 1], [198, 51, 100, 7], 17, 0x1234);
        assert_eq!(v4.finish(), model(&[192, 0, 2, 1, 198, 51, 100, 7, 0, 17, 0x12, 0x34]));
        let (source, destination) = ([0x20; 16], [0xFE; 16]);
        let mut bytes = [source, destination].concat();
        bytes.extend([0, 1, 0x23, 0x45, 0, 0, 0, 58]);
        assert_eq!(Checksum::pseudo_v6(source, destination, 58, 0x12345).finish(), model(&bytes));
    }

    proptest! {
        #[test]
        fn it_equals_the_model(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(checksum(&bytes), model(&bytes));
        }

        #[test]
        fn parts_of_any_length_make_the_whole(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 0..20),
        ) {
            let mut sum = Checksum::new();
            parts.iter().for_each(|part| sum.add(part));
            prop_assert_eq!(sum.finish(), model(&parts.concat()));
        }

        #[test]
        fn an_update_equals_a_recalculation(
            mut words in prop::collection::vec(any::<u16>(), 2..40), at: prop::sample::Index,
            new: u32,
        ) {
            let bytes = |words: &[u16]| -> Vec<u8> {
                words.iter().flat_map(|word| word.to_be_bytes()).collect()
            };
            let before = checksum(&bytes(&words));
            let at = at.index(words.len() - 1);
            let old = u32::from(words[at]) << 16 | u32::from(words[at + 1]);
            words[at] = u16::try_from(new >> 16).unwrap();
            words[at + 1] = u16::try_from(new & 0xFFFF).unwrap();
            let after = checksum(&bytes(&words));
            let updated = update_u32(before, old, new);
            // 0 and 0xFFFF are both zero in one's complement, and only data of nothing but
            // zeroes can tell them apart.
            prop_assert!(updated == after || words.iter().all(|word| *word == 0), "{updated:x}");
            let mut sum = Checksum::new();
            sum.add(&bytes(&words));
            sum.add_u16(updated);
            prop_assert!(sum.is_valid() || words.iter().all(|word| *word == 0));
        }
    }
}
