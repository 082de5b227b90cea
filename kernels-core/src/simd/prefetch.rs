//! Asking for memory before it is needed.

/// Asks for the cache line of `words[at]`; past the end it does nothing of use, and
/// no harm. Where a level of the cache has no such instruction here, nothing.
#[inline(always)]
pub fn prefetch(words: &[i32], at: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 has SSE, and a prefetch of any address faults never.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(words.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (words, at);
}
