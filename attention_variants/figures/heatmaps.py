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
    # One image, whatever the number of heads: what a picture's time goes into is axes and tokens.
    down, across = len(queries) + 2, len(keys) + 1  # with room for the name of a head, and between heads
    mosaic = np.full((rows * down, columns * across - 1), np.nan)
    corners = [(head // columns * down + 2, head % columns * across) for head in range(heads)]
    for weights_QS, (top, left) in zip(weights_HQS, corners, strict=True):
        mosaic[top : top + len(queries), left : left + len(keys)] = weights_QS

    room = lambda names: 0.07 * max(map(len, names))  # inches
    size = (2.0 + room(queries) + 0.17 * mosaic.shape[1], 1.0 + room(keys) + 0.17 * mosaic.shape[0])
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    image = panel.imshow(mosaic, cmap="magma", vmin=0.0, vmax=max(float(np.max(weights_HQS)), 1e-9))
    for head, (top, left) in enumerate(corners):
        panel.text(left + (len(keys) - 1) / 2, top - 0.8, f"head {head}", ha="center", fontsize=9)
    places = lambda starts, tokens: ([s + i for s in starts for i in range(len(tokens))], [_shown(t) for t in tokens] * len(starts))
    panel.set_xticks(*places([left for _, left in corners[:columns]], keys), rotation=90, fontsize=7)
    panel.set_yticks(*places([top for top, _ in corners[::columns]], queries), fontsize=7)
    panel.tick_params(length=0)
    panel.set_frame_on(False)
    panel.set(xlabel="keys", ylabel="queries")
    panel.set_title(title, fontsize=11)
    figure.colorbar(image, ax=panel, shrink=0.8, label="weight")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _shown(token: str) -> str:
    """A token for an axis, its space visible where that is all it is."""
    return plain(token.replace("▁", "␣" if token == "▁" else ""))
