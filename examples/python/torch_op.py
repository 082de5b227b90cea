"""Kernels of libpagewise as operators of torch: paged attention, RMS norm with a residual, and
sampling, each with a fake kernel, as an engine like SGLang registers its own. Run as a program it
checks them against torch in float64, and times attention beside torch's own.

    PAGEWISE_LIBRARY=DIR/lib/libpagewise.so python examples/python/torch_op.py

Ends with 77 where there is no torch.
"""

import ctypes
import math
import sys
import time

try:
    import torch
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

import pagewise
from pagewise import CPU, PW, Buffer, Refused, call, new
from torch import Tensor
from torch.library import custom_op, opcheck
from torch.nn.functional import scaled_dot_product_attention


def launch(kernel, desc, args, *lens):
    """query, plan and run. An engine keeps plan and workspace, and plans once for all layers."""
    needs = new("pw_needs")
    call(f"pw_{kernel}_query", CPU, ctypes.byref(desc), ctypes.byref(needs))
    # Torch aligns to 64 bytes, as much as is asked for.
    plan = torch.empty(needs.plan_bytes, dtype=torch.uint8)
    workspace = torch.empty(needs.workspace_bytes, dtype=torch.uint8)
    args.run = new(
        "pw_run",
        plan=plan.data_ptr(),
        plan_bytes=needs.plan_bytes,
        workspace=workspace.data_ptr() or None,
        workspace_bytes=needs.workspace_bytes,
    )
    room = ctypes.c_void_p(args.run.plan), ctypes.c_uint64(needs.plan_bytes)
    call(f"pw_{kernel}_plan", CPU, ctypes.byref(desc), *lens, *room)
    call(f"pw_{kernel}_run", CPU, ctypes.byref(desc), ctypes.byref(args), None)


# ---- operators -------------------------------------------------------------------------------
#
# They are registered for tensors of every device, so that one that lies elsewhere is refused by
# name; the CPU is what is open.


@custom_op("pagewise::paged_attention", mutates_args=())
def paged_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    page_table: Tensor,
    kv_len: Tensor,
    q_start: Tensor,
    scale: float,
    window: int = 0,
) -> Tensor:
    """Causal attention of q [T, H, D], the last rows of each sequence, over keys and values
    [pages, page_len, G, D] of any strides, as long as dims of a value lie side by side.
    page_table is [S, width], kv_len [S], q_start [S + 1], all of int32."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    q, k, v = Buffer(q, "q"), Buffer(keys, "keys"), Buffer(values, "values")
    pages, page_len, kv_heads, head_dim = k.dims(None, None, None, None).shape
    rows, heads, _ = q.dims(None, None, head_dim).shape
    o = Buffer(out, "out", written=True)
    if v.dims(*k.shape).dtype != k.dtype:
        raise Refused("values", "is of another dtype than keys")
    if v.strides[0] != k.strides[0]:
        raise Refused("values", "has another stride between pages than keys")
    if v.strides[3] != v.bits // 8:
        raise Refused("values", f"has strides {list(v.strides)}: dims are not side by side")
    ids, lengths = Buffer(page_table, "page_ids"), Buffer(kv_len, "kv_len")
    starts = Buffer(q_start, "q_start")
    seqs, width = ids.whole_numbers().dims(None, None).shape
    desc = new(
        "pw_attention_desc",
        mask=PW["PW_MASK_CAUSAL"],
        kv=new(
            "pw_kv_layout",
            page_stride=k.strides[0],
            k_token_stride=k.strides[1],
            k_head_stride=k.strides[2],
            k_dim_stride=k.strides[3],
            v_token_stride=v.strides[1],
            v_head_stride=v.strides[2],
            pages=pages,
            page_len=page_len,
            kv_heads=kv_heads,
            head_dim=head_dim,
            dtype=k.dtype,
        ),
        q_row_stride=q.rows().strides[0],
        out_row_stride=o.strides[0],
        q_dtype=q.dtype,
        out_dtype=o.dtype,
        q_heads=heads,
        window=window,
        scale=scale,
        page_table=PW["PW_PAGES_PADDED"],
        table_width=width,
        rows_max=rows,
        seqs_max=seqs,
        kv_len_max=width * page_len,
    )
    lens = new(
        "pw_attention_lens",
        seqs=seqs,
        q_start=starts.whole_numbers().dims(seqs + 1).address,
        kv_len=lengths.whole_numbers().dims(seqs).address,
    )
    args = new(
        "pw_attention_args",
        q=q.address,
        keys=k.address,
        values=v.address,
        page_ids=ids.address,
        out=o.address,
    )
    launch("attention", desc, args, ctypes.byref(lens))
    return out


@paged_attention.register_fake
def _(q, keys, values, page_table, kv_len, q_start, scale, window=0):
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@custom_op("pagewise::add_rms_norm", mutates_args=("residual",))
def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """residual += x; then that sum [rows, columns], normalised."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    x, w, o = Buffer(x, "x"), Buffer(weight, "weight"), Buffer(out, "out", written=True)
    r = Buffer(residual, "residual", written=True)
    rows, columns = x.dims(None, None).shape
    if r.dims(rows, columns).dtype != x.dtype:
        raise Refused("residual", "is of another dtype than x")
    desc = new(
        "pw_norm_desc",
        rows_max=rows,
        x_row_stride=x.rows().strides[0],
        residual_row_stride=r.rows().strides[0],
        out_row_stride=o.strides[0],
        heads=1,
        columns=columns,
        x_dtype=x.dtype,
        weight_dtype=w.dims(columns).dense().dtype,
        out_dtype=o.dtype,
        epsilon=epsilon,
    )
    args = new("pw_norm_args", x=x.address, weight=w.address, residual=r.address, out=o.address)
    launch("norm", desc, args, ctypes.c_uint32(rows))
    return out


@add_rms_norm.register_fake
def _(x, residual, weight, epsilon):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@custom_op("pagewise::sample", mutates_args=())
def sample(
    logits: Tensor,
    seeds: Tensor,
    positions: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
) -> tuple[Tensor, Tensor]:
    """A token for each row of logits [rows, vocab], of float32, and its log-probability before
    temperature and filters. Noise is keyed by seed and position: a row's company is nothing to it."""
    rows, vocab = logits.shape
    token, status = torch.empty(rows, dtype=torch.int32), torch.empty(rows, dtype=torch.int32)
    logprob = torch.empty(rows, dtype=torch.float32)
    read = Buffer(logits, "logits").rows()
    if read.dtype != PW["PW_F32"]:
        raise Refused("logits", "is not of float32")
    asked = (seeds, positions, temperature, top_k, top_p)
    each = zip(*(column.tolist() for column in asked), strict=True)
    settings = (pagewise.STRUCTS["pw_sample_row"] * rows)(
        *(
            new("pw_sample_row", seed=seed, position=position, temperature=heat, top_k=k, top_p=p)
            for seed, position, heat, k, p in each
        )
    )
    desc = new("pw_sample_desc", rows_max=rows, row_stride=read.strides[0], vocab=vocab)
    args = new(
        "pw_sample_args",
        logits=read.address,
        settings=ctypes.addressof(settings),
        token=Buffer(token, "token", written=True).address,
        status=Buffer(status, "status", written=True).address,
        raw_logprob=Buffer(logprob, "raw_logprob", written=True).address,
    )
    launch("sample", desc, args, ctypes.c_uint32(rows))
    if status.any():
        raise Refused("logits", f"row {int(status.nonzero()[0])} has no token")
    return token, logprob


@sample.register_fake
def _(logits, seeds, positions, temperature, top_k, top_p):
    rows = logits.shape[0]
    return logits.new_empty(rows, dtype=torch.int32), logits.new_empty(rows, dtype=torch.float32)


# ---- checks ----------------------------------------------------------------------------------

# bf16 keeps 8 bits: half of the last is 2^-9 of a number, and its own rounding is all that
# separates an output from the truth over the same inputs. f32 sums a few thousand products.
TOLERANCE = {torch.bfloat16: 2**-8, torch.float32: 1e-5}
HEADS, KV_HEADS, DIM, PAGE = 8, 2, 64, 16


def paged(kv_len, rows, dtype, layout):
    """Sequences in pages that belong to nobody in order."""
    width = max(-(-length // PAGE) for length in kv_len)
    pages = len(kv_len) * width + 3
    table = torch.randperm(pages)[: len(kv_len) * width].to(torch.int32).view(len(kv_len), width)
    shape = (pages, PAGE, KV_HEADS, DIM) if layout == "NHD" else (pages, KV_HEADS, PAGE, DIM)
    keys, values = (torch.randn(shape).to(dtype) for _ in range(2))
    if layout == "HND":
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    # Queries as a fused product has them: a part of longer rows.
    q = torch.randn(sum(rows), HEADS * DIM + 128).to(dtype)[:, : HEADS * DIM].unflatten(1, (HEADS, DIM))
    starts = torch.tensor([0, *torch.tensor(rows).cumsum(0)], dtype=torch.int32)
    return q, keys, values, table, torch.tensor(kv_len, dtype=torch.int32), starts, 1 / math.sqrt(DIM)


def gathered(slab, table, length):
    """[G, length, D] of one sequence."""
    return slab[table.long()].flatten(0, 1)[:length].transpose(0, 1)


def truth(q, keys, values, table, kv_len, q_start, scale, window=0):
    """The same by torch, in float64, one sequence after the other."""
    out = torch.empty(q.shape, dtype=torch.float64)
    for seq, length in enumerate(kv_len.tolist()):
        first, end = q_start[seq : seq + 2].tolist()
        at = torch.arange(length - (end - first), length)[:, None]
        seen = torch.arange(length)[None] <= at
        if window:
            seen &= torch.arange(length)[None] > at - window
        k, v = (gathered(slab, table[seq], length).double() for slab in (keys, values))
        row = q[first:end].double().transpose(0, 1)
        out[first:end] = scaled_dot_product_attention(
            row, k, v, attn_mask=seen, scale=scale, enable_gqa=True
        ).transpose(0, 1)
    return out


def worst(got, expected):
    """The largest error of a number, as a share of the largest of them."""
    return float((got.double() - expected).abs().max() / expected.abs().max())


def close(what, got, expected):
    error, allowed = worst(got, expected), TOLERANCE[got.dtype]
    assert error <= allowed, f"{what}: off by {error:.1e}, and {allowed:.1e} is allowed"
    print(f"{what}: ok, off by {error:.1e} of {allowed:.1e}")


def check_attention():
    shapes = {"decode": ([1, 37, 80, 513], [1, 1, 1, 1]), "extend": ([5, 40, 300], [5, 7, 33])}
    for dtype in (torch.float32, torch.bfloat16):
        for name, (kv_len, rows) in shapes.items():
            for layout in ("NHD", "HND"):
                given = paged(kv_len, rows, dtype, layout)
                for window in (0, 24):
                    what = f"paged_attention, {name}, {dtype}, {layout}, window {window}"
                    close(what, paged_attention(*given, window), truth(*given, window))
    given = paged([37, 80], [1, 4], torch.float32, "NHD")
    opcheck(paged_attention, given)
    alone = [given[0][1:], *given[1:3], given[3][1:], given[4][1:], given[5][1:] - 1, given[6]]
    assert paged_attention(*alone).equal(paged_attention(*given)[1:])
    print("paged_attention, opcheck and the same bits without company: ok")


def check_norm():
    for dtype in (torch.float32, torch.bfloat16):
        x, residual = (torch.randn(7, 320).to(dtype)[:, :256] for _ in range(2))
        weight = torch.randn(256).to(dtype)
        summed = (x.double() + residual.double()).to(dtype)
        expected = torch.nn.functional.rms_norm(summed.double(), (256,), weight.double(), 1e-6)
        opcheck(add_rms_norm, (x, residual.clone(), weight, 1e-6))
        close(f"add_rms_norm, {dtype}", add_rms_norm(x, residual, weight, 1e-6), expected)
        assert residual.equal(summed), "the residual is the sum, rounded once"


def check_sample():
    draws, vocab = 20000, 50
    row = torch.randn(vocab)

    def settings(rows, temperature=1.0, top_k=0, top_p=1.0):
        numbers = (temperature, torch.float32), (top_k, torch.int32), (top_p, torch.float32)
        rest = (torch.full((rows,), number, dtype=dtype) for number, dtype in numbers)
        return [torch.full((rows,), 7), torch.arange(rows), *rest]

    logits = torch.randn(9, vocab)
    opcheck(sample, (logits, *settings(9)))
    greedy, logprob = sample(logits, *settings(9, temperature=0))
    assert greedy.equal(logits.argmax(1).int())
    expected = logits.double().log_softmax(1).gather(1, greedy[:, None].long())[:, 0]
    close("sample, log-probabilities", logprob, expected)
    for temperature, top_k, top_p in ((1.0, 0, 1.0), (0.7, 10, 1.0), (1.0, 0, 0.8)):
        rows = row.expand(draws, -1).contiguous()
        token, _ = sample(rows, *settings(draws, temperature, top_k, top_p))
        p = (row.double() / temperature).softmax(0)
        sorted_p, order = p.sort(descending=True)
        kept = torch.zeros(vocab, dtype=torch.bool)
        # The fewest of the most likely tokens that reach top_p, and at most top_k of them.
        kept[order] = (sorted_p.cumsum(0) - sorted_p < top_p) & (torch.arange(vocab) < (top_k or vocab))
        p = torch.where(kept, p, 0) / p[kept].sum()
        count = torch.bincount(token.long(), minlength=vocab)
        assert not count[~kept].any(), "a token that top_k or top_p hides"
        off = ((count - draws * p).abs() / (draws * p * (1 - p)).sqrt())[kept].max()
        assert off < 5, f"a token comes {off:.1f} standard deviations too often or too rarely"
        how = f"temperature {temperature}, top_k {top_k}, top_p {top_p}"
        print(f"sample, {how}: ok, off by {off:.1f} deviations of 5")
    late = [setting[-5:] for setting in settings(draws)]
    few, many = (row.expand(rows, -1).contiguous() for rows in (5, draws))
    assert sample(few, *late)[0].equal(sample(many, *settings(draws))[0][-5:])
    print("sample, greedy, opcheck and the same tokens without company: ok")


class OnGpu:
    """As much of a tensor as is asked for before it is refused."""

    def __dlpack_device__(self):
        return 2, 0


def check_refusals():
    q, keys, values, *rest = paged([37, 80], [1, 1], torch.float32, "NHD")
    table, kv_len, q_start, scale = rest
    x = torch.randn(4, 8)
    wrong = {
        "q_dtype": lambda: paged_attention(q.double(), keys, values, *rest),
        "kv.dtype": lambda: paged_attention(q, keys.double(), values.double(), *rest),
        "q": lambda: paged_attention(q.mT.contiguous().mT, keys, values, *rest),
        "values": lambda: paged_attention(q, keys, values.mT.contiguous().mT, *rest),
        "keys": lambda: Buffer(OnGpu(), "keys"),
        "page_ids": lambda: paged_attention(q, keys, values, table + 1000, kv_len, q_start, scale),
        "kv_len": lambda: paged_attention(q, keys, values, table, kv_len.long(), q_start, scale),
        "x": lambda: add_rms_norm(x.mT.contiguous().mT, x.clone(), torch.ones(8), 1e-6),
        "residual": lambda: add_rms_norm(x, x.bfloat16(), torch.ones(8), 1e-6),
        "logits": lambda: sample(torch.full((1, 5), math.nan), *(torch.ones(1, dtype=torch.int32),) * 5),
    }
    for field, refused in wrong.items():
        try:
            refused()
        except Refused as refusal:
            assert refusal.field == field, f"{refusal.field} is named, not {field}"
            print(f"refused: ok, {refusal}")
        else:
            raise AssertionError(f"a wrong {field} was taken")


def best(work):
    """The best of some rounds, in seconds."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def time_attention():
    seqs, length = 8, 4096
    given = paged([length] * seqs, [1] * seqs, torch.bfloat16, "NHD")
    q, keys, values, table, *_, scale = given

    def gather(slab):
        return slab[table].flatten(1, 2).transpose(1, 2)

    def torchs(k, v):
        return scaled_dot_product_attention(q[:, :, None], k, v, scale=scale, enable_gqa=True)[:, :, 0]

    dense = gather(keys), gather(values)
    close("torch's own attention in bf16", torchs(*dense), truth(*given))
    ours = best(lambda: paged_attention(*given))
    from_pages, from_dense = best(lambda: torchs(gather(keys), gather(values))), best(lambda: torchs(*dense))
    print(
        f"decode, {seqs} sequences of {length} keys in bf16, {HEADS} and {KV_HEADS} heads of {DIM}: "
        f"{ours * 1e3:.2f} ms; torch takes {from_pages / ours:.1f} times that from pages, "
        f"{from_dense / ours:.1f} from keys in one piece"
    )


if __name__ == "__main__":
    torch.manual_seed(2026)
    print(f"torch {torch.__version__}, {pagewise.numerics()}")
    check_attention()
    check_norm()
    check_sample()
    check_refusals()
    time_attention()
