"""Makes the goldens of packed checkpoints: one tiny Llama, quantised and packed by others
(mlx, autoawq, gptqmodel), and evaluated in f64 with the weights that those give back and
with activations rounded as the matrix product rounds them. Run once with torch,
transformers, mlx, autoawq and gptqmodel; the outputs are committed.

    python3 tests/golden/packed/make.py

`golden.safetensors` in a folder holds the prompt, log-probabilities of all its rows
(`expected`), and those without the rounding of activations (`floats`).
"""

import importlib.util
import json
import pathlib
import shutil
import sys
import types

import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
PROMPT = 24


# Only these modules of autoawq are imported: its list of models follows another version
# of transformers.
AWQ = pathlib.Path(importlib.util.find_spec("awq").origin).parent
for package in ["", ".modules", ".modules.linear", ".utils"]:
    module = types.ModuleType(f"awq{package}")
    module.__path__ = [str(AWQ.joinpath(*package.split(".")[1:]))]
    sys.modules[f"awq{package}"] = module

import mlx.core as mx  # noqa: E402
import numpy  # noqa: E402
from awq.modules.linear.gemm import WQLinear_GEMM  # noqa: E402
from awq.utils.packing_utils import dequantize_gemm  # noqa: E402
from gptqmodel.nn_modules.qlinear.torch import TorchLinear  # noqa: E402

CONFIG = dict(vocab_size=67, hidden_size=128, intermediate_size=256, num_hidden_layers=1,
              num_attention_heads=4, num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-5,
              max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
              rope_parameters={"rope_type": "default", "rope_theta": 1000.0})


def mlx(weight, bits, group, dtype):
    """Tensors of a matrix, and the matrix that mlx makes of them."""
    rows = mx.array(weight.numpy()).astype(dtype)
    packed = mx.quantize(rows, group_size=group, bits=bits)
    back = mx.dequantize(*[packed[0], packed[1].astype(mx.float32), packed[2].astype(mx.float32)],
                         group_size=group, bits=bits)
    tensors = {}
    for name, array in zip(["weight", "scales", "biases"], packed):
        if array.dtype == mx.bfloat16:
            tensor = torch.from_numpy(numpy.array(array.view(mx.uint16))).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(numpy.array(array))
        tensors[name] = tensor
    return tensors, torch.from_numpy(numpy.array(back))


def scaled(weight, bits, group, symmetric):
    """Scale and zero of each group of each row: [outputs][groups]."""
    rows = weight.reshape(weight.shape[0], -1, group)
    most, least = rows.amax(-1), rows.amin(-1)
    if symmetric:
        scale = (2 * rows.abs().amax(-1) / (2**bits - 1)).half().float()
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    scale = ((most - least) / (2**bits - 1)).half().float()
    return scale, (-least / scale).round().clamp(1, 2**bits - 1)


def clamped(weight, scale, zero, bits, group):
    """The matrix within what its scales reach: packers do not clamp."""
    scale, zero = scale.repeat_interleave(group, 1), zero.repeat_interleave(group, 1)
    return ((weight / scale + zero).round().clamp(0, 2**bits - 1) - zero) * scale


def linear(weight):
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return layer


def awq(weight, bits, group):
    scale, zero = scaled(weight, bits, group, False)
    layer = linear(clamped(weight, scale, zero, bits, group))
    packed = WQLinear_GEMM.from_linear(layer, bits, group, scales=scale.t().contiguous(),
                                       zeros=zero.t().contiguous())
    tensors = {name: getattr(packed, name) for name in ["qweight", "qzeros", "scales"]}
    back = dequantize_gemm(packed.qweight, packed.qzeros, packed.scales.float(), bits, group)
    return tensors, back.t()


def gptq(weight, bits, group, symmetric, version):
    scale, zero = scaled(weight, bits, group, symmetric)
    order = torch.arange(weight.shape[1], dtype=torch.int32) // group
    packed = TorchLinear(bits=bits, group_size=group, sym=symmetric, desc_act=False,
                         in_features=weight.shape[1], out_features=weight.shape[0])
    packed.pack_original(linear(clamped(weight, scale, zero, bits, group)), scale, zero, order)
    packed.scales = packed.scales.float()
    packed.eval().post_init()
    back = packed.dequantize_weight().t().float()
    tensors = {"qweight": packed.qweight, "qzeros": packed.qzeros.clone(),
               "scales": packed.scales.half(), "g_idx": packed.g_idx}
    if version == 1:
        # The first format stores zeros less one; gptqmodel subtracts just this on export.
        tensors["qzeros"] -= {4: 0x11111111, 8: 0x01010101}[bits]
    return tensors, back


def rounded(x, group):
    """Activations as the grouped product sees them: rounded in f32, valued in f64."""
    single = x.float().reshape(*x.shape[:-1], -1, group)
    most = single.abs().amax(-1, keepdim=True)
    numbers = (single * (127.0 / most)).round()
    return (numbers.double() * (most / 127.0).double()).reshape(x.shape)


def evaluated(weights, tokens, packed, group):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).double().eval()
    model.load_state_dict({name: weight.double() for name, weight in weights.items()})
    if group is not None:
        for name, module in model.named_modules():
            if name in packed and isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0], group),))
    return torch.log_softmax(model(tokens[None]).logits[0], dim=-1)


def make(folder, description, pack, group, dense):
    torch.manual_seed(7)
    folder = HERE / folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG))
    tensors, weights, packed = {}, {}, set()
    for name, parameter in model.named_parameters():
        weight = torch.randn_like(parameter) * 2.0 / parameter.shape[-1] ** 0.5
        if "norm" in name:
            weight = 1.0 + 0.3 * torch.randn_like(parameter)
        weight, name = weight.half().float(), name.removesuffix(".weight")
        if "norm" in name or name in dense:
            tensors[f"{name}.weight"] = weight.half()
        else:
            parts, weight = pack(weight)
            tensors |= {f"{name}.{part}": tensor.contiguous() for part, tensor in parts.items()}
            packed.add(name)
        weights[f"{name}.weight"] = weight
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**transformers.LlamaConfig(**CONFIG).to_dict(), **description}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokens = torch.randint(0, CONFIG["vocab_size"], (PROMPT,))
    golden = {"prompt": tokens.int(), "expected": evaluated(weights, tokens, packed, group),
              "floats": evaluated(weights, tokens, packed, None)}
    save_file({name: tensor.contiguous() for name, tensor in golden.items()},
              folder / "golden.safetensors")
    moved = (golden["expected"] - golden["floats"]).abs().max()
    print(folder.name, "rounding of activations moves", float(moved))


def described(method, bits, group, **more):
    return {"quantization_config": {"quant_method": method, "bits": bits, "group_size": group, **more}}


with torch.no_grad():
    rows = ["model.embed_tokens", "lm_head"]
    for bits, group, dtype, name in [(4, 32, mx.float32, "f32"), (4, 128, mx.bfloat16, "bf16"),
                                     (8, 64, mx.float16, "f16")]:
        make(f"mlx-{bits}-g{group}-{name}", {"quantization": {"group_size": group, "bits": bits}},
             lambda weight: mlx(weight, bits, group, dtype), group, [])
    make("awq-4-g64", described("awq", 4, 64, version="gemm", zero_point=True),
         lambda weight: awq(weight, 4, 64), 64, rows)
    make("gptq-4-g128-signed", described("gptq", 4, 128, sym=True, desc_act=False),
         lambda weight: gptq(weight, 4, 128, True, 1), 128, rows)
    make("gptq-4-g32-v2", described("gptq", 4, 32, sym=False, desc_act=False,
                                    checkpoint_format="gptq_v2"),
         lambda weight: gptq(weight, 4, 32, False, 2), 32, rows)
    make("gptq-8-g64", described("gptq", 8, 64, sym=False, desc_act=False, checkpoint_format="gptq"),
         lambda weight: gptq(weight, 8, 64, False, 1), 64, rows)
