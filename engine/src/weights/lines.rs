//! Room in which tiles are packed: aligned as every backend asks for.

use bytemuck::{Pod, Zeroable};

/// Bytes that start at a multiple of 64.
pub struct Lines(Vec<Line>);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Lines {
    /// So many zeros, and what is missing to the next multiple of 64.
    pub fn zeroed(bytes: usize) -> Self {
        Self(vec![Line([0; 64]); bytes.div_ceil(64)])
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    /// All of them, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
