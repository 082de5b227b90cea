"""Writes `hard.jsonl`: questions of two steps, each with an operand pair that training never saw.

A line holds the `messages` to answer, the `answer` as text and the `kind`. A reply is right if its
last whole number is the answer.
"""

import json
import random

import problems
from tokenizer import HOME

HARD = HOME / "hard.jsonl"
COUNT = 400


def held_out(rng, make):
    """A problem of that kind with a pair kept from training."""
    while not (problem := make(rng)).held_out:
        pass
    return problem


def questions():
    """The split: half stories, half expressions, no question twice."""
    rng = random.Random("hard")
    found = {}
    while len(found) < COUNT:
        problem = held_out(rng, (problems.long_story, problems.chain)[len(found) % 2])
        found[problem.question] = problem
    return list(found.values())


if __name__ == "__main__":
    with HARD.open("w", encoding="utf-8") as out:
        for problem in questions():
            line = {"messages": [{"role": "user", "content": problem.question}], "answer": str(problem.answer), "kind": problem.kind}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
