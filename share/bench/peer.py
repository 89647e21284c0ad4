# SPDX-License-Identifier: Apache-2.0
"""One rank of a peer: trains on the same sequences in each step and writes a JSON line per step (rank 0).

Started by compare.py, which sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Binds itself to the processors
that it is given before any library starts threads.
"""
import argparse
import json
import os
import time
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=["transformers", "ep_fsdp2", "zero3", "fsdp2"])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--processors", required=True, help="of this rank, comma-separated")
    parser.add_argument("--attention", required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    return parser.parse_args()


options = arguments()
processors = [int(each) for each in options.processors.split(",")]
os.sched_setaffinity(0, processors)

import numpy  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import transformers  # noqa: E402

RANK = int(os.environ["RANK"])
WORLD = int(os.environ["WORLD_SIZE"])
ADAM = dict(lr=options.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


def load(dtype, **extra):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.model, dtype=dtype, attn_implementation=options.attention, experts_implementation="grouped_mm", **extra)
    model.train()
    return model


def plain_step(model, optimizer, batch, clips=True):
    """Forward, backward, clipping, update; returns the mean loss of this rank's tokens."""
    optimizer.zero_grad()
    loss = model(input_ids=batch, labels=batch, use_cache=False).loss
    loss.backward()
    if clips:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


def start_transformers():
    model = load(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **ADAM)
    return lambda batch: plain_step(model, optimizer, batch)


def start_ep_fsdp2():
    from transformers.distributed.configuration_utils import DistributedConfig

    dist.init_process_group("gloo")
    model = load(torch.bfloat16, distributed_config=DistributedConfig(fsdp_size=WORLD, ep_size=WORLD))
    optimizer = torch.optim.AdamW(model.parameters(), **ADAM)
    # Its parameters lie on different meshes, whose norms clip_grad_norm_ does not add up.
    return lambda batch: plain_step(model, optimizer, batch, clips=False)


def start_zero3():
    import deepspeed

    deepspeed.init_distributed("gloo")
    config = {
        "train_micro_batch_size_per_gpu": len(batch_of_rank()),
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 3, "overlap_comm": True, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
        "optimizer": {"type": "AdamW", "params": {**ADAM, "torch_adam": True}},
        "gradient_clipping": 1.0,
    }
    engine, *_ = deepspeed.initialize(model=load(torch.bfloat16), config=config)

    def step(batch):
        loss = engine(input_ids=batch, labels=batch, use_cache=False).loss
        engine.backward(loss)
        engine.step()
        return loss

    return step


def start_fsdp2():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (WORLD,))
    model = load(torch.float32)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **ADAM)
    return lambda batch: plain_step(model, optimizer, batch)


def batch_of_rank():
    """This rank's sequences. transformers shifts the labels itself: S tokens give S - 1 targets."""
    tokens = numpy.fromfile(options.model / "tokens.u16", dtype="<u2").astype("int64")
    return torch.from_numpy(tokens).view(-1, options.length).chunk(WORLD)[RANK]


def mean_over_ranks(loss):
    value = loss.detach().to(torch.float64).clone()
    if WORLD > 1:
        dist.all_reduce(value)
    return float(value) / WORLD


def main():
    torch.set_num_threads(len(processors))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    step = {"transformers": start_transformers, "ep_fsdp2": start_ep_fsdp2, "zero3": start_zero3,
            "fsdp2": start_fsdp2}[options.program]()
    batch = batch_of_rank()
    with open(options.metrics if RANK == 0 else os.devnull, "w") as file:
        for i in range(options.steps):
            start = time.perf_counter()
            loss = step(batch)
            seconds = time.perf_counter() - start
            file.write(json.dumps({"step": i + 1, "loss": mean_over_ranks(loss), "step_s": seconds}) + "\n")
            file.flush()


main()
