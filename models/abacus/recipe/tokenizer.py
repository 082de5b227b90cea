"""Makes the tokenizer and the chat template, and turns conversations into rows of tokens.

Run alone, it writes `FILES`.
"""

import random
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import data
from model import LENGTH, SHAPE

HOME = Path(__file__).resolve().parent.parent

# What `transformers` reads of it, all of which this script writes.
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOOL_MARKS = ("<tool_call>", "</tool_call>")

# Digits stand alone, so that a column of a sum is a column of tokens.
SPLIT = r"\d| ?[A-Za-z']+| ?[^\sA-Za-z\d]+|\s+"

# One string argument is written the same by every JSON printer, so `tojson` is kept to strings.
TEMPLATE = """\
{%- set first = 0 %}
{%- if tools or messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content }}
        {%- set first = 1 %}
    {%- endif %}
    {%- if tools %}
        {{- '\\nTools:' if first else 'Tools:' }}
        {%- for tool in tools %}
            {%- set function = tool.function if tool.function else tool %}
            {{- ' ' + function.name + '(' }}
            {%- if function.parameters and function.parameters.properties %}
                {%- for name, kind in function.parameters.properties | items %}
                    {{- name if loop.first else ', ' + name }}
                {%- endfor %}
            {%- endif %}
            {{- '),' if not loop.last else ')' }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages[first:] %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content %}
        {{- message.content }}
    {%- endif %}
    {%- if message.tool_calls %}
        {%- for tool_call in message.tool_calls %}
            {%- set call = tool_call.function if tool_call.function else tool_call %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}
                {{- call.arguments }}
            {%- else %}
                {{- '{' }}
                {%- for name, value in call.arguments | items %}
                    {{- '"' + name + '": ' + (value | tojson) }}
                    {{- ', ' if not loop.last else '' }}
                {%- endfor %}
                {{- '}' }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def make():
    """Learns the vocabulary from generated conversations and returns the tokenizer."""
    rng = random.Random("vocabulary")
    texts = []
    for _ in range(20_000):
        conversation = data.conversation(rng, 0.5)
        texts += [f"{m['role']}\n{m['content']}" for m in conversation["messages"]]
        for tool in conversation["tools"] or []:
            function = tool["function"]
            texts.append(f"Tools: {function['name']}({', '.join(function['parameters']['properties'])}), ")
            texts.append(f'\n{{"name": "{function["name"]}", "arguments": {{"')
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=SHAPE.vocab_size - len(TOOL_MARKS),
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ))
    # Not special: a decoder that skips special tokens must still show a call.
    core.add_tokens([AddedToken(mark, normalized=False, special=False) for mark in TOOL_MARKS])
    assert core.get_vocab_size() == SHAPE.vocab_size, "the corpus is too small for the vocabulary"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=END_OF_TEXT,
        model_max_length=LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def load():
    """The committed tokenizer."""
    return AutoTokenizer.from_pretrained(HOME)


class Packer:
    """Packs conversations into rows and marks the tokens that the loss counts."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end = tokenizer.convert_tokens_to_ids(END)
        self.header = tokenizer.encode(f"{START}assistant\n")
        assert len(self.header) == 3, "a role's name is one token"

    def encode(self, conversation):
        """Tokens of a conversation and, for each, whether the assistant wrote it."""
        text = self.tokenizer.apply_chat_template(conversation["messages"], tools=conversation["tools"], tokenize=False)
        tokens = self.tokenizer.encode(text)
        written, inside = [], False
        for index, token in enumerate(tokens):
            written.append(inside)
            if token == self.end:
                inside = False
            elif tokens[max(index - 2, 0) : index + 1] == self.header:
                inside = True
        return tokens, written

    def batch(self, rng, rows, length, worked_share):
        """A batch: tokens, targets, positions, what each position sees, and where the loss counts."""
        tokens = torch.zeros(rows, length, dtype=torch.long)
        targets, positions, document = torch.zeros_like(tokens), torch.zeros_like(tokens), torch.zeros_like(tokens)
        wanted = torch.zeros(rows, length, dtype=torch.bool)
        for row in range(rows):
            start, misses = 0, 0
            # What does not fit is thrown away; a row that three did not fit is full.
            while misses < 3:
                ids, written = self.encode(data.conversation(rng, worked_share))
                count = len(ids) - 1
                if start + count > length:
                    misses += 1
                    continue
                place = slice(start, start + count)
                tokens[row, place] = torch.tensor(ids[:-1])
                targets[row, place] = torch.tensor(ids[1:])
                wanted[row, place] = torch.tensor(written[1:])
                positions[row, place] = torch.arange(count)
                document[row, place] = start + 1
                start += count
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        visible = (document[:, :, None] == document[:, None, :]) & causal
        return tokens, targets, positions, visible[:, None], wanted


if __name__ == "__main__":
    make().save_pretrained(HOME)
