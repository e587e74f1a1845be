"""How alike heads are: matrices of pairs, and their means over training."""

import pathlib
from collections.abc import Mapping

import numpy as np

from attention_variants.figures import COLOURS, panels, plain, write

WORDS = {
    "query": "cosine of query weights",
    "key": "cosine of key weights",
    "value": "cosine of value weights",
    "outputs": "cosine of outputs",
    "divergence": "divergence of maps (bits)",
    "effective": "effective number of heads",
}


def matrices(path: pathlib.Path, found: Mapping[str, np.ndarray], *, title: str) -> None:
    """Writes a PNG with a panel for each matrix (H, H) of pairs of heads: cosines from −1 to 1, divergences from 0 to 1."""
    figure, axes = panels(len(found), 3.0, 2.8)
    for panel, (name, matrix_HH) in zip(axes, found.items(), strict=False):
        scale = dict(cmap="magma", vmin=0.0, vmax=1.0) if name == "divergence" else dict(cmap="RdBu_r", vmin=-1.0, vmax=1.0)
        image = panel.imshow(matrix_HH, **scale)
        panel.set(xticks=range(len(matrix_HH)), yticks=range(len(matrix_HH)))
        panel.set_title(WORDS[name], fontsize=9)
        panel.set_xlabel("head", fontsize=8)
        panel.set_ylabel("head", fontsize=8)
        figure.colorbar(image, ax=panel, shrink=0.8)
    write(figure, path, title)


def over_steps(path: pathlib.Path, found: Mapping[int, Mapping[str, Mapping[str, float]]]) -> None:
    """Writes a PNG with a panel for each number and a line for each layer over the steps of checkpoints.

    Args:
      found: by step, by layer, numbers by name.
    """
    steps = sorted(found)
    layers = list(found[steps[-1]])
    names = list(found[steps[-1]][layers[0]])
    figure, axes = panels(len(names), 3.2, 2.6)
    for panel, name in zip(axes, names, strict=False):
        for i, layer in enumerate(layers):
            style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
            values = [found[step][layer].get(name, np.nan) for step in steps]
            label = plain(layer.replace("_", " ")) if name == names[0] else None
            panel.plot(steps, values, marker="o", markersize=3, color=COLOURS[i % len(COLOURS)], linestyle=style, label=label)
        panel.set_title(WORDS[name], fontsize=9)
        panel.set_xlabel("step", fontsize=8)
    figure.legend(loc="outside right center", fontsize=7, frameon=False)
    write(figure, path, "heads, mean over pairs")
