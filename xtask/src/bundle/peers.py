"""How long peers take on the shapes that `pagewise-device bench` times, as rows of its record.

    peers.py torch|xformers|flashinfer SHAPES [--device cuda:0]

SHAPES is what `pagewise-device shapes` writes. A peer that is not there, or that has no such call,
is told on the error stream, `skipped: PEER: SHAPE: why`, and the others go on. Calls are timed as
ours are: so many in a CUDA graph that it takes some milliseconds, the median of several samples;
where a peer cannot be recorded, its calls go one by one, and the row says so.
"""

import csv
import inspect
import sys
import time
import warnings

LAUNCH_SECONDS = 2e-3
SAMPLES = 11
TEMPERATURE = 0.8


class Skip(Exception):
    """Why a shape is not timed."""


def number(row, name):
    return int(row[name])


class Clock:
    """Times a call on a device."""

    def __init__(self, torch, device):
        self.torch, self.device = torch, device

    def wait(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)

    def once(self, call, count=1):
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            call()
        self.wait()
        return (time.perf_counter() - start) / count

    def recorded(self, call, runs):
        """A graph of so many calls."""
        torch = self.torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with warnings.catch_warnings():
            # One that has caught nothing would take no time.
            warnings.filterwarnings("error", message=".*[Gg]raph is empty.*")
            with torch.cuda.graph(graph):
                for _ in range(runs):
                    call()
        return graph.replay

    def seconds(self, call):
        """Of one call, and whether it was recorded."""
        for _ in range(3):
            call()
        alone = self.once(call)
        runs = int(min(max(LAUNCH_SECONDS / alone, 1), 64))
        is_recorded = False
        many, each = call, 1
        if self.device.type == "cuda":
            try:
                many, each, is_recorded = self.recorded(call, runs), runs, True
            except Exception as error:  # a peer may allocate or wait where it must not
                print(f"not recorded: {error}".splitlines()[0], file=sys.stderr)
                self.wait()
        count = 1 if self.device.type != "cuda" else int(min(max(20e-3 / (alone * each), 1), 64))
        self.once(many, count)
        samples = sorted(self.once(many, count) / each for _ in range(SAMPLES))
        return samples[SAMPLES // 2], is_recorded


class Peer:
    """A peer: its name in the record, and the calls it has."""

    name = ""

    def __init__(self, device):
        import torch

        self.torch = torch
        self.device = torch.device(device)
        if self.device.type == "cuda":
            # Streams and graphs are of the current device.
            torch.cuda.set_device(self.device)
        torch.manual_seed(1)

    def normal(self, *shape):
        return self.torch.randn(shape, dtype=self.torch.bfloat16, device=self.device)

    def call(self, row):
        return self.sample(row) if row["what"] == "sample" else self.attention(row)

    def attention(self, row):
        raise Skip("it has no attention")

    def sample(self, row):
        raise Skip("it has no sampling")

    def sequences(self, row):
        """K and V of each sequence, one after the other in memory."""
        if number(row, "page_len") != 16 or "transposed" in row["shape"]:
            raise Skip("it has no pages")
        if row["kv_dtype"] != "bf16":
            raise Skip(f"it has no {row['kv_dtype']} keys and values")

    def tree(self, rows):
        """Which rows of a draft tree see which: a node, its parent, and so on."""
        torch = self.torch
        seen = torch.zeros(rows, rows, dtype=torch.bool)
        for node in range(rows):
            if node > 0:
                seen[node] = seen[(node - 1) // 2]
            seen[node, node] = True
        return seen

    def masked_logits(self, row):
        rows, vocab = number(row, "rows"), number(row, "vocab")
        logits = self.normal(rows, vocab).float() * 2
        allowed = self.torch.rand(rows, vocab, device=self.device) < 0.5
        return logits, ~allowed


class Torch(Peer):
    name = "torch"

    def attention(self, row):
        torch = self.torch
        self.sequences(row)
        seqs, rows, positions = (number(row, name) for name in ("seqs", "rows", "positions"))
        heads, kv_heads, dim = (number(row, name) for name in ("q_heads", "kv_heads", "head_dim"))
        q = self.normal(seqs, heads, rows, dim)
        k, v = self.normal(seqs, kv_heads, positions, dim), self.normal(seqs, kv_heads, positions, dim)
        mask = None
        if row["what"] in ("causal", "tree"):
            before = torch.ones(rows, positions - rows, dtype=torch.bool)
            own = self.tree(rows) if row["what"] == "tree" else torch.ones(rows, rows).tril().bool()
            mask = torch.cat([before, own], dim=1).to(self.device)
        attend = torch.nn.functional.scaled_dot_product_attention
        causal = row["what"] == "prefill"
        return lambda: attend(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)

    def sample(self, row):
        torch = self.torch
        logits, banned = self.masked_logits(row)
        top_k, top_p = number(row, "top_k"), float(row["top_p"])

        def call():
            x = logits.masked_fill(banned, float("-inf")) / TEMPERATURE
            best, tokens = x.topk(top_k, dim=-1)
            p = best.softmax(dim=-1)
            p = p.masked_fill(p.cumsum(dim=-1) - p >= top_p, 0.0)
            chosen = (p / torch.empty_like(p).exponential_()).argmax(dim=-1, keepdim=True)
            return tokens.gather(1, chosen)

        return call


class Xformers(Peer):
    name = "xformers"

    def __init__(self, device):
        super().__init__(device)
        import xformers.ops

        self.ops = xformers.ops

    def attention(self, row):
        self.sequences(row)
        if row["what"] == "tree":
            raise Skip("it has no mask of bits")
        seqs, rows, positions = (number(row, name) for name in ("seqs", "rows", "positions"))
        heads, kv_heads, dim = (number(row, name) for name in ("q_heads", "kv_heads", "head_dim"))
        group = heads // kv_heads
        q = self.normal(1, seqs * rows, kv_heads, group, dim)
        wide = (1, seqs * positions, kv_heads, group, dim)
        k = self.normal(1, seqs * positions, kv_heads, 1, dim).expand(wide)
        v = self.normal(1, seqs * positions, kv_heads, 1, dim).expand(wide)
        mask = self.ops.fmha.attn_bias.BlockDiagonalCausalWithOffsetPaddedKeysMask.from_seqlens(
            q_seqlen=[rows] * seqs, kv_padding=positions, kv_seqlen=[positions] * seqs
        )
        if hasattr(mask, "to"):
            mask = mask.to(self.device)
        return lambda: self.ops.memory_efficient_attention_forward(q, k, v, attn_bias=mask)


class Flashinfer(Peer):
    name = "flashinfer"

    def __init__(self, device):
        super().__init__(device)
        import flashinfer

        self.flashinfer = flashinfer
        self.workspace = self.torch.empty(
            256 << 20, dtype=self.torch.uint8, device=self.device
        )

    def attention(self, row):
        torch = self.torch
        if "transposed" in row["shape"]:
            raise Skip("its keys lie in rows")
        seqs, rows, positions = (number(row, name) for name in ("seqs", "rows", "positions"))
        heads, kv_heads, dim = (number(row, name) for name in ("q_heads", "kv_heads", "head_dim"))
        page = number(row, "page_len")
        each = -(-positions // page)
        words = {"dtype": torch.int32, "device": self.device}
        starts = torch.arange(seqs + 1, **words) * each
        pages = torch.randperm(seqs * each, device=self.device).to(torch.int32)
        last = torch.full((seqs,), positions - (each - 1) * page, **words)
        kv = self.normal(seqs * each, 2, kv_heads, page, dim)
        if row["kv_dtype"] == "e4m3":
            kv = kv.to(torch.float8_e4m3fn)
        q = self.normal(seqs * rows, heads, dim)
        kinds = {"q_data_type": q.dtype, "kv_data_type": kv.dtype}
        if row["what"] == "decode":
            wrapper = self.flashinfer.BatchDecodeWithPagedKVCacheWrapper(
                self.workspace,
                "HND",
                use_cuda_graph=True,
                use_tensor_cores=True,
                paged_kv_indptr_buffer=starts.clone(),
                paged_kv_indices_buffer=pages.clone(),
                paged_kv_last_page_len_buffer=last.clone(),
            )
            wrapper.plan(starts, pages, last, heads, kv_heads, dim, page, **kinds)
        else:
            wrapper = self.flashinfer.BatchPrefillWithPagedKVCacheWrapper(self.workspace, "HND")
            mask = {"causal": True}
            if row["what"] == "tree":
                before = torch.ones(rows, positions - rows, dtype=torch.bool)
                own = torch.cat([before, self.tree(rows)], dim=1).flatten().repeat(seqs)
                mask = {"custom_mask": own.to(self.device)}
            begins = torch.arange(seqs + 1, **words) * rows
            sizes = (heads, kv_heads, dim, page)
            wrapper.plan(begins, starts, pages, last, *sizes, **mask, **kinds)
        return lambda: wrapper.run(q, kv)

    def sample(self, row):
        logits, banned = self.masked_logits(row)
        top_k, top_p = number(row, "top_k"), float(row["top_p"])
        draw = self.flashinfer.sampling.top_k_top_p_sampling_from_logits
        # Without them the generator's state is asked for, which cannot be recorded.
        known = inspect.signature(draw).parameters
        seeded = {name: 1 for name in ("seed", "offset") if name in known}

        def call():
            x = logits.masked_fill(banned, float("-inf")) / TEMPERATURE
            return draw(x, top_k, top_p, filter_apply_order="top_k_first", **seeded)

        return call


PEERS = {peer.name: peer for peer in (Torch, Xformers, Flashinfer)}
# The exit status of a peer that is not here.
SKIPPED = 77
UNITS = {"GB/s read": 1e9, "TF/s bf16": 1e12}


def words_of(error):
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]


def empty(peer):
    """Gives memory back, if it can: after a recording that failed some versions refuse."""
    try:
        if peer.device.type == "cuda":
            peer.torch.cuda.empty_cache()
    except Exception as error:
        print(f"not emptied: {words_of(error)}", file=sys.stderr)


def main(arguments):
    if len(arguments) not in (2, 4) or arguments[0] not in PEERS:
        print(__doc__, file=sys.stderr)
        return 2
    name, shapes = arguments[:2]
    device = arguments[3] if len(arguments) == 4 else "cuda:0"
    print("kernel,shape,level,threads,median_ns,work,unit,figure,peak,share", flush=True)
    try:
        peer = PEERS[name](device)
    except Exception as error:  # whatever keeps it from being loaded
        print(f"skipped: {name}: {words_of(error)}", file=sys.stderr)
        return SKIPPED
    clock = Clock(peer.torch, peer.device)
    with open(shapes, newline="") as file:
        for row in csv.DictReader(file):
            try:
                call = peer.call(row)
                seconds, is_recorded = clock.seconds(call)
            except Exception as error:  # what it does not have, and memory that is not there
                print(f"skipped: {name}: {row['shape']}: {words_of(error)}", file=sys.stderr)
                continue
            finally:
                call = None
                empty(peer)
            rate = float(row["work"]) / seconds / UNITS[row["unit"]]
            level = name if is_recorded else f"{name} one by one"
            print(
                f"{row['kernel']},{row['shape']},{level},1,{seconds * 1e9:.0f},{row['work']},"
                f"{row['unit']},{rate:.3f},,",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
