# SPDX-License-Identifier: Apache-2.0
"""The models of the golden files: what each one is there to catch, its shape, batch and optimizers."""

from dataclasses import dataclass, field

import torch


@dataclass
class Golden:
    """One folder of tests/golden. Learning rates and clipping are chosen so that three steps change the loss."""

    name: str
    config: dict
    rows: int
    length: int
    router_favours: list | None = None  # per layer: the experts whose router bias beats all others
    ignored_row: bool = False  # the last row has no target at all
    max_shard_size: str = "50GB"
    transformers_4_spelling: bool = False
    aux_loss_coef: float = 0.0
    sgd: dict = field(default_factory=lambda: dict(lr=0.1, clip=0.0, weight_decay=0.0))
    adamw: dict = field(default_factory=lambda: dict(lr=1e-3, clip=0.0, weight_decay=0.0))


def rope(theta=150000.0, factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False, original=4096):
    return dict(rope_type="yarn", rope_theta=theta, factor=factor, beta_fast=beta_fast, beta_slow=beta_slow,
                truncate=truncate, original_max_position_embeddings=original)


CONFIGURATIONS = [
    # Everything once, small enough to read; the auxiliary loss.
    Golden(
        name="small", rows=4, length=24, aux_loss_coef=0.05,
        config=dict(vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=16, intermediate_size=48, num_local_experts=4,
                    num_experts_per_tok=2, sliding_window=8, max_position_embeddings=4096, rope_parameters=rope()),
    ),
    # Longer than every block of the kernels, query width unlike hidden size, experts that divide over
    # neither 3 nor 6 ranks, fewer rows than ranks, a sharded checkpoint, clipping that bites.
    Golden(
        name="wide", rows=3, length=300, max_shard_size="200KB",
        config=dict(vocab_size=1031, hidden_size=96, num_hidden_layers=2, num_attention_heads=8,
                    num_key_value_heads=2, head_dim=24, intermediate_size=16, num_local_experts=20,
                    num_experts_per_tok=4, sliding_window=128, max_position_embeddings=131072, rope_parameters=rope()),
        sgd=dict(lr=0.2, clip=0.25, weight_decay=0.0),
        adamw=dict(lr=1e-3, clip=0.25, weight_decay=0.0),
    ),
    # Most experts, and on most grids most ranks, get no token; tied embeddings; one key-value head.
    Golden(
        name="sparse", rows=2, length=19, router_favours=[[5, 6, 7], [13, 14, 15], [0, 1]],
        config=dict(vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=1, head_dim=8, intermediate_size=40, num_local_experts=16,
                    num_experts_per_tok=2, sliding_window=5, max_position_embeddings=4096, rope_parameters=rope(),
                    tie_word_embeddings=True),
        adamw=dict(lr=1e-3, clip=0.0, weight_decay=0.1),
    ),
    # Order of layers from layer_types, another YaRN, three experts per token, weight decay in SGD, a row
    # without targets, a padding id (its embedding row gets no gradient from being looked up) and config.json
    # as transformers 4 wrote it.
    Golden(
        name="mini3", rows=6, length=21, ignored_row=True, transformers_4_spelling=True, aux_loss_coef=0.9,
        config=dict(vocab_size=83, hidden_size=48, num_hidden_layers=3, num_attention_heads=6,
                    num_key_value_heads=3, head_dim=32, intermediate_size=28, num_local_experts=8,
                    num_experts_per_tok=3, sliding_window=6, max_position_embeddings=16384, rms_norm_eps=1e-6,
                    pad_token_id=5,
                    layer_types=["full_attention", "sliding_attention", "full_attention"],
                    rope_parameters=rope(10000.0, 8.0, 16.0, 2.0, True, 2048)),
        sgd=dict(lr=0.1, clip=0.0, weight_decay=0.05),
    ),
    # Without attention biases, plain rotary embedding, more ranks than experts, odd sizes.
    Golden(
        name="plain", rows=5, length=33,
        config=dict(vocab_size=50, hidden_size=33, num_hidden_layers=2, num_attention_heads=5,
                    num_key_value_heads=5, head_dim=6, intermediate_size=7, num_local_experts=3,
                    num_experts_per_tok=2, sliding_window=1, max_position_embeddings=4096, attention_bias=False,
                    rope_parameters=dict(rope_type="default", rope_theta=5000.0)),
    ),
]


def random_weights(model, golden, generator):
    """Every parameter random, in bf16. The scales make routing, clamps, sinks and biases all matter."""

    def normal(parameter, scale, mean=0.0):
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * scale + mean
        parameter.data.copy_(values.to(torch.bfloat16))

    hidden = golden.config["hidden_size"]
    for name, parameter in sorted(model.named_parameters()):
        if "layernorm" in name or name == "model.norm.weight":
            normal(parameter, 0.3, 1.0)
        elif name.endswith("sinks"):
            normal(parameter, 1.5)
        elif name.endswith("experts.gate_up_proj"):
            normal(parameter, 3.0 / hidden**0.5)  # about 2 % of the outputs lie beyond the clamps at 7
        elif name.endswith("experts.down_proj"):
            normal(parameter, 0.3 / golden.config["intermediate_size"] ** 0.5)
        elif name.endswith("router.weight"):
            normal(parameter, 1.5 / hidden**0.5)
        elif name.endswith("bias"):
            normal(parameter, 0.3)
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            normal(parameter, 1.5 / hidden**0.5)
        else:
            normal(parameter, 1.0 / parameter.shape[-1] ** 0.5)
    for layer, experts in enumerate(golden.router_favours or []):
        model.model.layers[layer].mlp.router.bias.data[experts] += 12.0


def random_batch(golden, generator):
    """tokens and labels [rows, length]; a tenth of the labels ignored, a tenth unlike the tokens."""
    shape, vocab = (golden.rows, golden.length), golden.config["vocab_size"]
    tokens = torch.randint(vocab, shape, generator=generator)
    labels = tokens.clone()
    draw = torch.rand(shape, generator=generator)
    labels[draw < 0.1] = torch.randint(vocab, shape, generator=generator)[draw < 0.1]
    labels[draw > 0.9] = -100
    if golden.ignored_row:
        labels[-1] = -100
    return tokens, labels
