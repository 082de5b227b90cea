"""Measures how often the draft agrees with Abacus on the answers that Abacus gives, and writes the draft's `figures.json`.

    python agree.py [--draft DIR] [--out FILE]

Of each token of an answer four things are asked: whether the draft holds the same token likeliest where Abacus answers
greedily; whether it does where Abacus draws at temperature 1; whether both draw the same token there with the same noise,
which is what a draft's token is accepted by; and how likely rejection sampling would accept what the draft draws there, which
no other way of acceptance exceeds.
"""

import argparse
import json
from pathlib import Path

import torch

import additions
import hard
from evaluate import BATCH, NEW_TOKENS, Abacus, share
from tokenizer import HOME
from train import PLANS

SPLITS = {"additions": additions.ADDITIONS, "hard": hard.HARD}


def questions(path):
    """The conversations of a file of questions, alike lengths side by side."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return sorted((json.loads(line)["messages"] for line in lines), key=lambda messages: len(messages[0]["content"]))


def noise(shape):
    """Gumbel noise: the token whose log-probability is largest with it is one drawn by its probability."""
    return -torch.empty(shape).exponential_().log()


@torch.no_grad()
def answered(abacus, draft, conversations, sampled):
    """Of every token of Abacus's answers: whether the draft holds it likeliest, whether both draw the same, and how likely
    rejection sampling accepts."""
    tokenizer = abacus.tokenizer
    texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    begin = batch["input_ids"].shape[1]
    how = dict(do_sample=True, temperature=1.0, top_k=0) if sampled else dict(do_sample=False, temperature=None, top_k=None)
    tokens = abacus.model.generate(**batch, max_new_tokens=NEW_TOKENS, **how)
    answers = tokens[:, begin:]
    # An answer has its end, and nothing after it.
    ends = (answers == tokenizer.eos_token_id).int()
    written = ends.cumsum(-1) - ends == 0
    mask = torch.cat((batch["attention_mask"], torch.ones_like(answers)), -1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    theirs, ours = (
        model(input_ids=tokens, attention_mask=mask, position_ids=positions).logits[:, begin - 1 : -1].log_softmax(-1)
        for model in (abacus.model, draft)
    )
    same = noise(theirs.shape)
    likeliest = ours.argmax(-1) == answers
    drawn = (ours + same).argmax(-1) == (theirs + same).argmax(-1)
    accepted = torch.minimum(theirs.exp(), ours.exp()).sum(-1)
    return likeliest[written].tolist(), drawn[written].tolist(), accepted[written].tolist()


def agreement(abacus, draft, conversations):
    """The shares of tokens, over all answers of a split."""
    found = {"greedy": [], "drawn": [], "drawn with the same noise": [], "by rejection": []}
    for start in range(0, len(conversations), BATCH):
        chosen = conversations[start : start + BATCH]
        found["greedy"] += answered(abacus, draft, chosen, sampled=False)[0]
        likeliest, drawn, accepted = answered(abacus, draft, chosen, sampled=True)
        found["drawn"] += likeliest
        found["drawn with the same noise"] += drawn
        found["by rejection"] += accepted
    return {"questions": len(conversations), "tokens": len(found["drawn"])} | {name: share(marks) for name, marks in found.items()}


def measure(folder):
    """All figures of the draft in a folder."""
    torch.manual_seed(0)
    abacus, draft = Abacus(HOME), Abacus(folder).model
    figures = {"parameters": sum(p.numel() for p in draft.parameters())}
    return figures | {name: agreement(abacus, draft, questions(path)) for name, path in SPLITS.items()}


if __name__ == "__main__":
    home = PLANS["draft"].home
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draft", type=Path, default=home, help="folder of the draft")
    arguments.add_argument("--out", type=Path, default=home / "figures.json", help="file of the figures")
    given = arguments.parse_args()
    figures = measure(given.draft)
    given.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
