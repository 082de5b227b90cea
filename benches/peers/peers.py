"""What others do on this CPU with the same work, as figures for bench-record.

    python benches/peers/peers.py [--threads N] > peers.txt
    cargo xtask bench-record --from peers.txt

torch: scaled_dot_product_attention over contiguous caches and linear; xgrammar and
llguidance: applying a token bitmask. Whatever is not installed is skipped. Weights,
caches and logits are walked through in sets of 512 MB, like ours. No pages, no check
of answers: these rows say how fast, not how right.
"""

import argparse
import statistics
import sys
import time

import torch
import torch.nn.functional as F

CYCLE_BYTES = 512 << 20
MEASURE_S = 0.5
CALLS_LEAST = 5


def median_ns(call):
    """The median time of call(turn), after a warm-up of two."""
    turn = 0
    for turn in range(2):
        call(turn)
    times, start = [], time.perf_counter()
    while len(times) < CALLS_LEAST or time.perf_counter() - start < MEASURE_S:
        turn += 1
        before = time.perf_counter_ns()
        call(turn)
        times.append(time.perf_counter_ns() - before)
    return statistics.median(times)


def figure(kernel, shape, peer, work, unit, call):
    """One row in the columns of benches/record; the record knows the peak."""
    nanoseconds = median_ns(call)
    rate = work / nanoseconds
    threads = torch.get_num_threads()
    print(f"figure {kernel},{shape},{peer},{threads},{nanoseconds:.0f},{work},{unit},{rate:.2f},,")
    sys.stdout.flush()


def copies(tensor):
    """Enough of them that no cache holds all."""
    count = max(2, -(-CYCLE_BYTES // (tensor.numel() * tensor.element_size())))
    return [tensor.clone() for _ in range(count)]


def linear(peer, k, n):
    for name, dtype in [("bf16", torch.bfloat16), ("f32", torch.float32)]:
        weights = copies(torch.randn(n, k).to(dtype))
        for m in [1, 8, 128]:
            x = torch.randn(m, k).to(dtype)
            if m < 32:
                work, unit = weights[0].numel() * weights[0].element_size(), "GB/s read"
            else:
                work, unit = 2 * m * k * n, "GF/s f32"
            call = lambda turn: F.linear(x, weights[turn % len(weights)])
            figure("matmul", f"m{m} {k}x{n} {name}", peer, work, unit, call)


def decode(peer, group, kv_heads, head_dim, positions):
    for name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)]:
        seqs = 8
        cache = torch.randn(seqs, kv_heads, positions, head_dim).to(dtype)
        keys = copies(cache)
        # Half of the walk is keys, half is values.
        keys = keys[: max(2, len(keys) // 2)]
        values = [key.clone() for key in keys]
        q = torch.randn(seqs, kv_heads * group, 1, head_dim).to(dtype)
        work = 2 * cache.numel() * cache.element_size()

        def call(turn):
            at = turn % len(keys)
            F.scaled_dot_product_attention(q, keys[at], values[at], enable_gqa=group > 1)

        shape = f"decode g{group} {name} d{head_dim} {positions} positions"
        figure("attention", shape, peer, work, "GB/s read", call)


def prefill(peer, heads, head_dim, positions):
    for name, dtype in [("bf16", torch.bfloat16), ("f32", torch.float32)]:
        q, k, v = (torch.randn(1, heads, positions, head_dim).to(dtype) for _ in range(3))
        # Half of all pairs; two products; two operations each.
        work = heads * positions * (positions + 1) // 2 * head_dim * 4
        call = lambda _turn: F.scaled_dot_product_attention(q, k, v, is_causal=True)
        figure("attention", f"prefill {name} d{head_dim} {positions}", peer, work, "GF/s f32", call)


def masks(rows, vocab):
    try:
        import xgrammar

        apply_masks("xgrammar-" + version("xgrammar"), xgrammar.apply_token_bitmask_inplace, rows, vocab)
    except ImportError as error:
        print(f"xgrammar skipped: {error}", file=sys.stderr)
    try:
        import llguidance.torch

        apply_masks(
            "llguidance-" + version("llguidance"),
            llguidance.torch.apply_token_bitmask_inplace,
            rows,
            vocab,
        )
    # torch.compile may lack its C++ compiler.
    except Exception as error:
        print(f"llguidance skipped: {type(error).__name__}: {error}", file=sys.stderr)


def apply_masks(peer, apply, rows, vocab):
    logits = copies(torch.randn(rows, vocab))
    mask = torch.randint(-(2**31), 2**31, (rows, (vocab + 31) // 32), dtype=torch.int64).to(torch.int32)
    work = 2 * logits[0].numel() * 4
    call = lambda turn: apply(logits[turn % len(logits)], mask)
    figure("logit_mask", f"{rows}x{vocab} mask", peer, work, "GB/s copied", call)


def version(package):
    from importlib.metadata import version

    return version(package)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--only", choices=["linear", "attention", "masks"])
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(1)
    peer = "torch-" + torch.__version__.split("+")[0]
    with torch.inference_mode():
        if given.only in (None, "linear"):
            linear(peer, 2048, 5632)
        if given.only in (None, "attention"):
            decode(peer, 4, 8, 128, 4096)
            decode(peer, 8, 4, 64, 4096)
            for head_dim in [64, 128]:
                prefill(peer, 32, head_dim, 2048)
        if given.only in (None, "masks"):
            masks(4, 151_936)


if __name__ == "__main__":
    main()
