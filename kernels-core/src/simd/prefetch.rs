//! Asking for memory before it is needed. On machines without such an instruction
//! here, nothing happens.

/// Asks for the cache line of `words[at]`; past the end it does nothing of use, and
/// no harm.
#[inline(always)]
pub fn prefetch(words: &[i32], at: usize) {
    near(words.as_ptr().wrapping_add(at).cast());
}

/// Asks for the cache line of an address, which need not be mapped, to have it at
/// once: the core waits if it already waits for many.
#[inline(always)]
pub fn near(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 has SSE, and a prefetch of any address faults never.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Asks for the cache line of an address, which need not be mapped, to have it some
/// thousands of cycles later in the second cache: one of many such may be dropped.
#[inline(always)]
pub fn far(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 has SSE, and a prefetch of any address faults never.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}
