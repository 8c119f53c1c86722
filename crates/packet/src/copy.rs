//! Copies of few bytes by wide moves, without a call to `memcpy`.

use std::ops::RangeInclusive;

use crate::wide::{WIDE, Wide};

/// Copies 64 bytes, one cache line where both are aligned.
///
/// # Safety
///
/// `from` must be valid for reads and `to` for writes of 64 bytes.
#[inline]
pub unsafe fn copy_line(from: *const u8, to: *mut u8) {
    // SAFETY: four moves of 16 bytes stay within the 64 that the caller vouches for.
    unsafe {
        let (a, b) = (Wide::read(from), Wide::read(from.add(WIDE)));
        let (c, d) = (Wide::read(from.add(2 * WIDE)), Wide::read(from.add(3 * WIDE)));
        a.write(to);
        b.write(to.add(WIDE));
        c.write(to.add(2 * WIDE));
        d.write(to.add(3 * WIDE));
    }
}

/// Lengths that [`copy_halves`] copies.
pub const HALVES: RangeInclusive<usize> = 2 * WIDE..=4 * WIDE;

/// Copies 32 to 64 bytes by moves of which each half has two, and which overlap.
///
/// # Safety
///
/// `len` must be one of [`HALVES`], and `from` must be valid for reads and `to` for writes of `len` bytes.
#[inline(always)]
pub unsafe fn copy_halves(from: *const u8, to: *mut u8, len: usize) {
    debug_assert!(HALVES.contains(&len));
    // SAFETY: the moves start at 0 or end at `len`, which is as long as two of them at least.
    unsafe {
        let (a, b) = (Wide::read(from), Wide::read(from.add(WIDE)));
        let end = len.wrapping_sub(2 * WIDE);
        let (c, d) = (Wide::read(from.add(end)), Wide::read(from.add(end).add(WIDE)));
        a.write(to);
        b.write(to.add(WIDE));
        c.write(to.add(end));
        d.write(to.add(end).add(WIDE));
    }
}

/// Whether [`copy_short`] copies `len` bytes.
#[inline]
pub const fn is_short(len: usize) -> bool {
    matches!(len, WIDE..=LONGEST)
}

/// What [`copy_short`] copies at most: a line, and the tags that a frame of which it was the head got in
/// front of that.
const LONGEST: usize = 64 + WIDE;

/// Copies `len` bytes by moves that overlap, if those are from 16 to 80; otherwise does nothing.
/// Returns whether it did.
///
/// # Safety
///
/// `from` must be valid for reads and `to` for writes of `len` bytes.
#[inline]
pub unsafe fn copy_short(from: *const u8, to: *mut u8, len: usize) -> bool {
    // SAFETY: in each arm, every move starts at 0 or ends at `len`, and `len` is at least as
    // long as the moves, so all of them stay within the `len` bytes that the caller vouches for.
    unsafe {
        match len {
            32..=64 => copy_halves(from, to, len),
            WIDE..32 => {
                let (first, last) = (Wide::read(from), Wide::read(from.add(len - WIDE)));
                first.write(to);
                last.write(to.add(len - WIDE));
            }
            65..=LONGEST => {
                let last = Wide::read(from.add(len - WIDE));
                copy_line(from, to);
                last.write(to.add(len - WIDE));
            }
            _ => return false,
        }
    }
    true
}

/// Copies `len` bytes, which are few as a rule. The two may overlap.
///
/// # Safety
///
/// As for [`copy_short`].
#[inline]
pub unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller vouches for both.
    unsafe {
        if !copy_short(from, to, len) {
            std::ptr::copy(from, to, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn copies_are_exact(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut to = vec![0xEE_u8; bytes.len() + 1];
            // SAFETY: `to` is longer than `bytes`.
            unsafe { copy(bytes.as_ptr(), to.as_mut_ptr(), bytes.len()) };
            prop_assert_eq!(&to[..bytes.len()], &bytes[..]);
            prop_assert_eq!(to[bytes.len()], 0xEE);
        }
    }

    #[test]
    fn a_line_is_64_bytes() {
        let from: Vec<u8> = (0..65).collect();
        let mut to = [0xEE_u8; 65];
        // SAFETY: both have 65 bytes.
        unsafe { copy_line(from.as_ptr(), to.as_mut_ptr()) };
        assert_eq!((&to[..64], to[64]), (&from[..64], 0xEE));
    }
}
