"""TRL's asynchronous GRPO trains an adapter that a running server serves.

    pip install torch trl==1.16.0 peft
    pagewise serve --port 8000 &
    python examples/python/trl_grpo.py --url http://127.0.0.1:8000

Rollouts are sampled by the server, under whichever version of the adapter is the newest;
the trainer publishes the next one while they run. Each step prints the mean reward, by how
many versions samples are stale, and `ratio`: what the trainer's own probabilities are over
those that the server told; what of it is not the trainer's last steps is rounding. What it
printed is in trl_grpo.txt.
"""
import argparse
import json
import random
import re
import tempfile
from pathlib import Path
from urllib.request import urlopen

import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl.chat_template_utils import qwen3_template
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer, async_rollout_worker, packing

MODEL = Path(__file__).resolve().parents[2] / "models/abacus"


class OnCpu:
    """What the trainer's attention takes from a library for GPUs, where there is none."""

    @staticmethod
    def flash_attn_varlen_func(query, key, value, firsts_q, firsts_k, *_, softmax_scale=None, **__):
        parts = []
        for (q0, q1), (k0, k1) in zip(*(zip(all.tolist(), all.tolist()[1:]) for all in (firsts_q, firsts_k))):
            q, k, v = (x.transpose(0, 1)[None] for x in (query[q0:q1], key[k0:k1], value[k0:k1]))
            # The last query sees the last key.
            seen = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(k1 - k0 - (q1 - q0))
            out = F.scaled_dot_product_attention(q, k, v, seen, scale=softmax_scale, enable_gqa=True)
            parts.append(out[0].transpose(0, 1))
        return torch.cat(parts)


def without_gpu():
    """Has the trainer run where there is no GPU."""
    packing._flash_attn = OnCpu
    torch.cuda.get_device_name = lambda *_: "cpu"


def sums(count, seed):
    """Questions that the model in the box answers now and then: sums of three digits."""
    noise = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = noise.randrange(100, 1000), noise.randrange(100, 1000)
        rows.append({"prompt": [{"role": "user", "content": f"What is {a} + {b}?"}], "answer": str(a + b)})
    return Dataset.from_list(rows)


def right(completions, answer, **_):
    """1 for the sum."""
    said = [re.findall(r"\d+", completion[0]["content"]) for completion in completions]
    return [float(bool(numbers) and numbers[-1] == sum_) for numbers, sum_ in zip(said, answer)]


class Told(TrainerCallback):
    """Prints what the trainer logs, one line a step."""

    def on_log(self, arguments, state, control, logs=None, **_):
        names = ["reward", "sample/staleness_mean", "ratio", "loss", "grad_norm"]
        kept = {name: float(f"{logs[name]:.5g}") for name in names if name in (logs or {})}
        if kept:
            print(json.dumps({"step": state.global_step, **kept}), flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--url", default="http://127.0.0.1:8000")
    arguments.add_argument("--model", default=str(MODEL), help="what the server serves")
    arguments.add_argument("--steps", type=int, default=8)
    given = arguments.parse_args()
    # The server need not be vLLM's, nor that be installed.
    async_rollout_worker.is_vllm_available = lambda *_, **__: True
    if not torch.cuda.is_available():
        without_gpu()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    # The model in the box speaks as Qwen does; its own template is not one that TRL knows.
    tokenizer.response_template = qwen3_template
    with tempfile.TemporaryDirectory() as folder:
        trainer = AsyncGRPOTrainer(
            model=given.model,
            processing_class=tokenizer,
            reward_funcs=right,
            train_dataset=sums(256, seed=1),
            peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
            callbacks=[Told()],
            args=AsyncGRPOConfig(
                output_dir=folder, vllm_server_base_url=given.url, max_steps=given.steps, num_generations=8,
                max_completion_length=32, temperature=1.0, per_device_train_batch_size=8, learning_rate=1e-3,
                max_staleness=2, max_inflight_tasks=16, report_to="none", save_strategy="no",
                use_cpu=not torch.cuda.is_available(), bf16=False, disable_tqdm=True, logging_steps=1,
                dtype="float32"))
        # It prints everything, which is too much.
        trainer.remove_callback(PrinterCallback)
        trainer.train()


if __name__ == "__main__":
    main()
