"""Which class is taken for which, as a picture."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from attention_variants.figures import plain


def draw(path: pathlib.Path, count_CC: np.ndarray, classes: Sequence[str]) -> None:
    """Writes a PNG: a row for each class there is, a column for each that was answered, and how many in every cell.

    Args:
      path: where the picture goes; its folder is made.
      count_CC: how many of each class (rows) were taken for each (columns). Colours are shares of a row.
      classes: their names.

    Raises:
      ValueError: numbers of classes that are not those of the counts.
    """
    size = len(classes)
    if count_CC.shape != (size, size):
        raise ValueError(f"counts have shape {count_CC.shape}; expected ({size}, {size}) as there are classes")
    share_CC = count_CC / np.maximum(count_CC.sum(1, keepdims=True), 1)
    names = [plain(name if len(name) <= 24 else f"{name[:23]}…") for name in classes]
    inches = 2.0 + 0.45 * size + 0.08 * max(map(len, names))
    figure = Figure(figsize=(inches + 0.6, inches), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    image = panel.imshow(share_CC, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(count_CC):
        if count:
            panel.text(
                column, row, f"{count}", ha="center", va="center", fontsize=8, color="w" if share_CC[row, column] > 0.5 else "k"
            )
    panel.set_xticks(range(size), names, rotation=90, fontsize=8)
    panel.set_yticks(range(size), names, fontsize=8)
    panel.tick_params(length=0)
    panel.set(xlabel="answered", ylabel="class")
    panel.set_title(f"{np.trace(count_CC)} of {count_CC.sum()} right", fontsize=11)
    figure.colorbar(image, ax=panel, shrink=0.8, label="share of the class")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
