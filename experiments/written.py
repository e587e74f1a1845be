"""A table of results in writing: for the terminal, as Markdown, CSV and LaTeX. All show the same cells of text."""

import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import rich.box
import rich.console
import rich.table

from experiments.tables import Results, ends


class Column(NamedTuple):
    """A column of the table.

    Attributes:
      title: its head. key: where its number stands in the CSV. text: what a line of `Results.cells` has in it.
    """

    title: str
    key: str
    text: Callable[[dict], str]


def columns(module: ModuleType, results: Results) -> list[Column]:
    """The columns of the table, "±" for half of an interval; those of the paper and of sentences where there are any."""
    interval = lambda *keys, **form: lambda line: _interval(*(line[key] for key in keys), **form)
    number = lambda key, *form: lambda line: _number(line[key], *form)
    found = [
        Column("cell", "cell", lambda line: line["cell"]),
        Column(module.ABLATION.metric, "mean", interval("mean", "low", "high")),
        Column("difference", "difference", interval("difference", "difference_low", "difference_high", sign=True)),
        Column("p (Holm)", "p_holm", lambda line: _p(line["p_holm"])),
    ]
    if "sentences_p" in results.cells:
        both = lambda line: f"[{line['sentences_low']:.2f}, {line['sentences_high']:.2f}]"
        found.append(Column("over sentences", "sentences_low", both))
        found.append(Column("p (sentences)", "sentences_p", lambda line: _p(line["sentences_p"])))
    for metric in module.ABLATION.also:
        found.append(Column(metric, metric, interval(*ends(metric))))
    if module.ABLATION.paper:
        found.append(Column("paper", "paper", number("paper")))
    return [
        *found,
        Column("seeds", "seeds", _seeds),
        Column("parameters", "parameters", number("parameters", "{:,.0f}")),
        Column("ms/step", "step_seconds", number("step_seconds", "{:.3g}", 1e3)),
        Column("MiB", "peak_memory", number("peak_memory", "{:,.1f}", 2**-20)),
    ]


def _seeds(line: dict) -> str:
    """How many, and of how many where some are missing."""
    return f"{line['seeds']} of {line['seeds'] + line['missing']}!" if line["missing"] else f"{line['seeds']}"


def header(module: ModuleType, results: Results) -> list[str]:
    """The titles of the columns."""
    return [column.title for column in columns(module, results)]


def lines(module: ModuleType, results: Results) -> list[list[str]]:
    """The cells of text of every line."""
    return [[column.text(line) for column in columns(module, results)] for line in results.cells.to_dict("records")]


def question(module: ModuleType) -> str:
    """The first sentence of the ablation's docstring, which is its question."""
    return (module.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def in_terminal(console: rich.console.Console, name: str, module: ModuleType, results: Results) -> None:
    for note in results.notes:
        console.print(f"! {note}", style="bold", markup=False, soft_wrap=True)
    console.print(f"{name}: {question(module)}", markup=False, soft_wrap=True)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for i, title in enumerate(header(module, results)):
        table.add_column(title, justify="right" if i else "left", no_wrap=True)
    for line in lines(module, results):
        table.add_row(*(rich.markup.escape(cell) for cell in line))
    console.print(table)
    for sentence in results.method:
        console.print(sentence, style="dim", markup=False, soft_wrap=True)


def in_markdown(name: str, module: ModuleType, results: Results) -> str:
    escaped = lambda cells: "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
    body = [escaped(header(module, results)), "|---" + "|---:" * (len(header(module, results)) - 1) + "|"]
    body += [escaped(line) for line in lines(module, results)]
    notes = [f"**{note}**" for note in results.notes]
    return "\n\n".join([f"**{name}**: {question(module)}", *notes, "\n".join(body), " ".join(results.method)]) + "\n"


def in_csv(name: str, module: ModuleType, results: Results) -> str:
    """Numbers as they are, not rounded; a line for each cell."""
    del name, module
    return results.cells.to_csv(index=False, lineterminator="\n")


def in_latex(name: str, module: ModuleType, results: Results) -> str:
    """A tabular for booktabs, with the notes as a caption would have them, as comments."""
    row = lambda cells: " & ".join(map(_latex, cells)) + r" \\"
    body = [
        r"\begin{tabular}{l" + "r" * (len(header(module, results)) - 1) + "}",
        r"\toprule",
        row(header(module, results)),
        r"\midrule",
    ]
    body += [*(row(line) for line in lines(module, results)), r"\bottomrule", r"\end{tabular}"]
    comments = [f"% {text}" for text in (f"{name}: {question(module)}", *results.notes, *results.method)]
    return "\n".join([*comments, *body]) + "\n"


FORMATS = {"md": in_markdown, "csv": in_csv, "tex": in_latex}


def _interval(value: float, low: float, high: float, sign: bool = False) -> str:
    """The value to as many digits as its interval has meaning, "0.912 ± 0.013"; bootstrap intervals are not even, so both ends."""
    if math.isnan(value):
        return ""
    plus = "+" if sign else ""
    if math.isnan(low):
        return f"{value:{plus}.4g}"
    reach = (high - low) / 2
    digits = max(0, 1 - math.floor(math.log10(reach))) if reach > 0 else 4
    if abs((high - value) - (value - low)) > 0.02 * reach:
        return f"{value:{plus}.{digits}f} [{low:{plus}.{digits}f}, {high:{plus}.{digits}f}]"
    return f"{value:{plus}.{digits}f} ± {reach:.{digits}f}"


def _p(p: float) -> str:
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float, form: str = "{:g}", unit: float = 1.0) -> str:
    return "" if math.isnan(value) else form.format(value * unit)


def _latex(text: str) -> str:
    text = re.sub(r"([#$%&_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    return text.replace("±", r"$\pm$").replace("<", "$<$").replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
