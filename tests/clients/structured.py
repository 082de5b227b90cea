"""What the openai SDK and litellm make of grammars and tools."""
import json

CALCULATOR = {"type": "function", "function": {
    "name": "calculator", "description": "Computes.",
    "parameters": {"type": "object", "properties": {"expression": {"type": "string"}},
                   "required": ["expression"], "additionalProperties": False}}}
OTHER = {"type": "function", "function": {
    "name": "flip", "parameters": {"type": "object", "properties": {"coins": {"type": "integer", "minimum": 1, "maximum": 9}},
                                   "required": ["coins"], "additionalProperties": False}}}
QUESTION = {"role": "user", "content": "What is 5127 + 2046?"}
SUM, VALUE = "5127 + 2046", "7173"


def formats(client, model, bias):
    """Objects by pydantic and by `json_object`; what cannot be kept to is refused by its name."""
    from enum import Enum
    from openai import BadRequestError
    from pydantic import BaseModel, Field

    class Kind(Enum):
        SUM = "sum"
        PRODUCT = "product"

    class Term(BaseModel):
        sign: bool
        value: int = Field(ge=0, le=99)

    class Answer(BaseModel):
        kind: Kind
        terms: list[Term] = Field(min_length=1, max_length=3)
        note: str | None = Field(max_length=12)

    asked = dict(model=model, messages=[QUESTION], temperature=1, max_completion_tokens=200,
                 logit_bias=bias)
    for parse in client.chat.completions.parse, client.beta.chat.completions.parse:
        choices = parse(**asked, n=4, seed=1, response_format=Answer).choices
        assert len(choices) == 4
        for choice in choices:
            parsed = choice.message.parsed
            assert choice.finish_reason == "stop" and isinstance(parsed, Answer), choice
            assert isinstance(parsed.kind, Kind) and all(0 <= term.value <= 99 for term in parsed.terms)
    ended = 0
    for choice in client.chat.completions.create(
            **asked, n=8, seed=2, response_format={"type": "json_object"}).choices:
        assert choice.message.content.startswith("{"), choice
        if choice.finish_reason == "stop":
            ended += isinstance(json.loads(choice.message.content), dict)
    assert ended, "none of them ended"
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    try:
        client.chat.completions.create(**asked, response_format={
            "type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}})
    except BadRequestError as refused:
        assert "uniqueItems" in refused.message, refused
        assert refused.param == "response_format.json_schema.schema", refused
    else:
        raise AssertionError("uniqueItems was expected to be refused")


def calls_of(message):
    return [(call.type, call.function.name, json.loads(call.function.arguments))
            for call in message.tool_calls or []]


def tools(client, model, bias):
    """The model in the box calls its calculator, whole and streamed, and reads the result."""
    asked = dict(model=model, messages=[QUESTION], tools=[CALCULATOR], temperature=0,
                 max_completion_tokens=64)
    right = [("function", "calculator", {"expression": SUM})]
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "tool_calls" and calls_of(choice.message) == right, choice
    streamed(client, asked, choice.message.tool_calls[0])

    result = {"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": VALUE}
    turn = [QUESTION, choice.message.model_dump(exclude_none=True), result]
    last = client.chat.completions.create(**dict(asked, messages=turn)).choices[0]
    assert last.finish_reason == "stop" and not last.message.tool_calls, last
    assert last.message.content.split()[-1] == VALUE, last

    # By the choice of the client: at temperature 1, so that only the grammar sees to it.
    chosen = dict(asked, tools=[CALCULATOR, OTHER], temperature=1, max_completion_tokens=200,
                  n=4, logit_bias=bias)
    named = {"type": "function", "function": {"name": "flip"}}
    for tool_choice, names in (("required", {"calculator", "flip"}), (named, {"flip"})):
        told = client.chat.completions.create(**chosen, seed=3, tool_choice=tool_choice,
                                              parallel_tool_calls=False).choices
        ended = [one for one in told if one.finish_reason != "length"]
        assert ended, told
        for one in ended:
            (_, name, arguments), = calls_of(one.message)
            assert name in names and set(arguments) <= {"expression", "coins"}, one
            assert name == "calculator" or 1 <= arguments["coins"] <= 9, one
    for one in client.chat.completions.create(**chosen, tool_choice="none").choices:
        assert not one.message.tool_calls and one.finish_reason in ("stop", "length"), one


def streamed(client, asked, whole):
    """A call in pieces: its name once, with its id; its arguments as they come."""
    name, identifiers, arguments, pieces, end = "", [], "", 0, None
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            end = choice.finish_reason or end
            for call in choice.delta.tool_calls or []:
                assert call.index == 0, call
                name += call.function.name or ""
                identifiers += [call.id] if call.id else []
                arguments += call.function.arguments or ""
                pieces += bool(call.function.arguments)
    assert end == "tool_calls" and name == whole.function.name, (end, name)
    assert len(identifiers) == 1 and pieces > 1, (identifiers, pieces)
    assert arguments == whole.function.arguments, arguments


def litellm_sdk(url, model, bias):
    import litellm
    asked = dict(model=f"hosted_vllm/{model}", api_base=f"{url}/v1", api_key="none",
                 messages=[QUESTION], max_tokens=64)
    choice = litellm.completion(**asked, temperature=0, tools=[CALCULATOR], tool_choice="auto").choices[0]
    assert choice.finish_reason == "tool_calls", choice
    assert calls_of(choice.message) == [("function", "calculator", {"expression": SUM})], choice
    parts = list(litellm.completion(**asked, temperature=0, tools=[CALCULATOR], stream=True))
    whole = litellm.stream_chunk_builder(parts, messages=[QUESTION]).choices[0]
    assert calls_of(whole.message) == calls_of(choice.message), whole
    schema = {"type": "object", "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 9999}},
              "required": ["sum"], "additionalProperties": False}
    said = litellm.completion(**asked, temperature=1, logit_bias=bias, response_format={
        "type": "json_schema", "json_schema": {"name": "sum", "strict": True, "schema": schema}})
    value = json.loads(said.choices[0].message.content)
    assert list(value) == ["sum"] and 0 <= value["sum"] <= 9999, value
