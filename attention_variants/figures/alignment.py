"""Alignments as pictures: a number for every layer and head, and the map of a sentence with the links that are right."""

import pathlib
from collections.abc import Mapping, Sequence, Set

import numpy as np
from matplotlib.patches import Rectangle

from attention_variants.figures import COLOURS, panels, plain, write


def by_layer_and_head(
    path: pathlib.Path,
    found: Mapping[str, np.ndarray],
    *,
    title: str,
    layers: Sequence[str] = (),
    columns: Sequence[str] = (),
    scale: tuple[float, float] | None = None,
) -> None:
    """Writes a PNG with a panel for each name: a row for each layer, a column for each head, and the number in every cell.

    Args:
      found: by what they are, such as an error rate or a mean norm, numbers (layers, heads); nan where there is none. layers,
        columns: names of the rows and columns; by default numbers of layers and heads. scale: which numbers have the first colour
        and the last; by default the smallest and the largest of each panel.
    """
    rows, heads = map(max, zip(*(values.shape for values in found.values()), strict=True))
    names = [plain(str(name).replace("_", " ")) for name in layers or range(rows)]
    low, high = scale or (None, None)
    figure, axes = panels(len(found), 1.4 + 0.07 * max(map(len, names)) + 0.5 * heads, 1.2 + 0.35 * rows)
    for panel, (name, values_LH) in zip(axes, found.items(), strict=False):
        image = panel.imshow(values_LH, cmap="viridis", aspect="auto", vmin=low, vmax=high)
        for (layer, head), value in np.ndenumerate(values_LH):
            if np.isfinite(value):
                bright = image.norm(value) > 0.6
                panel.text(head, layer, f"{value:.3g}", ha="center", va="center", fontsize=7, color="k" if bright else "w")
        panel.set_xticks(range(values_LH.shape[1]), [plain(name) for name in columns or range(heads)][: values_LH.shape[1]])
        panel.set_yticks(range(values_LH.shape[0]), names[: values_LH.shape[0]], fontsize=7)
        panel.set_title(plain(name), fontsize=9)
        panel.set_xlabel("head", fontsize=8)
        panel.set_ylabel("layer", fontsize=8)
        figure.colorbar(image, ax=panel, shrink=0.8)
    write(figure, path, title)


def sentence(
    path: pathlib.Path,
    found: Mapping[str, np.ndarray],
    source: Sequence[str],
    target: Sequence[str],
    sure: Set[tuple[int, int]],
    possible: Set[tuple[int, int]],
    *,
    title: str,
) -> None:
    """Writes a PNG with a panel for each map of one sentence pair; right links have frames, sure ones whole, others dotted.

    Args:
      found: by what they are, maps (target words, source words), each with its own scale from 0 to its largest. source, target: the
        words, to which END may have been added. sure, possible: links (source word, target word).

    Raises:
      ValueError: numbers of words that are not those of a map.
    """
    room = lambda words: 0.07 * max(map(len, words))  # inches
    figure, axes = panels(len(found), 1.2 + room(target) + 0.17 * len(source), 0.9 + room(source) + 0.17 * len(target))
    for panel, (name, map_TS) in zip(axes, found.items(), strict=False):
        if map_TS.shape != (len(target), len(source)):
            raise ValueError(f"{name} has shape {map_TS.shape}; expected ({len(target)}, {len(source)}) as there are words")
        panel.imshow(map_TS, cmap="Greys", aspect="auto", vmin=0.0, vmax=max(float(np.max(map_TS)), 1e-9))
        for s, t in sorted(possible | sure):
            style = dict(edgecolor=COLOURS[1]) if (s, t) in sure else dict(edgecolor=COLOURS[0], linestyle=":")
            panel.add_patch(Rectangle((s - 0.45, t - 0.45), 0.9, 0.9, fill=False, linewidth=1.2, **style))
        panel.set_xticks(range(len(source)), list(map(plain, source)), rotation=90, fontsize=7)
        panel.set_yticks(range(len(target)), list(map(plain, target)), fontsize=7)
        panel.tick_params(length=0)
        panel.set_xlabel("source", fontsize=8)
        panel.set_ylabel("target", fontsize=8)
        panel.set_title(plain(name), fontsize=9)
    write(figure, path, f"{title}; right links: framed if sure, dotted if possible")
