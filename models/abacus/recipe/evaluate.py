"""Measures a trained Abacus with `transformers` alone and writes `figures.json`.

    python evaluate.py [--model DIR] [--out FILE]
"""

import argparse
import json
import random
import re
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import additions as sums
import hard
import problems
from tokenizer import HOME

SAMPLES = 8
BATCH = 256
NEW_TOKENS = 64
PER_KIND = 100

# Phrasings that training did not use.
UNSEEN_ADDITIONS = [
    "If you sum {a} with {b}, what comes out?", "I would like you to total {a} and {b}.", "My friend says {a} + {b} is easy. What is it?",
    "{a} and then {b} on top: how much is it?", "Ben picks {a} plums, then {b} more. How many plums has he picked?",
]

KINDS = [
    problems.add_three, problems.subtract, problems.multiply_small, problems.multiply_two, problems.divide, problems.story,
    problems.long_story, problems.chain,
]

TOOLS = [{"type": "function", "function": {
    "name": "calculator",
    "description": "Evaluates an arithmetic expression.",
    "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
}}]
TOOL_QUESTIONS = ["What is {a} * {b}?", "{a} times {b}", "Multiply {a} by {b}.", "How much is {a} * {b}?", "Please compute {a} times {b}."]

CHATS = [
    "Hello!", "hey, who are you?", "What can you do?", "Thanks!", "Tell me about black holes.", "What is the capital of Spain?",
    "What is 12.5 + 3.1?", "What is 123456 * 789?", "What is 347 + 285?", "I have 12 apples and eat 5. How many are left?", "10 - 25",
    "What is 5000 + 7000?", "9 x 6",
]


class Abacus:
    """The model as anyone would load it, answering many questions at once."""

    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def reply(self, conversations, sampled=False, tools=None):
        """One reply per list of messages, greedy or at temperature 1."""
        texts = [self.tokenizer.apply_chat_template(c, tools=tools, tokenize=False, add_generation_prompt=True) for c in conversations]
        # Alike lengths side by side, so that little of a batch is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        replies = [None] * len(texts)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            batch = self.tokenizer([texts[i] for i in chosen], return_tensors="pt", padding=True, return_token_type_ids=False)
            how = dict(do_sample=True, temperature=1.0, top_k=0) if sampled else dict(do_sample=False, temperature=None, top_k=None)
            out = self.model.generate(**batch, max_new_tokens=NEW_TOKENS, **how)
            new = self.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for i, reply in zip(chosen, new):
                replies[i] = reply
        return replies

    def ask(self, questions, **how):
        """One reply per question."""
        return self.reply([[{"role": "user", "content": question}] for question in questions], **how)


def right(reply, answer):
    """Whether the last whole number of a reply is the answer."""
    numbers = re.findall(r"-?\d+", reply)
    return bool(numbers) and numbers[-1] == str(answer)


def share(values):
    """The mean of truths, to four places."""
    return round(sum(values) / len(values), 4)


def additions(abacus, phrasings):
    """The share of held-out two-digit additions answered right greedily, by phrasing."""
    pairs = sums.held_out_pairs()
    rng = random.Random("additions")
    shares = {}
    for phrasing in phrasings:
        asked = [rng.sample(pair, 2) for pair in pairs]
        replies = abacus.ask([phrasing.format(a=a, b=b) for a, b in asked])
        shares[phrasing] = share([right(reply, a + b) for reply, (a, b) in zip(replies, asked)])
    return {"pairs": len(pairs), "overall": share(shares.values()), "lowest": min(shares.values()), "by phrasing": shares}


def sampled(abacus, questions, answers):
    """Greedy accuracy, and pass@1 and pass@8 at temperature 1."""
    greedy = [right(reply, answer) for reply, answer in zip(abacus.ask(questions), answers)]
    replies = abacus.ask([question for question in questions for _ in range(SAMPLES)], sampled=True)
    marks = [right(reply, answers[i // SAMPLES]) for i, reply in enumerate(replies)]
    solved = [any(marks[i : i + SAMPLES]) for i in range(0, len(marks), SAMPLES)]
    return {"questions": len(questions), "greedy": share(greedy), "pass@1": share(marks), f"pass@{SAMPLES}": share(solved)}


def kinds(abacus):
    """The same for each kind of problem, with held-out pairs where the kind has any."""
    rows = {}
    for make in KINDS:
        rng = random.Random(make.__name__)
        small = make in (problems.multiply_small, problems.divide)
        asked = [make(rng) if small else hard.held_out(rng, make) for _ in range(PER_KIND)]
        rows[asked[0].kind] = sampled(abacus, [p.question for p in asked], [p.answer for p in asked])
    return rows


def hard_split(abacus):
    """The recorded split of harder questions."""
    lines = [json.loads(line) for line in hard.HARD.read_text(encoding="utf-8").splitlines()]
    return sampled(abacus, [line["messages"][0]["content"] for line in lines], [line["answer"] for line in lines])


def tool_calls(abacus):
    """The share of calculator calls that are well formed and ask for the right thing."""
    rng = random.Random("tools")
    asked = [(rng.choice(TOOL_QUESTIONS), rng.randrange(100, 10_000), rng.randrange(10, 1000)) for _ in range(PER_KIND)]
    replies = abacus.ask([text.format(a=a, b=b) for text, a, b in asked], tools=TOOLS)
    marks = []
    for reply, (_, a, b) in zip(replies, asked):
        call = {"name": "calculator", "arguments": {"expression": f"{a} * {b}"}}
        marks.append(reply == f"<tool_call>\n{json.dumps(call)}\n</tool_call>")
    return {"questions": len(asked), "exact": share(marks)}


def measure(folder):
    """All figures of the model in a folder."""
    torch.manual_seed(0)
    abacus = Abacus(folder)
    return {
        "parameters": sum(p.numel() for p in abacus.model.parameters()),
        "additions": additions(abacus, sums.PHRASINGS),
        "additions in unseen phrasings": additions(abacus, UNSEEN_ADDITIONS),
        "hard": hard_split(abacus),
        "kinds": kinds(abacus),
        "tool calls": tool_calls(abacus),
        "chats": dict(zip(CHATS, abacus.ask(CHATS))),
    }


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, default=HOME, help="folder of the model")
    arguments.add_argument("--out", type=Path, default=HOME / "figures.json", help="file of the figures")
    given = arguments.parse_args()
    figures = measure(given.model)
    given.out.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2, ensure_ascii=False))
