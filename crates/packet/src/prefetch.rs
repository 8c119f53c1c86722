//! Hints to the CPU that a cache line will be needed soon.
//!
//! A prefetch never faults and has no effect that a program can see, so it may be given any
//! address at all.

/// The line at `ptr` will be read.
#[inline(always)]
pub fn prefetch_read(ptr: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch of any address is harmless.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

/// The line at `ptr` will be written: another CPU's copy of it is called back now, and not when it is.
#[inline(always)]
pub fn prefetch_write(ptr: *const u8) {
    prefetch_write_at::<0>(ptr);
}

/// The same of the line `OFFSET` bytes behind `ptr`.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing of it is read that a program sees")]
pub fn prefetch_write_at<const OFFSET: usize>(ptr: *const u8) {
    // In words, since compilers make another one of the library's hint where they may not take it for
    // granted that the CPU knows this one: that reads the line, which then has to be asked for once more.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch of any address is harmless, and a CPU without PREFETCHW takes it as a no-op.
    unsafe {
        std::arch::asm!(
            "prefetchw [{ptr} + {offset}]",
            ptr = in(reg) ptr,
            offset = const OFFSET,
            options(nomem, nostack, preserves_flags)
        );
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = ptr;
}
