"""Results that outlive the runs: a row for each cell and seed, from finished workdirs, kept in `experiments/results/NAME.jsonl`."""

import json
import pathlib
import shlex
from collections.abc import Iterable

from attention_variants.train import runs
from attention_variants.train.workdir import open_for_reading, write_whole
from experiments.ablation import ROOT, Run, fingerprint

RESULTS = ROOT / "experiments" / "results"
KEPT = ("parameters", "steps", "best_step", "step_seconds", "peak_memory", "tokens_per_second", "seconds", "lanes")


def of(run: Run) -> dict | None:
    """The row of a run; None where it is not finished."""
    if not runs.finished(run.workdir):
        return None
    results = runs.results(run.workdir)
    starts = json.loads((run.workdir / "environment.json").read_text())
    environments = [{name: start[name] for name in ("python", "packages", "devices", "commit")} for start in starts]
    return {
        "cell": run.cell,
        "seed": run.seed,
        "config": fingerprint(open_for_reading(run.workdir)[1]),
        "metrics": {split: results[split] for split in ("validation", "test") if split in results},
        **{name: results[name] for name in KEPT},
        "environments": [start for i, start in enumerate(environments) if start not in environments[:i]],
        "command": shlex.join(["python", "main.py", *(word.replace(f"{ROOT}/", "") for word in run.command()[2:])]),
    }


def path(name: str) -> pathlib.Path:
    """The file of an ablation's rows."""
    return RESULTS / f"{name}.jsonl"


def committed(name: str) -> list[dict]:
    """The rows on file, none where there is no file."""
    return [json.loads(line) for line in path(name).read_text().split("\n") if line] if path(name).exists() else []


def holding(rows: Iterable[dict], run: Run) -> dict | None:
    """The row of this run, if it is of the config that the run has now."""
    same = (row for row in rows if (row["cell"], row["seed"]) == (run.cell, run.seed))
    return next((row for row in same if row["config"] == fingerprint(run.settings())), None)


def record(name: str, plan: list[Run]) -> int:
    """Writes the rows of finished runs in place of those there were; returns how many runs have one now."""
    old = committed(name)
    rows = [row for run in plan if (row := of(run) or holding(old, run))]
    # What another number of seeds has brought stays.
    planned = [(run.cell, run.seed) for run in plan]
    cells = [run.cell for run in plan]
    rows += [row for row in old if row["cell"] in cells and (row["cell"], row["seed"]) not in planned]
    rows.sort(key=lambda row: (cells.index(row["cell"]), row["seed"]))
    RESULTS.mkdir(exist_ok=True)
    write_whole(path(name), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)
