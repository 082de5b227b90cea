//! Seeded numbers for cases: the same on every machine.

use kernels_core::math::philox::{philox, uniform};

/// A stream of numbers from a seed.
#[derive(Clone, Debug)]
pub struct Noise {
    key: [u32; 2],
    drawn: u32,
}

impl Noise {
    /// The stream of that seed.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], drawn: 0 }
    }

    /// 32 random bits.
    pub fn word(&mut self) -> u32 {
        self.drawn += 1;
        philox(self.key, [self.drawn, 0, 0, 0])[0]
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(bound)) >> 32) as u32
    }

    /// A number in (0, 1).
    pub fn uniform(&mut self) -> f32 {
        uniform(self.word())
    }

    /// A number with mean 0 and variance 1, nearly normal: twelve uniforms less six
    /// would be slow, so the sum of four, scaled.
    pub fn normal(&mut self) -> f32 {
        self.drawn += 1;
        let words = philox(self.key, [self.drawn, 1, 0, 0]);
        (words.map(uniform).iter().sum::<f32>() - 2.0) * 1.732_050_8
    }

    /// So many normal numbers, times a scale.
    pub fn normals(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| self.normal() * scale).collect()
    }

    /// A random order of `0..count`.
    pub fn permutation(&mut self, count: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i as usize, self.below(i + 1) as usize);
        }
        order
    }
}
