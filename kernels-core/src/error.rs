//! What a caller can get wrong, or a device can lack: always the kernel, the
//! field, what was expected and what came.

use core::fmt;

/// A refusal, made before any work starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kernel that refused, or the part of a backend (`"arena"`).
    pub kernel: &'static str,
    /// The parameter or buffer at fault, by its name in the contract.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: Fault,
}

/// The ways in which a field can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A number outside of the closed range that the contract states.
    Range {
        /// The smallest value allowed.
        least: i64,
        /// The largest value allowed.
        most: i64,
        /// The value given.
        got: i64,
    },
    /// A number that must equal another.
    Equal {
        /// The value required.
        expected: i64,
        /// The value given.
        got: i64,
    },
    /// A number that must be a multiple of another.
    Multiple {
        /// The divisor required.
        of: u64,
        /// The value given.
        got: u64,
    },
    /// A buffer of another size than its shape needs.
    Bytes {
        /// Bytes its shape takes.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
    /// A buffer whose address is not aligned to its elements.
    Align {
        /// Alignment in bytes.
        expected: u64,
        /// Address modulo that alignment.
        got: u64,
    },
    /// An element of a step buffer outside of its range: a page id, a length.
    Element {
        /// Index of the element in its buffer.
        at: u64,
        /// The smallest value allowed.
        least: i64,
        /// The largest value allowed.
        most: i64,
        /// The value found.
        got: i64,
    },
    /// An element of a step buffer that says what an earlier one says, where all differ.
    Repeated {
        /// Index of the element in its buffer.
        at: u64,
        /// Index of the earlier one.
        earlier: u64,
    },
    /// A parameter that is NaN or infinite.
    NotFinite,
    /// A parameter below zero.
    Negative,
    /// An element of a buffer that is NaN or infinite.
    NotFiniteAt {
        /// Index of the element in its buffer.
        at: u64,
    },
    /// An element of a buffer below the least that the contract allows.
    BelowAt {
        /// Index of the element in its buffer.
        at: u64,
    },
    /// An element of a buffer above the most that the contract allows.
    AboveAt {
        /// Index of the element in its buffer.
        at: u64,
    },
    /// A buffer that the parameters call for and that is absent.
    Missing {
        /// What calls for it.
        needed_by: &'static str,
    },
    /// A buffer or field that the parameters leave no meaning for.
    Unused {
        /// What would give it a meaning.
        needs: &'static str,
    },
    /// An output that overlaps another buffer.
    Overlap {
        /// The other buffer.
        with: &'static str,
    },
    /// A combination that this backend does not have.
    Unsupported {
        /// What it has.
        expected: &'static str,
        /// The value given.
        got: i64,
    },
    /// A device or its driver that failed.
    Device {
        /// What it said.
        says: &'static str,
        /// The number of its fault.
        code: i64,
    },
    /// A buffer, program or ticket that was released, or another backend's.
    Stale,
    /// The device has no such memory left.
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
    },
}

impl Error {
    /// A refusal of one field.
    pub const fn new(kernel: &'static str, field: &'static str, fault: Fault) -> Self {
        Self { kernel, field, fault }
    }

    /// What was expected, as a number, where the fault has one.
    pub const fn expected(&self) -> i64 {
        match self.fault {
            Fault::Range { least, got, most } | Fault::Element { least, got, most, .. } => {
                if got < least { least } else { most }
            }
            Fault::Equal { expected, .. } => expected,
            Fault::Multiple { of, .. } => of as i64,
            Fault::Bytes { expected, .. } | Fault::Align { expected, .. } => expected as i64,
            _ => 0,
        }
    }

    /// What came instead, as a number, where the fault has one.
    pub const fn got(&self) -> i64 {
        match self.fault {
            Fault::Range { got, .. }
            | Fault::Equal { got, .. }
            | Fault::Element { got, .. }
            | Fault::Unsupported { got, .. } => got,
            Fault::Multiple { got, .. } | Fault::Bytes { got, .. } | Fault::Align { got, .. } => {
                got as i64
            }
            Fault::OutOfMemory { bytes } => bytes as i64,
            _ => 0,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, field, fault } = self;
        write!(f, "{kernel}: {field} ")?;
        match fault {
            Fault::Range { least, most, got } => {
                write!(f, "is {got}, expected {least} to {most}")
            }
            Fault::Equal { expected, got } => write!(f, "is {got}, expected {expected}"),
            Fault::Multiple { of, got } => write!(f, "is {got}, expected a multiple of {of}"),
            Fault::Bytes { expected, got } => {
                write!(f, "holds {got} bytes, its shape takes {expected}")
            }
            Fault::Align { expected, got } => {
                write!(f, "starts {got} bytes past a multiple of {expected}")
            }
            Fault::Element { at, least, most, got } => {
                write!(f, "[{at}] is {got}, expected {least} to {most}")
            }
            Fault::Repeated { at, earlier } => write!(f, "[{at}] repeats [{earlier}]"),
            Fault::NotFinite => write!(f, "is not finite"),
            Fault::Negative => write!(f, "is negative"),
            Fault::NotFiniteAt { at } => write!(f, "[{at}] is not finite"),
            Fault::BelowAt { at } => write!(f, "[{at}] is below what is allowed"),
            Fault::AboveAt { at } => write!(f, "[{at}] is above what is allowed"),
            Fault::Missing { needed_by } => write!(f, "is absent, needed by {needed_by}"),
            Fault::Unused { needs } => write!(f, "is given but has no meaning without {needs}"),
            Fault::Overlap { with } => write!(f, "overlaps {with}"),
            Fault::Unsupported { expected, got } => {
                write!(f, "is {got}, this backend has {expected}")
            }
            Fault::Device { says, code } => write!(f, "failed with {code}: {says}"),
            Fault::Stale => write!(f, "was released or belongs to another backend"),
            Fault::OutOfMemory { bytes } => write!(f, "cannot grow by {bytes} bytes"),
        }
    }
}

impl core::error::Error for Error {}

/// Checks of one kernel's fields, each a refusal that names the field.
#[derive(Clone, Copy, Debug)]
pub struct Checks(pub &'static str);

impl Checks {
    /// Refuses `field` with `fault`.
    pub const fn refuse(self, field: &'static str, fault: Fault) -> Error {
        Error::new(self.0, field, fault)
    }

    /// `least ≤ got ≤ most`.
    pub fn range(
        self,
        field: &'static str,
        got: impl Into<i128>,
        allowed: core::ops::RangeInclusive<i64>,
    ) -> Result<(), Error> {
        let got = got.into();
        let (least, most) = (*allowed.start(), *allowed.end());
        if got >= i128::from(least) && got <= i128::from(most) {
            return Ok(());
        }
        let got = got.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        Err(self.refuse(field, Fault::Range { least, most, got }))
    }

    /// `got = expected`.
    pub fn equal(self, field: &'static str, expected: u64, got: u64) -> Result<(), Error> {
        if expected == got {
            return Ok(());
        }
        let fault = Fault::Equal { expected: expected as i64, got: got as i64 };
        Err(self.refuse(field, fault))
    }

    /// `got` is a multiple of `of`.
    pub fn multiple(self, field: &'static str, of: u64, got: u64) -> Result<(), Error> {
        if of != 0 && got.is_multiple_of(of) {
            return Ok(());
        }
        Err(self.refuse(field, Fault::Multiple { of, got }))
    }

    /// The parameter is finite.
    pub fn finite(self, field: &'static str, got: f32) -> Result<(), Error> {
        if got.is_finite() { Ok(()) } else { Err(self.refuse(field, Fault::NotFinite)) }
    }

    /// The parameter is finite and at least zero.
    pub fn at_least_zero(self, field: &'static str, got: f32) -> Result<(), Error> {
        self.finite(field, got)?;
        if got < 0.0 { Err(self.refuse(field, Fault::Negative)) } else { Ok(()) }
    }

    /// The buffer holds exactly or more than the bytes its shape takes; `None`
    /// for a shape whose size is past 2⁶⁴.
    pub fn holds(self, field: &'static str, expected: Option<u64>, got: u64) -> Result<(), Error> {
        let expected = expected.unwrap_or(u64::MAX);
        if got >= expected {
            return Ok(());
        }
        Err(self.refuse(field, Fault::Bytes { expected, got }))
    }

    /// Every element of a step buffer lies in its range.
    pub fn elements(
        self,
        field: &'static str,
        values: &[u32],
        allowed: core::ops::RangeInclusive<u32>,
    ) -> Result<(), Error> {
        match values.iter().position(|value| !allowed.contains(value)) {
            None => Ok(()),
            Some(at) => Err(self.refuse(
                field,
                Fault::Element {
                    at: at as u64,
                    least: i64::from(*allowed.start()),
                    most: i64::from(*allowed.end()),
                    got: i64::from(values[at]),
                },
            )),
        }
    }

    /// Elements of a step buffer ascend, to at most `most`.
    pub fn ascending(self, field: &'static str, values: &[u32], most: u32) -> Result<(), Error> {
        self.elements(field, values, 0..=most)?;
        match values.windows(2).position(|pair| pair[0] > pair[1]) {
            None => Ok(()),
            Some(at) => Err(self.refuse(
                field,
                Fault::Element {
                    at: at as u64 + 1,
                    least: i64::from(values[at]),
                    most: i64::from(most),
                    got: i64::from(values[at + 1]),
                },
            )),
        }
    }
}

/// The product of the extents of a shape, or `None` past 2⁶⁴.
pub fn extent(factors: &[u64]) -> Option<u64> {
    factors.iter().try_fold(1u64, |product, &factor| product.checked_mul(factor))
}
