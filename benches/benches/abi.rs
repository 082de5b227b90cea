//! What a call through C costs over the call from Rust: decode of one sequence of 128 tokens,
//! on one thread. Prints figures for `cargo xtask bench-record`; with `--test` it calls each
//! but a few times.
#![expect(clippy::print_stdout, reason = "it says what it found")]
#![expect(unsafe_code, reason = "C's functions take pointers")]

use backends::cpu::Threads;
use kernels_core::attention::{Attention, run};
use kernels_core::command::Host;
use kernels_core::params;
use kernels_core::simd::Level;
use pagewise::header::{
    PW_F32, PW_MASK_CAUSAL, PW_PAGES_LISTED, pw_attention_args, pw_attention_desc,
    pw_attention_lens, pw_device_options, pw_kv_layout, pw_needs, pw_run,
};
use std::ptr::{null, null_mut};
use std::time::Instant;

const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const DIM: usize = 64;
const PAGE: usize = 16;
const PAGES: usize = 8;
/// Calls of a turn, and turns of each side.
const CALLS: u32 = 2000;
const TURNS: usize = 41;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    _bytes: [u8; 64],
}

fn main() {
    let numbers = |count: usize| (0..count).map(|at| (at % 17) as f32 / 17.0).collect::<Vec<_>>();
    let slab = numbers(PAGES * PAGE * KV_HEADS * DIM);
    let q = numbers(HEADS * DIM);
    let mut out = vec![0.0_f32; HEADS * DIM];
    let (q_start, kv_len, page_start) = ([0, 1], [(PAGES * PAGE) as u32], [0, PAGES as u32]);
    let page_ids: [u32; PAGES] = [3, 1, 0, 7, 4, 2, 6, 5];
    let strides = [PAGE * KV_HEADS * DIM, DIM, KV_HEADS * DIM, 1].map(|stride| stride as u64);
    let [page_stride, head_stride, token_stride, dim_stride] = strides;
    let params = params::Attention {
        kv: params::KvLayout {
            page_stride,
            k_head_stride: head_stride,
            k_token_stride: token_stride,
            k_dim_stride: dim_stride,
            v_head_stride: head_stride,
            v_token_stride: token_stride,
            v_offset: 0,
            pages: PAGES as u32,
            page_len: PAGE as u32,
            kv_heads: KV_HEADS as u32,
            head_dim: DIM as u32,
            dtype: PW_F32,
            scales: 0,
            k_scale: 0.0,
            v_scale: 0.0,
        },
        q_row_stride: (HEADS * DIM) as u64,
        out_row_stride: (HEADS * DIM) as u64,
        rows_max: 1,
        seqs_max: 1,
        q_heads: HEADS as u32,
        kv_len_max: 4096,
        table_width: 0,
        page_ids_max: PAGES as u32,
        q_dtype: PW_F32,
        out_dtype: PW_F32,
        causal: 1,
        window: 0,
        scale: 0.125,
        softcap: 0.0,
    };
    let bytes = |stride: u64| 4 * stride as i64;
    let desc = pw_attention_desc {
        struct_size: size_of::<pw_attention_desc>() as u32,
        mask: PW_MASK_CAUSAL,
        kv: pw_kv_layout {
            page_stride: bytes(page_stride),
            k_head_stride: bytes(head_stride),
            k_token_stride: bytes(token_stride),
            k_dim_stride: bytes(dim_stride),
            v_head_stride: bytes(head_stride),
            v_token_stride: bytes(token_stride),
            v_offset: 0,
            pages: params.kv.pages,
            page_len: params.kv.page_len,
            kv_heads: params.kv.kv_heads,
            head_dim: params.kv.head_dim,
            dtype: PW_F32,
            scales: 0,
            k_scale: 0.0,
            v_scale: 0.0,
        },
        q_row_stride: bytes(params.q_row_stride),
        out_row_stride: bytes(params.out_row_stride),
        q_dtype: PW_F32,
        out_dtype: PW_F32,
        q_heads: params.q_heads,
        window: 0,
        scale: params.scale,
        softcap: 0.0,
        page_table: PW_PAGES_LISTED,
        table_width: 0,
        rows_max: 1,
        seqs_max: 1,
        kv_len_max: params.kv_len_max,
        page_ids_max: params.page_ids_max,
    };
    let options = pw_device_options {
        struct_size: size_of::<pw_device_options>() as u32,
        threads: 1,
        plugins: null(),
        plugins_bytes: 0,
    };
    let mut device = null_mut();
    let mut needs = pw_needs {
        struct_size: size_of::<pw_needs>() as u32,
        alignment: 0,
        plan_bytes: 0,
        workspace_bytes: 0,
    };
    // SAFETY: structs of their sizes, and a name of three bytes.
    let opened = unsafe {
        let name = c"cpu".as_ptr();
        pagewise::header::pw_device_open(name, 3, &options, &mut device, null_mut())
            | pagewise::header::pw_attention_query(device, &desc, &mut needs, null_mut())
    };
    assert_eq!(opened, 0);
    let lines = |bytes: u64| vec![Line { _bytes: [0; 64] }; bytes.div_ceil(64) as usize];
    let (mut plan, mut workspace) = (lines(needs.plan_bytes), lines(needs.workspace_bytes));
    let lens = pw_attention_lens {
        struct_size: size_of::<pw_attention_lens>() as u32,
        seqs: 1,
        q_start: q_start.as_ptr(),
        kv_len: kv_len.as_ptr(),
        page_start: page_start.as_ptr(),
        first_position: null(),
    };
    // SAFETY: a plan of as many bytes as are asked for.
    let planned = unsafe {
        let to = plan.as_mut_ptr().cast();
        pagewise::header::pw_attention_plan(device, &desc, &lens, to, needs.plan_bytes, null_mut())
    };
    assert_eq!(planned, 0);
    let args = pw_attention_args {
        struct_size: size_of::<pw_attention_args>() as u32,
        reserved: 0,
        q: q.as_ptr().cast(),
        keys: slab.as_ptr().cast(),
        values: slab.as_ptr().cast(),
        kv_scales: null(),
        page_ids: page_ids.as_ptr(),
        intervals: null(),
        tree_bits: null(),
        sinks: null(),
        slopes: null(),
        out: out.as_mut_ptr().cast(),
        lse: null_mut(),
        run: pw_run {
            plan: plan.as_ptr().cast(),
            plan_bytes: needs.plan_bytes,
            workspace: workspace.as_mut_ptr().cast(),
            workspace_bytes: needs.workspace_bytes,
        },
    };
    let through_c = || {
        // SAFETY: buffers of the sizes that the descriptor says.
        let status = unsafe {
            pagewise::header::pw_attention_run(device, &desc, &args, null_mut(), null_mut())
        };
        assert_eq!(status, 0);
    };
    through_c();
    let told = out.clone();
    // The same memory on both sides: where it lies tells in what a call takes.
    let (scratch_at, out_at) = (args.run.workspace.cast::<u8>(), args.out.cast::<u8>());
    let scratch_bytes = needs.workspace_bytes as usize;
    let (level, threads) = (Level::best(), Threads::new(1));
    let from_rust = || {
        // SAFETY: nobody else uses them meanwhile.
        let (scratch, out) = unsafe {
            (
                std::slice::from_raw_parts_mut(scratch_at, scratch_bytes),
                std::slice::from_raw_parts_mut(out_at, 4 * HEADS * DIM),
            )
        };
        let attention = Attention::<Host<'_>> {
            params,
            q: bytemuck::cast_slice(&q),
            keys: bytemuck::cast_slice(&slab),
            values: Some(bytemuck::cast_slice(&slab)),
            scales: None,
            q_start: bytemuck::cast_slice(&q_start),
            kv_len: bytemuck::cast_slice(&kv_len),
            first_position: None,
            page_start: Some(bytemuck::cast_slice(&page_start)),
            page_ids: bytemuck::cast_slice(&page_ids),
            intervals: None,
            tree_bits: None,
            sinks: None,
            slopes: None,
            out,
            lse: None,
            seqs: None,
        };
        run(level, &threads, attention, scratch).expect("a good call runs");
    };
    from_rust();
    assert!(told == out, "both say the same");
    let test = std::env::args().any(|argument| argument == "--test");
    let turns = if test { 1 } else { TURNS };
    // They take turns; the least of each is what it takes.
    let mut least = [f64::INFINITY; 2];
    for _ in 0..turns {
        least[0] = least[0].min(nanoseconds(&from_rust));
        least[1] = least[1].min(nanoseconds(&through_c));
    }
    // SAFETY: nobody uses it any more.
    unsafe { pagewise::header::pw_device_destroy(device) };
    if test {
        println!("Testing abi\nSuccess");
        return;
    }
    let level = level.name();
    for (shape, figure) in [
        ("decode of 128 tokens: from Rust", least[0]),
        ("decode of 128 tokens: through C", least[1]),
        ("decode of 128 tokens: C over Rust", least[1] - least[0]),
    ] {
        println!("figure abi,{shape},{level},1,,,ns,{figure:.0},,");
    }
}

/// What one call takes, of many.
fn nanoseconds(call: &impl Fn()) -> f64 {
    let begun = Instant::now();
    (0..CALLS).for_each(|_| call());
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}
