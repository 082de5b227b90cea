//! Which levels this CPU has. `core` has no feature detection, so it is asked for
//! with cpuid and xgetbv, once, when a token is made. Miri runs neither: it has the
//! scalar level alone.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__cpuid, __cpuid_count};

/// AVX2, FMA, F16C and bit operations, with the system saving the registers.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2() -> bool {
    const FMA: u32 = 1 << 12;
    const OSXSAVE: u32 = 1 << 27;
    const AVX: u32 = 1 << 28;
    const F16C: u32 = 1 << 29;
    const BMI1: u32 = 1 << 3;
    const AVX2: u32 = 1 << 5;
    const BMI2: u32 = 1 << 8;
    const XMM_YMM: u64 = 0b110;
    if cfg!(miri) || __cpuid(0).eax < 7 {
        return false;
    }
    let basic = FMA | OSXSAVE | AVX | F16C;
    let extended = BMI1 | AVX2 | BMI2;
    __cpuid(1).ecx & basic == basic
        && __cpuid_count(7, 0).ebx & extended == extended
        && saved_registers() & XMM_YMM == XMM_YMM
}

/// AVX-512 F, BW, DQ, VL and VNNI, with the system saving the registers.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx512() -> bool {
    const F_DQ_BW_VL: u32 = 1 << 16 | 1 << 17 | 1 << 30 | 1 << 31;
    const VNNI: u32 = 1 << 11;
    const ZMM: u64 = 0b1110_0110;
    if !avx2() {
        return false;
    }
    let leaf = __cpuid_count(7, 0);
    leaf.ebx & F_DQ_BW_VL == F_DQ_BW_VL && leaf.ecx & VNNI == VNNI && saved_registers() & ZMM == ZMM
}

/// The register sets that the system saves: XCR0. Only to be asked when cpuid
/// says OSXSAVE.
#[cfg(target_arch = "x86_64")]
fn saved_registers() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: xgetbv with ecx = 0 only reads XCR0; the callers found OSXSAVE.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0u32, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}
