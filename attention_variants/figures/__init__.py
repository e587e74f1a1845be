"""Pictures of arrays: matplotlib only, no jax."""

import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colours that people who see colours differently can tell apart (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def plain(text: str) -> str:
    """The text with its dollars escaped, which matplotlib would take for formulas."""
    return str(text).replace("$", r"\$")


def panels(number: int, width: float, height: float):
    """(figure, its panels), at most four side by side, of a size in inches each."""
    columns = min(number, 4)
    rows = -(-number // columns)
    figure = Figure(figsize=(columns * width, rows * height + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, panel in enumerate(axes):
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=7)
        if i >= number:
            panel.set_axis_off()
    return figure, axes


def write(figure: Figure, path: pathlib.Path, title: str) -> None:
    """Writes the figure under a title, in a folder that is made where there is none."""
    figure.suptitle(plain(title), fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
