//! CRC32c, the checksum of SCTP (RFC 9260, appendix A), of messages of which few bytes change.
//!
//! A CRC is linear: by how much that of a message changes is the CRC of what its bits change by, without what it
//! begins and ends with. So nobody has to look at the rest of the message.

/// The polynomial, with the bit of the highest power last, and without that one.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// 1, and the eighth power of x: what one more byte behind multiplies by.
const ONE: u32 = 1 << 31;
const BYTE: u32 = 1 << 23;

/// The product of two remainders.
fn multiply(one: u32, other: u32) -> u32 {
    let mut product = 0;
    let mut power = other;
    for bit in (0..32_u32).rev() {
        if one & 1 << bit != 0 {
            product ^= power;
        }
        power = power >> 1 ^ if power & 1 != 0 { POLYNOMIAL } else { 0 };
    }
    product
}

/// What so many bytes behind multiply by.
fn bytes(mut count: usize) -> u32 {
    let (mut product, mut power) = (ONE, BYTE);
    while count != 0 {
        if count & 1 != 0 {
            product = multiply(product, power);
        }
        power = multiply(power, power);
        count >>= 1;
    }
    product
}

/// By which bits the CRC32c of a message changes when a word of it does, with so many bytes behind it.
///
/// ```
/// use packet::crc32c::change;
///
/// // Those of "123456789" and of "120056789".
/// assert_eq!(0xE306_9283 ^ change(*b"34", *b"00", 5), 0xE9F6_D0AC);
/// ```
#[must_use]
pub fn change(before: [u8; 2], after: [u8; 2], behind: usize) -> u32 {
    let word = u16::from_le_bytes(before) ^ u16::from_le_bytes(after);
    // The word is the remainder of that power by which both of its bytes are farther than the end.
    multiply(u32::from(word), bytes(behind + 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the book: one bit after the other.
    fn crc32c(message: &[u8]) -> u32 {
        let step = |crc: u32, _| crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
        let each = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
        !message.iter().fold(u32::MAX, each)
    }

    #[test]
    fn the_model_is_the_crc_that_is_meant() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA, "RFC 3720, appendix B.4");
    }

    proptest! {
        #[test]
        fn what_changes_is_what_the_whole_message_says(
            message in prop::collection::vec(any::<u8>(), 2..3_000),
            at: prop::sample::Index,
            after: [u8; 2],
        ) {
            let at = at.index(message.len() - 1);
            let before = [message[at], message[at + 1]];
            let mut changed = message.clone();
            changed[at..at + 2].copy_from_slice(&after);
            let by = change(before, after, message.len() - at - 2);
            prop_assert_eq!(crc32c(&message) ^ by, crc32c(&changed));
        }
    }
}
