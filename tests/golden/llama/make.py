"""Makes the golden of the thin slice: a two-layer Llama with random weights, evaluated by
transformers in f64. Run once with torch and transformers; the outputs are committed.

    python3 tests/golden/llama/make.py
"""

import pathlib

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
PROMPT = 37

torch.manual_seed(20)
config = transformers.LlamaConfig(
    vocab_size=131,
    hidden_size=96,
    intermediate_size=136,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    tie_word_embeddings=False,
    attention_bias=False,
    mlp_bias=False,
)
model = transformers.LlamaForCausalLM(config).eval()
with torch.no_grad():
    for name, weight in model.named_parameters():
        # Larger than at initialisation, so that attention is far from uniform.
        scale = 0.5 if "norm" in name else 2.0 / weight.shape[-1] ** 0.5
        weight.copy_(torch.randn_like(weight) * scale + (1.0 if "norm" in name else 0.0))
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    tokens = torch.randint(0, config.vocab_size, (PROMPT,))
    logits = model.double()(tokens[None]).logits[0]
    logprobs = torch.log_softmax(logits, dim=-1)

described = {"torch": torch.__version__, "transformers": transformers.__version__}
save_file({**weights, "tokens": tokens.int(), "expected.logprobs": logprobs.contiguous()},
          HERE / "golden.safetensors", metadata=described)
print("greedy next token:", int(logits[-1].argmax()), "entropy of the last row:",
      float(-(logprobs[-1].exp() * logprobs[-1]).sum()))
