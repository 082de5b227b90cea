"""Serving on this machine: `pagewise serve`, and beside it llama.cpp and mistral.rs, by the
same load client, as figures for bench-record.

    cargo build --release
    python benches/peers/serving.py --name T --model DIR --quantize q8 \\
        --peer-binary LLAMA_CPP_BIN_DIR --peer-model T-Q8_0.gguf > serving.txt
    cargo xtask bench-record --from serving.txt

DIR holds a checkpoint, the GGUF file the same weights. `--peer-binary` is a folder with
llama.cpp's llama-bench, llama-batched-bench and llama-server; mistral.rs runs where its
Python package is installed. Without a peer its rows are left out. Nothing is checked of
the answers: these rows say how fast, not how right.

Our figures count everything between a client's request and its tokens. llama.cpp's rates
are those of its own benches, without a server, but for the rows named `server`.
"""

import argparse
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the open loop calls served well: all of a request's tokens in time.
ATTAINED = 0.9
# How much the rate of arrivals grows from one try to the next.
RATE_STEP = 1.3


def figure(given, work, level, unit, value, nanoseconds=""):
    """One row in the columns of benches/record."""
    shape = f"{given.name} {given.quantize or 'bf16'} {work}"
    print(f"figure serving,{shape},{level},{given.threads},{nanoseconds},,{unit},{value:.4g},,")
    sys.stdout.flush()


class Server:
    """A process that listens, from `with` to its end."""

    def __init__(self, command, ready):
        self.command, self.ready = command, ready

    def __enter__(self):
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = self.ready(self.process)
        self.start_s = time.perf_counter() - begun
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def memory_bytes(self):
        """Resident memory, and of it what is not a file's: (all, own)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        kib = lambda name: int(re.search(rf"{name}:\s+(\d+)", text)[1])
        return kib("VmRSS") * 1024, kib("RssAnon") * 1024


def load(given, url, *, below=None, **options):
    """What `pagewise bench` tells of a load."""
    command = [given.binary, "bench", "--base-url", url, "--json"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    if below:
        command += ["--token-ids-below", str(below)]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if told["failed"]:
        raise SystemExit(f"{told['failed']} requests failed: {' '.join(command)}")
    return told


def ours(given, *more):
    """`pagewise serve`, on a free port."""
    command = [given.binary, "serve", given.model, "--port", "0", "--threads", str(given.threads),
               "--log-level", "warn", *more]
    if given.quantize:
        command += ["--quantize", given.quantize]

    def ready(process):
        for line in process.stdout:
            if line.startswith("listening"):
                return line.split()[1]
        raise SystemExit("pagewise serve did not come up")
    return Server(command, ready)


def theirs(given, slots, context):
    """llama-server, with so many slots of so much context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [given.peer_binary / "llama-server", "-m", given.peer_model, "-t", str(given.threads),
               "-np", str(slots), "-c", str(slots * context), "--port", str(port)]

    def ready(process):
        while process.poll() is None:
            try:
                with urllib.request.urlopen(f"{url}/health") as answer:
                    if answer.status == 200:
                        return url
            except OSError:
                time.sleep(0.1)
        raise SystemExit("llama-server did not come up")
    return Server(command, ready)


def llama_bench(given, work, flags):
    """llama-bench's rate, with flash attention and without, the better one; and which."""
    best = None
    for flash in ("0", "1"):
        command = [given.peer_binary / "llama-bench", "-m", given.peer_model,
                   "-t", str(given.threads), "-fa", flash, "-o", "json", *flags]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL).stdout
        rates = json.loads(out)[0]["samples_ts"]
        rate = sorted(rates)[(len(rates) - 1) // 2]
        figure(given, work, f"llama.cpp fa {flash}", "tok/s", rate)
        best = max(best or 0, rate)
    return best


def decode(given, server):
    """One request: tokens a second after the first."""
    told = load(given, server.url, requests=3, concurrency=1, prompt_tokens=8, max_tokens=64)
    figure(given, "decode 1 request", given.level, "tok/s", 1e3 / told["gap_ms"]["mean"])
    if given.peer_binary:
        llama_bench(given, "decode 1 request", ["-p", "0", "-n", "64", "-r", "3"])


def prefill(given, server):
    """One prompt of 512: tokens over the time to the first."""
    told = load(given, server.url, requests=5, concurrency=1, prompt_tokens=512, max_tokens=1)
    figure(given, "prefill 512", given.level, "tok/s", 512e3 / told["ttft_ms"]["p50"])
    if given.peer_binary:
        llama_bench(given, "prefill 512", ["-p", "512", "-n", "0", "-r", "3"])


def batch(given, server):
    """32 answers at once, after 512 tokens each: the prompts lie in pages already."""
    work = "decode 32 requests at 512"
    load(given, server.url, requests=32, concurrency=32, prompt_tokens=512, max_tokens=1)
    told = load(given, server.url, requests=32, concurrency=32, prompt_tokens=512, max_tokens=64)
    if told["cached_tokens"] < 32 * 480:
        raise SystemExit("the prompts of the batch are not in pages")
    # All tokens but the first ones over their time, as the peer counts its own.
    figure(given, work, given.level, "tok/s", 32e3 / told["gap_ms"]["mean"])
    if not given.peer_binary:
        return
    for flash in ("off", "on"):
        # One prompt for all: its time is not counted, its length is. Each has room for it.
        command = [given.peer_binary / "llama-batched-bench", "-m", given.peer_model,
                   "-t", str(given.threads), "-c", str(32 * 544), "-npp", "512", "-ntg", "32", "-npl", "32",
                   "-pps", "-fa", flash, "--output-format", "jsonl"]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True).stdout
        row = [json.loads(line) for line in out.splitlines() if line.startswith("{")][-1]
        figure(given, work, f"llama.cpp fa {'01'[flash == 'on']}", "tok/s", row["speed_tg"])


def depth(given, server):
    """One answer after 4096 tokens."""
    told = load(given, server.url, requests=1, concurrency=1, prompt_tokens=4096, max_tokens=32)
    figure(given, "decode at depth 4096", given.level, "tok/s", 1e3 / told["gap_ms"]["mean"])
    if given.peer_binary:
        llama_bench(given, "decode at depth 4096", ["-p", "0", "-n", "16", "-d", "4096", "-r", "1"])


def mistral(given):
    """mistral.rs on the same GGUF file, by its Python package: a prompt and an answer."""
    try:
        import mistralrs
    except ImportError as error:
        print(f"mistral.rs skipped: {error}", file=sys.stderr)
        return
    path = given.peer_model
    which = mistralrs.Which.GGUF(tok_model_id=None, quantized_model_id=str(path.parent),
                                 quantized_filename=path.name)
    runner = mistralrs.Runner(which=which, no_paged_attn=True)
    ask = lambda words, tokens: runner.send_completion_request(mistralrs.CompletionRequest(
        model="default", prompt=" ".join(["one"] * words), max_tokens=tokens, temperature=1.0))
    ask(8, 2)
    usage = ask(512, 48).usage
    figure(given, "decode 1 request", "mistral.rs", "tok/s", usage.avg_compl_tok_per_sec)
    figure(given, "prefill 512", "mistral.rs", "tok/s", usage.avg_prompt_tok_per_sec)


def server(given, url, level, below=None):
    """Eight clients that wait, 128 tokens and 64 new."""
    told = load(given, url, requests=16, concurrency=8, prompt_tokens=128, max_tokens=64, below=below)
    figure(given, "server 8 clients", level, "tok/s", told["tokens_per_second"])
    figure(given, "server 8 clients ttft p95", level, "ms", told["ttft_ms"]["p95"])
    figure(given, "server 8 clients gap p95", level, "ms", told["gap_ms"]["p95"])


def open_loop(given, url, level, rate, below=None):
    """Arrivals at random, ever more of them, until too few are served in time."""
    good = 0.0
    for turn in range(16):
        told = load(given, url, requests=given.arrivals, rate=rate, prompt_tokens=128, max_tokens=64,
                    seed=100 + turn, below=below)
        print(f"{level}: {rate:.3f}/s: {told['attainment']:.2f} in time", file=sys.stderr)
        if told["attainment"] < ATTAINED:
            break
        good, rate = rate, rate * RATE_STEP
    # Where even the first rate was too much there is no figure.
    if good:
        figure(given, "server goodput", level, "requests/s", good)


def shared(given, url, level, below=None):
    """16 requests at once whose prompts share 1024 tokens, cold."""
    told = load(given, url, requests=16, concurrency=16, prompt_tokens=1088, shared_tokens=1024,
                max_tokens=32, seed=7, below=below)
    computed = 16 * 1088 - told["cached_tokens"]
    figure(given, "16 share 1024: prompt tokens computed", level, "tokens", computed)
    figure(given, "16 share 1024", level, "tok/s", told["tokens_per_second"])
    figure(given, "16 share 1024 ttft p95", level, "ms", told["ttft_ms"]["p95"])


def beginning(given, running):
    """Start-up, and memory over the checkpoint's."""
    figure(given, "start-up", given.level, "s", running.start_s)
    weights = sum(path.stat().st_size for path in Path(given.model).glob("*.safetensors"))
    rss, own = running.memory_bytes()
    figure(given, "resident over checkpoint", given.level, "parts", rss / weights)
    figure(given, "resident own over checkpoint", given.level, "parts", own / weights)


def overhead(given, url, work):
    """Of the time of all steps, what the kernels did not take: scheduler and server."""
    with urllib.request.urlopen(f"{url}/debug/metrics") as answer:
        told = json.load(answer)
    share = 1 - told["kernel_seconds"] / told["step_seconds"]
    figure(given, f"{work} overhead of a step", given.level, "parts", share)


def main():
    parts = ["decode", "prefill", "batch", "depth", "mistral", "server", "open", "shared"]
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--name", required=True, help="how the rows call the model")
    arguments.add_argument("--model", required=True, help="folder of a checkpoint")
    arguments.add_argument("--quantize", choices=["q8", "q4"])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--level", default="avx512", help="how the rows call ours")
    arguments.add_argument("--binary", default=str(ROOT / "target/release/pagewise"))
    arguments.add_argument("--peer-binary", type=Path, help="folder of llama.cpp's programs")
    arguments.add_argument("--peer-model", type=Path, help="the same weights as GGUF")
    arguments.add_argument("--peer-tokens", type=int, default=3000,
                           help="the peer's server is asked with tokens below this one")
    arguments.add_argument("--arrivals", type=int, default=24, help="that a rate is judged by")
    arguments.add_argument("--only", nargs="+", choices=parts, default=parts)
    given = arguments.parse_args()
    wanted = lambda part: part in given.only
    if any(map(wanted, ["decode", "prefill", "batch", "depth"])):
        with ours(given, "--kv-cache-memory", "2GiB") as running:
            beginning(given, running)
            for part in [decode, prefill, batch, depth]:
                if wanted(part.__name__):
                    part(given, running)
    if wanted("mistral") and given.peer_model:
        mistral(given)
    for part, slots, context in [("server", 8, 512), ("open", 8, 512), ("shared", 8, 1280)]:
        if not wanted(part):
            continue
        call = {"server": server, "open": open_loop, "shared": shared}[part]
        rate = lambda first: [first] if part == "open" else []
        with ours(given, "--kv-cache-memory", "2GiB") as running:
            call(given, running.url, given.level, *rate(0.3))
            if part == "server":
                overhead(given, running.url, "server 8 clients")
        if given.peer_binary:
            with theirs(given, slots, context) as running:
                call(given, running.url, "llama.cpp", *rate(0.05), below=given.peer_tokens)


if __name__ == "__main__":
    main()
