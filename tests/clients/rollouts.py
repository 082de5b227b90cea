"""Real clients of trainers against a real server: renderers and verifiers, which prime-rl
samples with, and gRPC, with nothing known of the services but what the server tells.

    pip install -r tests/clients/rollouts-requirements.txt
    python tests/clients/rollouts.py target/release/pagewise models/abacus

Starts the binary on the model, asks it through each client, and fails loudly.
"""
import argparse
import asyncio
import json
import math
import os
import struct
import tempfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from check import SUMS, serve

os.environ.update(HF_HUB_OFFLINE="1", OPENAI_API_KEY="none", PRIME_API_KEY="none")


def post(url, path, body):
    asked = Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(asked) as answer:
        told = answer.read()
    return json.loads(told) if told[:1] in (b"{", b"[") else told.decode()


def write_adapter(folder, config, strength):
    """A PEFT folder that moves the model's answers by so much."""
    rank, hidden, layers = 2, config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"] * config.get("head_dim", hidden // config["num_attention_heads"])
    header, bodies, at = {}, [], 0
    for layer in range(layers):
        for half, shape in [("A", [rank, hidden]), ("B", [heads, rank])]:
            values = [strength * math.sin(1 + index * (2 if half == "A" else 3)) for index in range(shape[0] * shape[1])]
            body = struct.pack(f"<{len(values)}f", *values)
            name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{half}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(body)]}
            bodies.append(body)
            at += len(body)
    head = json.dumps(header).encode()
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"".join(bodies))
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none", "target_modules": ["q_proj"]}))


async def renderers_client(url, card, folder):
    """messages → tokens → /inference/v1/generate → tokens, log-probabilities → message."""
    from openai import AsyncOpenAI
    from renderers import DefaultRendererConfig, OverlongPromptError, create_renderer
    from renderers.base import load_tokenizer
    from renderers.client import generate
    client = AsyncOpenAI(base_url=f"{url}/v1", max_retries=0)
    renderer = create_renderer(load_tokenizer(folder), DefaultRendererConfig())
    ask = lambda a, b, **more: generate(
        client=client, renderer=renderer, model=card.id, sampling_params={"temperature": 0, "max_tokens": 24},
        messages=[{"role": "user", "content": f"What is {a} + {b}?"}], **more)
    for told, (a, b) in zip(await asyncio.gather(*(ask(a, b, cache_salt="1", priority=0) for a, b in SUMS)), SUMS):
        assert told["content"].split()[-1] == str(a + b), told
        assert len(told["completion_logprobs"]) == len(told["completion_ids"]) > 0
        assert told["finish_reason"] == "stop" and told["request_id"] and told["usage"]
    try:
        await generate(client=client, renderer=renderer, model=card.id,
                       messages=[{"role": "user", "content": "What is 1 + 2? " * 400}])
    except OverlongPromptError as refused:
        assert refused.max_prompt_len == card.max_model_len, refused
    else:
        raise AssertionError("the client knows from /v1/models how long a prompt may be")
    await client.close()


async def verifiers_client(url, model, folder, adapter):
    """Turns of a training rollout, by the base and by an adapter that is published meanwhile."""
    from renderers import DefaultRendererConfig
    from verifiers.v1.clients.train import TrainClient
    from verifiers.v1.configs.client import TrainClientConfig
    from verifiers.v1.dialects import ChatDialect
    from verifiers.v1.types import SamplingConfig
    client = TrainClient(TrainClientConfig(
        base_url=f"{url}/v1", renderer=DefaultRendererConfig(), renderer_model_name=folder))

    async def turn(name, messages, version):
        body = {"model": name, "messages": messages}
        sampling = SamplingConfig(temperature=1.0, max_tokens=20, seed=7, cache_salt=str(version))
        told = await client.get_response(ChatDialect(), body, sampling, session_id="rollout-1")
        tokens = told.tokens
        assert len(tokens.completion_logprobs) == len(tokens.completion_ids) == told.usage.completion_tokens
        assert tokens.prompt_ids and told.raw["choices"][0]["message"]["role"] == "assistant"
        return told

    talk = [{"role": "user", "content": "What is 12 + 34?"}]
    first = await turn(model, talk, 0)
    assert (await turn(model, talk, 0)).tokens.completion_logprobs == first.tokens.completion_logprobs
    talk += [{"role": "assistant", "content": first.message.content or ""}, {"role": "user", "content": "What is 27 + 8?"}]
    second = await turn(model, talk, 0)
    assert second.tokens.prompt_ids[: len(first.tokens.prompt_ids)] == first.tokens.prompt_ids
    # As prime-rl publishes a policy.
    assert post(url, "/load_lora_adapter", {"lora_name": "policy", "lora_path": str(adapter)})
    moved = await turn("policy", talk[:1], 1)
    assert moved.tokens.completion_logprobs != first.tokens.completion_logprobs
    assert moved.tokens.prompt_ids == first.tokens.prompt_ids
    await client.close()


def grpc_client(address, version_of):
    """Episodes, through what reflection tells."""
    import grpc
    from google.protobuf import json_format
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
    with grpc.insecure_channel(address) as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="pagewise.v1.Episodes")).status == 1
        known = ProtoReflectionDescriptorDatabase(channel)
        assert {"pagewise.v1.Episodes", "pagewise.v1.Control"} <= set(known.get_services())
        service = DescriptorPool(known).FindServiceByName("pagewise.v1.Episodes")

        def call(name, body, **options):
            method = service.methods_by_name[name]
            kind = channel.unary_stream if method.server_streaming else channel.unary_unary
            asked = kind(f"/{service.full_name}/{name}",
                         request_serializer=lambda message: message.SerializeToString(),
                         response_deserializer=GetMessageClass(method.output_type).FromString)
            told = asked(json_format.ParseDict(body, GetMessageClass(method.input_type)()), **options)
            as_dict = lambda message: json_format.MessageToDict(message, preserving_proto_field_name=True)
            return [as_dict(part) for part in told] if method.server_streaming else as_dict(told)

        episode = call("StartEpisode", {"seed": 3})["episode_id"]
        step = {"episode_id": episode, "text": "<|im_start|>user\nWhat is 12 + 34?<|im_end|>\n<|im_start|>assistant\n",
                "max_tokens": 24, "temperature": 0, "logprobs": 1, "expected_position": 0}
        parts = call("Step", step)
        assert "".join(part.get("text", "") for part in parts).split()[-1].startswith("46"), parts
        last = parts[-1]
        assert last["finish_reason"] == "stop" and last["weight_versions"][0]["version"] == version_of(), last
        # The same step again is told again; a step that knows less is refused.
        again = call("Step", step)
        bits = lambda all: [entry["logprob"] for part in all for entry in part.get("logprobs", [])]
        assert bits(again) == bits(parts) and bits(parts)
        held = int(last["position"])
        try:
            call("Step", dict(step, text="other"))
            raise AssertionError("a step from where the episode is not any more")
        except grpc.RpcError as refused:
            assert refused.code() == grpc.StatusCode.FAILED_PRECONDITION and str(held) in refused.details(), refused
        fork = call("ForkEpisode", {"from_episode_id": episode})
        assert int(fork["position"]) == held
        follow = {"text": "\n<|im_start|>user\nWhat is 27 + 8?<|im_end|>\n<|im_start|>assistant\n", "max_tokens": 24, "temperature": 0}
        for one in (episode, fork["episode_id"]):
            parts = call("Step", dict(follow, episode_id=one), timeout=60)
            assert "".join(part.get("text", "") for part in parts).split()[-1].startswith("35"), parts
            assert int(call("EndEpisode", {"episode_id": one})["position"]) == int(parts[-1]["position"])
        try:
            call("GetEpisode", {"episode_id": episode})
            raise AssertionError("an episode that has ended")
        except grpc.RpcError as refused:
            assert refused.code() == grpc.StatusCode.NOT_FOUND, refused


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("binary")
    arguments.add_argument("model")
    given = arguments.parse_args()
    from openai import OpenAI
    process, listening = serve(given.binary, given.model, "--grpc-port", "0")
    url = f"http://{listening['http']}"
    try:
        card = OpenAI(base_url=f"{url}/v1").models.list().data[0]
        name = card.id
        asyncio.run(renderers_client(url, card, given.model))
        print("renderers: ok")
        with tempfile.TemporaryDirectory() as folder:
            adapter = Path(folder) / "policy"
            write_adapter(adapter, json.loads((Path(given.model) / "config.json").read_text()), 0.3)
            asyncio.run(verifiers_client(url, name, given.model, adapter))
        print("verifiers: ok")
        version = lambda: json.load(urlopen(f"{url}/get_weight_version"))["weight_version"]
        grpc_client(listening["grpc"], version)
        print("grpc: ok")
    finally:
        process.terminate()
        assert process.wait(60) == 0


if __name__ == "__main__":
    main()
