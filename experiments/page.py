"""The page of an ablation: one HTML file that needs nothing else, with the table, the figures, and the command of every run.

Everything that comes from data is escaped, and the page runs no script.
"""

import base64
import html as web
import json
import math
import pathlib
import shlex
from types import ModuleType

import numpy as np

from attention_variants.figures import sweeps
from attention_variants.train.runs import metric_of
from experiments import sweep, written
from experiments.ablation import Ablation, Run
from experiments.statistics import mean
from experiments.tables import Results

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
table { border-collapse: collapse; } th, td { padding: 0.25rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #222; }
.note { background: #fff3cd; border-left: 4px solid #d39e00; padding: 0.4rem 0.8rem; } .method { color: #666; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; } img { max-width: 100%; width: 34rem; }
pre { overflow-x: auto; background: #f6f6f6; padding: 0.5rem; font-size: 12px; } summary { cursor: pointer; }
"""


def html(name: str, module: ModuleType, plan: list[Run], rows: list[dict], results: Results) -> str:
    """The whole page.

    Args:
      plan: the runs there should be. rows: of those that are finished. results: `tables.results` of the rows.
    """
    ablation: Ablation = module.ABLATION
    question, _, more = (module.__doc__ or name).strip().partition("\n\n")
    parts = [f"<h1>{_text(name)}</h1>", f"<p>{_text(question)}</p>"]
    parts += [f'<p class="note">{_text(note)}</p>' for note in results.notes]
    parts += [_table(module, results), f'<p class="method">{_text(" ".join(results.method))}</p>']
    parts += [_section("Every seed", _against(ablation, rows)), _section("Learning curves", _curves(ablation, plan))]
    parts += [
        _section("Of the first seed", _pictures(ablation, plan)),
        "<h2>Runs</h2>",
        *(_run(run, rows, ablation) for run in plan),
    ]
    if more:
        parts.append(f"<h2>About</h2><pre>{_text(more)}</pre>")
    head = f'<meta charset="utf-8"><title>{_text(name)}</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(filter(None, parts)) + "\n</body></html>\n"


def _text(text) -> str:
    return web.escape(str(text), quote=True)


def _section(title: str, figures: list[str]) -> str:
    inside = "".join(f"<figure>{figure}</figure>" for figure in figures)
    return f'<h2>{_text(title)}</h2><div class="figures">{inside}</div>' if figures else ""


def _table(module: ModuleType, results: Results) -> str:
    """As `written` has it; behind each rounded number stands, as data-value, the one of the CSV."""
    columns = written.columns(module, results)
    head = "".join(f"<th>{_text(title)}</th>" for title in written.header(module, results))
    body = []
    for line in results.cells.to_dict("records"):
        raw = ["" if isinstance(v := line[column.key], float) and math.isnan(v) else str(v) for column in columns]
        cells = [column.text(line) for column in columns]
        body.append("".join(f'<td data-value="{_text(v)}">{_text(c)}</td>' for v, c in zip(raw, cells, strict=True)))
    return f'<table id="results"><thead><tr>{head}</tr></thead><tbody>{"".join(f"<tr>{b}</tr>" for b in body)}</tbody></table>'


def _against(ablation: Ablation, rows: list[dict]) -> list[str]:
    """A figure for each key that several cells set, with the others as they are in the baseline; one of all cells for the rest."""
    figures = []
    base = ablation.cells[0]
    groups = {}
    for key in ablation.axes:
        own = [
            cell for cell in ablation.cells if cell == base or {k: v for k, v in cell.items() if k != key} == _without(base, key)
        ]
        if len(own) > 1:
            groups[key] = {str(cell.get(key, "as configured")): cell for cell in own}
    if any(all(cell not in own.values() for own in groups.values()) for cell in ablation.cells):
        groups[""] = {sweep.name(cell): cell for cell in ablation.cells}
    for key, cells in groups.items():
        found = {
            name: [metric_of(r["metrics"], ablation.metric) for r in rows if r["cell"] == cell] for name, cell in cells.items()
        }
        found = {name: values for name, values in found.items() if values}
        intervals = {name: mean(values, ablation.test_share) for name, values in found.items()}
        figures.append(sweeps.against(found, intervals, title=ablation.metric, across=key))
    return figures


def _without(cell: dict, key: str) -> dict:
    return {k: v for k, v in cell.items() if k != key}


def _curves(ablation: Ablation, plan: list[Run]) -> list[str]:
    figures = []
    for path in ablation.curves:
        kind, _, metric = path.partition(".")
        series = {}
        for run in plan:
            records = run.workdir / "metrics.jsonl"
            if not records.exists():
                continue
            found = [json.loads(line) for line in records.read_text().splitlines() if line.endswith("}")]
            points = [(row["step"], row[metric]) for row in found if row["kind"] == kind and metric in row]
            if points:
                series.setdefault(sweep.name(run.cell), []).append(tuple(np.array(points, float).T))
        if series:
            figures.append(sweeps.curves(series, title=path))
    return figures


def _pictures(ablation: Ablation, plan: list[Run]) -> list[str]:
    figures = []
    for name in ablation.pictures:
        for run in plan:
            if run.seed == 0 and (file := run.workdir / "figures" / name).exists():
                figures.append(_image(file) + f"<figcaption>{_text(sweep.name(run.cell))}: {_text(name)}</figcaption>")
    return figures


def _image(file: pathlib.Path) -> str:
    return f'<img alt="{_text(file.stem)}" src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'


def _run(run: Run, rows: list[dict], ablation: Ablation) -> str:
    """How it ended, in which settings it differs from the config file, and its command."""
    row = next((row for row in rows if (row["cell"], row["seed"]) == (run.cell, run.seed)), None)
    state = "not finished" if row is None else f"{ablation.metric} {metric_of(row['metrics'], ablation.metric):.4g}"
    changes = "\n".join([run.config, *(f"{key} = {value}" for key, value in run.changes.items())])
    command = row["command"] if row else shlex.join(run.command())
    if (file := run.workdir / "command.txt").exists() and (lines := file.read_text().splitlines()):
        command = lines[0]
    inside = f"<pre>{_text(command)}</pre><pre>{_text(changes)}</pre>"
    return f"<details><summary>{_text(run.name)}: {_text(state)}</summary>{inside}</details>"
