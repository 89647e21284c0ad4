#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden files: what transformers computes for small models of every family, in f64.

    python3 generate.py [name ...]        (torch 2.15, transformers 5.23, h5py, numpy)

Each folder gets a checkpoint as save_pretrained writes it (bf16) or as models are released (stored.py), tokens.npy and labels.npy [B, S] int64
(-100: ignored) and golden.h5:
    /loss /grad_norm                     f64, of the untouched weights; mean over the shifted labels
    /logits [B, S, V], /grad/<tensor>    f64 results stored as f32 (relative error 1e-6), names and shapes of
                                         transformers' parameters in memory
    /sgd, /adamw                         losses [3] (each before its step), param/<tensor> after three steps on
                                         the same batch; the hyper-parameters are the group's attributes; not
                                         in goldens whose attribute `steps` is 0
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
import copy
import json
import math
import os
import pathlib
import shutil
import sys

os.environ["TQDM_DISABLE"] = "1"

import h5py
import huggingface_hub
import numpy
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from configurations import CONFIGURATIONS, random_batch, random_weights
from margins import Margins
from stored import STORE

HERE = pathlib.Path(__file__).resolve().parent
BETAS, EPSILON, STEPS = (0.9, 0.999), 1e-4, 3
SMALLEST_GAP, SMALLEST_CLAMP_DISTANCE, LARGEST_BF16_LOSS_ERROR = 1e-4, 2e-6, 3e-3
LARGEST_F32_GRADIENT_ERROR, LARGEST_F32_STEP_ERROR = 1e-5, 3e-6
PLAIN_TYPES = torch.float32, torch.float, torch.Tensor.float


class OnlyF64(TorchDispatchMode):
    """Fails on any operation that returns a floating-point tensor other than f64."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64:
                raise AssertionError(f"{function} returned {tensor.dtype}")
        return result


@contextlib.contextmanager
def float_types(float32, default, widen):
    saved = torch.float32, torch.float, torch.Tensor.float, torch.get_default_dtype()
    torch.float32, torch.float, torch.Tensor.float = float32, default, widen
    torch.set_default_dtype(float32)
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved[:3]
        torch.set_default_dtype(saved[3])


@contextlib.contextmanager
def everything_in_f64():
    with float_types(torch.float64, torch.float64, torch.Tensor.double), OnlyF64():
        yield


def instance(master, dtype):
    """A copy of the model in `dtype`: rotary buffers made afresh (a cast would round them), correction biases as the
    file has them."""
    with _disable_current_modes(), float_types(*PLAIN_TYPES):
        model = copy.deepcopy(master).to(dtype).eval()
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                exact = master.get_buffer(name)
                buffer.data = exact.double() if dtype == torch.float64 else exact.clone()
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model


def gradients(model, tokens, labels, **options):
    """(output, {name: gradient}, norm) of one forward and backward."""
    model.zero_grad(set_to_none=True)
    output = model(input_ids=tokens, labels=labels, use_cache=False, **options)
    output.loss.backward()
    grads = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    norm = torch.linalg.vector_norm(torch.stack([grad.double().norm() for grad in grads.values()])).item()
    return output, grads, norm


def train(master, dtype, name, options, tokens, labels):
    """(losses, {name: parameter}, margins) of STEPS steps on one batch."""
    model = instance(master, dtype)
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


def rewrite_as_transformers_4(path):
    """rope_theta + rope_scaling, torch_dtype and num_experts, keys of default value left out, as in released files."""

    def read():
        """None if transformers refuses it."""
        try:
            config = transformers.AutoConfig.from_pretrained(path.parent).to_dict()
        except huggingface_hub.errors.StrictDataclassError:
            return None
        config["rope_parameters"].pop("type", None)
        return config

    def write():
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    before, config = read(), json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    kind = scaling.pop("rope_type")
    key = "type" if kind == "linear" or config["model_type"] == "deepseek_v3" else "rope_type"
    config["rope_scaling"] = None if kind == "default" else {key: kind, **scaling}
    config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    for key in sorted(set(config) - {"model_type", "rope_theta", "rope_scaling"}):
        value = config.pop(key)
        write()
        if read() != before:
            config[key] = value
    write()
    assert read() == before, "the spellings differ"


def write_checkpoint(golden, folder, seed):
    """(the model with the checkpoint's values in f32, tokens, labels)"""
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    config = transformers.AutoConfig.for_model(golden.model_type, **golden.config)
    config._attn_implementation = config._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    random_weights(model, golden, generator)
    tokens, labels = random_batch(golden, generator)
    model.save_pretrained(folder, max_shard_size=golden.max_shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if golden.transformers_4_spelling:
        rewrite_as_transformers_4(folder / "config.json")
    model = model.float()
    if golden.stored in STORE:
        STORE[golden.stored](model, folder, golden, generator)
    numpy.save(folder / "tokens.npy", tokens.numpy())
    numpy.save(folder / "labels.npy", labels.numpy())
    return model, tokens, labels


def check_checkpoint(golden, folder, model):
    """transformers reads the folder as the model whose numbers become the golden's."""
    if golden.stored in ("original", "fp8"):
        return  # not for transformers on a CPU
    options = {"quantization_config": transformers.Mxfp4Config(dequantize=True)} if golden.stored == "mxfp4" else {}
    read = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).state_dict()
    for name, values in model.state_dict().items():
        assert torch.equal(read[name].float(), values), name


def reference_runs(golden, model, tokens, labels):
    """All f64 results, or None where f32 arithmetic could choose other experts or clamp otherwise."""
    steps, aux = {}, None
    with everything_in_f64():
        reference = instance(model, torch.float64)
        margins = Margins(reference)
        plain = gradients(reference, tokens, labels)
        for name in ("sgd", "adamw") if golden.steps else ():
            steps[name] = train(model, torch.float64, name, getattr(golden, name), tokens, labels)
        for seen in (margins, *(step[2] for step in steps.values())):
            if seen.gap < SMALLEST_GAP or seen.clamp < SMALLEST_CLAMP_DISTANCE:
                return None
        if golden.aux_loss_coef:
            reference.router_aux_loss_coef = golden.aux_loss_coef
            aux = gradients(reference, tokens, labels, output_router_logits=True)
    return plain, steps, aux, margins


def put_tensors(group, tensors):
    """f32 with 19 of 23 mantissa bits: an error of 1e-6 at most, and gzip saves the four that are zero."""
    for name, tensor in tensors.items():
        bits = tensor.detach().float().numpy().view(numpy.uint32)
        rounded = ((bits + numpy.uint32(8)) & numpy.uint32(0xFFFFFFF0)).view(numpy.float32)
        group.create_dataset(name, data=rounded, chunks=rounded.shape, compression="gzip", compression_opts=9,
                             shuffle=True)


def write_golden(golden, folder, seed, runs, bf16):
    (output, grads, norm), steps, aux, _ = runs
    with h5py.File(folder / "golden.h5", "w", libver=("v110", "v110")) as file:
        file.attrs["versions"] = f"torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
        file.attrs["seed"] = seed
        file.attrs["steps"] = STEPS if golden.steps else 0
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


def report(folder, golden, seed, runs, model, f32, bf16):
    """What the numbers are worth: torch's own f32 and bf16 against them."""
    (output, grads, norm), steps, _, margins = runs
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{golden.name}: seed {seed}, {count} parameters, {size:.2f} MB, loss {output.loss.item():.6f}, "
          f"grad norm {norm:.4f}, gap {margins.gap:.1e}, clamped {margins.clamped / max(margins.outputs, 1):.2%}")
    print(f"  tokens per expert {list(margins.tokens.values())}")
    if margins.num_tokens:
        print(f"  {margins.num_tokens} choices, {margins.biased_choices} changed by the correction biases, "
              f"{margins.zero_fill_choices} that a mask of zeros would change")
    print(f"  f32: gradients {f32['gradients']}")
    for name, (losses, _, _) in steps.items():
        print(f"  {name}: losses {['%.5f' % loss for loss in losses]}, f32 parameters {f32[name]}")
    errors = sorted(distance(bf16[1][key], grads[key]) for key in grads)
    print(f"  bf16: loss {abs(bf16[0].loss.item() / output.loss.item() - 1):.1e}, "
          f"gradients median {errors[len(errors) // 2]:.2f}, worst {errors[-1]:.2f}", flush=True)


def generate(golden):
    folder = HERE / golden.name
    for seed in range(1000):
        model, tokens, labels = write_checkpoint(golden, folder, seed)
        runs = reference_runs(golden, model, tokens, labels)
        if not runs:
            continue
        f32 = {"gradients": worst(gradients(instance(model, torch.float32), tokens, labels)[1], runs[0][1])}
        for name, (_, parameters, _) in runs[1].items():
            step = train(model, torch.float32, name, getattr(golden, name), tokens, labels)
            f32[name] = worst(step[1], parameters)
        bf16 = gradients(instance(model, torch.bfloat16), tokens, labels)
        bf16_error = abs(bf16[0].loss.item() / runs[0][0].loss.item() - 1)
        if (f32["gradients"][0] < LARGEST_F32_GRADIENT_ERROR and bf16_error < LARGEST_BF16_LOSS_ERROR
                and all(f32[name][0] < LARGEST_F32_STEP_ERROR for name in runs[1])):
            break
    check_checkpoint(golden, folder, model)
    write_golden(golden, folder, seed, runs, bf16)
    report(folder, golden, seed, runs, model, f32, bf16)


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for wanted in CONFIGURATIONS:
        if len(sys.argv) == 1 or wanted.name in sys.argv[1:]:
            generate(wanted)
