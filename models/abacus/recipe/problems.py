"""Sums: how each is asked, worked and answered, and which operand pairs training never sees."""

import hashlib
from dataclasses import dataclass

import phrasings as words


@dataclass(frozen=True)
class Problem:
    """One question with its replies: `direct` at once, `worked` with short working, if it has any."""

    kind: str
    question: str
    answer: int
    direct: str
    worked: str | None = None
    pairs: tuple = ()

    @property
    def held_out(self):
        """Whether any of its operand pairs is kept from training."""
        return any(pair_is_held_out(*pair) for pair in self.pairs)


def pair_is_held_out(operation, a, b):
    """A tenth of all pairs with an operand of two digits or more, in either order, by hash."""
    if max(abs(a), abs(b)) < 10:
        return False
    low, high = sorted((a, b))
    return hashlib.sha256(f"{operation} {low} {high}".encode()).digest()[0] % 10 == 0


def apply(operation, a, b):
    """The value of one operation; division is exact where it is asked."""
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[operation]


NAMED = {"+": words.ADD, "-": words.SUBTRACT, "*": words.MULTIPLY, "/": words.DIVIDE}


def expression(rng, operands, operations):
    """An expression as people type it: mostly spaced, sometimes not, `x` for `*` now and then."""
    shown = [rng.choice(["x", "×"]) if o == "*" and rng.random() < 0.3 else "÷" if o == "/" and rng.random() < 0.2 else o for o in operations]
    gap = "" if rng.random() < 0.25 else " "
    text = str(operands[0])
    for operation, operand in zip(shown, operands[1:]):
        text += f"{gap}{operation}{gap}{operand}"
    return text


def manner(rng, question):
    """The question with the small liberties people take: courtesy, case, a lost full stop."""
    if rng.random() < 0.12:
        before = rng.choice(words.BEFORE)
        inside = before[-2] not in "!." and question[1:2].islower()
        question = before + (question[0].lower() if inside else question[0]) + question[1:]
    if rng.random() < 0.06:
        question += rng.choice(words.AFTER)
    if rng.random() < 0.12:
        question = question.rstrip(".?")
    if rng.random() < 0.12:
        question = question.lower()
    return question


def simple(rng, kind, operation, a, b, worked=None, inner=()):
    """A problem of one operation, asked by expression or in words; `inner` are its working's own pairs."""
    value = apply(operation, a, b)
    if rng.random() < 0.45:
        question = rng.choice(words.EXPRESSION).format(e=expression(rng, (a, b), operation))
    else:
        question = rng.choice(NAMED[operation]).format(a=a, b=b)
    equation = f"{a} {operation} {b} = {value}"
    worked = f"{worked}. {equation}" if worked else None
    return Problem(kind, manner(rng, question), value, equation, worked, ((operation, a, b), *inner))


def columns(a, b):
    """Column addition from the right, carries last: `7+5=12, 4+8+1=13, 3+2+1=6`."""
    steps, carry = [], 0
    while a or b:
        total = a % 10 + b % 10 + carry
        steps.append(f"{a % 10}+{b % 10}{'+1' if carry else ''}={total}")
        a, b, carry = a // 10, b // 10, total // 10
    return ", ".join(steps)


def number(rng, digits):
    """A number of that many digits; one digit includes zero."""
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits)


def add_small(rng):
    """Sums with an operand of one digit."""
    a, b = number(rng, 1), number(rng, rng.choice([1, 1, 2]))
    return simple(rng, "add 1", "+", *rng.sample([a, b], 2))


def add_two(rng):
    """Sums of two numbers of two digits."""
    return simple(rng, "add 2", "+", number(rng, 2), number(rng, 2))


def add_three(rng):
    """Sums with an operand of three digits, with columns as working."""
    a, b = rng.sample([number(rng, 3), number(rng, rng.choice([3, 3, 3, 2]))], 2)
    return simple(rng, "add 3", "+", a, b, columns(a, b))


def add_round(rng):
    """Sums of round numbers up to thousands."""
    unit = rng.choice([10, 100, 1000, 1000])
    return simple(rng, "add round", "+", unit * rng.randrange(1, 10), unit * rng.randrange(1, 10))


def subtract(rng):
    """Differences up to two digits, below zero now and then."""
    digits = rng.choice([1, 2, 2, 2, 2])
    low, high = sorted((number(rng, digits), number(rng, rng.choice([1, digits, digits]))))
    pair = (low, high) if rng.random() < 0.15 else (high, low)
    return simple(rng, "subtract", "-", *pair)


def multiply_small(rng):
    """The multiplication table up to ten."""
    return simple(rng, "multiply 1", "*", rng.randrange(11), rng.randrange(11))


def multiply_two(rng):
    """Products of two digits by one, worked by tens and units."""
    a, b = number(rng, 2), rng.randrange(2, 10)
    tens, units = a // 10 * 10, a % 10
    worked = f"{tens} * {b} = {tens * b}, {units} * {b} = {units * b}, {tens * b} + {units * b} = {a * b}"
    inner = (("+", tens * b, units * b),)
    operands = (a, b) if rng.random() < 0.7 else (b, a)
    return simple(rng, "multiply 2", "*", *operands, worked, inner)


def divide(rng):
    """Exact divisions inside the multiplication table."""
    b, quotient = rng.randrange(1, 11), rng.randrange(11)
    return simple(rng, "divide", "/", b * quotient, b)


def told(rng, template, operands):
    """A story's text with its names, things and operands put in."""
    n, m = rng.sample(words.NAMES, 2)
    values = dict(zip("abc", operands), n=n, m=m, t=rng.choice(words.THINGS))
    return manner(rng, template.format(**values))


def story(rng):
    """A story of one step."""
    operation, template = rng.choice(words.STORY)
    if operation in "+-":
        a, b = number(rng, rng.choice([1, 2, 2])), number(rng, rng.choice([1, 2, 2]))
        if operation == "-":
            a, b = max(a, b), min(a, b)
    else:
        a, b = rng.randrange(2, 11), rng.randrange(2, 11)
        if operation == "/":
            a *= b
    value = apply(operation, a, b)
    return Problem("story", told(rng, template, (a, b)), value, f"{a} {operation} {b} = {value}", None, ((operation, a, b),))


def two_steps(rng, operations):
    """Operands of two digits for two operations that stay at or above zero, and the working."""
    while True:
        a, b, c = (number(rng, 2) for _ in range(3))
        first = apply(operations[0], a, b)
        value = apply(operations[1], first, c)
        if first >= 0 and value >= 0:
            pairs = ((operations[0], a, b), (operations[1], first, c))
            worked = f"{a} {operations[0]} {b} = {first}. {first} {operations[1]} {c} = {value}"
            return (a, b, c), value, worked, pairs


def long_story(rng):
    """A story of two steps."""
    operations, template = rng.choice(words.LONG_STORY)
    operands, value, worked, pairs = two_steps(rng, operations)
    return Problem("long story", told(rng, template, operands), value, f"The answer is {value}.", worked, pairs)


def chain(rng):
    """An expression of two steps, `a ± b ± c`."""
    operations = rng.choice("+-") + rng.choice("+-")
    (a, b, c), value, worked, pairs = two_steps(rng, operations)
    question = manner(rng, rng.choice(words.EXPRESSION).format(e=expression(rng, (a, b, c), operations)))
    direct = f"{a} {operations[0]} {b} {operations[1]} {c} = {value}"
    return Problem("chain", question, value, direct, worked, pairs)
