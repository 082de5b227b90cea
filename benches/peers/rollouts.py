"""What reinforcement learning asks of a server, from outside, as figures for bench-record.

    cargo build --release
    python benches/peers/rollouts.py > rollouts.txt
    python benches/peers/rollouts.py --name T --model DIR --quantize q8 --only adapters steps constraints drafts >> rollouts.txt
    cargo xtask bench-record --from rollouts.txt

Without `--model` it is the model in the box. Adapters are random ones of rank 16 for all
products of the layers, written here. Nobody else can be asked the same on a CPU: vLLM and
SGLang have no such routes there; a peer is the server itself without adapters, or without
swaps.

- swaps: 32 answers at a time while one adapter is replaced, each way; from the call that
  publishes to its reply, which comes when the version is the current one; how long no step
  could begin for it; the gap between tokens beside that of a server that is left alone;
  requests that did not end as they were asked to. Medians over turns, each of all ways.
- adapters: tokens a second of 32 answers over 8 adapters, beside the base's; memory that an
  adapter takes, of its slot and of the whole process, over the bytes of its file.
- steps: the first token of an episode's step after a long history, beside that of a request
  that goes on from the same tokens; tokens that the step computed; how long a start takes.
- constraints: tokens a second of 32 answers with a grammar and an action mask each, beside
  those without.
- drafts: tokens a second of one answer of an adapter for which the base drafts in 4 bits,
  beside those of the adapter alone.
"""

import argparse
import http.client
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from serving import ROOT, figure, load, ours

TARGETS = [("self_attn.q_proj", "q"), ("self_attn.k_proj", "kv"), ("self_attn.v_proj", "kv"),
           ("self_attn.o_proj", "o"), ("mlp.gate_proj", "up"), ("mlp.up_proj", "up"),
           ("mlp.down_proj", "down")]
RANK = 16


def write_adapter(folder, config, seed):
    """A PEFT folder with random numbers."""
    noise = random.Random(seed)
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    dim = config.get("head_dim") or hidden // heads
    kv = config.get("num_key_value_heads", heads) * dim
    shapes = {"q": (hidden, heads * dim), "kv": (hidden, kv), "o": (heads * dim, hidden),
              "up": (hidden, wide), "down": (wide, hidden)}
    # A thousand numbers again and again: what they are takes no time of anybody.
    pattern = struct.pack("<1024f", *(noise.uniform(-0.01, 0.01) for _ in range(1024)))
    header, bodies, at = {}, [], 0
    for layer in range(config["num_hidden_layers"]):
        for name, kind in TARGETS:
            inputs, outputs = shapes[kind]
            for half, shape in [("A", [RANK, inputs]), ("B", [outputs, RANK])]:
                size = 4 * shape[0] * shape[1]
                body = (pattern * (size // len(pattern) + 1))[:size]
                tensor = f"base_model.model.model.layers.{layer}.{name}.lora_{half}.weight"
                header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
                bodies.append(body)
                at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    folder.mkdir(parents=True)
    with open(folder / "adapter_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + b"".join(bodies))
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none",
        "target_modules": [name.split(".")[1] for name, _ in TARGETS]}))


class Client:
    """One connection, which is kept."""

    def __init__(self, url):
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)

    def get(self, path):
        return self.ask("GET", path, None)

    def post(self, path, body):
        return self.ask("POST", path, json.dumps(body))

    def ask(self, method, path, text):
        self.connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}: {told.decode()}")
        return json.loads(told) if told[:1] in (b"{", b"[") else told.decode()


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))]


def swapped(given, url, folders, way, requests, pause_s):
    """A load of 32 while the adapter is replaced again and again: the load's report, and
    how long each replacement took."""
    command = [given.binary, "bench", "--base-url", url, "--json", "--models", "policy",
               "--requests", str(requests), "--concurrency", "32", "--prompt-tokens", "32",
               "--max-tokens", "128"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    took, client, number = [], Client(url), 0
    while way and running.poll() is None:
        number += 1
        begun = time.perf_counter()
        client.post("/load_lora_adapter", {"lora_name": "policy", "in_flight": way,
                    "lora_path": str(folders[number % len(folders)]), "weight_version": number})
        took.append(1e3 * (time.perf_counter() - begun))
        time.sleep(pause_s)
    told = json.loads(running.communicate()[0])
    return told, took


def kept_waiting(url, before=None):
    """How long swaps kept steps waiting: counts by the bounds of the server's histogram."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(r'pagewise:version_swap_seconds_bucket{[^}]*le="([^"]+)"[^}]*} (\d+)', text)
    counts = {float(bound): int(count) for bound, count in found}
    return {bound: count - before[bound] for bound, count in counts.items()} if before else counts


def swaps(given, folders):
    with ours(given, "--kv-cache-memory", "1GiB", "--max-loras", "16") as running:
        client = Client(running.url)
        client.post("/load_lora_adapter", {"lora_name": "policy", "lora_path": str(folders[0])})
        swapped(given, running.url, folders, None, 64, 0)
        measured = {}
        add = lambda name, value: measured.setdefault(name, []).append(value)
        for _ in range(given.turns):
            calm, _ = swapped(given, running.url, folders, None, given.requests, 0)
            add("32 answers gap p99|ms", calm["gap_ms"]["p99"])
            # Two a second, more often than a trainer would: the gaps are those beside staging.
            for way in ["wait", "recompute", "keep"]:
                before = kept_waiting(running.url)
                told, took = swapped(given, running.url, folders, way, given.requests, 0.5)
                waited = kept_waiting(running.url, before)
                most = min(bound for bound, count in waited.items() if count >= 0.99 * max(waited.values()))
                add(f"32 answers gap p99 beside swaps: {way}|ms", told["gap_ms"]["p99"])
                add(f"gap p99 beside swaps over calm: {way}|parts", told["gap_ms"]["p99"] / calm["gap_ms"]["p99"])
                add(f"publish to serving p50: {way}|ms", percentile(took, 0.5))
                add(f"publish to serving p99: {way}|ms", percentile(took, 0.99))
                add(f"a swap keeps steps waiting p99 at most: {way}|ms", 1e3 * most)
        for name, values in measured.items():
            figure(given, name.split("|")[0], given.level, name.split("|")[1], percentile(values, 0.5))
        # As many as fit: who is lost?
        for way in ["wait", "keep", "recompute"]:
            lost, count = 0, 0
            while count < given.swaps:
                told, took = swapped(given, running.url, folders, way, 128, 0.0 if way != "recompute" else 0.05)
                lost, count = lost + told["failed"], count + len(took)
            figure(given, f"requests lost over {given.swaps} swaps: {way}", given.level, "requests", lost)
            print(f"{way}: {count} swaps, {lost} lost", file=sys.stderr)


def rate(given, url, seed, **more):
    """Tokens a second of 32 answers, past their first tokens."""
    shape = dict(requests=32, concurrency=32, prompt_tokens=64, seed=seed, **more)
    load(given, url, max_tokens=1, **shape)
    return 32e3 / load(given, url, max_tokens=64, **shape)["gap_ms"]["mean"]


def adapters(given, folders):
    with ours(given, "--kv-cache-memory", "2GiB", "--max-loras", "8") as running:
        client = Client(running.url)
        names = [f"a{number}" for number in range(8)]
        rate(given, running.url, 99)
        before = running.memory_bytes()[1]
        for name, number in zip(names, range(8)):
            client.post("/load_lora_adapter",
                        {"lora_name": name, "lora_path": str(folders[number % len(folders)])})
        after = running.memory_bytes()[1]
        file = (folders[0] / "adapter_model.safetensors").stat().st_size
        slot = client.get("/v1/lora_adapters")["slot_bytes"]
        figure(given, "an adapter's slot over its file", given.level, "parts", slot / file)
        figure(given, "memory that an adapter adds over its file", given.level, "parts", (after - before) / 8 / file)
        rates = {"base": [], "8 adapters": []}
        for turn in range(given.turns):
            rates["base"].append(rate(given, running.url, turn))
            rates["8 adapters"].append(rate(given, running.url, turn, models=",".join(names)))
        medians = {what: percentile(all, 0.5) for what, all in rates.items()}
        for what, median in medians.items():
            figure(given, f"32 answers: {what}", given.level, "tok/s", median)
        over = medians["8 adapters"] / medians["base"]
        figure(given, "8 adapters in a batch of 32 over base", given.level, "parts", over)


def constraints(given):
    with ours(given, "--kv-cache-memory", "2GiB") as running:
        client = Client(running.url)
        letters = client.post("/tokenize", {"prompt": "abcdefghij 0123456789", "add_special_tokens": False})
        extra = json.dumps({
            "structured_outputs": {"regex": "[a-z0-9 ]*"},
            "processors": [{"type": "action_mask", "allowed_token_ids": sorted(set(letters["tokens"]))}]})
        over = []
        for turn in range(given.turns):
            free = rate(given, running.url, turn)
            over.append(rate(given, running.url, turn, extra_body=extra) / free)
        figure(given, "32 answers: grammar and action mask each over none", given.level, "parts",
               percentile(over, 0.5))


def drafts(given, folders):
    rates = {}
    for what, more in [("alone", []), ("base", ["--draft", "base", "--draft-quantize", "q4"])]:
        with ours(given, "--kv-cache-memory", "1GiB", "--max-loras", "1", *more) as running:
            client = Client(running.url)
            client.post("/load_lora_adapter", {"lora_name": "policy", "lora_path": str(folders[0])})
            shape = dict(models="policy", requests=given.turns, concurrency=1, prompt_tokens=32, max_tokens=128)
            load(given, running.url, **shape)
            rates[what] = load(given, running.url, **shape)["tokens_per_second"]
    figure(given, "one answer of an adapter", given.level, "tok/s", rates["alone"])
    figure(given, "one answer of an adapter: the base drafts in 4 bits over none", given.level, "parts",
           rates["base"] / rates["alone"])


def steps(given):
    history, more = given.history, 32
    noise = random.Random(3)
    tokens = lambda count: [noise.randrange(5, given.tokens_below) for _ in range(count)]

    def first_token(client, path, body):
        """Until the first token: it is the only one."""
        begun = time.perf_counter()
        told = client.post(path, body)
        return 1e3 * (time.perf_counter() - begun), told

    with ours(given, "--kv-cache-memory", "2GiB") as running:
        client = Client(running.url)
        over, starts = [], []
        for turn in range(given.turns):
            past, new = tokens(history), tokens(more)
            for _ in range(100):
                start_ms, told = first_token(client, "/v1/episodes/start", {})
                starts.append(start_ms)
                client.post("/v1/episodes/end", {"episode_id": told["episode_id"]})
            episode = client.post("/v1/episodes/start", {})["episode_id"]
            client.post("/v1/episodes/step", {"episode_id": episode, "max_tokens": 1, "ignore_eos": True,
                        "observation_token_ids": past, "temperature": 0})
            step_ms, told = first_token(client, "/v1/episodes/step", {
                "episode_id": episode, "observation_token_ids": new, "max_tokens": 1, "temperature": 0})
            if told["computed_tokens"] != more + 1:
                raise SystemExit(f"a step computed {told['computed_tokens']} tokens, not {more + 1}")
            # One request that goes on: its history lies in pages, down to the last full one.
            past = tokens(history)
            ask = lambda prompt: first_token(client, "/inference/v1/generate", {
                "token_ids": prompt, "sampling_params": {"max_tokens": 1, "temperature": 0}})
            ask(past)
            request_ms, _ = ask(past + tokens(more))
            over.append(step_ms / request_ms)
            client.post("/v1/episodes/end", {"episode_id": episode})
        figure(given, "start of an episode p50", given.level, "ms", percentile(starts, 0.5))
        figure(given, f"a step's first token at {history} over a request's", given.level, "parts",
               percentile(over, 0.5))
        figure(given, f"tokens that a step of {more} at {history} computes beside its own", given.level,
               "tokens", told["computed_tokens"] - more - 1)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--name", default="abacus", help="how the rows call the model")
    arguments.add_argument("--model", default=str(ROOT / "models/abacus"), help="folder of a checkpoint")
    arguments.add_argument("--quantize", choices=["q8", "q4"])
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--level", default="avx512", help="how the rows call ours")
    arguments.add_argument("--binary", default=str(ROOT / "target/release/pagewise"))
    arguments.add_argument("--requests", type=int, default=512, help="of a load beside swaps")
    arguments.add_argument("--swaps", type=int, default=1000, help="over which losses are counted")
    arguments.add_argument("--turns", type=int, default=5, help="of which the median counts")
    arguments.add_argument("--history", type=int, default=8192, help="tokens before a step")
    arguments.add_argument("--tokens-below", type=int, default=1000, help="that prompts are made of")
    parts = ["swaps", "adapters", "steps", "constraints", "drafts"]
    arguments.add_argument("--only", nargs="+", choices=parts, default=["swaps", "adapters"])
    given = arguments.parse_args()
    config = json.loads((Path(given.model) / "config.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / f"a{number}" for number in range(8 if "adapters" in given.only else 4)]
        if set(given.only) & {"swaps", "adapters", "drafts"}:
            for number, place in enumerate(folders):
                write_adapter(place, config, number)
        if "swaps" in given.only:
            swaps(given, folders)
        if "adapters" in given.only:
            adapters(given, folders)
        if "steps" in given.only:
            steps(given)
        if "constraints" in given.only:
            constraints(given)
        if "drafts" in given.only:
            drafts(given, folders)


if __name__ == "__main__":
    main()
