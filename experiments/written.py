"""A table of results in writing: for the terminal, as Markdown, CSV and LaTeX. All show the same cells of text."""

import math
import re
from types import ModuleType

import rich.box
import rich.console
import rich.table

from experiments.tables import Results


def header(module: ModuleType, results: Results) -> list[str]:
    """The names of the columns."""
    metric = module.ABLATION.metric
    sentences = ["over sentences", "p (sentences)"] if "sentences_p" in results.cells else []
    paper = ["paper"] if module.ABLATION.paper else []
    return ["cell", metric, "difference", "p (Holm)", *sentences, *paper, "seeds", "parameters", "ms/step", "MiB"]


def lines(module: ModuleType, results: Results) -> list[list[str]]:
    """The cells of text of every line, "±" for half of an interval."""
    found = []
    for line in results.cells.to_dict("records"):
        sentences = []
        if "sentences_p" in line:
            sentences = [f"[{line['sentences_low']:.2f}, {line['sentences_high']:.2f}]", _p(line["sentences_p"])]
        paper = [_number(line["paper"])] if module.ABLATION.paper else []
        missing = f" of {line['seeds'] + line['missing']}!" if line["missing"] else ""
        costs = [_number(line["parameters"], "{:,.0f}"), _number(line["step_seconds"], "{:.3g}", 1e3)]
        costs += [_number(line["peak_memory"], "{:,.1f}", 2**-20)]
        value = _interval(line["mean"], line["low"], line["high"])
        difference = _interval(line["difference"], line["difference_low"], line["difference_high"], sign=True)
        found.append([line["cell"], value, difference, _p(line["p_holm"]), *sentences, *paper, f"{line['seeds']}{missing}", *costs])
    return found


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
