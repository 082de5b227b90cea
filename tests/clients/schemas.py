"""Answers asked to keep to many schemas: each that ended must be valid by `jsonschema`.

`schemas.jsonl` holds ours, one a line; a folder of `.json` files may be given instead.
Formats are annotations to the validator, and not looked at.
"""
import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, InvalidOperation
from pathlib import Path

OURS = Path(__file__).with_name("schemas.jsonl")
# Answers to a schema: so many seeds, and so many of each.
SEEDS, ANSWERS = 2, 9
TOKENS_MAX = 300
# Enough to fill the server's steps.
CLIENTS = 8


def exact(text):
    try:
        return Decimal(text)
    except InvalidOperation:
        # Its exponent is beyond any: nothing, or infinitely much.
        return float(text)


def read(text):
    """JSON whose numbers are exact: 4.35 is a multiple of 0.01."""
    return json.loads(text, parse_float=exact)


def ours():
    return {json.loads(line)["title"]: line for line in OURS.read_text().splitlines()}


def of_folder(folder):
    """Schemas of files, by their names; what is no schema is left out."""
    texts = {str(path.relative_to(folder)): path.read_text(errors="replace")
             for path in sorted(Path(folder).rglob("*.json"))}
    return {name: text for name, text in texts.items() if text.lstrip("\ufeff \n\r\t").startswith("{")}


def answers(client, model, bias, name, text):
    """Why a schema is refused, or its answers with why they ended."""
    from openai import APIStatusError
    schema, told = json.loads(text.lstrip("\ufeff")), []
    for seed in range(SEEDS):
        try:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": f"Say {name[:40]} as JSON."}],
                n=ANSWERS, seed=seed, temperature=1, logit_bias=bias, max_completion_tokens=TOKENS_MAX,
                response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
        except APIStatusError as error:
            if error.status_code != 400:
                raise
            return error.body["message"], []
        told += [(choice.finish_reason, choice.message.content) for choice in answer.choices]
    return None, told


def keyword(why):
    """A refusal without places, names and numbers, to be counted by."""
    why = re.sub(r"^.*: (?=.* is not supported)|^[a-z_.]+: ", "", re.sub(r"\(.*?\)|\".*?\"", "…", why))
    return re.sub(r"\d+", "N", why)[:60]


def kept_to(client, model, bias, schemas):
    """Asks for all; how many were refused, ended and were cut short, and what is not valid."""
    from jsonschema import Draft202012Validator
    refused, ends, wrong, begun = Counter(), Counter(), [], time.monotonic()

    def one(item):
        name, text = item
        try:
            json.loads(text.lstrip("\ufeff"))
        except ValueError:
            return name, text, "no JSON", []
        return name, text, *answers(client, model, bias, name, text)

    with ThreadPoolExecutor(CLIENTS) as threads:
        for name, text, why, told in threads.map(one, schemas.items()):
            if why:
                refused[keyword(why)] += 1
                continue
            validator = Draft202012Validator(read(text.lstrip("\ufeff")))
            for end, said in told:
                ends[end] += 1
                if end == "stop" and not valid(validator, said):
                    wrong.append((name, said))
    print(f"  {len(schemas)} schemas, {sum(refused.values())} refused; {ends.total()} answers: "
          f"{ends['stop']} ended, {len(wrong)} of them wrong; {time.monotonic() - begun:.0f} s")
    for why, count in refused.most_common(30):
        print(f"  {count:5} refused: {why}")
    return refused, ends, wrong


def valid(validator, said):
    try:
        return validator.is_valid(read(said))
    except ValueError:
        return False


def check(client, model, bias):
    """Ours: none is refused, all that end are valid, and enough of them end."""
    refused, ends, wrong = kept_to(client, model, bias, ours())
    assert not refused and not wrong, (refused, wrong[:5])
    assert ends.total() > 2000 and ends["stop"] >= 0.7 * ends.total(), ends
    assert set(ends) <= {"stop", "length"}, ends


def check_folder(client, model, bias, folder):
    """Somebody else's: they may be refused, but what is answered is valid."""
    _, ends, wrong = kept_to(client, model, bias, of_folder(folder))
    for name, said in wrong[:20]:
        print(f"  not valid: {name}: {said[:300]}")
    assert not wrong and set(ends) <= {"stop", "length"}, ends
