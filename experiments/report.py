"""The table of an ablation, and its page.

python -m experiments.report --workdir=runs/first_look           # from the runs: table, page, and files of both in the workdir
python -m experiments.report --experiment=first_look             # from the committed rows, experiments/results/first_look.jsonl
python -m experiments.report --experiment=first_look --format=markdown        # or csv, latex
"""

import pathlib
import sys
from types import ModuleType

import rich.console
import rich.table
from absl import flags

from attention_variants.errors import InputError
from attention_variants.train.program import start
from attention_variants.train.workdir import told_of, write_whole
from experiments import ablation as ablations
from experiments import page, rows, tables, written

FLAGS = flags.FLAGS


def of(module: ModuleType, plan: list, held: list[dict], folder: pathlib.Path | None) -> tuple[list[dict], tables.Results | None]:
    """(rows, table) of the finished runs of a plan, in their folder, and of rows on file in place of others; None of none.

    Without a folder of rows on file alone, whatever runs there are.
    """
    ran = [rows.of(run) if folder else None for run in plan]
    found = [row for run, own in zip(plan, ran, strict=True) if (row := own or rows.holding(held, run))]
    peers = rows.of_peers(module.ABLATION, plan, folder, held) if folder else []
    asked = [(row["cell"], row["seed"]) for row in peers]
    names = [{"peer": name} for name in module.ABLATION.peers]
    found += peers + [row for row in held if row["cell"] in names and (row["cell"], row["seed"]) not in asked]
    if not found:
        return found, None
    seeds = len({run.seed for run in plan})
    results = tables.results(module.ABLATION, found, seeds)
    if not any(ran):
        file = rows.path(module.__name__.rpartition(".")[2]).name
        line = f"Made from the rows in experiments/results/{file}; a launch with --again runs them anew."
        results = results._replace(method=[line, *results.method])
    return found, tables.with_sentences(results, module.ABLATION, plan) if folder else results


def show(name: str, module: ModuleType, plan: list, held: list[dict], folder: pathlib.Path | None) -> None:
    """Prints the table of finished runs and of rows on file; in the folder of the runs also table.* and report.html."""
    found, results = of(module, plan, held, folder)
    console = rich.console.Console(stderr=True, highlight=False, soft_wrap=True)
    if results is None:
        console.print("no run is finished, so there is no table yet")
        return
    written.in_terminal(rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else 160), name, module, results)
    if folder is not None:
        with told_of(folder):
            for suffix, text in written.FORMATS.items():
                write_whole(folder / f"table.{suffix}", text(name, module, results))
            write_whole(folder / "report.html", page.html(name, module, plan, found, results))
        console.print(f"the page: {folder / 'report.html'}", markup=False)


def main() -> None:
    options = FLAGS
    if bool(options.workdir) == bool(options.experiment):
        raise InputError("expected either --workdir=DIR, of a sweep's runs, or --experiment=NAME, of rows on file")
    if options.workdir:
        folder = pathlib.Path(options.workdir).expanduser().absolute()
        found = ablations.of_workdir(folder)
        name, module = ablations.load(found["file"])
        plan = ablations.plan(module.ABLATION, folder, found["seeds"], found["tiny"])
        held = [] if found["tiny"] or found["again"] else rows.committed(name)
        name += ablations.TINY * found["tiny"]
        rows.look(module.ABLATION, plan)
    else:
        name, module = ablations.load(options.experiment)
        held, folder = rows.committed(name), None
        if not held:
            raise InputError(f"there are no rows of {name} in {rows.path(name)}; expected those of --record, or --workdir=DIR")
        plan = ablations.plan(module.ABLATION, pathlib.Path("runs") / name, max(row["seed"] for row in held) + 1)
    if options.format == "terminal":
        return show(name, module, plan, held, folder)
    _, results = of(module, plan, held, folder)
    if results is None:
        raise InputError("no run is finished, so there is no table yet")
    text = written.FORMATS[{"markdown": "md", "latex": "tex"}.get(options.format, options.format)]
    print(text(name, module, results), end="")
    return None


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "The folder of a sweep's runs.")
    flags.DEFINE_string("experiment", None, "The ablation whose rows are on file: its name, or its file.")
    flags.DEFINE_enum("format", "terminal", ["terminal", "markdown", "csv", "latex"], "How the table is printed.")
    start(main)
