"""From rows to a table that can be believed: means with intervals, paired differences, corrected p values, what is missing."""

import math
import re
from typing import NamedTuple

import pandas as pd

from attention_variants.train import runs
from attention_variants.train.runs import metric_of
from experiments import sweep
from experiments.ablation import Ablation, Run
from experiments.statistics import BOOTSTRAP_FROM, LEVEL, POWER, detectable, holm, mean, paired, resampled

COSTS = ("parameters", "step_seconds", "peak_memory", "seconds")
COLUMNS = [
    "cell", "seeds", "missing", "mean", "low", "high",
    "pairs", "difference", "difference_low", "difference_high", "p", "p_holm", "paper", *COSTS,
]  # fmt: skip


class Results(NamedTuple):
    """What an ablation showed.

    Attributes:
      seeds: a line for each run: cell, seed, value, and what it cost. cells: a line for each cell, numbers not rounded.
      notes: what a reader must know first, such as missing seeds and mixed versions. method: how the numbers are made.
    """

    seeds: pd.DataFrame
    cells: pd.DataFrame
    notes: list[str]
    method: list[str]


def results(ablation: Ablation, rows: list[dict], planned: int) -> Results:
    """The table of an ablation from its rows.

    Args:
      planned: how many seeds each cell is to have; a cell with fewer is marked.
    """
    frame = pd.DataFrame([_line(ablation, row) for row in rows], columns=["cell", "seed", "value", *ablation.also, *COSTS])
    frame = frame.sort_values(["cell", "seed"])
    names = [sweep.name(cell) for cell in ablation.lines]
    values = {name: frame[frame.cell == name].set_index("seed").value for name in names}
    baseline = values[names[0]]
    lines, differences = [], []
    for name in names:
        own = frame[frame.cell == name]
        line = {"cell": name, "seeds": len(own), "missing": max(planned - len(own), 0)}
        line |= zip(("mean", "low", "high"), mean(own.value.tolist(), ablation.test_share), strict=True)
        shared = own.set_index("seed").index.intersection(baseline.index)
        pair = values[name][shared].tolist(), baseline[shared].tolist()
        if name != names[0]:
            differences.append([a - b for a, b in zip(*pair, strict=True)])
            test = paired(*pair) if ablation.test_share is None else resampled(*pair, ablation.test_share)
            line |= zip(("difference", "difference_low", "difference_high", "p"), test, strict=True)
            line["pairs"] = len(shared)
        line |= {cost: own[cost].mean() for cost in COSTS} | {"paper": ablation.paper.get(name, math.nan)}
        for metric in ablation.also:
            line |= zip(ends(metric), mean(own[metric].tolist(), ablation.test_share), strict=True)
        lines.append(line)
    cells = pd.DataFrame(lines, columns=[*COLUMNS, *(key for metric in ablation.also for key in ends(metric))])
    cells["p_holm"] = holm(cells.p.tolist())
    return Results(frame, cells, [*_missing(cells, planned), *_mixed(rows)], _method(ablation, differences))


def with_sentences(results: Results, ablation: Ablation, plan: list[Run]) -> Results:
    """Adds what the test sentences say, where the metric is a BLEU and every run of the table has kept its answers."""
    done = [run for run in plan if runs.finished(run.workdir)]
    seeds = {name: [run for run in done if sweep.name(run.cell) == name] for name in results.cells.cell}
    kept = all((run.workdir / runs.ANSWERS).exists() for run in done) and all(map(len, seeds.values()))
    kept = kept and len(done) == len(results.seeds)  # else they would be of other seeds than the means beside them
    if ablation.metric != "test.bleu" or not kept:
        return results
    from experiments import bleu  # sacrebleu takes a while to import

    found = pd.DataFrame(bleu.bootstrap([[bleu.counts(run.workdir) for run in own] for own in seeds.values()]))
    cells = results.cells.assign(sentences_low=found.low, sentences_high=found.high, sentences_p=holm(found.p.tolist()))
    line = "Over sentences: 95% intervals of the mean BLEU and Holm's p values by the paired bootstrap over test sentences"
    return results._replace(cells=cells, method=[*results.method, f"{line}, {bleu.RESAMPLES} resamples."])


def ends(metric: str) -> tuple[str, str, str]:
    """The columns of the mean of another metric, and of its interval."""
    return metric, f"{metric}_low", f"{metric}_high"


def _line(ablation: Ablation, row: dict) -> dict:
    peer = "peer" in row["cell"]  # which may know the metric alone
    also = {name: math.nan if peer else metric_of(row["metrics"], name) for name in ablation.also}
    line = {"cell": sweep.name(row["cell"]), "seed": row["seed"], "value": metric_of(row["metrics"], ablation.metric)}
    return line | also | {cost: row[cost] for cost in COSTS}


def _missing(cells: pd.DataFrame, planned: int) -> list[str]:
    lacking = cells[cells.missing > 0]
    if not len(lacking):
        return []
    words = ", ".join(f"{line.cell} ({line.seeds} of {planned})" for line in lacking.itertuples())
    return [f"Seeds are missing: {words}. Their numbers are of the seeds there are, and differences of those that both cells have."]


def _mixed(rows: list[dict]) -> list[str]:
    """A sentence for each thing that should have been the same for all runs, and was not."""
    notes = []
    packages = sorted({name for row in rows for start in row["environments"] for name in start["packages"]})
    for what, of in (
        ("commits", lambda row, start: start["commit"] or "unknown"),
        ("devices", lambda row, start: ", ".join(sorted(set(start["devices"])))),
        ("versions of Python", lambda row, start: start["python"]),
        ("numbers of lanes", lambda row, start: f"{row['lanes']}"),
        *((f"versions of {name}", lambda row, start, name=name: start["packages"].get(name, "none")) for name in packages),
    ):
        # A run that was resumed elsewhere counts for both.
        found = pd.Series(
            [v for row in rows for v in dict.fromkeys(of(row, start) for start in row["environments"])], dtype=str
        ).value_counts()
        if len(found) > 1:
            short = _short if what == "commits" else str
            words = ", ".join(f"{short(value)} ({count} runs)" for value, count in found.items())
            told = "; memory and time of a step are shares and not comparable" if what == "numbers of lanes" else ""
            notes.append(f"Mixed {what}: {words}{told}.")
    return notes


def _short(commit: str) -> str:
    """Twelve digits of a commit's hash, and whether files differed from it."""
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{28}", r"\1", commit)


def _method(ablation: Ablation, differences: list[list[float]]) -> list[str]:
    bootstrap = f", from {BOOTSTRAP_FROM} seeds on the BCa bootstrap" if ablation.test_share is None else ""
    lines = [f"Means over seeds with {LEVEL:.0%} intervals: Student's t{bootstrap}."]
    if differences:
        test = "paired t tests over shared seeds"
        if ablation.test_share is not None:
            share = f"test/train = {ablation.test_share:.3g}"
            test = f"t tests, like the intervals corrected for overlapping training sets (Nadeau and Bengio, {share})"
        lines.append(f"Differences to the first cell by {test}; p values are Holm's over the {len(differences)} comparison(s).")
        if math.isfinite(smallest := detectable(differences, ablation.test_share or 0.0)):
            lines.append(
                f"With {POWER:.0%} power this table would have found a difference of {smallest:.3g}; "
                "a smaller one may be there and not be seen."
            )
    if ablation.paper:
        lines.append(f"The paper's numbers: {ablation.source}.")
    return lines
