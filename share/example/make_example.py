#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes model/, the example's gpt-oss checkpoint: random weights, bf16, as save_pretrained stores them.

    python3 make_example.py        (torch 2.15, transformers 5.23; not needed to use the example)
"""

import pathlib
import shutil

import torch
from transformers import GptOssConfig, GptOssForCausalLM

FOLDER = pathlib.Path(__file__).resolve().parent / "model"
CONFIG = dict(vocab_size=256, hidden_size=128, intermediate_size=96, num_hidden_layers=4, num_attention_heads=8,
              num_key_value_heads=2, head_dim=16, num_local_experts=8, num_experts_per_tok=2, sliding_window=32)


def initialise(model):
    """Widths that keep every layer's output near 1, and the first loss near that of a uniform guess."""
    torch.manual_seed(0)
    depth = (2 * CONFIG["num_hidden_layers"]) ** -0.5
    for name, parameter in sorted(model.named_parameters()):
        fan_in = CONFIG["intermediate_size"] if name.endswith("down_proj") else CONFIG["hidden_size"]
        if "norm" in name:
            parameter.data.fill_(1.0)
        elif name.endswith("bias") or name.endswith("sinks"):
            parameter.data.zero_()
        elif name == "lm_head.weight":
            parameter.data.normal_(0.0, 0.02)
        elif name == "model.embed_tokens.weight":
            parameter.data.normal_(0.0, 0.5)
        else:
            into_residual = name.endswith(("o_proj.weight", "down_proj"))
            parameter.data.normal_(0.0, fan_in**-0.5 * (depth if into_residual else 1.0))


if __name__ == "__main__":
    model = GptOssForCausalLM(GptOssConfig(**CONFIG))
    initialise(model)
    shutil.rmtree(FOLDER, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(FOLDER, max_shard_size="1MB")
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    for path in FOLDER.iterdir():
        path.chmod(0o644)
    print(sum(parameter.numel() for parameter in model.parameters()), "parameters")
