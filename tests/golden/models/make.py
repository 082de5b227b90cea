"""Makes the goldens of the model families: tiny checkpoints with random weights, saved and
evaluated by transformers, the latter in f64. Run once; the outputs are committed.

    python3 tests/golden/models/make.py

A folder holds a checkpoint as transformers saves it; `golden.safetensors` beside it holds,
for each of its configurations, log-probabilities of chosen rows, those of the prompt's own
tokens, and the greedy continuations of its beginnings. Configurations beyond `config.json`
are `config.NAME.json`, over the same weights.
"""

import importlib
import json
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
PROMPT, NEW = 400, 8
# What a server of these models is told to reach; dynamic scaling follows from it.
SERVED = PROMPT + NEW
# Tokens of the beginnings that go on; the last is the whole prompt.
LENGTHS = [1, 2, 7, 33, 64, 200, PROMPT]
ROWS = [0, 1, 2, 6, 30, 31, 32, 62, 63, 64, 65, 120, 200, 255, 256, 257, 300, 398, 399]

common = dict(num_hidden_layers=2, max_position_embeddings=512, attention_dropout=0.0,
              bos_token_id=None, pad_token_id=None, hidden_act="silu")
llama3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
yarn = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 8.0,
        "original_max_position_embeddings": 64}

FAMILIES = {
    "llama": dict(
        config=transformers.LlamaConfig, model=transformers.LlamaForCausalLM, dtype=torch.float32,
        shard="150KB", old=False,
        shape=dict(vocab_size=131, hidden_size=72, intermediate_size=104, num_attention_heads=6,
                   num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=False,
                   eos_token_id=[5, 7], attention_bias=True, mlp_bias=True,
                   rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
        variants={
            "linear": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
            "dynamic": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0},
            "llama3": llama3,
            "yarn": yarn,
            "yarn-old": yarn,
        }),
    "mistral": dict(
        config=transformers.MistralConfig, model=transformers.MistralForCausalLM,
        dtype=torch.bfloat16, shard="1GB", old=True,
        shape=dict(vocab_size=97, hidden_size=88, intermediate_size=120, num_attention_heads=5,
                   num_key_value_heads=1, head_dim=24, rms_norm_eps=1e-6, sliding_window=37,
                   tie_word_embeddings=False, eos_token_id=2,
                   rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
        variants={}),
    "qwen2": dict(
        config=transformers.Qwen2Config, model=transformers.Qwen2ForCausalLM,
        dtype=torch.float16, shard="1GB", old=True,
        shape=dict(vocab_size=111, hidden_size=64, intermediate_size=100, num_attention_heads=4,
                   num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True,
                   use_sliding_window=True, sliding_window=45, max_window_layers=1, eos_token_id=3,
                   rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
        variants={}),
    "qwen3": dict(
        config=transformers.Qwen3Config, model=transformers.Qwen3ForCausalLM,
        dtype=torch.float32, shard="1GB", old=False,
        shape=dict(vocab_size=149, hidden_size=56, intermediate_size=96, num_attention_heads=4,
                   num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-6, tie_word_embeddings=True,
                   eos_token_id=None,
                   rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
        variants={"yarn-old": {**yarn, "rope_theta": 1000.0, "attention_factor": 1.25,
                               "beta_fast": 16.0, "beta_slow": 2.0}}),
}


class Double:
    """torch for modules of transformers, which compute turns, norms and softmax in f32
    whatever the model is: here f32 is f64."""

    float = float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


for module in ["modeling_rope_utils", *(f"models.{name}.modeling_{name}" for name in FAMILIES)]:
    importlib.import_module(f"transformers.{module}").torch = Double()
torch.Tensor.float = torch.Tensor.double


def randomise(model):
    """Weights larger than at initialisation, so that attention is far from uniform."""
    for name, weight in model.named_parameters():
        scale, mean = 2.0 / weight.shape[-1] ** 0.5, 0.0
        if "norm" in name:
            scale, mean = 0.3, 1.0
        elif name.endswith("bias"):
            scale = 0.5
        weight.copy_(torch.randn_like(weight) * scale + mean)


def evaluated(family, weights, config, tokens):
    """Logits in f64 of all rows of a prompt."""
    model = family["model"](config).double().eval()
    model.config._attn_implementation = "eager"
    model.load_state_dict({name: weight.double() for name, weight in weights.items()}, strict=False)
    if config.tie_word_embeddings:
        model.tie_weights()
    assert model.model.rotary_emb.inv_freq.dtype == torch.float64
    torch.set_default_dtype(torch.float64)
    logits = model(tokens[None], use_cache=False).logits[0]
    torch.set_default_dtype(torch.float32)
    return logits


def continuation(family, weights, config, tokens):
    """The tokens that follow greedily, none of them a near tie."""
    for _ in range(NEW):
        logits = evaluated(family, weights, config, tokens)[-1]
        two = logits.topk(2).values
        assert two[0] - two[1] > 1e-3, f"after {len(tokens)} tokens a greedy token is a near tie"
        tokens = torch.cat([tokens, logits.argmax()[None]])
    return tokens[-NEW:]


def served(config):
    """The configuration with dynamic scaling as it is for the positions served: transformers
    makes the turns anew as a sequence grows, which is shown to be the same base."""
    rope = dict(config.rope_parameters)
    if rope["rope_type"] != "dynamic":
        return config
    dims = config.head_dim
    stretch = rope["factor"] * SERVED / config.max_position_embeddings - (rope["factor"] - 1)
    base = rope["rope_theta"] * stretch ** (dims / (dims - 2))
    fixed = type(config)(**{**config.to_dict(),
                            "rope_parameters": {"rope_type": "default", "rope_theta": base}})
    return fixed


def old_spelling(config):
    """rope_theta and rope_scaling, as files had them before rope_parameters."""
    config = dict(config)
    rope = dict(config.pop("rope_parameters"))
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None
    if rope["rope_type"] != "default":
        config["rope_scaling"] = rope
    config.pop("layer_types", None)
    return config


def make(name, family):
    torch.manual_seed(list(FAMILIES).index(name) + 1)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    config = family["config"](**common, **family["shape"])
    model = family["model"](config).to(family["dtype"])
    randomise(model)
    model.save_pretrained(folder, max_shard_size=family["shard"])
    saved = json.loads((folder / "config.json").read_text())
    if family["old"]:
        (folder / "config.json").write_text(json.dumps(old_spelling(saved), indent=2) + "\n")
    weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
    prompt = torch.randint(0, config.vocab_size, (PROMPT,))
    golden = {"prompt": prompt.int()}
    for variant, rope in {"config": None, **family["variants"]}.items():
        own = saved
        if rope is not None:
            own = {**saved, "rope_parameters": rope}
            if rope["rope_type"] == "dynamic":
                own["max_position_embeddings"] = 64
            written = old_spelling(own) if variant.endswith("old") else own
            text = json.dumps(written, indent=2) + "\n"
            (folder / f"config.{variant}.json").write_text(text)
        parsed = family["config"](**own)
        if rope is not None and rope["rope_type"] == "dynamic":
            longer = torch.cat([prompt, prompt[:NEW]])
            distance = (evaluated(family, weights, parsed, longer)
                        - evaluated(family, weights, served(parsed), longer)).abs().max()
            assert distance < 1e-9, f"dynamic scaling differs by {distance}"
        logits = evaluated(family, weights, served(parsed), prompt)
        logprobs = torch.log_softmax(logits, dim=-1)
        greedy = [continuation(family, weights, served(parsed), prompt[:length])
                  for length in LENGTHS]
        golden[f"{variant}.rows"] = logprobs[ROWS].contiguous()
        golden[f"{variant}.tokens"] = logprobs[:-1].gather(1, prompt[1:, None])[:, 0].contiguous()
        golden[f"{variant}.greedy"] = torch.stack(greedy).int()
        print(name, variant, "entropy", float(-(logprobs.exp() * logprobs).sum(-1).mean()))
    golden["lengths"] = torch.tensor(LENGTHS).int()
    golden["row_numbers"] = torch.tensor(ROWS).int()
    described = {"torch": torch.__version__, "transformers": transformers.__version__}
    save_file(golden, folder / "golden.safetensors", metadata=described)


with torch.no_grad():
    for name, family in FAMILIES.items():
        make(name, family)
