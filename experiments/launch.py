"""Runs an ablation: every cell with every seed, and the table and the page at the end.

    python -m experiments.launch --experiment=experiments/first_look.py --workdir=runs/first_look --launcher=lanes
    python -m experiments.launch --experiment=experiments/first_look.py --workdir=runs/look --tiny --dry_run

--launcher=local   a pool of processes, one on each accelerator, or --jobs of them on the CPU
--launcher=lanes   runs that differ in hypers and seeds alone train together, in one compiled program; --jobs of them at most
--launcher=slurm   a job array; --partition, --gpus, --cpus, --memory, --minutes; time-outs and preemption requeue, runs resume
--launcher=commands   prints one complete command for each run, for any other scheduler

The same command again goes on: what is DONE in the workdir, or is among the rows in experiments/results, is not run again.
"""

import contextlib
import pathlib
import sys

import rich.console
import rich.table
from absl import flags

from attention_variants.errors import InputError
from attention_variants.train import cli, runs
from attention_variants.train import workdir as workdirs
from attention_variants.train.program import start
from attention_variants.train.workdir import told_of, write_json
from experiments import ablation as ablations
from experiments import launchers, rows, sweep
from experiments.board import Board, in_words

FLAGS = flags.FLAGS
flags.DEFINE_string("experiment", None, "The ablation: its file, experiments/NAME.py.")
flags.DEFINE_string("workdir", None, "The folder of all its runs, a workdir for each in it.")
flags.DEFINE_integer("seeds", 5, "How many seeds each cell is run with, from 0 on.")
flags.DEFINE_string("launcher", "local", "How: local, lanes, slurm or commands.")
flags.DEFINE_bool("tiny", False, "Every cell shrunk to a look in seconds: whether it runs, not what it shows.")
flags.DEFINE_bool("dry_run", False, "Lists the runs and what they would cost; starts nothing.")
flags.DEFINE_bool("record", False, "Keeps a row of every finished run in experiments/results/NAME.jsonl.")
flags.DEFINE_bool("again", False, "Runs also what experiments/results holds already.")
flags.DEFINE_integer(
    "jobs",
    0,
    "How many at most at once. local: processes; 0 is one on each accelerator, or for every two cores. "
    "lanes: runs in one program; 0 is all. slurm: jobs; 0 is 256.",
)
flags.DEFINE_string("partition", None, "slurm: the partition; by default the cluster's own.")
flags.DEFINE_integer("gpus", 0, "slurm: GPUs of a run.")
flags.DEFINE_integer("cpus", 2, "slurm: CPU cores of a run.")
flags.DEFINE_float("memory", 8.0, "slurm: memory of a run in GB.")
flags.DEFINE_integer("minutes", 240, "slurm: time limit of a job; a run that needs longer is requeued and goes on.")


def main() -> None:
    cli.prepare()
    options = FLAGS
    for name in ("experiment", "workdir"):
        if not getattr(options, name):
            raise InputError(f"--{name} is missing; expected --experiment=experiments/NAME.py and --workdir=runs/NAME")
    if options.record and options.tiny:
        raise InputError("--record with --tiny would keep numbers that show nothing; expected one of them")
    if options.jobs < 0:
        raise InputError(f"--jobs is {options.jobs}; expected 0 for the default, or how many")
    launcher = launchers.load(options.launcher)
    if not options.dry_run:
        getattr(launcher, "check", lambda options: None)(options)
    name, module = ablations.load(options.experiment)
    ablation = module.ABLATION
    workdir = pathlib.Path(options.workdir).expanduser().absolute()
    check(workdir, name, options.tiny)
    plan = ablations.plan(ablation, workdir, options.seeds, options.tiny)
    for run in plan:
        if (run.workdir / "config.json").exists():  # of an ablation that was another one then, say
            workdirs.check(run.workdir, run.settings())
    held = [] if options.tiny or options.again else rows.committed(name)
    console = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)
    if options.dry_run:
        return listed(ablation, plan, held)
    options.workdir, failures = str(workdir), []
    with contextlib.ExitStack() as opened:
        with told_of(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            opened.enter_context(workdirs.alone(workdir))
            launched = {"experiment": name, "file": module.__file__, "tiny": options.tiny, "seeds": options.seeds}
            write_json(workdir / "experiment.json", launched | {"again": options.again})
        on_file = [run for run in plan if not runs.finished(run.workdir) and rows.holding(held, run)]
        shown = [run for run in plan if run not in on_file]
        waiting = [run for run in shown if not runs.finished(run.workdir)]
        words = f", {len(on_file)} of those on file in experiments/results (--again runs them anew)" * bool(on_file)
        console.print(f"{name}: {len(plan)} runs, {len(plan) - len(waiting)} of them done already{words}", markup=False)
        if waiting:
            with Board(ablation, shown, console) as board:
                failures = launcher.launch(waiting, board, options)
    if failures is None:  # what was launched runs elsewhere
        return None
    for failure in failures:
        console.print(f"\nfailed: {failure.run.name}: {failure.reason}", markup=False)
    rows.look(ablation, plan)
    if options.record:
        kept = rows.record(name, plan, rows.of_peers(ablation, plan, workdir, held))
        console.print(f"{kept} rows in {rows.path(name)}", markup=False)
    from experiments import report  # pandas and scipy take a second to import, and no run needs them

    report.show(name + ablations.TINY * options.tiny, module, plan, held, folder=workdir)
    if failures:
        sys.exit(1)
    return None


def check(workdir: pathlib.Path, name: str, tiny: bool) -> None:
    """Refuses a folder of something else. Nothing is written."""
    with told_of(workdir):
        if workdirs.unused(workdir):
            return
        found = ablations.of_workdir(workdir)
    if (found["experiment"], found["tiny"]) != (name, tiny):
        theirs, ours = found["experiment"] + ablations.TINY * found["tiny"], name + ablations.TINY * tiny
        raise InputError(f"{workdir} holds the runs of {theirs}, not of {ours}; expected another --workdir")


def listed(ablation, plan: list, held: list[dict]) -> None:
    """Prints a line for each cell, and what is still to be paid for, judged by runs that are finished: the cell's own, else any."""
    spent = {}
    for run in plan:
        if runs.finished(run.workdir):
            spent[run.workdir] = runs.results(run.workdir)["seconds"]
        elif row := rows.holding(held, run):
            spent[run.workdir] = row["seconds"]
    table = rich.table.Table("cell", *(rich.table.Column(c, justify="right") for c in ("runs", "done", "still to pay")), box=None)
    total, unknown = 0.0, False
    for cell in ablation.cells:
        own = [run.workdir for run in plan if run.cell == cell]
        paid = [spent[workdir] for workdir in own if workdir in spent] or list(spent.values())
        left = len(own) - sum(workdir in spent for workdir in own)
        cost = left * sum(paid) / len(paid) if paid else None
        total, unknown = total + (cost or 0.0), unknown or (left and cost is None)
        words = "" if not left else "unknown" if cost is None else in_words(cost)
        table.add_row(sweep.name(cell), str(len(own)), str(len(own) - left), words)
    console = rich.console.Console(highlight=False, soft_wrap=True)
    console.print(table)
    cost = "no finished run tells what one costs" if unknown else f"{in_words(total)} of computing left, as finished runs tell"
    console.print(f"{len(ablation.cells)} cells, {len(plan)} runs, {len(spent)} done; {cost}")


if __name__ == "__main__":
    start(main)
