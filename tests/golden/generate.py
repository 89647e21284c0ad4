#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden files: what transformers computes for small gpt-oss models, in f64.

    python3 generate.py [name ...]        (torch 2.15, transformers 5.23, h5py, numpy)

Each folder gets a checkpoint as save_pretrained writes it (bf16), tokens.npy and labels.npy [B, S] int64
(-100: ignored) and golden.h5:
    /loss /grad_norm                     f64, of the untouched weights; mean over the shifted labels
    /logits [B, S, V], /grad/<tensor>    f64 results stored as f32 (relative error 1e-6), names and shapes of
                                         the checkpoint's tensors
    /sgd, /adamw                         losses [3] (each before its step), param/<tensor> after three steps on
                                         the same batch; the hyper-parameters are the group's attributes
    /aux                                 loss, aux_loss, grad_norm, grad/<tensor> with the auxiliary loss on
    /bf16                                loss and, against the f64 values, logits_error and
                                         grad_error/<tensor> (relative L2) of transformers' own bf16 run
The reference is f64 throughout. transformers has f32 islands (RMSNorm, rotary tables, loss, auxiliary
loss); while it runs, torch.float32 and Tensor.float mean f64, and a dispatch mode refuses every f32 result.
A seed is taken only if no token is so close to another choice of experts, and no expert output so close to a
clamp, that f32 arithmetic could decide otherwise at any of the steps, and if transformers' own bf16 loss is near
enough that a test with a limit of 2e-2 says something.
"""

import contextlib
import json
import math
import os
import pathlib
import shutil
import sys

os.environ["TQDM_DISABLE"] = "1"

import h5py
import numpy
import torch
import transformers
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.gpt_oss import modeling_gpt_oss

from configurations import CONFIGURATIONS, random_batch, random_weights

HERE = pathlib.Path(__file__).resolve().parent
BETAS, EPSILON, STEPS = (0.9, 0.999), 1e-4, 3
SMALLEST_GAP, SMALLEST_CLAMP_DISTANCE, LARGEST_BF16_LOSS_ERROR = 1e-4, 2e-6, 3e-3


class OnlyF64(TorchDispatchMode):
    """Fails on any operation that returns a floating-point tensor other than f64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64:
                raise AssertionError(f"{function} returned {tensor.dtype}")
        return result


@contextlib.contextmanager
def everything_in_f64():
    saved = torch.float32, torch.float, torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        with OnlyF64():
            yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved
        torch.set_default_dtype(saved[0])


class Margins:
    """Watches how close any token comes to another choice of experts and any expert output to a clamp."""

    def __init__(self, model):
        self.gap, self.clamp, self.clamped, self.outputs = math.inf, math.inf, 0, 0
        self.tokens = {}
        for index, layer in enumerate(model.model.layers):
            layer.mlp.router.register_forward_hook(lambda module, _, out, index=index: self.see_router(module, out, index))
            experts, plain = layer.mlp.experts, layer.mlp.experts._apply_gate
            experts._apply_gate = lambda h, experts=experts, plain=plain: (self.see_gate(experts, h), plain(h))[1]

    def see_router(self, router, out, layer):
        top = out[0].detach().topk(router.top_k + 1, dim=-1).values
        self.gap = min(self.gap, (top[:, -2] - top[:, -1]).min().item())
        self.tokens[layer] = torch.bincount(out[2].reshape(-1), minlength=router.num_experts).tolist()

    def see_gate(self, experts, gate_up):
        h = gate_up.detach()
        up = h[:, 1::2]
        distance = torch.cat([(h - experts.limit).abs().reshape(-1), (up + experts.limit).abs().reshape(-1)])
        self.clamp = min(self.clamp, distance.min().item())
        self.clamped += int((h > experts.limit).sum() + (up < -experts.limit).sum())
        self.outputs += h.numel()


def load(folder, dtype):
    """The checkpoint in `dtype`, rotary buffers made afresh (a cast would round them)."""
    model = transformers.GptOssForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                           experts_implementation="eager")
    model = model.to(dtype).eval()
    model.model.rotary_emb = modeling_gpt_oss.GptOssRotaryEmbedding(model.config)
    return model


def gradients(model, tokens, labels, **options):
    """(output, {name: gradient}, norm) of one forward and backward."""
    model.zero_grad(set_to_none=True)
    output = model(input_ids=tokens, labels=labels, use_cache=False, **options)
    output.loss.backward()
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    norm = torch.linalg.vector_norm(torch.stack([grad.double().norm() for grad in grads.values()])).item()
    return output, grads, norm


def train(folder, dtype, name, options, tokens, labels):
    """(losses, {name: parameter}, margins) of STEPS steps on one batch."""
    model = load(folder, dtype)
    margins = Margins(model)
    shared = dict(lr=options["lr"], weight_decay=options["weight_decay"], foreach=False)
    if name == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), **shared)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS, eps=EPSILON, **shared)
    losses = []
    for _ in range(STEPS):
        output, _, norm = gradients(model, tokens, labels)
        losses.append(output.loss.item())
        if options["clip"] > 0:
            assert norm > 1.5 * options["clip"], f"clipping at {options['clip']} does not bite at norm {norm}"
            torch.nn.utils.clip_grad_norm_(model.parameters(), options["clip"], foreach=False)
        optimizer.step()
    return losses, {key: value.detach().clone() for key, value in model.named_parameters()}, margins


def distance(values, reference):
    return ((values.double() - reference.double()).norm() / reference.double().norm()).item()


def worst(values, reference):
    return max((distance(values[name], reference[name]), name) for name in reference)


def checkpoint_tensors(folder):
    names = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names.update({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})
    return names


def rewrite_as_transformers_4(path):
    """rope_theta + rope_scaling and torch_dtype, as released gpt-oss files have them; must read equally."""
    before = transformers.GptOssConfig.from_pretrained(path.parent).to_dict()
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    assert transformers.GptOssConfig.from_pretrained(path.parent).to_dict() == before, "the spellings differ"


def write_checkpoint(golden, folder, seed):
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    model = transformers.GptOssForCausalLM(transformers.GptOssConfig(**golden.config)).to(torch.bfloat16)
    random_weights(model, golden, generator)
    tokens, labels = random_batch(golden, generator)
    model.save_pretrained(folder, max_shard_size=golden.max_shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if golden.transformers_4_spelling:
        rewrite_as_transformers_4(folder / "config.json")
    numpy.save(folder / "tokens.npy", tokens.numpy())
    numpy.save(folder / "labels.npy", labels.numpy())
    return tokens, labels


def reference_runs(golden, folder, tokens, labels):
    """All f64 results, or None where f32 arithmetic could choose other experts or clamp otherwise."""
    with everything_in_f64():
        model = load(folder, torch.float64)
        plain = gradients(model, tokens, labels)
        steps = {}
        for name in ("sgd", "adamw"):
            steps[name] = train(folder, torch.float64, name, getattr(golden, name), tokens, labels)
            margins = steps[name][2]
            if margins.gap < SMALLEST_GAP or margins.clamp < SMALLEST_CLAMP_DISTANCE:
                return None
        aux = None
        if golden.aux_loss_coef:
            model.router_aux_loss_coef = golden.aux_loss_coef
            aux = gradients(model, tokens, labels, output_router_logits=True)
    return plain, steps, aux


def put_tensors(group, tensors):
    """f32 with 19 of 23 mantissa bits: an error of 1e-6 at most, and gzip saves the four that are zero."""
    for name, tensor in tensors.items():
        bits = tensor.detach().float().numpy().view(numpy.uint32)
        rounded = ((bits + numpy.uint32(8)) & numpy.uint32(0xFFFFFFF0)).view(numpy.float32)
        group.create_dataset(name, data=rounded, chunks=rounded.shape, compression="gzip", compression_opts=9,
                             shuffle=True)


def write_golden(golden, folder, seed, runs, bf16):
    (output, grads, norm), steps, aux = runs
    with h5py.File(folder / "golden.h5", "w", libver=("v110", "v110")) as file:
        file.attrs["versions"] = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
        file.attrs["seed"] = seed
        file["loss"], file["grad_norm"] = output.loss.item(), norm
        put_tensors(file, {"logits": output.logits})
        put_tensors(file.create_group("grad"), grads)
        for name, (losses, parameters, _) in steps.items():
            group = file.create_group(name)
            group["losses"] = numpy.array(losses)
            group.attrs.update(getattr(golden, name), steps=STEPS)
            if name == "adamw":
                group.attrs.update(beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON)
            put_tensors(group.create_group("param"), parameters)
        if aux:
            group = file.create_group("aux")
            group.attrs["coefficient"] = golden.aux_loss_coef
            group["loss"], group["aux_loss"], group["grad_norm"] = aux[0].loss.item(), aux[0].aux_loss.item(), aux[2]
            put_tensors(group.create_group("grad"), aux[1])
        group = file.create_group("bf16")
        group["loss"], group["logits_error"] = bf16[0].loss.item(), distance(bf16[0].logits, output.logits)
        for name in grads:
            group[f"grad_error/{name}"] = distance(bf16[1][name], grads[name])


def report(golden, folder, seed, runs, tokens, labels, bf16):
    """What the numbers are worth: torch's own f32, and transformers in f64 with its f32 islands, against them."""
    (output, grads, norm), steps, _ = runs
    margins = steps["sgd"][2]
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    count = sum(math.prod(shape) for shape in checkpoint_tensors(folder).values())
    gap = min(step[2].gap for step in steps.values())
    print(f"{golden.name}: seed {seed}, {count} parameters, {size:.2f} MB, loss {output.loss.item():.6f}, "
          f"grad norm {norm:.4f}, gap {gap:.1e}, clamped {margins.clamped / margins.outputs:.2%}")
    print(f"  tokens per expert {list(margins.tokens.values())}")
    for label, dtype in (("f32", torch.float32), ("f64 unpatched", torch.float64)):
        other = gradients(load(folder, dtype), tokens, labels)
        print(f"  {label}: loss {abs(other[0].loss.item() / output.loss.item() - 1):.1e}, "
              f"logits {distance(other[0].logits, output.logits):.1e}, gradients {worst(other[1], grads)}")
        if label == "f32":
            assert worst(other[1], grads)[0] < 1e-5, "torch's own f32 misses 1e-5"
    for name, (losses, parameters, _) in steps.items():
        other = train(folder, torch.float32, name, getattr(golden, name), tokens, labels)
        print(f"  {name}: losses {['%.5f' % loss for loss in losses]}, f32 parameters {worst(other[1], parameters)}")
    errors = sorted(distance(bf16[1][key], grads[key]) for key in grads)
    print(f"  bf16: loss {abs(bf16[0].loss.item() / output.loss.item() - 1):.1e}, "
          f"gradients median {errors[len(errors) // 2]:.2f}, worst {errors[-1]:.2f}")


def generate(golden):
    folder = HERE / golden.name
    for seed in range(1000):
        tokens, labels = write_checkpoint(golden, folder, seed)
        runs = reference_runs(golden, folder, tokens, labels)
        if not runs:
            continue
        bf16 = gradients(load(folder, torch.bfloat16), tokens, labels)
        if abs(bf16[0].loss.item() / runs[0][0].loss.item() - 1) < LARGEST_BF16_LOSS_ERROR:
            break
    assert set(runs[0][1]) == set(checkpoint_tensors(folder)), "parameters and checkpoint tensors differ"
    assert all(tuple(runs[0][1][name].shape) == shape for name, shape in checkpoint_tensors(folder).items())
    write_golden(golden, folder, seed, runs, bf16)
    report(golden, folder, seed, runs, tokens, labels, bf16)


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for wanted in CONFIGURATIONS:
        if len(sys.argv) == 1 or wanted.name in sys.argv[1:]:
            generate(wanted)
