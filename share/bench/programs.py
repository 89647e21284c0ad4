# SPDX-License-Identifier: Apache-2.0
"""How each program is started, watched and stopped. One run is one start of a program on one shape."""
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
LEARNING_RATE = 1e-4
# Freed memory stays with the process instead of being mapped anew for each temporary tensor.
PEER_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184",
                    "OMP_PROC_BIND": "true", "OMP_PLACES": "cores", "DS_ACCELERATOR": "cpu",
                    "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
MIN_AVAILABLE_MIB = 700  # below it a run is stopped before the system stops something else


@dataclass(frozen=True)
class Program:
    name: str
    title: str
    precision: str
    has_master: bool  # f32 weights behind the bf16 ones
    packages: tuple = ()


PROGRAMS = {
    program.name: program
    for program in [
        Program("tessera", "Tessera, EP x ZeRO-3", "bf16, f32 master, clipped", True),
        Program("tessera_one", "Tessera, one rank", "bf16, f32 master, clipped", True),
        Program("transformers", "transformers, one process", "bf16, no master, clipped, fused AdamW", False,
                ("torch", "transformers")),
        Program("ep_fsdp2", "transformers' EP + FSDP2", "bf16, no master, not clipped", False,
                ("torch", "transformers")),
        Program("zero3", "DeepSpeed ZeRO-3", "bf16, f32 master, clipped", True,
                ("torch", "transformers", "deepspeed")),
        Program("fsdp2", "PyTorch FSDP2", "bf16 compute, f32 weights, clipped, fused AdamW", True,
                ("torch", "transformers")),
    ]
}


@dataclass
class Run:
    shape: str
    program: str
    round: int
    ranks: int
    steps: list = field(default_factory=list)  # {"step", "loss", "step_s"} each
    start_s: float = 0.0  # from the start of the process to the begin of the first step
    peak_mib: list = field(default_factory=list)  # resident, of each process, largest first
    error: str = ""


def missing(program: Program, options):
    """Why the program cannot run here, or nothing."""
    if program.name.startswith("tessera"):
        needed = [options.tessera, options.mpirun.split()[0]]
        absent = [each for each in needed if not shutil.which(str(each))]
        return f"{absent[0]} is not there" if absent else ""
    absent = [each for each in program.packages if importlib.util.find_spec(each) is None]
    return f"package {', '.join(absent)} is not installed" if absent else ""


def processors():
    """One logical processor of each core that this process may use."""
    chosen, seen = [], set()
    for each in sorted(os.sched_getaffinity(0)):
        path = Path(f"/sys/devices/system/cpu/cpu{each}/topology/thread_siblings_list")
        siblings = path.read_text() if path.exists() else str(each)
        if siblings not in seen:
            chosen.append(each)
        seen.add(siblings)
    return chosen


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _peer_commands(program, shape, model, metrics, options):
    cores = processors()[:options.ranks]
    groups = [cores] if program.name == "transformers" else [[core] for core in cores]
    port = _free_port()
    for rank, group in enumerate(groups):
        environment = {**os.environ, **PEER_ENVIRONMENT, "OMP_NUM_THREADS": str(len(group)), "RANK": str(rank),
                       "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(groups)), "LOCAL_WORLD_SIZE": str(len(groups)),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        yield [sys.executable, str(HERE / "peer.py"), program.name, "--model", str(model), "--length",
               str(shape.length), "--steps", str(options.steps), "--processors", ",".join(map(str, group)),
               # gpt-oss has sinks, which sdpa does not know.
               "--attention", "eager" if shape.family == "gpt_oss" else "sdpa",
               "--learning-rate", str(LEARNING_RATE), "--metrics", str(metrics)], environment


def _tessera_command(program, shape, model, directory, options):
    ranks = 1 if program.name == "tessera_one" else options.ranks
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if os.geteuid() == 0:
        environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return [*options.mpirun.split(), "-n", str(ranks), str(options.tessera), "train", str(model),
            "--data", str(model / "tokens.u16"), "--sequence-length", str(shape.length),
            "--batch", str(shape.sequences), "--steps", str(options.steps), "--dtype", "bf16",
            "--expert", str(min(options.expert, ranks)), "--lr", str(LEARNING_RATE), "--schedule", "constant",
            "--betas", "0.9,0.999", "--eps", "1e-8", "--weight-decay", "0", "--clip", "1.0",
            "--aux-loss-coef", "0", "--no-save", "--output", str(directory)], environment


def _cache_files(model):
    """All programs find the checkpoint in the page cache, not all but the first."""
    for file in model.iterdir():
        with open(file, "rb") as opened:
            while opened.read(1 << 24):
                pass


def start(program, shape, model, directory, options):
    """Runs the program once; never raises for what the program does."""
    directory.mkdir(parents=True, exist_ok=True)
    _cache_files(model)
    metrics = directory / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    if program.name.startswith("tessera"):
        commands = [_tessera_command(program, shape, model, directory, options)]
    else:
        commands = list(_peer_commands(program, shape, model, metrics, options))
    run = Run(shape.name, program.name, 0, 1 if program.name in ("transformers", "tessera_one") else options.ranks)
    with open(directory / "log", "w") as log:
        begin = time.time()
        children = [subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT,
                                     start_new_session=True) for command, environment in commands]
        try:
            _watch(children, metrics, begin, run, options)
        finally:
            for child in children:
                _stop(child)
    if metrics.exists():
        run.steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    codes = [child.returncode for child in children]
    if not run.error and (any(codes) or len(run.steps) < options.steps):
        lines = [line for line in (directory / "log").read_text().splitlines() if line.strip()]
        run.error = f"exit codes {codes}: {lines[-1] if lines else 'no output'} ({directory / 'log'})"
    return run


def _watch(children, metrics, begin, run, options):
    peaks = {}
    while any(child.poll() is None for child in children):
        time.sleep(0.05)
        if not run.start_s:
            run.start_s = _first_step_start(metrics, begin)
        _note_peaks(children, peaks)
        if any(child.poll() for child in children):
            time.sleep(2)  # the others fail by themselves, or wait for ever
            break
        if time.time() - begin > options.timeout:
            run.error = f"stopped after {options.timeout} s"
            break
        if _available_mib() < MIN_AVAILABLE_MIB:
            run.error = f"stopped: less than {MIN_AVAILABLE_MIB} MiB of memory were left"
            break
    run.peak_mib = sorted((kib // 1024 for kib in peaks.values()), reverse=True)[:run.ranks]


def _first_step_start(metrics, begin):
    """Seconds to the begin of the first step, seen from its line; 0 before there is one."""
    try:
        line = metrics.read_text().splitlines()[0]
        return time.time() - begin - json.loads(line)["step_s"]
    except (OSError, IndexError, ValueError):
        return 0.0


def _note_peaks(children, peaks):
    """Largest resident memory so far of each process that the children started."""
    waiting = [child.pid for child in children]
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peaks[pid] = int(line.split()[1])


def _available_mib():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return MIN_AVAILABLE_MIB


def _stop(child):
    """The whole process group: each child leads one of its own."""
    for sent in (signal.SIGTERM, signal.SIGKILL):  # mpirun passes the first one on
        if child.poll() is None:
            os.killpg(child.pid, sent)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                pass
    child.wait()
