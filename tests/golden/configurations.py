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
    model_type: str = "gpt_oss"
    stored: str = "bf16"  # or mxfp4, original, fp8, mixed: how the checkpoint holds the weights (stored.py)
    steps: bool = True  # False: no SGD and AdamW steps, for checkpoints that are large for their purpose
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
    # As released: experts in MXFP4. A square down_proj; low, zero and -0 blocks; experts that do not divide.
    Golden(
        name="mxfp4", rows=3, length=20, stored="mxfp4", transformers_4_spelling=True, aux_loss_coef=0.9,
        config=dict(vocab_size=45, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=1, head_dim=10, intermediate_size=32, num_local_experts=3,
                    num_experts_per_tok=2, sliding_window=6, max_position_embeddings=131072, rope_parameters=rope(),
                    router_aux_loss_coef=0.9),
    ),
    # The first release's own names and configuration keys, MXFP4; two blocks in a row of gate_up_proj.
    Golden(
        name="original", rows=2, length=18, stored="original", steps=False,
        config=dict(vocab_size=41, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=8, intermediate_size=32, num_local_experts=5,
                    num_experts_per_tok=4, sliding_window=7, max_position_embeddings=131072, rope_parameters=rope()),
    ),
    # A sliding window in every layer, heads that are not hidden / heads wide, five experts.
    Golden(
        name="mixtral", model_type="mixtral", rows=3, length=70, aux_loss_coef=0.3,
        config=dict(vocab_size=47, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=10, intermediate_size=12, num_local_experts=5,
                    num_experts_per_tok=2, sliding_window=13, max_position_embeddings=2048, rms_norm_eps=1e-5,
                    rope_parameters=dict(rope_type="default", rope_theta=20000.0)),
    ),
    # One key-value head, no window, rotary positions scaled linearly, tied embeddings, all keys that have their
    # default value left out.
    Golden(
        name="mixtral_4", model_type="mixtral", rows=4, length=15, transformers_4_spelling=True,
        config=dict(vocab_size=53, hidden_size=20, num_hidden_layers=3, num_attention_heads=2,
                    num_key_value_heads=1, intermediate_size=9, num_local_experts=7, num_experts_per_tok=3,
                    max_position_embeddings=4096, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="linear", rope_theta=1000.0, factor=2.5)),
        sgd=dict(lr=0.1, clip=0.0, weight_decay=0.05),
    ),
    # A layer without experts by name, weights divided by their sum, a sliding window, tied embeddings.
    Golden(
        name="qwen3_moe", model_type="qwen3_moe", rows=3, length=26, aux_loss_coef=0.2,
        config=dict(vocab_size=51, hidden_size=20, num_hidden_layers=3, num_attention_heads=6,
                    num_key_value_heads=3, head_dim=8, intermediate_size=22, moe_intermediate_size=9,
                    num_experts=6, num_experts_per_tok=3, norm_topk_prob=True, mlp_only_layers=[1],
                    use_sliding_window=True, sliding_window=7, max_position_embeddings=4096,
                    tie_word_embeddings=True, rms_norm_eps=1e-3,
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
    ),
    # Experts in every second layer only, fewer than ranks; weights as the softmax gives them; attention biases;
    # YaRN; a padding id.
    Golden(
        name="qwen3_moe_4", model_type="qwen3_moe", rows=2, length=130, transformers_4_spelling=True,
        aux_loss_coef=0.2,
        config=dict(vocab_size=43, hidden_size=20, num_hidden_layers=4, num_attention_heads=5,
                    num_key_value_heads=1, intermediate_size=17, moe_intermediate_size=11, num_experts=3,
                    num_experts_per_tok=2, norm_topk_prob=False, decoder_sparse_step=2, attention_bias=True,
                    max_position_embeddings=131072, pad_token_id=3,
                    rope_parameters=dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0,
                                         original_max_position_embeddings=64)),
        adamw=dict(lr=1e-3, clip=0.0, weight_decay=0.1),
    ),
    # Queries, keys and values clipped, all heads with keys of their own, weights as the softmax gives them.
    Golden(
        name="olmoe", model_type="olmoe", rows=3, length=31, aux_loss_coef=0.1,
        config=dict(vocab_size=59, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=4, intermediate_size=14, num_experts=7, num_experts_per_tok=3,
                    norm_topk_prob=False, clip_qkv=1.1, max_position_embeddings=4096, pad_token_id=None,
                    rms_norm_eps=1e-3,
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
        sgd=dict(lr=0.1, clip=0.25, weight_decay=0.0),
        adamw=dict(lr=1e-3, clip=0.25, weight_decay=0.0),
    ),
    # F16, F32 and BF16 side by side, within one fused tensor too; keys shared by two heads; weights divided by their
    # sum; biases; the padding id that is the family's default.
    Golden(
        name="olmoe_4", model_type="olmoe", rows=5, length=17, stored="mixed", transformers_4_spelling=True,
        aux_loss_coef=0.1,
        config=dict(vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=6,
                    num_key_value_heads=3, intermediate_size=8, num_experts=10, num_experts_per_tok=2,
                    norm_topk_prob=True, attention_bias=True, max_position_embeddings=4096,
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
    ),
    # Latent attention with low-rank queries, YaRN with both mscales, groups of experts of which two are kept,
    # negative correction biases, two shared experts, a dense first layer.
    Golden(
        name="deepseek_v3", model_type="deepseek_v3", rows=2, length=140,
        config=dict(vocab_size=42, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
                    num_key_value_heads=3, intermediate_size=19, moe_intermediate_size=6, n_routed_experts=12,
                    num_experts_per_tok=3, n_group=4, topk_group=2, n_shared_experts=2, first_k_dense_replace=1,
                    q_lora_rank=11, kv_lora_rank=10, qk_rope_head_dim=6, qk_nope_head_dim=5, v_head_dim=7,
                    norm_topk_prob=True, routed_scaling_factor=2.5, rope_interleave=True, rms_norm_eps=1e-3,
                    max_position_embeddings=4096, num_nextn_predict_layers=0,
                    rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, beta_fast=32.0,
                                         beta_slow=1.0, mscale=0.9, mscale_all_dim=0.7,
                                         original_max_position_embeddings=64)),
    ),
    # Queries projected directly, one group, weights not divided by their sum, halves rotated instead of pairs,
    # attention biases, tied embeddings, no dense layer, five experts.
    Golden(
        name="deepseek_v3_4", model_type="deepseek_v3", rows=4, length=21, transformers_4_spelling=True,
        config=dict(vocab_size=50, hidden_size=22, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=4, intermediate_size=18, moe_intermediate_size=9, n_routed_experts=5,
                    num_experts_per_tok=2, n_group=1, topk_group=1, n_shared_experts=1, first_k_dense_replace=0,
                    q_lora_rank=None, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8,
                    norm_topk_prob=False, routed_scaling_factor=1.3, rope_interleave=False, attention_bias=True,
                    max_position_embeddings=4096, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="default", rope_theta=10000.0)),
        sgd=dict(lr=0.1, clip=0.0, weight_decay=0.05),
        adamw=dict(lr=1e-3, clip=0.0, weight_decay=0.1),
    ),
    # As released: FP8 in blocks of 128 x 128, several in a matrix in both directions, tensors of the prediction
    # layer, every key of the released config.json.
    Golden(
        name="deepseek_v3_fp8", model_type="deepseek_v3", rows=2, length=24, stored="fp8", steps=False,
        transformers_4_spelling=True,
        config=dict(vocab_size=40, hidden_size=136, num_hidden_layers=2, num_attention_heads=2,
                    num_key_value_heads=2, intermediate_size=20, moe_intermediate_size=6, n_routed_experts=4,
                    num_experts_per_tok=2, n_group=2, topk_group=1, n_shared_experts=1, first_k_dense_replace=1,
                    q_lora_rank=130, kv_lora_rank=12, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=4,
                    max_position_embeddings=163840,
                    rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, beta_fast=32.0,
                                         beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
                                         original_max_position_embeddings=4096)),
    ),
    # Dense. Rotary positions as Llama 3.1 scales them, biases everywhere, tied embeddings.
    Golden(
        name="llama", model_type="llama", rows=2, length=150,
        config=dict(vocab_size=48, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=12, intermediate_size=37, attention_bias=True, mlp_bias=True,
                    max_position_embeddings=4096, tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                                         high_freq_factor=4.0, original_max_position_embeddings=128)),
    ),
    # Linear scaling, all heads with keys of their own because the key is absent, a padding id.
    Golden(
        name="llama_4", model_type="llama", rows=5, length=14, transformers_4_spelling=True,
        config=dict(vocab_size=61, hidden_size=30, num_hidden_layers=3, num_attention_heads=5,
                    intermediate_size=21, max_position_embeddings=2048, pad_token_id=7,
                    rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
        sgd=dict(lr=0.1, clip=0.0, weight_decay=0.05),
    ),
    # Dense. Sliding layers from layer_types, YaRN with its attention factor given, biases, tied embeddings.
    Golden(
        name="qwen3", model_type="qwen3", rows=3, length=29,
        config=dict(vocab_size=52, hidden_size=26, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=8, intermediate_size=31, attention_bias=True,
                    use_sliding_window=True, sliding_window=5, max_position_embeddings=8192,
                    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                    tie_word_embeddings=True,
                    rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, attention_factor=1.2,
                                         original_max_position_embeddings=2048)),
    ),
    # Sliding layers from max_window_layers, one key-value head.
    Golden(
        name="qwen3_4", model_type="qwen3", rows=4, length=22, transformers_4_spelling=True,
        config=dict(vocab_size=44, hidden_size=25, num_hidden_layers=2, num_attention_heads=3,
                    num_key_value_heads=1, head_dim=14, intermediate_size=33, use_sliding_window=True,
                    sliding_window=9, max_window_layers=1, max_position_embeddings=40960,
                    rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
        sgd=dict(lr=0.1, clip=0.25, weight_decay=0.0),
        adamw=dict(lr=1e-3, clip=0.25, weight_decay=0.0),
    ),
]


def random_weights(model, golden, generator):
    """Every parameter random, in bf16. The scales make routing, clamps, sinks and biases all matter."""

    def normal(parameter, scale, mean=0.0):
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float32) * scale + mean
        parameter.data.copy_(values.to(torch.bfloat16))

    hidden = golden.config["hidden_size"]
    gpt_oss = golden.model_type == "gpt_oss"
    for name, parameter in sorted(model.named_parameters()):
        if name.endswith("norm.weight"):
            normal(parameter, 0.3, 1.0)
        elif name.endswith("sinks"):
            normal(parameter, 1.5)
        elif name.endswith("experts.gate_up_proj"):
            # gpt-oss: about 2 % of the outputs lie beyond the clamps at 7
            normal(parameter, (3.0 if gpt_oss else 1.5) / hidden**0.5)
        elif name.endswith("experts.down_proj"):
            normal(parameter, 0.3 / golden.config["intermediate_size"] ** 0.5 if gpt_oss
                   else 1.0 / parameter.shape[-1] ** 0.5)
        elif name.endswith("router.weight") or name.endswith("mlp.gate.weight"):
            normal(parameter, 1.5 / hidden**0.5)
        elif name.endswith("bias"):
            normal(parameter, 0.3)
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            normal(parameter, 1.5 / hidden**0.5)
        else:
            normal(parameter, 1.0 / parameter.shape[-1] ** 0.5)
    for layer, experts in enumerate(golden.router_favours or []):
        model.model.layers[layer].mlp.router.bias.data[experts] += 12.0
    for name, buffer in sorted(model.named_buffers()):
        if name.endswith("e_score_correction_bias"):  # below every score, so that a mask of zeros would win
            buffer.data = torch.randn(buffer.shape, generator=generator, dtype=torch.float32) * 0.3 - 1.8


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
