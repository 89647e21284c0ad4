#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The experts' MLP forward and backward on one core: Tessera beside torch._grouped_mm with its backward, in turns.

Both have gpt-oss's experts (bf16, biases, clamped SwiGLU). Tessera's weight gradients are f32, torch's bf16.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tokens", default="32,128,512", help="rows of each expert (%(default)s)")
    add("--experts", type=int, default=16)
    add("--hidden", type=int, default=1024)
    add("--intermediate", type=int, default=1024)
    add("--rounds", type=int, default=5, help="each times both programs (%(default)s)")
    add("--repeat", type=int, default=5, help="times in a round; the median counts (%(default)s)")
    add("--tessera", default=ROOT / "build/release/apps/tessera")
    add("--output", type=Path, help="JSON of all rounds")
    add("--torch", action="store_true", help=argparse.SUPPRESS)  # this process is torch's turn
    return parser.parse_args()


def flops(tokens, options):
    """Of the forward products; backward has twice as many."""
    return 2.0 * options.experts * tokens * 3 * options.hidden * options.intermediate


def time_torch(options):
    """Prints {"tokens": {"forward": GFLOP/s, "both": ...}}."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    e, h, i = options.experts, options.hidden, options.intermediate

    def parameter(*shape):
        return (0.02 * torch.randn(*shape)).to(torch.bfloat16).requires_grad_()

    gate_up, gate_up_bias = parameter(e, h, 2 * i), parameter(e, 2 * i)
    down, down_bias = parameter(e, i, h), parameter(e, h)

    def mlp(rows, offsets, expert):
        hidden = torch._grouped_mm(rows, gate_up, offs=offsets) + gate_up_bias[expert]
        gate = hidden[..., ::2].clamp(max=7.0)
        up = hidden[..., 1::2].clamp(-7.0, 7.0)
        activated = (up + 1) * gate * torch.sigmoid(1.702 * gate)
        return torch._grouped_mm(activated, down, offs=offsets) + down_bias[expert]

    rates = {}
    for tokens in map(int, options.tokens.split(",")):
        rows = torch.randn(e * tokens, h).to(torch.bfloat16).requires_grad_()
        doutputs = torch.randn(e * tokens, h).to(torch.bfloat16)
        offsets = torch.arange(1, e + 1, dtype=torch.int32) * tokens
        expert = torch.arange(e).repeat_interleave(tokens)
        forward, both = [], []
        for _ in range(options.repeat + 1):
            for each in (gate_up, gate_up_bias, down, down_bias, rows):
                each.grad = None
            start = time.perf_counter()
            outputs = mlp(rows, offsets, expert)
            forward.append(time.perf_counter() - start)
            outputs.backward(doutputs)
            both.append(time.perf_counter() - start)
        work = flops(tokens, options) / 1e9
        rates[tokens] = {"forward": work / statistics.median(forward[1:]),
                         "both": 3 * work / statistics.median(both[1:])}
    print(json.dumps(rates))


def turn_of_torch(options, core):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "4294967296",
                   "MALLOC_TRIM_THRESHOLD_": "17179869184"}
    result = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--torch"], env=environment, text=True,
                            stdout=subprocess.PIPE, check=True, preexec_fn=lambda: os.sched_setaffinity(0, [core]))
    return {int(tokens): rates for tokens, rates in json.loads(result.stdout.splitlines()[-1]).items()}


def turn_of_tessera(options, core):
    """Rates like torch's, with the share of the roof that binds in the same run."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "bench.json"
        subprocess.run([str(options.tessera), "bench", "--only", "experts", "--dtype", "bf16", "--expert-tokens",
                        options.tokens, "--experts", str(options.experts), "--hidden", str(options.hidden),
                        "--intermediate", str(options.intermediate), "--repeat", str(options.repeat), "--json",
                        str(file)], env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, check=True,
                       preexec_fn=lambda: os.sched_setaffinity(0, [core]))
        rows = json.loads(file.read_text())["experts"]
    return {row["tokens"]: {"forward": row["forward"]["gflops"], "both": row["both"]["gflops"],
                            "share": row["both"]["share_of_roof"], "roof": row["both"]["roof"]} for row in rows}


def main():
    options = arguments()
    if options.torch:
        return time_torch(options)
    core = sorted(os.sched_getaffinity(0))[-1]
    rounds = []
    for i in range(options.rounds):
        rounds.append({"torch": turn_of_torch(options, core), "tessera": turn_of_tessera(options, core)})
        print(f"round {i + 1} of {options.rounds}", file=sys.stderr, flush=True)
    if options.output:
        options.output.write_text(json.dumps(rounds, indent=1) + "\n")

    def median(program, tokens, key):
        return statistics.median(each[program][tokens][key] for each in rounds)

    print(f"`share/bench/expert_mlp.py {' '.join(sys.argv[1:])}`: {options.experts} experts, hidden {options.hidden}, "
          f"intermediate {options.intermediate}, bf16, one core, GFLOP/s, median of {options.rounds} rounds\n")
    print("| tokens per expert | torch forward | Tessera forward | ratio | torch both | Tessera both | ratio | "
          "Tessera of its roof | roof |\n|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    for tokens in map(int, options.tokens.split(",")):
        cells = []
        for key in ("forward", "both"):
            peer, ours = median("torch", tokens, key), median("tessera", tokens, key)
            cells += [f"{peer:.0f}", f"{ours:.0f}", f"{ours / peer:.2f}"]
        print(f"| {tokens} | {' | '.join(cells)} | {100 * median('tessera', tokens, 'share'):.0f} % | "
              f"{rounds[-1]['tessera'][tokens]['roof']} |")


main()
