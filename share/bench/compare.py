#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times a training step of Tessera and of what a user would run instead, one after the other in each round, on
the same checkpoint and tokens; compares the losses; writes results.json, report.md and a picture per shape."""
import argparse
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import programs
import report
import shapes

ROOT = Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--shapes", default="gpt_oss,qwen3_moe,gpt_oss_wide", help=f"of {', '.join(shapes.SHAPES)}")
    add("--programs", default=",".join(programs.PROGRAMS), help=f"of {', '.join(programs.PROGRAMS)}")
    add("--rounds", type=int, default=3, help="each starts every program once (%(default)s)")
    add("--steps", type=int, default=5, help="of one start; the first is left out of the times (%(default)s)")
    add("--ranks", type=int, default=2, help="one core each; transformers: one process, as many threads (%(default)s)")
    add("--expert", type=int, help="Tessera's expert parallelism (default: as many as ranks)")
    add("--output", type=Path, default=ROOT / "build/compare", help="directory of results (%(default)s)")
    add("--models", type=Path, help="directory of checkpoints (default: OUTPUT/models)")
    add("--make", action="store_true", help="make the checkpoints anew (otherwise only those not there)")
    add("--tessera", default=ROOT / "build/release/apps/tessera", help="the program (%(default)s)")
    add("--mpirun", default="mpirun --bind-to core --map-by core", help="start of ranks (%(default)s)")
    add("--timeout", type=float, default=1800, help="seconds of one start (%(default)s)")
    add("--report-only", action="store_true", help="tables and pictures again, from OUTPUT/results.json")
    options = parser.parse_args()
    options.expert = options.expert or options.ranks
    options.models = options.models or options.output / "models"
    for name, known in ((options.shapes, shapes.SHAPES), (options.programs, programs.PROGRAMS)):
        unknown = set(name.split(",")) - set(known)
        if unknown:
            parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if len(programs.processors()) < options.ranks and not options.report_only:
        parser.error(f"--ranks {options.ranks} needs as many cores; there are {len(programs.processors())}")
    return options


def describe(options):
    """What ran on what: Markdown lines."""
    model, flags = platform.machine(), ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        model = value.strip() if key.strip() == "model name" else model
        flags = value if key.strip() == "flags" else flags
    has = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f" {name}" in flags]
    versions = []
    if shutil.which(str(options.tessera)):
        versions.append(subprocess.run([str(options.tessera), "--version"], capture_output=True, text=True).stdout.strip())
    for package in ("torch", "transformers", "deepspeed"):
        if importlib.util.find_spec(package):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return [f"{model} ({', '.join(has)}), {options.ranks} cores; {', '.join(versions)}; AdamW with learning "
            f"rate {programs.LEARNING_RATE}, betas 0.9 and 0.999, eps 1e-8, no weight decay; "
            f"{options.rounds} rounds of {options.steps} steps.", "", f"`{' '.join(['share/bench/compare.py', *sys.argv[1:]])}`"]


def make_checkpoints(names, options):
    for name in names:
        directory = options.models / name
        if options.make or not shapes.is_made(shapes.SHAPES[name], directory):
            directory.mkdir(parents=True, exist_ok=True)
            print(f"{name}: making {directory}", flush=True)
            # A process of its own: what the library keeps must not stay while programs are timed.
            subprocess.run([sys.executable, shapes.__file__, name, str(directory)], check=True)


def run_all(options, results):
    """Runs everything, and writes what there is after each run, since all of it takes long."""
    runs = []
    chosen = [programs.PROGRAMS[name] for name in options.programs.split(",")]
    for name in options.shapes.split(","):
        shape = shapes.SHAPES[name]
        for i in range(options.rounds):
            for program in chosen:
                reason = programs.missing(program, options)
                if reason:
                    run = programs.Run(name, program.name, i, 0, error=reason)
                else:
                    run = programs.start(program, shape, options.models / name,
                                         options.output / "runs" / f"{name}-{program.name}-{i + 1}", options)
                run.round = i + 1
                runs.append(run)
                saved = {"description": describe(options), "runs": [asdict(each) for each in runs]}
                results.write_text(json.dumps(saved, indent=1) + "\n")
                times = " ".join(f"{step['step_s']:.2f}" for step in run.steps)
                print(f"{name}, round {i + 1}, {program.name}: {run.error or times + ' s'}", flush=True)


def main():
    options = arguments()
    results = options.output / "results.json"
    if not options.report_only:
        options.output.mkdir(parents=True, exist_ok=True)
        make_checkpoints(options.shapes.split(","), options)
        run_all(options, results)
    saved = json.loads(results.read_text())
    runs = [programs.Run(**run) for run in saved["runs"]]
    text = report.markdown(runs, saved["description"])
    (options.output / "report.md").write_text(text + "\n")
    print(text)
    for file in report.draw(runs, options.output):
        print(f"picture: {file}")
    if any(report.disagreements(each) for each in report.summarize(runs).values()):
        sys.exit("losses differ or are not there; see the report")


main()
