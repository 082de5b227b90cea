"""Real clients against a real server: the openai SDK, litellm, jsonschema and lm-eval.

    pip install -r tests/clients/requirements.txt
    python tests/clients/check.py target/release/pagewise models/abacus [--schemas DIR]

Starts the binary on the model, asks it through each client, and fails loudly. With
`--schemas` it only asks for those in the folder, and says what came of them.
"""
import argparse
import json
import math
import os
import subprocess
import tempfile
from pathlib import Path
from urllib.request import Request, urlopen

import schemas
import structured

os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", HF_HUB_OFFLINE="1", OPENAI_API_KEY="none")
# What the model in the box adds without a mistake, when it is asked as here.
SUMS = [(a, b) for a in (12, 27, 45) for b in (34, 15, 8, 50)]


def serve(binary, model, *options):
    """The process, and its addresses by what they speak."""
    command = [binary, "serve", model, "--port", "0", "--log-level", "warn", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    listening = {}
    for line in process.stdout:
        if line.startswith("listening"):
            speaks, address = line.split()[1].split("://")
            listening[speaks] = address
        if "http" in listening:
            return process, listening
    raise SystemExit("the server did not come up")


def fewer_blanks(url):
    """Biases under which the model in the box ends its answers: where only a blank or some
    word of a schema may come, it has no liking for either, and would write blanks for long."""
    asked = Request(f"{url}/tokenize", json.dumps({"prompt": " \n\t\r"}).encode(),
                    {"Content-Type": "application/json"})
    with urlopen(asked) as answer:
        return {str(token): -10 for token in json.load(answer)["tokens"]}


def openai_sdk(url):
    from openai import BadRequestError, NotFoundError, OpenAI
    client = OpenAI(base_url=f"{url}/v1")
    model = client.models.list().data[0].id
    for a, b in SUMS:
        said = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": f"What is {a} + {b}?"}],
            temperature=0, max_completion_tokens=24).choices[0].message.content
        assert said.split()[-1] == str(a + b), f"{a} + {b}: {said!r}"

    asked = dict(model=model, messages=[{"role": "user", "content": "What is 12 + 34?"}], seed=7,
                 max_completion_tokens=12, temperature=0.8, logprobs=True, top_logprobs=3)
    whole = client.chat.completions.create(**asked)
    choice = whole.choices[0]
    assert choice.finish_reason in ("stop", "length") and whole.usage.prompt_tokens > 0
    entries = choice.logprobs.content
    assert len(entries) == whole.usage.completion_tokens and len(entries[0].top_logprobs) == 3
    assert all(entry.logprob <= 0 for entry in entries)

    text, scored, usage = "", [], None
    options = dict(stream=True, stream_options={"include_usage": True})
    for chunk in client.chat.completions.create(**asked, **options):
        usage = chunk.usage or usage
        for part in chunk.choices:
            text += part.delta.content or ""
            scored += part.logprobs.content if part.logprobs else []
    assert text == choice.message.content, (text, choice.message.content)
    assert [entry.logprob for entry in scored] == [entry.logprob for entry in entries]
    assert usage.completion_tokens == whole.usage.completion_tokens

    several = client.completions.create(model=model, prompt=["1 + 1 =", "2 + 2 ="], n=2,
                                        max_tokens=4, logprobs=2, extra_body={"top_k": 5})
    assert [part.index for part in several.choices] == [0, 1, 2, 3]
    vectors = client.embeddings.create(model=model, input=["one", "two"]).data
    assert all(abs(math.hypot(*vector.embedding) - 1) < 1e-4 for vector in vectors)
    for wrong, error in ((dict(asked, model="gpt-4"), NotFoundError),
                         (dict(asked, temperature=-1), BadRequestError)):
        try:
            client.chat.completions.create(**wrong)
        except error as refused:
            assert refused.param in ("model", "temperature"), refused
        else:
            raise AssertionError(f"{error.__name__} was expected")
    return model


def litellm_sdk(url, model):
    import litellm
    asked = dict(model=f"hosted_vllm/{model}", api_base=f"{url}/v1", api_key="none", seed=1,
                 max_tokens=6, messages=[{"role": "user", "content": "What is 2 + 3?"}])
    whole = litellm.completion(**asked).choices[0].message.content or ""
    parts = litellm.completion(**asked, stream=True)
    assert whole == "".join(part.choices[0].delta.content or "" for part in parts)


def lm_eval_tasks(url, model, tokenizer):
    """Choices scored by echoed log-probabilities, and answers generated until a string."""
    import lm_eval
    from lm_eval.tasks import TaskManager
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rows = [{"question": f"What is {a} + {b}?", "right": f"{a} + {b} = {a + b}",
                 "answers": [f"{a} + {b} = {a + b + off}" for off in (0, 1, -10)]} for a, b in SUMS]
        (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
        task = dict(dataset_path="json", test_split="test", doc_to_text="{{question}}",
                    dataset_kwargs={"data_files": {"test": str(folder / "sums.jsonl")},
                                    "cache_dir": str(folder)})
        chosen = dict(task, task="chosen", output_type="multiple_choice", doc_to_target=0,
                      doc_to_choice="{{answers}}", metric_list=[{"metric": "acc"}])
        written = dict(task, task="written", output_type="generate_until",
                       doc_to_target="{{right}}", metric_list=[{"metric": "exact_match"}],
                       generation_kwargs={"until": ["\n", "<|im_end|>"], "max_gen_toks": 24})
        for one in chosen, written:
            (folder / f"{one['task']}.yaml").write_text(json.dumps(one))
        arguments = dict(model=model, base_url=f"{url}/v1/completions", tokenizer=tokenizer,
                         tokenized_requests=True, tokenizer_backend="huggingface", num_concurrent=2)
        found = lm_eval.simple_evaluate(
            model="local-completions", model_args=arguments, tasks=["chosen", "written"],
            bootstrap_iters=0, apply_chat_template=True,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False))["results"]
        shares = found["chosen"]["acc,none"], found["written"]["exact_match,none"]
        assert min(shares) >= 0.9, found


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("model")
    arguments.add_argument("--schemas", metavar="DIR", help="JSON schemas to ask for instead")
    given = arguments.parse_args()
    from openai import OpenAI
    process, listening = serve(given.binary, given.model)
    url = f"http://{listening['http']}"
    client = OpenAI(base_url=f"{url}/v1", max_retries=0)
    try:
        bias = fewer_blanks(url)
        if given.schemas:
            name = client.models.list().data[0].id
            schemas.check_folder(client, name, bias, given.schemas)
            return
        name = openai_sdk(url)
        print("openai: ok")
        structured.formats(client, name, bias)
        print("openai, formats: ok")
        structured.tools(client, name, bias)
        print("openai, tools: ok")
        litellm_sdk(url, name)
        print("litellm: ok")
        structured.litellm_sdk(url, name, bias)
        print("litellm, formats and tools: ok")
        schemas.check(client, name, bias)
        print("jsonschema: ok")
        lm_eval_tasks(url, name, given.model)
        print("lm-eval: ok")
    finally:
        process.terminate()
        assert process.wait(60) == 0


if __name__ == "__main__":
    main()
