# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in the forms in which models are released: MXFP4, original names, FP8, mixed element types.

Each function rewrites a folder that save_pretrained wrote and changes the model's parameters to the values that
the new files stand for, exactly."""

import json

import torch
from safetensors import safe_open
from safetensors.torch import save_file

FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float32)


def read_tensors(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys()})
    return tensors


def write_tensors(folder, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})


def change_config(folder, changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2, sort_keys=True) + "\n")


def random_mxfp4(num_experts, rows, columns, scale, generator):
    """Random blocks and scales; every fourth block only has codes below 4, every seventh only zeros of both signs."""
    shape = (num_experts, rows, columns // 32)
    codes = torch.randint(16, (*shape, 32), generator=generator)
    scales = torch.randint(scale - 1, scale + 2, shape, generator=generator)
    index = torch.arange(scales.numel()).reshape(shape)
    low, zero = index % 4 == 1, index % 7 == 3
    codes[low] = codes[low] & 0b1011  # magnitudes 0, 0.5, 1, 1.5
    codes[zero] = codes[zero] & 0b1000
    scales[zero] = torch.randint(0, 253, (int(zero.sum()),), generator=generator)
    values = torch.ldexp(FP4[codes], scales[..., None] - 127).reshape(num_experts, rows, columns)
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
    return blocks, scales.to(torch.uint8), values


def store_mxfp4(model, folder, golden, generator):
    """Experts as gate_up_proj_blocks and _scales, down_proj_blocks and _scales, as gpt-oss is released."""
    tensors = read_tensors(folder)
    parameters = dict(model.named_parameters())
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        num_experts, columns, rows = tensors.pop(name).shape  # [E, in, out]
        blocks, scales, values = random_mxfp4(num_experts, rows, columns, 125 if "gate_up" in name else 122, generator)
        tensors[name + "_blocks"], tensors[name + "_scales"] = blocks, scales
        parameters[name].data.copy_(values.transpose(1, 2))
    write_tensors(folder, tensors)
    change_config(folder, {"quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
                                   "lm_head"]}})


def original_name(name):
    for old, new in (("model.embed_tokens.weight", "embedding.weight"), ("lm_head.weight", "unembedding.weight"),
                     ("model.norm.weight", "norm.scale"), ("model.layers.", "block."),
                     ("input_layernorm.weight", "attn.norm.scale"), ("self_attn.o_proj", "attn.out"),
                     ("self_attn.sinks", "attn.sinks"), ("post_attention_layernorm.weight", "mlp.norm.scale"),
                     ("mlp.router", "mlp.gate"), ("mlp.experts.gate_up_proj_bias", "mlp.mlp1_bias"),
                     ("mlp.experts.down_proj_bias", "mlp.mlp2_bias"), ("mlp.experts.gate_up_proj_", "mlp.mlp1_weight."),
                     ("mlp.experts.down_proj_", "mlp.mlp2_weight.")):
        name = name.replace(old, new)
    return name


def store_original(model, folder, golden, generator):
    """Names and configuration keys of the first release of gpt-oss; q, k and v in one tensor."""
    store_mxfp4(model, folder, golden, generator)
    tensors = read_tensors(folder)
    for name in [name for name in tensors if ".q_proj." in name]:
        parts = [tensors.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        tensors[name.replace("self_attn.q_proj", "attn.qkv")] = torch.cat(parts)
    write_tensors(folder, {original_name(name): tensor for name, tensor in tensors.items()})
    config = golden.config
    (folder / "config.json").write_text(json.dumps({
        "num_hidden_layers": config["num_hidden_layers"], "num_experts": config["num_local_experts"],
        "experts_per_token": config["num_experts_per_tok"], "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"], "intermediate_size": config["intermediate_size"], "swiglu_limit": 7.0,
        "head_dim": config["head_dim"], "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_key_value_heads"], "sliding_window": config["sliding_window"],
        "initial_context_length": 4096, "rope_theta": 150000.0, "rope_scaling_factor": 32.0, "rope_ntk_alpha": 1.0,
        "rope_ntk_beta": 32.0}, indent=2) + "\n")


def fused_name(name):
    """The parameter in memory of which a checkpoint's tensor is a part, the expert, and which of gate and up."""
    parts = name.split(".")
    at = parts.index("experts") if "experts" in parts else 0
    if not parts[at + 1].isdigit():
        return name, None, None
    matrix = parts[at + 2]
    fused = ".".join([*parts[: at + 1], "down_proj" if matrix == "down_proj" else "gate_up_proj"])
    return fused, int(parts[at + 1]), matrix


def set_parameter(model, name, values):
    """Puts the values of a checkpoint's tensor to where the model has them."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    fused, expert, matrix = fused_name(name)
    target = state[fused].data
    if expert is not None:
        target, half = target[expert], target.shape[1] // 2
        target = {"gate_proj": target[:half], "up_proj": target[half:], "down_proj": target}[matrix]
    target.copy_(values)


def store_mixed(model, folder, golden, generator):
    """A third of the tensors F16, a third F32 (with all their bits), the rest BF16."""
    tensors = read_tensors(folder)
    for index, name in enumerate(sorted(tensors)):
        if index % 3 == 2:
            continue
        noise = 1 + 1e-3 * torch.randn(tensors[name].shape, generator=generator, dtype=torch.float32)
        tensors[name] = (tensors[name].float() * noise).to(torch.float16 if index % 3 == 0 else torch.float32)
        set_parameter(model, name, tensors[name].float())
    write_tensors(folder, tensors)


def store_fp8(model, folder, golden, generator):
    """F8_E4M3 with weight_scale_inv per 128 x 128, as DeepSeek-V3 is released, tensors of its prediction layer among
    them. The scales have four significant bits, so that the products are exact in bf16."""
    tensors = read_tensors(folder)
    for name in sorted(tensors):
        plain = ("embed_tokens", "lm_head", "norm", "mlp.gate.", "bias")
        if any(part in name for part in plain):
            continue
        weight = tensors[name].float()
        rows, columns = ((size + 127) // 128 for size in weight.shape)
        scales = torch.zeros(rows, columns)
        values = torch.zeros_like(weight).to(torch.float8_e4m3fn)
        for i in range(rows):
            for j in range(columns):
                block = weight[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)]
                mantissa = torch.randint(8, 16, (), generator=generator).item()
                exponent = torch.floor(torch.log2(block.abs().max() / 448)).item() + 1
                scales[i, j] = mantissa / 8 * 2.0**exponent
                values[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)] = (block / scales[i, j]).to(
                    torch.float8_e4m3fn)
        spread = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)[: weight.shape[0], : weight.shape[1]]
        product = values.float() * spread
        assert torch.equal(product, product.to(torch.bfloat16).float()), name
        tensors[name], tensors[name + "_scale_inv"] = values, scales
        set_parameter(model, name, product)
    layer, hidden = golden.config["num_hidden_layers"], golden.config["hidden_size"]
    for name, shape in (("eh_proj.weight", (hidden, 2)), ("enorm.weight", (hidden,)),
                        ("mlp.experts.0.down_proj.weight", (4, 4)), ("shared_head.norm.weight", (hidden,))):
        tensors[f"model.layers.{layer}.{name}"] = torch.ones(shape, dtype=torch.bfloat16)
    write_tensors(folder, tensors)
    change_config(folder, {
        "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                                "weight_block_size": [128, 128]},
        "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "ep_size": 1, "moe_layer_freq": 1,
        "num_nextn_predict_layers": 1, "pretraining_tp": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
        "aux_loss_alpha": 0.001, "seq_aux": True})


STORE = {"mxfp4": store_mxfp4, "original": store_original, "mixed": store_mixed, "fp8": store_fp8}
