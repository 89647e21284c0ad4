# SPDX-License-Identifier: Apache-2.0
"""The shapes that all programs train: configuration, checkpoint with random weights, tokens."""
import json
from dataclasses import dataclass
from pathlib import Path

SEED = 0


@dataclass(frozen=True)
class Shape:
    name: str
    family: str  # model_type of transformers
    config: dict  # of the family's configuration class
    sequences: int  # of one step, over all ranks
    length: int
    title: str

    @property
    def tokens(self):
        return self.sequences * self.length


def _attention(heads, kv_heads):
    return dict(num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=64)


SHAPES = {
    shape.name: shape
    for shape in [
        Shape("gpt_oss", "gpt_oss",
              dict(vocab_size=32768, hidden_size=1024, num_hidden_layers=4, intermediate_size=1024,
                   num_local_experts=16, num_experts_per_tok=4, **_attention(16, 4)), 2, 1024,
              "gpt-oss, 4 layers, hidden 1024, 16 experts of 1024, top 4, vocabulary 32768, 2 x 1024 tokens"),
        Shape("qwen3_moe", "qwen3_moe",
              dict(vocab_size=32768, hidden_size=1024, num_hidden_layers=4, intermediate_size=3072,
                   moe_intermediate_size=256, num_experts=64, num_experts_per_tok=8, norm_topk_prob=True,
                   **_attention(16, 4)), 2, 1024,
              "Qwen3-MoE, 4 layers, hidden 1024, 64 experts of 256, top 8, vocabulary 32768, 2 x 1024 tokens"),
        Shape("gpt_oss_wide", "gpt_oss",
              dict(vocab_size=8192, hidden_size=2880, num_hidden_layers=1, intermediate_size=2880,
                   num_local_experts=32, num_experts_per_tok=4, **_attention(64, 8)), 2, 256,
              "gpt-oss, one layer in true width: hidden 2880, 32 experts of 2880, top 4, vocabulary 8192, "
              "2 x 256 tokens"),
        Shape("tiny", "gpt_oss",
              dict(vocab_size=512, hidden_size=64, num_hidden_layers=2, intermediate_size=64,
                   num_local_experts=4, num_experts_per_tok=2, num_attention_heads=4, num_key_value_heads=2,
                   head_dim=16), 2, 64,
              "gpt-oss, tiny: to try the script, not to time anything"),
    ]
}


def make(shape: Shape, directory: Path):
    """Writes the checkpoint (bf16, transformers' own initialisation) and tokens.u16 into `directory`."""
    import numpy
    import torch
    import transformers

    torch.manual_seed(SEED)
    configuration = transformers.AutoConfig.for_model(shape.family, pad_token_id=None, **shape.config)
    model = transformers.AutoModelForCausalLM.from_config(configuration, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    tokens = numpy.random.default_rng(SEED).integers(0, shape.config["vocab_size"], shape.tokens)
    tokens.astype("<u2").tofile(directory / "tokens.u16")
    (directory / "shape.json").write_text(json.dumps(shape.config))


def is_made(shape: Shape, directory: Path):
    try:
        return json.loads((directory / "shape.json").read_text()) == shape.config
    except OSError:
        return False


if __name__ == "__main__":
    import sys

    make(SHAPES[sys.argv[1]], Path(sys.argv[2]))
