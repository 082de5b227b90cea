"""Makes the golden of the tables of RoPE: what transformers computes for each scaling, in f32.
Run once with torch and transformers; the output is committed.

    python3 tests/golden/rope/make.py

A line is `kind key=value … | attention factor | radians a position of each pair`.
"""

import pathlib

import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HERE = pathlib.Path(__file__).parent
CASES = [
    ("linear", dict(factor=4.0), 128, 1e4, 4096, None),
    ("linear", dict(factor=8.0), 64, 1e6, 4096, None),
    ("dynamic", dict(factor=2.0), 128, 1e4, 2048, 2048),
    ("dynamic", dict(factor=2.0), 128, 1e4, 2048, 8192),
    ("dynamic", dict(factor=4.0), 64, 1e4, 4096, 10000),
    ("llama3", dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                    original_max_position_embeddings=8192), 128, 5e5, 131072, None),
    ("llama3", dict(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                    original_max_position_embeddings=8192), 64, 5e5, 131072, None),
    ("yarn", dict(factor=4.0, original_max_position_embeddings=32768), 128, 1e6, 131072, None),
    ("yarn", dict(factor=40.0, original_max_position_embeddings=4096, mscale=0.707,
                  mscale_all_dim=1.0), 64, 1e4, 163840, None),
    ("yarn", dict(factor=32.0, original_max_position_embeddings=4096, beta_fast=32.0, beta_slow=1.0,
                  truncate=False), 64, 1.5e5, 131072, None),
]

lines = [f"# transformers {transformers.__version__}, made by make.py"]
for kind, scaling, dims, base, positions, length in CASES:
    config = transformers.LlamaConfig(
        head_dim=dims, hidden_size=dims * 4, num_attention_heads=4, rope_theta=base,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": kind, "rope_theta": base, **scaling},
    )
    turns, attention = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length)
    given = {"dims": dims, "base": base, "positions": positions, **scaling}
    if length is not None:
        given["length"] = length
    words = " ".join(f"{key}={float(value)}" for key, value in given.items())
    lines.append(f"{kind} {words} | {attention} | " + " ".join(repr(x) for x in turns.tolist()))
(HERE / "golden.txt").write_text("\n".join(lines) + "\n")
