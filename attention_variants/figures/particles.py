"""Particles in the plane, over the density that they are to be samples of."""

import pathlib
from collections.abc import Mapping

import numpy as np

from attention_variants.figures import COLOURS, panels, plain, write


def over_density(path: pathlib.Path, axis: np.ndarray, density: np.ndarray, found: Mapping[str, np.ndarray], *, title: str) -> None:
    """Writes a PNG with a panel for each name: its particles (N, 2) over the lines of a density.

    Args:
      axis: of both coordinates, (G,). density: (G, G), the second coordinate first.
    """
    figure, axes = panels(len(found), 3.4, 3.2)
    for panel, (name, x_N2), colour in zip(axes, found.items(), COLOURS, strict=False):
        panel.contour(axis, axis, density, levels=7, colors="#bbbbbb", linewidths=0.8)
        panel.plot(*np.asarray(x_N2).T, "o", color=colour, markersize=3, markeredgewidth=0, alpha=0.8)
        panel.set_title(plain(name), fontsize=9)
        panel.set_aspect("equal")
    write(figure, path, title)
