"""What grammars and drafts cost and buy, and what hostile grammars cost others, as figures
for bench-record.

    cargo build --release
    python benches/peers/constraints.py --binary target/release/pagewise \\
        [--model DIR] [--tokenizer FILE] [--draft-model DIR] > constraints.txt
    cargo xtask bench-record --from constraints.txt

The model in the box is measured, and DIR beside it. What is compared takes turns, on servers
that run side by side: a figure is the median of the pairs' ratios. `--tokenizer` names the
`tokenizer.json` whose vocabulary masks are timed over. Takes about five minutes.
"""

import argparse
import json
import statistics
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

from serving import ROOT, load, ours

BOX = ROOT / "models/abacus"
SCHEMAS = ROOT / "tests/clients/schemas.jsonl"
# Goes on for as long as anybody asks: 32 answers that keep to it are as long as 32 that do not.
LONG = {"type": "object", "required": ["name", "list", "kind"], "additionalProperties": False, "properties": {
    "name": {"type": "string", "minLength": 20, "maxLength": 400},
    "list": {"type": "array", "items": {"type": "integer"}, "minItems": 400},
    "kind": {"enum": ["aa", "bb"]}}}
# Seconds that each side of a pair takes, about; and pairs.
SIDE_S, PAIRS = 3, 7
HOSTILE_CLIENTS = 4
# Loads of others before they come.
ALONE = 5


def figure(given, shape, unit, value, kernel="serving"):
    """One row in the columns of benches/record."""
    print(f"figure {kernel},{shape},{given.level},{given.threads},,,{unit},{value:.4g},,", flush=True)


def server(given, model, *more):
    """`pagewise serve` on a model; the one in the box as it is."""
    asked = SimpleNamespace(binary=given.binary, model=str(model), threads=given.threads,
                            quantize=None if model == BOX else given.quantize)
    return ours(asked, *more)


def ask(url, path, body):
    asked = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


def rate(url, path, bodies):
    """Tokens a second of requests one after the other, and what became of drafts."""
    begun, tokens, drafts = time.perf_counter(), 0, [0, 0]
    for body in bodies:
        usage = ask(url, path, body)["usage"]
        tokens += usage["completion_tokens"]
        told = usage["completion_tokens_details"]
        drafts[0] += told["accepted_prediction_tokens"]
        drafts[1] += told["rejected_prediction_tokens"]
    return tokens / (time.perf_counter() - begun), drafts


def ratios(sides, pairs=PAIRS):
    """The median ratio of two sides' rates; each is asked in turn, with the same seed."""
    told = []
    for turn in range(pairs):
        # Who comes first changes, so that neither has the warmer caches.
        both = {side: sides[side](turn) for side in ((0, 1) if turn % 2 else (1, 0))}
        told.append(both[1] / both[0])
    return statistics.median(told)


def constraints(given):
    """32 answers of one request, with a schema and without, in one server."""
    for name, model in [("abacus", BOX)] + ([(given.name, given.model)] if given.model else []):
        with server(given, model, "--max-batch-size", "32") as running:
            free = dict(prompt="12 + 34 = ", n=32, ignore_eos=True, temperature=1)
            kept = dict(free, structured_outputs={"json": LONG})
            one = lambda body, seed, tokens: rate(
                running.url, "/v1/completions", [dict(body, seed=seed, max_tokens=tokens)])[0]
            one(kept, 0, 8)
            tokens = min(400, max(16, int(one(free, 0, 16) / 32 * SIDE_S)))
            told = ratios([lambda turn: one(free, turn, tokens), lambda turn: one(kept, turn, tokens)])
            figure(given, f"{name} 32 requests: schema over none", "parts", told)
            counts = metrics(running.url)
            figure(given, f"{name} 32 requests: late masks", "parts", counts["late_masks"] / counts["masks"])


def metrics(url):
    with urllib.request.urlopen(f"{url}/debug/metrics") as answer:
        return json.load(answer)


def masks(given):
    """Over a large vocabulary, without a model."""
    if not given.tokenizer:
        return
    command = ["cargo", "bench", "--quiet", "-p", "pagewise", "-p", "pagewise-benches", "--bench", "masks", "--",
               given.tokenizer.resolve(), SCHEMAS]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)
    of = f"{told['vocabulary']} tokens"
    for name, shape in (("compile_us", "compile and first mask"), ("mask_us", "mask")):
        for part in ("p50", "p99", "max"):
            figure(given, f"{of}: {shape} {part}", "us", told[name][part], "grammar")
    batch = told["batch"]
    for part in ("p99", "max"):
        figure(given, f"{of}: 32 texts: a step waits {part}", "us", batch["wait_us"][part], "grammar")
    figure(given, f"{of}: 32 texts: late", "parts", batch["late"] / batch["masks"], "grammar")
    c = told["c"]
    of = f"{of}: {c['texts']} texts on {c['threads']} threads"
    for name, shape in (("share_us", "a mask's share of a batch"), ("each_us", "a mask")):
        for part in ("p50", "p99", "max"):
            figure(given, f"{of}: {shape} {part}", "us", c[name][part], "abi")
    figure(given, f"{of}: a batch of {c['deadline_us']} us p99", "us", c["batch_us"]["p99"], "abi")
    figure(given, f"{of}: late of {c['deadline_us']} us", "parts", c["late"] / c["asked"], "abi")


def speculation(given):
    """Prompt lookup on text that repeats itself, drafts of models on sums; one at a time."""
    sums = [(a, b) for a in (127, 345, 58, 612) for b in (34, 185, 208, 350)]
    question = lambda turn, a, b: dict(
        messages=[{"role": "user", "content": f"What is {a} + {b}?"}], temperature=1, seed=turn, max_tokens=100)
    repeated = lambda turn: dict(prompt="What is 12 + 34? 12 + 34 = 46. " * 6, temperature=0, max_tokens=200,
                                 ignore_eos=True, seed=turn)
    options = {"none": [], "lookup": ["--draft-tokens", "4"], "itself": ["--draft-model", str(BOX)]}
    if given.draft_model:
        options["draft"] = ["--draft-model", str(given.draft_model)]
    with ExitStack() as stack:
        urls = {name: stack.enter_context(server(given, BOX, *more)).url for name, more in options.items()}
        of_sums = lambda name, turn: rate(
            urls[name], "/v1/chat/completions", [question(turn, a, b) for a, b in sums])
        of_repeats = lambda name, turn: rate(urls[name], "/v1/completions", [repeated(turn)] * 4)[0]
        for name in urls:
            of_repeats(name, 0)
        told = ratios([lambda turn: of_repeats("none", turn), lambda turn: of_repeats("lookup", turn)])
        figure(given, "abacus repetitive text: lookup over none", "parts", told)
        accepted, rejected = map(sum, zip(*(of_sums("itself", turn)[1] for turn in range(4))))
        figure(given, "abacus drafts for itself: accepted", "parts", accepted / (accepted + rejected))
        if given.draft_model:
            told = ratios([lambda turn: of_sums("none", turn)[0], lambda turn: of_sums("draft", turn)[0]])
            figure(given, "abacus sums: draft model over none", "parts", told)


def crowd(number):
    """Grammars that mean harm; none is like another, so that none is kept from before."""
    chain = {f"d{at}": {"type": "array", "items": {"$ref": f"#/$defs/d{at + 1}"}} for at in range(1900)}
    chain["d1900"] = {"const": number}
    fields = {f"p{number}-{at}": {} for at in range(20_000)}
    half = "(" * (1 << 19)
    return [
        {"json": {"$ref": "#/$defs/d0", "$defs": chain}},
        {"json": {"properties": fields}},
        {"json": {"enum": [f"value {number} {at}" for at in range(100_000)]}},
        {"json": '{"items":' * 60 + f'{{"const":{number}}}' + "}" * 60},
        {"regex": f"((a{{1,900}}){{1,900}}){{1,900}}{number}"},
        {"regex": f"(a|b)*a(a|b){{18}}x{number}"},
        {"regex": half + str(number) + ")" * (1 << 19)},
        {"grammar": f'start: s\ns: s s | s s s | "a" | "" | "{number}"'},
        {"structural_tag": {"type": "structural_tag", "format": {
            "type": "triggered_tags", "triggers": ["<f="], "tags": [
                {"type": "tag", "begin": f"<f={number}-{at}>", "end": "</f>", "content": {"type": "any_text"}}
                for at in range(2000)]}}},
    ]


def hostile(given):
    """The gaps of four clients' tokens, beside others whose grammars mean harm and without."""
    with server(given, BOX, "--max-batch-size", "32") as running:
        # Written before, so that writing them takes nothing from whom is measured.
        bodies = [json.dumps({"prompt": "x", "max_tokens": 1, "structured_outputs": source}).encode()
                  for number in range(given.hostile) for source in crowd(number)]
        normal = lambda seed: load(given, running.url, requests=8, concurrency=4, prompt_tokens=32,
                                   max_tokens=200, seed=seed)["gap_ms"]
        normal(0)
        alone = [normal(1 + at) for at in range(ALONE)]
        alone = {part: statistics.median(one[part] for one in alone) for part in alone[0]}
        clients = [threading.Thread(target=harm, args=(running.url, bodies[at::HOSTILE_CLIENTS]))
                   for at in range(HOSTILE_CLIENTS)]
        for client in clients:
            client.start()
        beside = []
        while any(client.is_alive() for client in clients):
            beside.append(normal(1 + ALONE + len(beside)))
        for part in ("mean", "p99", "max"):
            figure(given, f"abacus gap {part}: alone", "ms", alone[part])
            figure(given, f"abacus gap {part}: beside hostile grammars", "ms", max(one[part] for one in beside))
        for part in ("mean", "p99"):
            worse = statistics.median(one[part] for one in beside) / alone[part]
            figure(given, f"abacus gap {part}: hostile over alone", "parts", worse)


def harm(url, bodies):
    """Sends them, whatever is said."""
    for body in bodies:
        asked = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(asked, timeout=60).read()
        except urllib.error.HTTPError as refused:
            if refused.code >= 500:
                raise
            refused.read()


def main():
    parts = {part.__name__: part for part in (constraints, masks, speculation, hostile)}
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--binary", default=str(ROOT / "target/release/pagewise"))
    arguments.add_argument("--model", type=Path, help="folder of a checkpoint, beside the model in the box")
    arguments.add_argument("--name", default="T", help="how the rows call it")
    arguments.add_argument("--quantize", choices=["q8", "q4"])
    arguments.add_argument("--tokenizer", type=Path, help="whose vocabulary masks are timed over")
    arguments.add_argument("--draft-model", type=Path, help="that drafts for the model in the box")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--level", default="avx512", help="how the rows call ours")
    arguments.add_argument("--hostile", type=int, default=4, help="rounds of hostile grammars")
    arguments.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    given = arguments.parse_args()
    for name in given.only:
        parts[name](given)


if __name__ == "__main__":
    main()
