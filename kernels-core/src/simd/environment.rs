//! The floating-point environment a kernel needs: round to nearest even, no
//! flushing of subnormals. Hosts change it (`-ffast-math` sets FTZ at start-up),
//! so whoever calls kernels from a thread he does not own holds a [`Normal`].

use core::marker::PhantomData;

/// The default environment, for as long as this lives; then the host's again.
#[derive(Debug)]
pub struct Normal {
    host: Control,
    /// The register belongs to one thread.
    here: PhantomData<*const ()>,
}

impl Normal {
    /// Saves the thread's environment and sets the default one.
    pub fn enter() -> Self {
        let host = read();
        write(DEFAULT);
        Self { host, here: PhantomData }
    }
}

impl Drop for Normal {
    fn drop(&mut self) {
        write(self.host);
    }
}

/// Sets the thread's subnormals to be flushed, as a host might; for tests.
pub fn flush_subnormals() {
    write(FLUSHING);
}

/// Whether this thread's environment is the default one.
pub fn is_normal() -> bool {
    read() & MEANING == DEFAULT & MEANING
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod register {
    pub(super) type Control = u32;
    /// All exceptions masked, to nearest, nothing flushed.
    pub(super) const DEFAULT: Control = 0x1f80;
    /// With FTZ (bit 15) and DAZ (bit 6).
    pub(super) const FLUSHING: Control = 0x1f80 | 1 << 15 | 1 << 6;
    /// FTZ, rounding, exception masks, DAZ: all but the sticky flags.
    pub(super) const MEANING: Control = 0xffc0;

    pub(super) fn read() -> Control {
        let mut control = 0u32;
        // SAFETY: stmxcsr writes four bytes to the address it is given.
        unsafe {
            core::arch::asm!("stmxcsr [{}]", in(reg) &mut control, options(nostack, preserves_flags));
        }
        control
    }

    pub(super) fn write(control: Control) {
        // SAFETY: ldmxcsr reads four bytes; the callers pass a value read before or
        // a constant above, so no reserved bit is set.
        unsafe {
            core::arch::asm!("ldmxcsr [{}]", in(reg) &control, options(nostack, preserves_flags, readonly));
        }
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod register {
    pub(super) type Control = u64;
    pub(super) const DEFAULT: Control = 0;
    /// FZ (bit 24).
    pub(super) const FLUSHING: Control = 1 << 24;
    /// FZ16, rounding, FZ, default NaN, alternative half precision.
    pub(super) const MEANING: Control = 0b1_1111_1000 << 19;

    pub(super) fn read() -> Control {
        let control: u64;
        // SAFETY: reads a register that every thread owns.
        unsafe {
            core::arch::asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags));
        }
        control
    }

    pub(super) fn write(control: Control) {
        // SAFETY: writes a register that every thread owns, with a value read
        // before or a constant above.
        unsafe {
            core::arch::asm!("msr fpcr, {}", in(reg) control, options(nostack, preserves_flags));
        }
    }
}

/// Nothing to set: machines without vectors, and Miri, which runs no assembly.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod register {
    pub(super) type Control = u32;
    pub(super) const DEFAULT: Control = 0;
    pub(super) const FLUSHING: Control = 0;
    pub(super) const MEANING: Control = 0;

    pub(super) fn read() -> Control {
        0
    }

    pub(super) fn write(_: Control) {}
}

use register::{Control, DEFAULT, FLUSHING, MEANING, read, write};
