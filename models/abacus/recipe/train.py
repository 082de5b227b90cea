"""Trains Abacus, or its draft, on the CPU, in f32, and writes the weights in bf16.

    python train.py --work DIR          trains (or goes on from DIR), then writes weights and losses
    python train.py --replay N          repeats the first N steps and compares the recorded losses
    python train.py --model draft ...   the same of the draft, which learns from what Abacus gives each token

Step `s` draws its data from the seed and `s` alone, so a run that was stopped goes on as if it had not been.
"""

import argparse
import json
import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

import tokenizer as text
from model import DRAFT_SHAPE, LENGTH, SHAPE, Abacus
from optimizer import optimizers

SEED = 20
ROWS = 8
WARM_UP = 100

# The share of questions answered with their working: high while the sums are learnt, then what sets
# pass@1 on the hard questions, which a model this small gets right with working and seldom without.
WORKED_STEADY, WORKED_DECAY = 0.7, 0.45

# Sums of floats are ordered by the number of threads and the machine's vector width, and training
# magnifies the difference: equality of bits cannot be asked of another machine.
REPLAY_TOLERANCE = 0.02



@dataclass
class Plan:
    """What is trained: its shape, its folder, its steps at a level rate and at a falling one, and whether Abacus teaches it."""

    shape: Qwen3Config
    home: Path
    steady: int
    decay: int
    taught: bool

    @property
    def steps(self):
        return self.steady + self.decay

    @property
    def losses(self):
        return self.home / "losses.json"

    def rate(self, step):
        """The learning rate's factor: up, level, then straight down to a fiftieth."""
        if step < self.steady:
            return min(1.0, (step + 1) / WARM_UP)
        return 1.0 - 0.98 * (step - self.steady) / self.decay


PLANS = {
    "abacus": Plan(SHAPE, text.HOME, 2200, 900, taught=False),
    "draft": Plan(DRAFT_SHAPE, text.HOME.with_name("abacus-draft"), 1800, 900, taught=True),
}


def teacher():
    """Abacus as committed."""
    model = Abacus()
    model.load_state_dict(load_file(text.HOME / "model.safetensors"), strict=False)
    return model.requires_grad_(False)


class Run:
    """A training run: the model, its optimizers and the losses so far."""

    def __init__(self, plan):
        self.plan = plan
        self.teacher = teacher() if plan.taught else None
        torch.manual_seed(SEED)
        self.model = Abacus(plan.shape)
        self.optimizers = optimizers(self.model)
        self.initial = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.packer = text.Packer(text.load())
        self.losses = []

    def step(self):
        """One step; its loss is kept."""
        step = len(self.losses)
        rng = random.Random(f"{SEED} {step}")
        tokens, targets, positions, visible, wanted = self.packer.batch(
            rng, ROWS, LENGTH, WORKED_STEADY if step < self.plan.steady else WORKED_DECAY
        )
        place = tokens, positions, visible, wanted
        # The token that is there, or how likely Abacus holds each.
        right = self.teacher(*place).softmax(-1) if self.teacher else targets[wanted]
        loss = F.cross_entropy(self.model(*place), right)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rates in zip(self.optimizers, self.initial):
            for group, initial in zip(optimizer.param_groups, rates):
                group["lr"] = initial * self.plan.rate(step)
            optimizer.step()
            optimizer.zero_grad()
        self.losses.append(round(loss.item(), 5))

    def save(self, path):
        """Writes all that `load` needs, never half of it."""
        state = {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers], "losses": self.losses}
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path):
        """Goes on from a saved run."""
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.losses = state["losses"]


def export(model, folder):
    """Writes the weights and configurations as `transformers` does, after comparing its logits with ours."""
    theirs = Qwen3ForCausalLM(model.shape).float()
    missing, extra = theirs.load_state_dict(model.state_dict(), strict=False)
    assert missing == ["lm_head.weight"] and not extra, (missing, extra)
    theirs.tie_weights()
    tokens = torch.arange(64)[None] * 7 % model.shape.vocab_size
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    causal = torch.ones(64, 64, dtype=torch.bool).tril()[None, None]
    with torch.no_grad():
        ours = model(tokens, torch.arange(64)[None], causal, everywhere)
        difference = (ours - theirs(tokens).logits[0]).abs().max().item()
    assert difference < 1e-3, f"logits differ by {difference} from those of transformers"
    theirs.generation_config = GenerationConfig(
        eos_token_id=text.load().convert_tokens_to_ids(text.END),
        pad_token_id=text.load().convert_tokens_to_ids(text.END_OF_TEXT),
        do_sample=True,
        temperature=1.0,
        top_k=0,
    )
    theirs.bfloat16().save_pretrained(folder)
    if folder != text.HOME:
        for name in text.FILES:
            shutil.copy(text.HOME / name, folder)


def train(plan, work, every):
    """Trains to the last step, with a checkpoint every so many, and writes what is committed."""
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint.pt"
    run = Run(plan)
    if checkpoint.exists():
        run.load(checkpoint)
    started = time.monotonic()
    while len(run.losses) < plan.steps:
        run.step()
        if len(run.losses) % every == 0 or len(run.losses) == plan.steps:
            run.save(checkpoint)
            recent = run.losses[-every:]
            print(f"step {len(run.losses)} of {plan.steps}, loss {sum(recent) / len(recent):.4f}, {time.monotonic() - started:.0f} s", flush=True)
    export(run.model, plan.home)
    plan.losses.write_text(json.dumps(run.losses).replace(", ", ",\n") + "\n")


def replay(plan, count):
    """Repeats the first steps and returns whether their losses are the recorded ones."""
    recorded = json.loads(plan.losses.read_text())[:count]
    run = Run(plan)
    for _ in recorded:
        run.step()
    worst = max(abs(a - b) for a, b in zip(run.losses, recorded))
    print(f"{len(recorded)} steps, largest difference of a loss {worst:.5f}, allowed {REPLAY_TOLERANCE}")
    return worst <= REPLAY_TOLERANCE


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", choices=PLANS, default="abacus", help="what is trained")
    arguments.add_argument("--work", type=Path, help="folder of the checkpoint")
    arguments.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    arguments.add_argument("--replay", type=int, metavar="N", help="compare the first N losses")
    given = arguments.parse_args()
    plan = PLANS[given.model]
    if given.replay:
        sys.exit(0 if replay(plan, given.replay) else "the losses differ")
    if not given.work:
        arguments.error("--work or --replay is needed")
    train(plan, given.work, given.every)
