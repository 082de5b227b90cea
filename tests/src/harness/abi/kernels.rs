//! Each command as a call of C: its descriptor, its lengths, its buffers.

use super::{Abi, Bytes};
use kernels_core::Error;
use kernels_core::activation::Activation;
use kernels_core::append_kv::AppendKv;
use kernels_core::attention::Attention;
use kernels_core::attention_fold::AttentionFold;
use kernels_core::device::{Command, Read, Slice, Update, Write};
use kernels_core::dtype::Dtype;
use kernels_core::embed::Embed;
use kernels_core::gather::Gather;
use kernels_core::kv_copy::KvCopy;
use kernels_core::logit_mask::LogitMask;
use kernels_core::lora::Lora;
use kernels_core::matmul::Matmul;
use kernels_core::norm::Norm;
use kernels_core::params;
use kernels_core::pool::Pool;
use kernels_core::rope::Rope;
use kernels_core::sample::Sample;
use kernels_core::spec_verify::SpecVerify;
use kernels_core::token_logprob::TokenLogprob;
use kernels_core::varlen_mask::VarlenMask;
use pagewise::header::*;
use std::ptr::{null, null_mut, with_exposed_provenance, with_exposed_provenance_mut};

/// Calls it.
pub fn call(abi: &mut Abi, command: &Command) -> Result<(), Error> {
    match command {
        Command::Activation(command) => activation(abi, command),
        Command::AppendKv(command) => append_kv(abi, command),
        Command::Attention(command) => attention(abi, command),
        Command::AttentionFold(command) => attention_fold(abi, command),
        Command::Embed(command) => embed(abi, command),
        Command::Gather(command) => gather(abi, command),
        Command::KvCopy(command) => kv_copy(abi, command),
        Command::LogitMask(command) => logit_mask(abi, command),
        Command::Lora(command) => lora(abi, command),
        Command::Matmul(command) => matmul(abi, command),
        Command::Norm(command) => norm(abi, command),
        Command::Pool(command) => pool(abi, command),
        Command::Rope(command) => rope(abi, command),
        Command::Sample(command) => sample(abi, command),
        Command::SpecVerify(command) => spec_verify(abi, command),
        Command::TokenLogprob(command) => token_logprob(abi, command),
        Command::VarlenMask(command) => varlen_mask(abi, command),
    }
}

/// Where a buffer lies, or NULL.
trait Address {
    fn slice(&self) -> Option<Slice>;

    fn at<T>(&self) -> *const T {
        self.slice().map_or(null(), |slice| with_exposed_provenance(slice.offset as usize))
    }

    fn to<T>(&self) -> *mut T {
        self.slice().map_or(null_mut(), |slice| with_exposed_provenance_mut(slice.offset as usize))
    }

    /// The words that are there still, for a case holds its buffers while its command runs.
    fn words(&self) -> Option<&[u32]> {
        let slice = self.slice()?;
        // SAFETY: as above.
        Some(unsafe { std::slice::from_raw_parts(self.at(), slice.bytes as usize / 4) })
    }

    /// The live count, or all.
    fn live(&self, most: u32) -> u32 {
        self.words().map_or(most, |words| words[0])
    }
}

macro_rules! addresses {
    ($($access:ident)*) => {$(
        impl Address for $access {
            fn slice(&self) -> Option<Slice> {
                Some(self.0)
            }
        }
        impl Address for Option<$access> {
            fn slice(&self) -> Option<Slice> {
                self.as_ref().map(|access| access.0)
            }
        }
    )*};
}
addresses!(Read Write Update);

/// Elements of a type as bytes.
fn bytes(elements: u64, dtype: u32) -> i64 {
    let dtype = Dtype::ALL.into_iter().find(|known| *known as u32 == dtype);
    dtype.map_or(0, |dtype| dtype.bytes(Some(elements)).map_or(i64::MAX, |bytes| bytes as i64))
}

fn size<T>() -> u32 {
    size_of::<T>() as u32
}

fn weight(p: &params::Weight) -> pw_weight {
    let params::Weight { outputs, inputs, dtype, scheme, group, scale_dtype } = *p;
    pw_weight { outputs, inputs, dtype, scheme, group, scale_dtype }
}

fn layout(p: &params::KvLayout) -> pw_kv_layout {
    let stride = |elements| bytes(elements, p.dtype);
    // Pairs of dims share a byte.
    let dims = if p.dtype == params::DTYPE_I4 { 2 * p.k_dim_stride } else { p.k_dim_stride };
    pw_kv_layout {
        page_stride: stride(p.page_stride),
        k_head_stride: stride(p.k_head_stride),
        k_token_stride: stride(p.k_token_stride),
        k_dim_stride: stride(dims),
        v_head_stride: stride(p.v_head_stride),
        v_token_stride: stride(p.v_token_stride),
        v_offset: stride(p.v_offset),
        pages: p.pages,
        page_len: p.page_len,
        kv_heads: p.kv_heads,
        head_dim: p.head_dim,
        dtype: p.dtype,
        scales: p.scales,
        k_scale: p.k_scale,
        v_scale: p.v_scale,
    }
}

/// Calls a kernel: descriptor, what its plan takes, and its buffers.
macro_rules! through {
    (
        $abi:ident, $query:ident, $plan:ident, $run:ident, $desc:ident,
        ($($lens:expr),+),
        $args:ident { $($field:ident: $value:expr),* $(,)? }
    ) => {
        $abi.through(
            |device, needs, error| {
                // SAFETY: structs of their sizes.
                unsafe { $query(device, &$desc, needs, error) }
            },
            |device, to, room, error| {
                // SAFETY: structs of their sizes, lists of the case, and so much room.
                unsafe { $plan(device, &$desc, $($lens,)+ to, room, error) }
            },
            |device, run, error| {
                let (struct_size, reserved) = (size::<$args>(), 0);
                let args = $args { struct_size, reserved, run, $($field: $value,)* };
                // SAFETY: structs of their sizes, and the buffers of the case.
                unsafe { $run(device, &$desc, &args, null_mut(), error) }
            },
        )
    };
}

fn activation(abi: &mut Abi, of: &Activation) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_activation_desc {
        struct_size: size::<pw_activation_desc>(),
        rows_max: p.rows_max,
        x_row_stride: bytes(p.x_row_stride, p.x_dtype),
        out_row_stride: bytes(p.out_row_stride, p.out_dtype),
        columns: p.columns,
        up_offset: p.up_offset,
        kind: p.kind,
        x_dtype: p.x_dtype,
        out_dtype: p.out_dtype,
        reserved: 0,
    };
    through!(
        abi,
        pw_activation_query,
        pw_activation_plan,
        pw_activation_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_activation_args { x: of.x.at(), out: of.out.to() }
    )
}

fn embed(abi: &mut Abi, of: &Embed) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_embed_desc {
        struct_size: size::<pw_embed_desc>(),
        rows_max: p.rows_max,
        table_row_stride: bytes(p.table_row_stride, p.weight.dtype),
        out_row_stride: bytes(p.out_row_stride, p.out_dtype),
        weight: weight(&p.weight),
        packed: p.packed,
        out_dtype: p.out_dtype,
        scale: p.scale,
        reserved: 0,
    };
    through!(
        abi,
        pw_embed_query,
        pw_embed_plan,
        pw_embed_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_embed_args { table: of.table.at(), tokens: of.tokens.at(), out: of.out.to() }
    )
}

fn norm(abi: &mut Abi, of: &Norm) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_norm_desc {
        struct_size: size::<pw_norm_desc>(),
        rows_max: p.rows_max,
        x_row_stride: bytes(p.x_row_stride, p.x_dtype),
        residual_row_stride: bytes(p.residual_row_stride, p.x_dtype),
        out_row_stride: bytes(p.out_row_stride, p.out_dtype),
        heads: p.heads,
        columns: p.columns,
        x_dtype: p.x_dtype,
        weight_dtype: p.weight_dtype,
        out_dtype: p.out_dtype,
        epsilon: p.epsilon,
        weight_offset: p.weight_offset,
        reserved: 0,
    };
    through!(
        abi,
        pw_norm_query,
        pw_norm_plan,
        pw_norm_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_norm_args {
            x: of.x.at(),
            weight: of.weight.at(),
            residual: of.residual.to(),
            out: of.out.to(),
        }
    )
}

fn matmul(abi: &mut Abi, of: &Matmul) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_matmul_desc {
        struct_size: size::<pw_matmul_desc>(),
        rows_max: p.rows_max,
        x_row_stride: bytes(p.x_row_stride, p.x_dtype),
        out_row_stride: bytes(p.out_row_stride, p.out_dtype),
        weight: weight(&p.weight),
        x_dtype: p.x_dtype,
        bias_dtype: p.bias_dtype,
        out_dtype: p.out_dtype,
        reserved: 0,
    };
    through!(
        abi,
        pw_matmul_query,
        pw_matmul_plan,
        pw_matmul_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_matmul_args {
            x: of.x.at(),
            weight: of.weight.at(),
            bias: of.bias.at(),
            out: of.out.to(),
        }
    )
}

fn lora(abi: &mut Abi, of: &Lora) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_lora_desc {
        struct_size: size::<pw_lora_desc>(),
        rows_max: p.rows_max,
        x_row_stride: bytes(p.x_row_stride, p.x_dtype),
        out_row_stride: bytes(p.out_row_stride, params::DTYPE_F32),
        inputs: p.inputs,
        outputs: p.outputs,
        slots: p.slots,
        rank_max: p.rank_max,
        x_dtype: p.x_dtype,
        weight_dtype: p.weight_dtype,
    };
    through!(
        abi,
        pw_lora_query,
        pw_lora_plan,
        pw_lora_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_lora_args {
            x: of.x.at(),
            a: of.a.at(),
            b: of.b.at(),
            ranks: of.ranks.at(),
            scales: of.scales.at(),
            magnitudes: of.magnitudes.at(),
            adapters: of.adapters.at(),
            out: of.out.to(),
        }
    )
}

fn rope(abi: &mut Abi, of: &Rope) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_rope_desc {
        struct_size: size::<pw_rope_desc>(),
        rows_max: p.rows_max,
        x_row_stride: bytes(p.x_row_stride, p.x_dtype),
        out_row_stride: bytes(p.out_row_stride, p.out_dtype),
        heads: p.heads,
        head_dim: p.head_dim,
        rotary_dims: p.rotary_dims,
        table_len: p.table_len,
        pairing: p.pairing,
        x_dtype: p.x_dtype,
        out_dtype: p.out_dtype,
        reserved: 0,
    };
    through!(
        abi,
        pw_rope_query,
        pw_rope_plan,
        pw_rope_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_rope_args {
            x: of.x.at(),
            table: of.table.at(),
            positions: of.positions.at(),
            out: of.out.to(),
        }
    )
}

fn append_kv(abi: &mut Abi, of: &AppendKv) -> Result<(), Error> {
    let p = &of.params;
    let lens = pw_append_kv_lens {
        struct_size: size::<pw_append_kv_lens>(),
        rows: of.rows.live(p.rows_max),
        slot_starts: of.slot_starts.at(),
    };
    let desc = pw_append_kv_desc {
        struct_size: size::<pw_append_kv_desc>(),
        rows_max: p.rows_max,
        kv: layout(&p.kv),
        k_row_stride: bytes(p.k_row_stride, p.x_dtype),
        v_row_stride: bytes(p.v_row_stride, p.x_dtype),
        slots_max: p.slots_max,
        x_dtype: p.x_dtype,
        rope: p.rope,
        rotary_dims: p.rotary_dims,
        table_len: p.table_len,
        reserved: 0,
    };
    through!(
        abi,
        pw_append_kv_query,
        pw_append_kv_plan,
        pw_append_kv_run,
        desc,
        (&lens),
        pw_append_kv_args {
            k: of.k.at(),
            v: of.v.at(),
            keys: of.keys.to(),
            values: of.values.to(),
            kv_scales: of.scales.to(),
            slots: of.slots.at(),
            table: of.table.at(),
            positions: of.positions.at(),
        }
    )
}

fn kv_copy(abi: &mut Abi, of: &KvCopy) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_kv_copy_desc {
        struct_size: size::<pw_kv_copy_desc>(),
        entries_max: p.entries_max,
        kv: layout(&p.kv),
        tokens_max: p.tokens_max,
        reserved: 0,
    };
    through!(
        abi,
        pw_kv_copy_query,
        pw_kv_copy_plan,
        pw_kv_copy_run,
        desc,
        (of.count.live(p.entries_max)),
        pw_kv_copy_args {
            keys: of.keys.to(),
            values: of.values.to(),
            kv_scales: of.scales.to(),
            entries: of.entries.at(),
        }
    )
}

fn varlen_mask(abi: &mut Abi, of: &VarlenMask) -> Result<(), Error> {
    let p = &of.params;
    // Without boundaries every sequence is one document.
    let documents = p.documents_max > 0;
    let lens = pw_varlen_mask_lens {
        struct_size: size::<pw_varlen_mask_lens>(),
        seqs: of.sequences.live(p.sequences_max),
        row_start: of.row_start.at(),
        lengths: of.lengths.at(),
        prefixes: of.prefixes.at(),
        document_start: if documents { of.document_start.at() } else { null() },
        documents: if documents { of.documents.at() } else { null() },
        tree_nodes: of.tree_nodes.at(),
    };
    let desc = pw_varlen_mask_desc {
        struct_size: size::<pw_varlen_mask_desc>(),
        rows_max: p.rows_max,
        seqs_max: p.sequences_max,
        documents_max: p.documents_max,
        window: p.window,
        tree: u32::from(of.tree_nodes.is_some()),
    };
    through!(
        abi,
        pw_varlen_mask_query,
        pw_varlen_mask_plan,
        pw_varlen_mask_run,
        desc,
        (&lens),
        pw_varlen_mask_args {
            parents: of.parents.at(),
            intervals: of.intervals.to(),
            tree_bits: of.tree_bits.to(),
            positions: of.positions.to(),
        }
    )
}

fn attention(abi: &mut Abi, of: &Attention) -> Result<(), Error> {
    let p = &of.params;
    let mask = [
        (p.causal == 1, PW_MASK_CAUSAL),
        (of.intervals.is_some(), PW_MASK_INTERVALS),
        (of.tree_bits.is_some(), PW_MASK_TREE),
    ];
    let lens = pw_attention_lens {
        struct_size: size::<pw_attention_lens>(),
        seqs: of.seqs.live(p.seqs_max),
        q_start: of.q_start.at(),
        kv_len: of.kv_len.at(),
        page_start: of.page_start.at(),
        first_position: of.first_position.at(),
    };
    let desc = pw_attention_desc {
        struct_size: size::<pw_attention_desc>(),
        mask: mask.iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum(),
        kv: layout(&p.kv),
        q_row_stride: bytes(p.q_row_stride, p.q_dtype),
        out_row_stride: bytes(p.out_row_stride, p.out_dtype),
        q_dtype: p.q_dtype,
        out_dtype: p.out_dtype,
        q_heads: p.q_heads,
        window: p.window,
        scale: p.scale,
        softcap: p.softcap,
        page_table: [PW_PAGES_LISTED, PW_PAGES_PADDED][usize::from(p.table_width > 0)],
        table_width: p.table_width,
        rows_max: p.rows_max,
        seqs_max: p.seqs_max,
        kv_len_max: p.kv_len_max,
        page_ids_max: p.page_ids_max,
    };
    through!(
        abi,
        pw_attention_query,
        pw_attention_plan,
        pw_attention_run,
        desc,
        (&lens),
        pw_attention_args {
            q: of.q.at(),
            keys: of.keys.at(),
            values: of.values.at(),
            kv_scales: of.scales.at(),
            page_ids: of.page_ids.at(),
            intervals: of.intervals.at(),
            tree_bits: of.tree_bits.at(),
            sinks: of.sinks.at(),
            slopes: of.slopes.at(),
            out: of.out.to(),
            lse: of.lse.to(),
        }
    )
}

/// The first `kept` bytes of each `whole` of a buffer, one after the other.
fn packed(from: Slice, whole: usize, kept: usize) -> Bytes {
    let at = with_exposed_provenance::<u8>(from.offset as usize);
    // SAFETY: the case holds its buffers while its command runs.
    let bytes = unsafe { std::slice::from_raw_parts(at, from.bytes as usize) };
    let parts = bytes.chunks(whole.max(1)).flat_map(|part| &part[..kept.min(part.len())]);
    let parts: Vec<u8> = parts.copied().collect();
    let mut packed = Bytes::filled(parts.len(), 0);
    packed.as_mut_slice().copy_from_slice(&parts);
    packed
}

fn attention_fold(abi: &mut Abi, of: &AttentionFold) -> Result<(), Error> {
    let (p, rows) = (&of.params, of.rows.live(of.params.rows_max));
    let part_bytes = bytes(p.part_row_stride, p.part_dtype) as usize;
    let states = 4 * p.heads as usize;
    let (whole, live) = (p.rows_max as usize, rows as usize);
    // On the CPU parts follow each other, without room for rows that are not in use.
    let kept = [
        packed(of.parts.0, part_bytes * whole, part_bytes * live),
        packed(of.part_lse.0, states * whole, states * live),
    ];
    let [parts, part_lse] = match abi.has_streams() {
        true => [of.parts.at(), of.part_lse.at::<u8>()],
        false => kept.each_ref().map(|bytes| bytes.as_slice().as_ptr()),
    };
    let desc = pw_attention_fold_desc {
        struct_size: size::<pw_attention_fold_desc>(),
        rows_max: p.rows_max,
        part_row_stride: bytes(p.part_row_stride, p.part_dtype),
        out_row_stride: bytes(p.out_row_stride, p.out_dtype),
        parts: p.parts,
        heads: p.heads,
        head_dim: p.head_dim,
        part_dtype: p.part_dtype,
        out_dtype: p.out_dtype,
        reserved: 0,
    };
    through!(
        abi,
        pw_attention_fold_query,
        pw_attention_fold_plan,
        pw_attention_fold_run,
        desc,
        (rows),
        pw_attention_fold_args {
            parts: parts.cast(),
            part_lse: part_lse.cast(),
            out: of.out.to(),
            lse: of.lse.to(),
        }
    )
}

fn gather(abi: &mut Abi, of: &Gather) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_gather_desc {
        struct_size: size::<pw_gather_desc>(),
        rows_max: p.rows_max,
        x_row_stride: bytes(p.x_row_stride, p.dtype),
        out_row_stride: bytes(p.out_row_stride, p.dtype),
        x_rows: p.x_rows,
        columns: p.columns,
        dtype: p.dtype,
        reserved: 0,
    };
    through!(
        abi,
        pw_gather_query,
        pw_gather_plan,
        pw_gather_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_gather_args { x: of.x.at(), indices: of.indices.at(), out: of.out.to() }
    )
}

fn pool(abi: &mut Abi, of: &Pool) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_pool_desc {
        struct_size: size::<pw_pool_desc>(),
        rows_max: p.rows_max,
        x_row_stride: bytes(p.x_row_stride, p.x_dtype),
        out_row_stride: bytes(p.out_row_stride, params::DTYPE_F32),
        seqs_max: p.seqs_max,
        columns: p.columns,
        kind: p.kind,
        x_dtype: p.x_dtype,
        normalise: p.normalise,
        reserved: 0,
    };
    through!(
        abi,
        pw_pool_query,
        pw_pool_plan,
        pw_pool_run,
        desc,
        (of.seqs.live(p.seqs_max), of.starts.at()),
        pw_pool_args { x: of.x.at(), out: of.out.to() }
    )
}

fn logit_mask(abi: &mut Abi, of: &LogitMask) -> Result<(), Error> {
    let p = &of.params;
    // A list that may have no entry is none.
    let list = |of: Option<Read>, most: u32| if most > 0 { of.at::<u32>() } else { null() };
    let lens = pw_logit_mask_lens {
        struct_size: size::<pw_logit_mask_lens>(),
        rows: of.rows.live(p.rows_max),
        banned_starts: list(of.banned_starts, p.banned_max),
        bias_starts: list(of.bias_starts, p.bias_max),
        counted_starts: list(of.counted_starts, p.counted_max),
    };
    let desc = pw_logit_mask_desc {
        struct_size: size::<pw_logit_mask_desc>(),
        rows_max: p.rows_max,
        row_stride: bytes(p.row_stride, params::DTYPE_F32),
        counts_stride: bytes(p.counts_stride, params::DTYPE_F16),
        vocab: p.vocab,
        masks: p.masks,
        mask_words: p.mask_words,
        banned_max: p.banned_max,
        bias_max: p.bias_max,
        counted_max: p.counted_max,
        slots: p.slots,
        reserved: 0,
    };
    through!(
        abi,
        pw_logit_mask_query,
        pw_logit_mask_plan,
        pw_logit_mask_run,
        desc,
        (&lens),
        pw_logit_mask_args {
            logits: of.logits.to(),
            settings: of.settings.at(),
            masks: of.masks.at(),
            banned: list(of.banned, p.banned_max),
            bias_tokens: list(of.bias_tokens, p.bias_max),
            bias_values: list(of.bias_values, p.bias_max).cast(),
            counted: list(of.counted, p.counted_max),
            counts: of.counts.to(),
        }
    )
}

fn sample(abi: &mut Abi, of: &Sample) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_sample_desc {
        struct_size: size::<pw_sample_desc>(),
        rows_max: p.rows_max,
        row_stride: bytes(p.row_stride, params::DTYPE_F32),
        raw_row_stride: bytes(p.raw_row_stride, params::DTYPE_F32),
        vocab: p.vocab,
        top_n: p.top_n,
        kept_words: p.kept_words,
        reserved: 0,
        masks: p.masks,
        mask_words: p.mask_words,
    };
    through!(
        abi,
        pw_sample_query,
        pw_sample_plan,
        pw_sample_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_sample_args {
            logits: of.logits.at(),
            raw_logits: of.raw_logits.at(),
            settings: of.settings.at(),
            token: of.token.to(),
            status: of.status.to(),
            raw_logprob: of.raw_logprob.to(),
            processed_logprob: of.processed_logprob.to(),
            top_token: of.top_token.to(),
            top_logprob: of.top_logprob.to(),
            kept: of.kept.to(),
            kept_count: of.kept_count.to(),
            masks: of.masks.at(),
            row_masks: of.row_masks.at(),
        }
    )
}

fn token_logprob(abi: &mut Abi, of: &TokenLogprob) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_token_logprob_desc {
        struct_size: size::<pw_token_logprob_desc>(),
        rows_max: p.rows_max,
        x_row_stride: bytes(p.x_row_stride, p.x_dtype),
        weight: weight(&p.weight),
        x_dtype: p.x_dtype,
        bias_dtype: p.bias_dtype,
    };
    through!(
        abi,
        pw_token_logprob_query,
        pw_token_logprob_plan,
        pw_token_logprob_run,
        desc,
        (of.rows.live(p.rows_max)),
        pw_token_logprob_args {
            x: of.x.at(),
            weight: of.weight.at(),
            bias: of.bias.at(),
            token: of.token.at(),
            logprob: of.logprob.to(),
            status: of.status.to(),
        }
    )
}

fn spec_verify(abi: &mut Abi, of: &SpecVerify) -> Result<(), Error> {
    let p = &of.params;
    let desc = pw_spec_verify_desc {
        struct_size: size::<pw_spec_verify_desc>(),
        seqs_max: p.sequences_max,
        target_row_stride: bytes(p.target_row_stride, params::DTYPE_F32),
        draft_row_stride: bytes(p.draft_row_stride, params::DTYPE_F32),
        nodes_max: p.nodes_max,
        vocab: p.vocab,
        mode: p.mode,
        tree: u32::from(of.parents.is_some()),
        places: u32::from(of.places.is_some()),
        reserved: 0,
    };
    through!(
        abi,
        pw_spec_verify_query,
        pw_spec_verify_plan,
        pw_spec_verify_run,
        desc,
        (of.sequences.live(p.sequences_max), of.node_start.at()),
        pw_spec_verify_args {
            tokens: of.tokens.at(),
            parents: of.parents.at(),
            target: of.target.at(),
            draft: of.draft.at(),
            sampled: of.sampled.at(),
            requests: of.requests.at(),
            places: of.places.at(),
            path: of.path.to(),
            accepted: of.accepted.to(),
            next: of.next.to(),
            status: of.status.to(),
            entries: of.entries.to(),
            count: of.count.to(),
        }
    )
}
