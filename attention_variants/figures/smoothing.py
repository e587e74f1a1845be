"""What kernel smoothing looks like: fits with data and bands, weights over distance, and weights as similarity times magnitude."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from attention_variants.figures import COLOURS, panels, plain, write


def fit(path: pathlib.Path, x_N, y_N, x_G, fit_G, low_G, high_G, *, names: tuple[str, str], truth: Callable | None) -> None:
    """Writes a PNG of a fit along one feature: the rows as dots, the fit as a line in its band.

    Args:
      x_N, y_N: the rows that were learned from.
      x_G, fit_G, low_G, high_G: along the fit, NaN where there is none; low and high are None where there is no band.
      names: of x and y. truth: the curve without noise, where it is known, dashed.
    """
    figure, (panel,) = panels(1, 3.4, 2.8)
    panel.plot(x_N, y_N, "o", color="#999999", markersize=2.5, markeredgewidth=0, alpha=0.7)
    if truth is not None:
        panel.plot(x_G, truth(x_G), "--", color="black", linewidth=1)
    if low_G is not None:
        panel.fill_between(x_G, low_G, high_G, color=COLOURS[0], alpha=0.2, linewidth=0)
    panel.plot(x_G, fit_G, color=COLOURS[0], linewidth=1.6)
    panel.set_xlabel(plain(names[0]), fontsize=8)
    panel.set_ylabel(plain(names[1]), fontsize=8)
    write(figure, path, "training rows and fit")


def over_distance(
    path: pathlib.Path, distance_H, weights_H, names: Sequence[str], *, title: str, what: str = "weight", line: tuple | None = None
) -> None:
    """Writes a PNG with a panel for each head: the weight of every pair of rows over their distance.

    Args:
      distance_H, weights_H: (heads, queries, keys). what: they are, if not weights. line: distances, and an RBF kernel there.
    """
    figure, axes = panels(len(names), 3.0, 2.6)
    for panel, name, distance, weight in zip(axes, names, distance_H, weights_H, strict=False):
        panel.plot(distance.ravel(), weight.ravel(), ".", color=COLOURS[0], markersize=2, alpha=0.4, markeredgewidth=0)
        if line is not None:
            panel.plot(*line, color="black", linewidth=1, label="RBF")
            panel.legend(fontsize=7, frameon=False)
        panel.set_title(plain(name), fontsize=9)
        panel.set_xlabel("distance of query and key", fontsize=8)
        panel.set_ylabel(what, fontsize=8)
        panel.set_ylim(bottom=0)
    write(figure, path, title)


def decomposition(path: pathlib.Path, similarity_HQS, magnitude_HS, weights_HQS, queries, keys, *, title: str) -> None:
    """Writes a PNG with a row for each head: similarity, magnitude, and the weights that they make, side by side.

    Args:
      similarity_HQS, magnitude_HS: each divided by its largest in the head. weights_HQS: normalised over the keys.
      queries, keys: the tokens of the two axes.
    """
    heads = len(weights_HQS)
    size = (2.2 + 3 * (0.5 + 0.16 * len(keys)), 0.8 + heads * (1.0 + 0.16 * len(queries)))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(heads, 3, squeeze=False)
    for head in range(heads):
        tall = np.broadcast_to(magnitude_HS[head], weights_HQS[head].shape)
        for panel, name, values in zip(
            axes[head], ("similarity", "magnitude", "weight"), (similarity_HQS[head], tall, weights_HQS[head]), strict=True
        ):
            image = panel.imshow(values, cmap="magma", vmin=0.0, vmax=max(float(np.max(values)), 1e-9), aspect="auto")
            panel.set_title(f"head {head}: {name}", fontsize=8)
            panel.set_xticks(range(len(keys)), [plain(k) for k in keys], rotation=90, fontsize=6)
            panel.set_yticks(range(len(queries)), [plain(q) for q in queries], fontsize=6)
            panel.tick_params(length=0)
            figure.colorbar(image, ax=panel, shrink=0.8)
    write(figure, path, title)
