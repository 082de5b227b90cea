//! The tensors that make one term, and the term they make: whatever the format, the same
//! checks.

use super::matrices::{Kind, Matrix};
use super::stored::Stored;
use crate::error::Error;
use engine::lora::Term;
use std::collections::BTreeMap;

/// Which piece of a term a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What takes inputs to ranks.
    A,
    /// What takes ranks to outputs.
    B,
    /// The lengths of rows.
    Magnitude,
}

/// The tensors of one term.
#[derive(Debug, Default)]
pub struct Pieces<'a> {
    a: Option<Stored<'a>>,
    b: Option<Stored<'a>>,
    magnitude: Option<Stored<'a>>,
}

/// What a configuration says of a term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Said {
    /// Its rank.
    pub rank: u32,
    /// Its scale.
    pub scale: f32,
    /// Whether it has magnitudes.
    pub magnitude: bool,
    /// Whether A and B are stored as `[inputs, rank]` and `[rank, outputs]`.
    pub turned: bool,
}

/// Puts a tensor to the term of its matrix.
pub fn put<'a>(
    all: &mut BTreeMap<String, Pieces<'a>>,
    matrix: &str,
    piece: Piece,
    stored: Stored<'a>,
) -> Result<(), Error> {
    let pieces = all.entry(matrix.to_owned()).or_default();
    let place = match piece {
        Piece::A => &mut pieces.a,
        Piece::B => &mut pieces.b,
        Piece::Magnitude => &mut pieces.magnitude,
    };
    if let Some(other) = place {
        return Err(stored.refuse(format!("is in the file a second time, as {}", other.name)));
    }
    *place = Some(stored);
    Ok(())
}

impl Pieces<'_> {
    /// The term of that matrix. `None` only where no tensor was put.
    pub fn term(&self, matrix: &Matrix, said: Said) -> Result<Option<Term>, Error> {
        let (a, b) = match (&self.a, &self.b) {
            (Some(a), Some(b)) => (a, b),
            (Some(a), None) => return Err(a.refuse("has no B beside it")),
            (None, Some(b)) => return Err(b.refuse("has no A beside it")),
            (None, None) => {
                let alone = |magnitude: &Stored<'_>| magnitude.refuse("has no A and B beside it");
                return self.magnitude.as_ref().map_or(Ok(None), |one| Err(alone(one)));
            }
        };
        let magnitude = self.magnitude(matrix, said, a)?;
        let Said { rank, scale, turned, .. } = said;
        let Matrix { inputs, outputs, .. } = *matrix;
        let (a, b) = match turned {
            false => (a.floats(&[rank, inputs])?, b.floats(&[outputs, rank])?),
            true => (
                turn(&a.floats(&[inputs, rank])?, rank),
                turn(&b.floats(&[rank, outputs])?, outputs),
            ),
        };
        Ok(Some(Term { rank, inputs, outputs, a, b, scale, magnitude }))
    }

    /// Its magnitudes, where the configuration has them; `a` names what lacks them.
    fn magnitude(
        &self,
        matrix: &Matrix,
        said: Said,
        a: &Stored<'_>,
    ) -> Result<Option<Vec<f32>>, Error> {
        let stored = match (&self.magnitude, said.magnitude) {
            (None, false) => return Ok(None),
            (None, true) => return Err(a.refuse("has no magnitudes beside it, as DoRA has")),
            (Some(stored), false) => {
                return Err(stored.refuse("is a magnitude, and the configuration has no DoRA"));
            }
            (Some(stored), true) => stored,
        };
        if matrix.kind == Kind::Embedding {
            return Err(stored.refuse("is the magnitude of an embedding, which is not served"));
        }
        // Libraries leave the bias as it is; here all that the product gives is scaled.
        if matrix.bias {
            let what = "is the magnitude of a matrix that adds a bias, which is not served";
            return Err(stored.refuse(what));
        }
        stored.floats(&[matrix.outputs]).map(Some)
    }
}

/// `[rows, columns]` as `[columns, rows]`.
pub fn turn(from: &[f32], columns: u32) -> Vec<f32> {
    let columns = columns as usize;
    let column = |column: usize| from.iter().skip(column).step_by(columns.max(1)).copied();
    (0..columns).flat_map(column).collect()
}
