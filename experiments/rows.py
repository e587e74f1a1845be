"""Results that outlive the runs: a row for each cell and seed, from finished workdirs, kept in `experiments/results/NAME.jsonl`."""

import contextlib
import functools
import json
import math
import pathlib
import shlex
import time
from collections.abc import Iterable

from attention_variants.errors import InputError
from attention_variants.train import runs
from attention_variants.train.workdir import environment, open_for_reading, write_json, write_whole
from experiments.ablation import ROOT, Ablation, Run, fingerprint

RESULTS = ROOT / "experiments" / "results"
KEPT = ("parameters", "steps", "best_step", "step_seconds", "peak_memory", "tokens_per_second", "seconds", "lanes")
MACHINE = ("python", "packages", "devices", "commit")  # of an environment


def of(run: Run) -> dict | None:
    """The row of a run; None where it is not finished."""
    if not runs.finished(run.workdir):
        return None
    results = runs.results(run.workdir)
    starts = json.loads((run.workdir / "environment.json").read_text())
    # As anybody would run it: no folder of this machine.
    places = {f"{run.workdir.parents[1]}/": f"runs/{run.workdir.parents[1].name}/", f"{ROOT}/": ""}
    command = [functools.reduce(lambda word, place: word.replace(*place), places.items(), word) for word in run.command()[2:]]
    environments = [{name: start[name] for name in MACHINE} for start in starts]
    return {
        "cell": run.cell,
        "seed": run.seed,
        "config": fingerprint(open_for_reading(run.workdir)[1]),
        "metrics": {split: results[split] for split in ("validation", "test") if split in results} | looks(run),
        **{name: results[name] for name in KEPT},
        "environments": [start for i, start in enumerate(environments) if start not in environments[:i]],
        "command": shlex.join(["python", "main.py", *command]),
    }


def look(ablation: Ablation, plan: list[Run]) -> None:
    """Looks at every finished run that has not been looked at, where the ablation says how, and keeps that in its `looks.json`."""
    for run in plan if ablation.look else ():
        if runs.finished(run.workdir) and not looks(run):
            with contextlib.suppress(InputError):  # its checkpoints are gone, say; what it found is still there
                write_json(run.workdir / "looks.json", ablation.look(run.workdir))


def looks(run: Run) -> dict[str, dict[str, float]]:
    """What was seen there, under "looks"; nothing where nobody has looked."""
    file = run.workdir / "looks.json"
    return {"looks": json.loads(file.read_text())} if file.exists() else {}


def of_peers(ablation: Ablation, plan: list[Run], workdir: pathlib.Path, held: list[dict]) -> list[dict]:
    """Rows of the peers for each seed that the baseline is finished with, or on file; what was asked is kept in `peers.jsonl`."""
    file, rows = workdir / "peers.jsonl", []
    kept = read(file)
    for run in plan if ablation.peers else ():
        if run.cell != ablation.cells[0] or not (own := of(run) or holding(held, run)):
            continue
        for name, ask in ablation.peers.items():
            cell = {"peer": name}
            known = (row for row in kept + held if (row["cell"], row["seed"], row["config"]) == (cell, run.seed, own["config"]))
            row = next(known, None)
            if row is None:
                begun = time.monotonic()
                metrics = ask(run.settings())
                unknown = dict.fromkeys(KEPT, math.nan) | {"seconds": time.monotonic() - begun, "lanes": own["lanes"]}
                here = environment()
                machine = {"environments": [{name: here[name] for name in MACHINE}]}
                row = own | unknown | machine | {"cell": cell, "metrics": metrics}
                kept.append(row)
                write(file, kept)
            rows.append(row)
    return rows


def path(name: str) -> pathlib.Path:
    """The file of an ablation's rows."""
    return RESULTS / f"{name}.jsonl"


def committed(name: str) -> list[dict]:
    """The rows on file, none where there is no file."""
    return read(path(name))


def read(file: pathlib.Path) -> list[dict]:
    """The rows of a file, none where there is no file."""
    return [json.loads(line) for line in file.read_text().split("\n") if line] if file.exists() else []


def write(file: pathlib.Path, rows: Iterable[dict]) -> None:
    """A line for each row."""
    write_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def holding(rows: Iterable[dict], run: Run) -> dict | None:
    """The row of this run, if it is of the config that the run has now."""
    same = (row for row in rows if (row["cell"], row["seed"]) == (run.cell, run.seed))
    return next((row for row in same if row["config"] == fingerprint(run.settings())), None)


def record(name: str, plan: list[Run], beside: Iterable[dict] = ()) -> int:
    """Writes the rows of finished runs, and of peers `beside` them, in place of those there were; returns how many there are."""
    old = committed(name)
    rows = [row for run in plan if (row := of(run) or holding(old, run))]
    # What another number of seeds has brought stays.
    planned = [(run.cell, run.seed) for run in plan]
    cells = [run.cell for run in plan]
    rows += [row for row in old if row["cell"] in cells and (row["cell"], row["seed"]) not in planned]
    rows.sort(key=lambda row: (cells.index(row["cell"]), row["seed"]))
    beside = list(beside)
    asked = [(row["cell"], row["seed"]) for row in beside]
    rows += beside + [row for row in old if "peer" in row["cell"] and (row["cell"], row["seed"]) not in asked]
    RESULTS.mkdir(exist_ok=True)
    write(path(name), rows)
    return len(rows)
