//! Words as wide as the widest move of every supported CPU.

use std::ptr::NonNull;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;

/// How many bytes such a word has.
pub(crate) const WIDE: usize = 16;

#[cfg(target_arch = "x86_64")]
type Inner = arch::__m128i;
#[cfg(not(target_arch = "x86_64"))]
type Inner = u128;

/// Bytes, in the order of memory.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Wide(Inner);

const _: () = assert!(size_of::<Wide>() == WIDE);

impl Wide {
    /// Those at `from`, which need not be aligned.
    ///
    /// # Safety
    ///
    /// `from` must be valid for reads of [`WIDE`] bytes.
    #[inline(always)]
    pub(crate) unsafe fn read(from: *const u8) -> Self {
        // SAFETY: the caller vouches for as many bytes; alignment does not matter.
        Self(unsafe { from.cast::<Inner>().read_unaligned() })
    }

    /// Writes them to `to`, which need not be aligned.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of [`WIDE`] bytes.
    #[inline(always)]
    pub(crate) unsafe fn write(self, to: *mut u8) {
        // SAFETY: the caller vouches for as many bytes; alignment does not matter.
        unsafe { to.cast::<Inner>().write_unaligned(self.0) }
    }

    /// Those of a number whose first byte in memory is the lowest.
    #[inline(always)]
    pub(crate) fn of(number: u128) -> Self {
        let bytes = number.to_le_bytes();
        // SAFETY: it has as many bytes.
        unsafe { Self::read(bytes.as_ptr()) }
    }

    /// The number whose bytes, the lowest first, they are.
    #[inline(always)]
    pub(crate) fn number(self) -> u128 {
        let mut bytes = [0; WIDE];
        // SAFETY: there is room for as many.
        unsafe { self.write(NonNull::from(&mut bytes).cast().as_ptr()) };
        u128::from_le_bytes(bytes)
    }

    /// The bits that both have.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has SSE2.
        return Self(unsafe { arch::_mm_and_si128(self.0, other.0) });
        #[cfg(not(target_arch = "x86_64"))]
        Self(self.0 & other.0)
    }

    /// The bits in which these differ from others.
    #[inline(always)]
    pub(crate) fn xor(self, other: Self) -> Self {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has SSE2.
        return Self(unsafe { arch::_mm_xor_si128(self.0, other.0) });
        #[cfg(not(target_arch = "x86_64"))]
        Self(self.0 ^ other.0)
    }

    /// The bits that one of both has.
    #[inline(always)]
    pub(crate) fn or(self, other: Self) -> Self {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has SSE2.
        return Self(unsafe { arch::_mm_or_si128(self.0, other.0) });
        #[cfg(not(target_arch = "x86_64"))]
        Self(self.0 | other.0)
    }
}
