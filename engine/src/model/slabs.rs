//! Memory for keys and values: a slab of pages for each layer.

use super::Capacity;
use super::config::Config;
use kernels_core::Error;
use kernels_core::device::{Backend, Buffer, Slice};
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault};
use kernels_core::kv_layout::KvLayout;
use kernels_core::params;

const CHECKS: Checks = Checks("slabs");

/// The pages of every layer.
#[derive(Clone, Debug)]
pub struct Slabs {
    /// Where a token lies, the same in every layer.
    pub layout: params::KvLayout,
    /// A slab for each layer.
    pub layers: Vec<Slab>,
    buffers: Vec<Buffer>,
}

/// The pages of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Slab {
    /// Keys and values.
    pub keys: Slice,
    /// `[pages, kv_heads, 2, page_len]` f32, where the type has scales by token.
    pub scales: Option<Slice>,
}

impl Slabs {
    /// Pages as many as the capacity says.
    pub fn alloc(
        backend: &mut dyn Backend,
        config: &Config,
        capacity: &Capacity,
    ) -> Result<Self, Error> {
        let layout = layout(config, capacity);
        let kv = KvLayout::new(CHECKS, &layout)?;
        let mut slabs = Self { layout, layers: Vec::new(), buffers: Vec::new() };
        for _ in 0..config.layers {
            let outcome = slabs.slab(backend, &kv);
            match outcome {
                Ok(slab) => slabs.layers.push(slab),
                Err(error) => {
                    slabs.release(backend)?;
                    return Err(error);
                }
            }
        }
        Ok(slabs)
    }

    /// Bytes that a page takes in all layers together, scales included.
    pub fn page_bytes(config: &Config, capacity: &Capacity) -> Result<u64, Error> {
        let layout = params::KvLayout { pages: 1, ..layout(config, capacity) };
        let kv = KvLayout::new(CHECKS, &layout)?;
        let bytes = kv.keys_bytes() + scale_bytes(&kv)?;
        Ok(bytes * u64::from(config.layers))
    }

    /// Gives the memory back.
    pub fn release(mut self, backend: &mut dyn Backend) -> Result<(), Error> {
        self.give_back(backend)
    }

    /// Gives the memory back and has no layer any more.
    pub fn give_back(&mut self, backend: &mut dyn Backend) -> Result<(), Error> {
        self.layers.clear();
        self.buffers.drain(..).try_for_each(|buffer| backend.release(buffer))
    }

    fn slab(&mut self, backend: &mut dyn Backend, kv: &KvLayout) -> Result<Slab, Error> {
        let mut room = |bytes: u64| {
            let buffer = backend.alloc(bytes)?;
            self.buffers.push(buffer);
            Ok::<_, Error>(Slice { buffer, offset: 0, bytes })
        };
        let keys = room(kv.keys_bytes())?;
        let scales = scale_bytes(kv)?;
        Ok(Slab { keys, scales: if scales > 0 { Some(room(scales)?) } else { None } })
    }
}

/// Bytes of the scales of a slab.
fn scale_bytes(kv: &KvLayout) -> Result<u64, Error> {
    if kv.params().scales != params::KV_SCALES_TOKEN {
        return Ok(0);
    }
    let bytes = kv.scale_count().and_then(|count| count.checked_mul(4));
    bytes.ok_or(CHECKS.refuse("scales", Fault::OutOfMemory { bytes: u64::MAX }))
}

/// Pages as the kernels like them best: K transposed, V after it.
fn layout(config: &Config, capacity: &Capacity) -> params::KvLayout {
    let (page_len, dim) = (u64::from(capacity.page_len), u64::from(config.head_dim));
    let head = 2 * page_len * dim;
    // Two dims of a nibble share a byte: a token is then two elements on.
    let token = if capacity.kv == Dtype::I4 { 2 } else { 1 };
    let by_token = matches!(capacity.kv, Dtype::I8 | Dtype::I4 | Dtype::E4m3);
    params::KvLayout {
        page_stride: head * u64::from(config.kv_heads),
        k_head_stride: head,
        k_token_stride: token,
        k_dim_stride: page_len,
        v_head_stride: head,
        v_token_stride: dim,
        v_offset: page_len * dim,
        pages: capacity.pages,
        page_len: capacity.page_len,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        dtype: capacity.kv as u32,
        scales: if by_token { params::KV_SCALES_TOKEN } else { params::KV_SCALES_NONE },
        k_scale: 0.0,
        v_scale: 0.0,
    }
}
