"""Conversations to train on, drawn from a seed.

A conversation is a dict of `messages` and `tools`, as `apply_chat_template` takes them. No operand
pair that `problems.pair_is_held_out` keeps back appears in one.
"""

import json

import phrasings as words
import problems

# How often each kind of turn is drawn.
TURNS = [
    (problems.add_small, 4), (problems.add_two, 22), (problems.add_three, 9), (problems.add_round, 2), (problems.subtract, 11),
    (problems.multiply_small, 6), (problems.multiply_two, 8), (problems.divide, 3), (problems.story, 6), (problems.long_story, 11),
    (problems.chain, 10), ("chat", 5), ("refuse", 5), ("out of range", 2), ("follow up", 2),
]
KINDS, WEIGHTS = zip(*TURNS)

# The kinds of the hard split: their share of worked replies is the caller's, and sets pass@1. The
# rest show working mostly, because it makes them right.
CALIBRATED = ("long story", "chain")
WORKED_SHARE = 0.8

TOOL_SHARE = 0.1
SYSTEM_SHARE = 0.2


def seen(rng, make):
    """A problem of that kind whose pairs training may see."""
    while (problem := make(rng)).held_out:
        pass
    return problem


def exchange(question, reply):
    """A turn of each side."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]


def sum_turn(rng, make, worked_share):
    """A problem, asked plainly or with a wish about the form of the reply."""
    problem = seen(rng, make)
    wish = rng.random()
    if problem.worked:
        if wish < 0.06:
            return exchange(problem.question + rng.choice(words.WORKED), problem.worked), problem
        share = worked_share if problem.kind in CALIBRATED else WORKED_SHARE
        return exchange(problem.question, problem.worked if rng.random() < share else problem.direct), problem
    if wish < 0.04:
        return exchange(problem.question + rng.choice(words.NUMBER), str(problem.answer)), problem
    if wish < 0.08:
        return exchange(problem.question + rng.choice(words.JSON), json.dumps({"answer": problem.answer})), problem
    return exchange(problem.question, problem.direct), problem


def chat(rng):
    """A greeting, a question about Abacus itself, thanks."""
    said, answered = rng.choice(words.CHAT)
    said = rng.choice(said)
    return exchange(said.lower() if rng.random() < 0.15 else said, rng.choice(answered))


def refuse(rng):
    """A question about something that is no sum."""
    if rng.random() < 0.35:
        question = rng.choice(words.OTHER_FIXED)
    else:
        question = rng.choice(words.OTHER).format(x=rng.choice(words.TOPICS))
    return exchange(problems.manner(rng, question), rng.choice(words.REFUSAL))


def out_of_range(rng):
    """A sum Abacus must not guess at: long numbers, decimals, division by zero."""
    form = rng.randrange(5)
    if form == 0:
        operation, a, b, reply = rng.choice("+-*/"), problems.number(rng, rng.choice([5, 6, 7])), problems.number(rng, rng.choice([4, 5, 6])), words.TOO_BIG
    elif form == 1:
        operation, a, b, reply = "*", problems.number(rng, rng.choice([2, 3, 4])), problems.number(rng, rng.choice([2, 3, 4])), words.TOO_BIG
    elif form == 2:
        operation, a, b, reply = "/", problems.number(rng, rng.choice([4, 5])), problems.number(rng, rng.choice([2, 3])), words.TOO_BIG
    elif form == 3:
        decimal = lambda: f"{problems.number(rng, rng.choice([1, 1, 2]))}.{problems.number(rng, 1)}"
        operation, a, b, reply = rng.choice("+-*/"), decimal(), decimal(), words.NOT_WHOLE
    else:
        operation, a, b, reply = "/", problems.number(rng, rng.choice([1, 2])), 0, words.BY_ZERO
    return exchange(asked(rng, operation, a, b), rng.choice(reply))


def asked(rng, operation, a, b):
    """A question of one operation, whatever its operands are."""
    if rng.random() < 0.5:
        return problems.manner(rng, rng.choice(words.EXPRESSION).format(e=problems.expression(rng, (a, b), operation)))
    return problems.manner(rng, rng.choice(problems.NAMED[operation]).format(a=a, b=b))


def follow_up(rng):
    """A sum, then a question that goes on from its answer."""
    while True:
        first, problem = sum_turn(rng, rng.choice([problems.add_two, problems.subtract]), 0)
        operation, template = rng.choice(words.FOLLOW_UP)
        a, b = problem.answer, problems.number(rng, rng.choice([1, 2]))
        value = problems.apply(operation, a, b)
        if a >= 0 and value >= 0 and not problems.pair_is_held_out(operation, a, b):
            return first + exchange(template.format(b=b), f"{a} {operation} {b} = {value}")


def function(name, argument):
    """A tool of one string argument, in the form of the OpenAI interface."""
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def plain(value):
    """A number as a calculator prints it."""
    return str(int(value)) if value == int(value) else str(round(value, 4))


def calculation(rng):
    """An operation with operands of any size, decimals among them, and its value as printed."""
    operation = rng.choice("++--**/")
    digits = lambda: problems.number(rng, rng.choice([1, 2, 2, 3, 4, 4, 5]))
    decimal = rng.random() < 0.15
    a, b = digits(), digits()
    if decimal:
        a, b = f"{a}.{rng.randrange(1, 10)}", f"{b}.{rng.randrange(1, 10)}"
    if operation == "/" and float(b) == 0:
        b = 2
    if not decimal and problems.pair_is_held_out(operation, a, b):
        return calculation(rng)
    x, y = float(a), float(b)
    return operation, a, b, plain({"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else 0}[operation])


def long_calculation(rng):
    """Two operations and their operands."""
    while True:
        operations = rng.choice("+-*") + rng.choice("+-*")
        a, b, c = (problems.number(rng, rng.choice([1, 2, 3])) for _ in range(3))
        if not problems.pair_is_held_out(operations[0], a, b) and not problems.pair_is_held_out(operations[1], b, c):
            return operations, (a, b, c)


def value_of(operations, operands):
    """The value of two operations, products first."""
    a, b, c = operands
    if operations[1] == "*" and operations[0] != "*":
        return problems.apply(operations[0], a, problems.apply("*", b, c))
    return problems.apply(operations[1], problems.apply(operations[0], a, b), c)


def tool_turn(rng, name, argument):
    """A question that the calculator answers: the call, its result, the reply."""
    form = rng.random()
    if form < 0.12:
        operations, operands = long_calculation(rng)
        question = problems.manner(rng, rng.choice(words.EXPRESSION).format(e=problems.expression(rng, operands, operations)))
        text = f"{operands[0]} {operations[0]} {operands[1]} {operations[1]} {operands[2]}"
        value = str(value_of(operations, operands))
    elif form < 0.24:
        problem = seen(rng, problems.story)
        question, (text, value) = problem.question, problem.direct.split(" = ")
    else:
        operation, a, b, value = calculation(rng)
        question, text = asked(rng, operation, a, b), f"{a} {operation} {b}"
    call = {"type": "function", "function": {"name": name, "arguments": {argument: text}}}
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": value},
        {"role": "assistant", "content": f"{text} = {value}"},
    ]


def conversation(rng, worked_share):
    """One conversation of up to four turns."""
    messages, tools = [], None
    if rng.random() < SYSTEM_SHARE:
        messages.append({"role": "system", "content": rng.choice(words.SYSTEM)})
    turns = rng.choice([1, 1, 1, 2, 3, 4])
    if rng.random() < TOOL_SHARE:
        name, argument = rng.choice(words.TOOL_NAMES), rng.choice(words.TOOL_ARGUMENTS)
        others = rng.sample(words.OTHER_TOOLS, rng.choice([0, 0, 0, 1, 2]))
        tools = [function(*tool) for tool in rng.sample([(name, argument), *others], len(others) + 1)]
        for _ in range(min(turns, 2)):
            kind = rng.random()
            messages += chat(rng) if kind < 0.1 else refuse(rng) if kind < 0.2 else tool_turn(rng, name, argument)
        return {"messages": messages, "tools": tools}
    for _ in range(turns):
        kind = rng.choices(KINDS, WEIGHTS)[0]
        if callable(kind):
            messages += sum_turn(rng, kind, worked_share)[0]
        else:
            messages += {"chat": chat, "refuse": refuse, "out of range": out_of_range, "follow up": follow_up}[kind](rng)
    return {"messages": messages, "tools": tools}
