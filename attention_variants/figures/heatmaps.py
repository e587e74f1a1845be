"""Attention weights as heatmaps, one panel per head."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from attention_variants.figures import plain


def draw(path: pathlib.Path, weights_HQS: np.ndarray, queries: Sequence[str], keys: Sequence[str], *, title: str) -> None:
    """Writes a PNG of attention weights: a panel per head, key tokens along the bottom, query tokens down the side.

    Args:
      path: where the picture goes; its folder is made.
      weights_HQS: weights in [0, 1], (heads, queries, keys); the colour scale runs from 0 to the largest.
      queries, keys: the tokens of the two axes.
      title: a line above the panels.

    Raises:
      ValueError: numbers of tokens that are not those of the weights.
    """
    heads = len(weights_HQS)
    if weights_HQS.shape[1:] != (len(queries), len(keys)):
        raise ValueError(
            f"weights have shape {weights_HQS.shape}; expected (heads, {len(queries)}, {len(keys)}) as there are tokens"
        )
    columns = heads if heads < 4 else 2 if heads == 4 else 4
    rows = -(-heads // columns)
    size = (1.0 + columns * (0.6 + 0.17 * len(keys)), 1.0 + rows * (0.9 + 0.17 * len(queries)))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for head, panel in enumerate(panels):
        if head >= heads:
            panel.set_axis_off()
            continue
        image = panel.imshow(weights_HQS[head], cmap="magma", vmin=0.0, vmax=max(float(np.max(weights_HQS)), 1e-9))
        panel.set_title(f"head {head}", fontsize=9)
        panel.set_xticks(range(len(keys)), [_shown(t) for t in keys], rotation=90, fontsize=7)
        panel.set_yticks(range(len(queries)), [_shown(t) for t in queries], fontsize=7)
        panel.tick_params(length=0)
    figure.supxlabel("keys", fontsize=9)
    figure.supylabel("queries", fontsize=9)
    figure.colorbar(image, ax=figure.axes, shrink=0.6, label="weight")
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _shown(token: str) -> str:
    """A token for an axis, its space visible where that is all it is."""
    return plain(token.replace("▁", "␣" if token == "▁" else ""))
