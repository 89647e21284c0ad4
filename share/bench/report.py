# SPDX-License-Identifier: Apache-2.0
"""From runs to tables (Markdown), a picture and the verdict whether the losses agree."""
import shutil
import statistics
import subprocess

from programs import PROGRAMS
from shapes import SHAPES

# Of the loss against Tessera's, relative. The first step is the forward pass alone, in bf16. Later steps
# follow the updates, which weights without f32 master round away in part.
FIRST_TOLERANCE = 0.003
MASTER_TOLERANCE = 0.01
NO_MASTER_TOLERANCE = 0.05
MEMORISED = 0.1  # of the first loss: below it the batch is known by heart, and what is left of the loss is rounding


class Summary:
    """All rounds of one program on one shape."""

    def __init__(self, shape, program, runs):
        self.shape = SHAPES[shape]
        self.program = PROGRAMS[program]
        self.errors = [run.error for run in runs if run.error]
        done = [run for run in runs if not run.error]
        self.is_done = bool(done)
        if not done:
            return
        # The first step allocates, compiles and fills caches.
        seconds = [step["step_s"] for run in done for step in (run.steps[1:] or run.steps)]
        self.median = statistics.median(seconds)
        self.min = min(seconds)
        self.start = min(run.start_s for run in done)  # files read before, kernels compiled before
        self.peak = max(run.peak_mib[0] for run in done)
        self.total = max(sum(run.peak_mib) for run in done)
        self.ranks = done[0].ranks
        self.losses = [step["loss"] for step in done[-1].steps]


def summarize(runs):
    """{shape: {program: Summary}} in the order of the runs."""
    grouped = {}
    for run in runs:
        grouped.setdefault(run.shape, {}).setdefault(run.program, []).append(run)
    return {shape: {program: Summary(shape, program, each) for program, each in programs.items()}
            for shape, programs in grouped.items()}


def disagreements(programs):
    """Sentences about losses that differ from Tessera's by more than the tolerance."""
    reference = programs.get("tessera") or programs.get("tessera_one")
    if not reference or not reference.is_done:
        return ["no losses of Tessera to compare with"]
    if sum(each.is_done for each in programs.values()) < 2:
        return ["no losses of another program to compare with"]
    found = []
    for summary in programs.values():
        if not summary.is_done or summary is reference:
            continue
        for step, (loss, expected) in enumerate(zip(summary.losses, reference.losses), 1):
            later = MASTER_TOLERANCE if summary.program.has_master else NO_MASTER_TOLERANCE
            tolerance = FIRST_TOLERANCE if step == 1 else later
            if expected < MEMORISED * reference.losses[0]:
                break
            if not abs(loss - expected) <= tolerance * expected:
                found.append(f"{summary.program.title}: loss {loss:.4f} at step {step}, Tessera {expected:.4f} "
                             f"(tolerance {100 * tolerance:.1f} %)")
    return found


def _time_table(programs):
    reference = programs.get("tessera")
    has_reference = reference is not None and reference.is_done
    lines = ["| program | precision | ranks | s per step, median | min | tokens/s | x Tessera's time | "
             "peak MiB of a rank | of all | start to first step [s] | x Tessera's |", "|---|---|" + "---:|" * 9]
    for each in programs.values():
        title = f"| {each.program.title} | {each.program.precision} |"
        if not each.is_done:
            lines.append(f"{title} not run: {each.errors[0]} |" + " |" * 8)
            continue
        step = f"{each.median / reference.median:.2f}" if has_reference else ""
        start = f"{each.start / reference.start:.1f}" if has_reference else ""
        lines.append(f"{title} {each.ranks} | {each.median:.3f} | {each.min:.3f} | "
                     f"{each.shape.tokens / each.median:.0f} | {step} | {each.peak:,} | {each.total:,} | "
                     f"{each.start:.2f} | {start} |")
    return lines


def _scaling(programs):
    one, all_ranks = programs.get("tessera_one"), programs.get("tessera")
    if not one or not all_ranks or not (one.is_done and all_ranks.is_done):
        return []
    return [f"Strong scaling of Tessera's step, 1 to {all_ranks.ranks} ranks: "
            f"{one.median / all_ranks.median:.2f} times faster (medians; minima {one.min / all_ranks.min:.2f}).", ""]


def _loss_table(programs):
    done = [each for each in programs.values() if each.is_done]
    if not done:
        return []
    lines = ["| step | " + " | ".join(each.program.title for each in done) + " |", "|---:|" + "---:|" * len(done)]
    for step in range(max(len(each.losses) for each in done)):
        cells = [f"{each.losses[step]:.4f}" if step < len(each.losses) else "" for each in done]
        lines.append(f"| {step + 1} | " + " | ".join(cells) + " |")
    return lines


def markdown(runs, description):
    lines = [*description, ""]
    for shape, programs in summarize(runs).items():
        lines += [f"### {SHAPES[shape].title}", "", *_time_table(programs), "", *_scaling(programs)]
        found = disagreements(programs)
        lines += [f"Losses agree (relative to Tessera's: first step {100 * FIRST_TOLERANCE:.1f} %, later "
                  f"{100 * MASTER_TOLERANCE:.0f} % with f32 master, {100 * NO_MASTER_TOLERANCE:.0f} % without, down to "
                  f"{100 * MEMORISED:.0f} % of the first loss)."]\
            if not found else ["**Losses differ or are not there:**", *[f"- {each}" for each in found]]
        errors = [f"- {each.program.title}: {error}" for each in programs.values() for error in each.errors]
        lines += ["", *_loss_table(programs), ""] + (["Did not run:", *errors, ""] if errors else [])
    return "\n".join(lines)


def _quoted(text):
    return '"' + text.replace('"', "") + '"'


def draw(runs, directory):
    """<shape>.png by gnuplot: seconds per step as bars, and the loss curves. Returns the files."""
    if not shutil.which("gnuplot"):
        return []
    files = []
    for shape, programs in summarize(runs).items():
        done = [each for each in programs.values() if each.is_done]
        if not done:
            continue
        bars = "\n".join(f"{i} {each.median} {_quoted(each.program.title)}" for i, each in enumerate(done))
        curves = "\n\n\n".join(
            "\n".join(f"{i} {loss}" for i, loss in enumerate(each.losses, 1)) for each in done)
        plots = ", ".join(f"$curves index {i} with linespoints title {_quoted(each.program.title)}"
                          for i, each in enumerate(done))
        file = directory / f"{shape}.png"
        script = f"""
set terminal pngcairo size 1400,560 noenhanced
set output {_quoted(str(file))}
$bars << end
{bars}
end
$curves << end
{curves}
end
set multiplot layout 1,2 title {_quoted(SHAPES[shape].title)}
set style fill solid 0.7
set boxwidth 0.7
set yrange [0:*]
set ylabel "s per step (median)"
set xtics rotate by -25
plot $bars using 1:2:xtic(3) with boxes notitle, '' using 1:2:(sprintf("%.2f", $2)) with labels offset 0,0.6 notitle
unset xtics
set xtics
set yrange [*:*]
set ylabel "loss"
set xlabel "step"
plot {plots}
unset multiplot
"""
        result = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True)
        if result.returncode == 0:
            files.append(file)
        else:
            print(result.stderr)
    return files
