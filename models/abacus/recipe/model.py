"""The network: Qwen3's shape, written out once in plain PyTorch.

Parameter names are those of `transformers`, and the export compares its logits with these, so the two
are one network; this form lets packed rows and the tokens that the loss counts be stated plainly.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen3Config

# Tokens of a row in training: no document is longer, and what is asked should not be.
LENGTH = 256


def shaped(**sizes):
    """A shape of Qwen3's with the sizes that differ."""
    return Qwen3Config(
        vocab_size=1024,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        attention_bias=False,
        architectures=["Qwen3ForCausalLM"],
        dtype="bfloat16",
        **sizes,
    )


SHAPE = shaped(hidden_size=192, intermediate_size=512, num_hidden_layers=5, num_attention_heads=6)

# A quarter of the work for a token, and two layers: one to look a digit up, one to use it.
DRAFT_SHAPE = shaped(hidden_size=128, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4)


class Norm(nn.Module):
    """Root mean square norm over the last axis."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention with norms on queries and keys."""

    def __init__(self, shape):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, shape.hidden_size, bias=False)
        self.q_norm = Norm(self.head_dim, shape.rms_norm_eps)
        self.k_norm = Norm(self.head_dim, shape.rms_norm_eps)

    def forward(self, x, turn, visible):
        rows, length, _ = x.shape
        split = lambda y, heads: y.view(rows, length, heads, self.head_dim)
        q = turn(self.q_norm(split(self.q_proj(x), self.heads))).transpose(1, 2)
        k = turn(self.k_norm(split(self.k_proj(x), self.kv_heads))).transpose(1, 2)
        v = split(self.v_proj(x), self.kv_heads).transpose(1, 2)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.o_proj(y.transpose(1, 2).reshape(rows, length, -1))


class Mlp(nn.Module):
    """The gated feed-forward part."""

    def __init__(self, shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One block: attention, then the feed-forward part, each on a normed copy."""

    def __init__(self, shape):
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = Mlp(shape)

    def forward(self, x, turn, visible):
        x = x + self.self_attn(self.input_layernorm(x), turn, visible)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Everything below the output head."""

    def __init__(self, shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


class Abacus(nn.Module):
    """The language model; its output head is its embedding table."""

    def __init__(self, shape=SHAPE):
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        theta = shape.rope_parameters["rope_theta"]
        self.frequencies = theta ** -(torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, positions, visible, wanted):
        """Logits of the positions where `wanted` holds: `[wanted.sum(), vocab_size]`.

        `tokens`, `positions` and `wanted` are `[rows, length]`; `visible` is `[rows, 1, length, length]`.
        """
        angles = positions[..., None, None].double() * self.frequencies
        cos, sin = angles.cos().float(), angles.sin().float()

        def turn(x):
            low, high = x.chunk(2, -1)
            return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)

        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, turn, visible)
        return F.linear(self.model.norm(x[wanted]), self.model.embed_tokens.weight)
