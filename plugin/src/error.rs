//! An error on its way through the C table: told by the plugin, and the same again at the host.

use crate::{
    PWP_ALIGN, PWP_BYTES, PWP_DEVICE, PWP_EQUAL, PWP_MEMORY, PWP_MISSING, PWP_MULTIPLE,
    PWP_NEGATIVE, PWP_NOT_FINITE, PWP_RANGE, PWP_UNSUPPORTED, PWP_UNUSED, lasting, lasting_name,
    put, pwp_error, read,
};
use kernels_core::Error;
use kernels_core::error::Fault;

/// Writes what was refused.
pub fn tell(refused: &Error, error: &mut pwp_error) {
    *error = pwp_error::default();
    put(refused.field, &mut error.field);
    let (kind, expected, got, says) = match refused.fault {
        Fault::Unsupported { expected, got } => (PWP_UNSUPPORTED, 0, got, expected),
        Fault::OutOfMemory { bytes } => (PWP_MEMORY, 0, bytes as i64, ""),
        Fault::Device { says, code } => (PWP_DEVICE, 0, code, says),
        Fault::Range { least, most, got } => {
            error.most = most;
            (PWP_RANGE, least, got, "")
        }
        Fault::Equal { expected, got } => (PWP_EQUAL, expected, got, ""),
        Fault::Multiple { of, got } => (PWP_MULTIPLE, of as i64, got as i64, ""),
        Fault::Bytes { expected, got } => (PWP_BYTES, expected as i64, got as i64, ""),
        Fault::Align { expected, got } => (PWP_ALIGN, expected as i64, got as i64, ""),
        Fault::NotFinite => (PWP_NOT_FINITE, 0, 0, ""),
        Fault::Negative => (PWP_NEGATIVE, 0, 0, ""),
        Fault::Missing { needed_by } => (PWP_MISSING, 0, 0, needed_by),
        Fault::Unused { needs } => (PWP_UNUSED, 0, 0, needs),
        // Elements of buffers are told by a program's `pwk_fault`; ids are the host's.
        Fault::Element { .. }
        | Fault::Repeated { .. }
        | Fault::NotFiniteAt { .. }
        | Fault::BelowAt { .. }
        | Fault::AboveAt { .. }
        | Fault::Overlap { .. }
        | Fault::Stale => (PWP_DEVICE, 0, -1, "a refusal that is no plugin's to make"),
    };
    (error.kind, error.expected, error.got) = (kind, expected, got);
    put(says, &mut error.message);
}

/// What a plugin told of a call of that kernel.
pub fn told(kernel: &'static str, error: &pwp_error) -> Error {
    let says = || lasting(read(&error.message));
    let &pwp_error { expected, got, most, kind, .. } = error;
    let fault = match kind {
        PWP_UNSUPPORTED => Fault::Unsupported { expected: says(), got },
        PWP_MEMORY => Fault::OutOfMemory { bytes: got as u64 },
        PWP_RANGE => Fault::Range { least: expected, most, got },
        PWP_EQUAL => Fault::Equal { expected, got },
        PWP_MULTIPLE => Fault::Multiple { of: expected as u64, got: got as u64 },
        PWP_BYTES => Fault::Bytes { expected: expected as u64, got: got as u64 },
        PWP_ALIGN => Fault::Align { expected: expected as u64, got: got as u64 },
        PWP_NOT_FINITE => Fault::NotFinite,
        PWP_NEGATIVE => Fault::Negative,
        PWP_MISSING => Fault::Missing { needed_by: says() },
        PWP_UNUSED => Fault::Unused { needs: says() },
        _ => Fault::Device { says: says(), code: got },
    };
    Error::new(kernel, lasting_name(read(&error.field)), fault)
}

#[cfg(test)]
mod tests {
    use super::{tell, told};
    use crate::pwp_error;
    use kernels_core::Error;
    use kernels_core::error::Fault;

    fn through(fault: Fault) -> Fault {
        let mut error = pwp_error { most: 7, got: 7, expected: 7, ..Default::default() };
        tell(&Error::new("norm", "x_row_stride", fault), &mut error);
        let came = told("norm", &error);
        assert_eq!((came.kernel, came.field), ("norm", "x_row_stride"));
        came.fault
    }

    #[test]
    fn a_refusal_is_the_same_on_the_other_side() {
        let needs = "a residual";
        for fault in [
            Fault::Unsupported { expected: "f32 and bf16", got: 9 },
            Fault::OutOfMemory { bytes: 1 << 40 },
            Fault::Device { says: "a kernel read where it must not", code: 700 },
            Fault::Range { least: 1, most: 1 << 24, got: -5 },
            Fault::Equal { expected: 3, got: i64::MIN },
            Fault::Multiple { of: 8, got: 12 },
            Fault::Bytes { expected: u64::MAX, got: 12 },
            Fault::Align { expected: 4, got: 2 },
            Fault::NotFinite,
            Fault::Negative,
            Fault::Missing { needed_by: needs },
            Fault::Unused { needs },
        ] {
            assert_eq!(through(fault), fault);
        }
    }

    #[test]
    fn a_refusal_that_no_plugin_makes_is_a_failure_of_it() {
        for fault in [Fault::Stale, Fault::BelowAt { at: 1 }, Fault::Overlap { with: "x" }] {
            assert!(matches!(through(fault), Fault::Device { code: -1, .. }));
        }
    }
}
