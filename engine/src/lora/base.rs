//! The base weights under an adapter whose rows have lengths of their own (DoRA).

use super::{Matrix, Term};
use crate::model::Source;
use crate::weights::{LoadError, Rows32};

/// The length of each row of base and term together: `|W + scale · B A|`. The base is what
/// the server computes with: quantised, where it quantises.
pub fn lengths(matrix: &Matrix, term: &Term, base: &Source<'_>) -> Result<Vec<f64>, LoadError> {
    let rows = Rows32::open(base, &matrix.name, [matrix.outputs, matrix.inputs])?;
    let (rank, inputs) = (term.rank as usize, term.inputs as usize);
    let mut lengths = Vec::with_capacity(matrix.outputs as usize);
    let mut sum = vec![0f64; inputs];
    rows.each(|row| {
        sum.iter_mut().zip(row).for_each(|(sum, &w)| *sum = f64::from(w));
        let b = &term.b[lengths.len() * rank..][..rank];
        for (a, &b) in term.a.chunks_exact(inputs).zip(b) {
            let by = f64::from(term.scale) * f64::from(b);
            sum.iter_mut().zip(a).for_each(|(sum, &a)| *sum += by * f64::from(a));
        }
        lengths.push(sum.iter().map(|x| x * x).sum::<f64>().sqrt());
    })?;
    Ok(lengths)
}
