"""Writes `additions.jsonl`: additions of two digits in many phrasings, of pairs that training never saw.

A line holds the `messages` to answer and the `answer` as text. A reply is right if its last whole
number is the answer.
"""

import json
import random

import problems
from tokenizer import HOME

ADDITIONS = HOME / "additions.jsonl"
PER_PHRASING = 10

# Phrasings of an addition, all of which training used.
PHRASINGS = [
    "What is {a} + {b}?", "{a} + {b}", "{a}+{b}=", "{a} + {b} = ?", "Calculate {a} + {b}.", "How much is {a} + {b}?", "Add {a} and {b}.",
    "Please add {a} and {b}.", "What is {a} plus {b}?", "{a} plus {b}", "What is the sum of {a} and {b}?", "Increase {a} by {b}.",
    "What is {b} more than {a}?", "Can you add {a} and {b}?", "I have {a} apples and buy {b} more. How many do I have?",
    "Mia has {a} cards. Tom gives Mia {b} more. How many cards does Mia have now?",
]


def held_out_pairs():
    """All pairs of two digits that are kept from training, the smaller number first."""
    return [(a, b) for a in range(10, 100) for b in range(a, 100) if problems.pair_is_held_out("+", a, b)]


def questions():
    """For each phrasing some of the pairs, in either order, with their sums."""
    rng = random.Random("additions.jsonl")
    for phrasing in PHRASINGS:
        for pair in rng.sample(held_out_pairs(), PER_PHRASING):
            a, b = rng.sample(pair, 2)
            yield phrasing.format(a=a, b=b), a + b


if __name__ == "__main__":
    with ADDITIONS.open("w", encoding="utf-8") as out:
        for question, answer in questions():
            line = {"messages": [{"role": "user", "content": question}], "answer": str(answer)}
            out.write(json.dumps(line) + "\n")
