"""Weights and norms: maps of a sentence, how much of a token comes from others, and weights against norms."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from attention_variants.figures import COLOURS, panels, plain, write


def maps(path: pathlib.Path, found: Mapping[str, np.ndarray], queries: Sequence[str], keys: Sequence[str], *, title: str) -> None:
    """Writes a PNG with a panel for each map (Q, S), all on one scale: shares of the largest in each.

    Args:
      found: by what they are, weights, norms, and weights times norms say. queries, keys: the tokens of the two axes.
    """
    room = lambda tokens: 0.07 * max(map(len, tokens))  # inches
    figure, axes = panels(len(found), 0.8 + room(queries) + 0.17 * len(keys), 0.8 + room(keys) + 0.17 * len(queries))
    for panel, (name, map_QS) in zip(axes, found.items(), strict=False):
        image = panel.imshow(map_QS / max(float(np.max(map_QS)), 1e-30), cmap="magma", vmin=0.0, vmax=1.0, aspect="auto")
        panel.set_xticks(range(len(keys)), list(map(plain, keys)), rotation=90, fontsize=7)
        panel.set_yticks(range(len(queries)), list(map(plain, queries)), fontsize=7)
        panel.tick_params(length=0)
        panel.set_title(plain(name), fontsize=9)
        panel.set_xlabel("key", fontsize=8)
        panel.set_ylabel("query", fontsize=8)
    figure.colorbar(image, ax=list(axes), shrink=0.8, label="share of the panel's largest")
    write(figure, path, title)


def mixing(path: pathlib.Path, found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Writes a PNG with a panel for each kind of token, a line over layers for each way to reckon: the share that is from others.

    Args:
      found: by layer and kind of token, shares from 0 to 1 by name.
    """
    kinds = list(dict.fromkeys(kind for of in found.values() for kind in of))
    names = sorted({name for of in found.values() for shares in of.values() for name in shares})
    figure, axes = panels(len(kinds), 2.0 + 0.3 * len(found), 3.2)
    lines = list(zip(names, COLOURS, itertools.cycle(("-", "--", ":", "-.")), strict=False))  # some lie upon each other
    for panel, kind in zip(axes, kinds, strict=False):
        for name, colour, style in lines:
            shares = [of.get(kind, {}).get(name, np.nan) for of in found.values()]
            panel.plot(shares, marker="o", markersize=3, color=colour, linestyle=style, label=name)
        panel.set_xticks(range(len(found)), [plain(layer.replace("_", " ")) for layer in found], rotation=90, fontsize=7)
        panel.set(xlim=(-0.5, len(found) - 0.5), ylim=(-0.05, 1.05))
        panel.set_title(plain(kind), fontsize=9)
    axes[0].set_ylabel("share of others", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    write(figure, path, "share of a token's vector from others, by kind of token")


def frequencies(path: pathlib.Path, found: Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]) -> None:
    """Writes a PNG with two panels for each stack of layers: weights that tokens get, and norms that they carry, over their ranks.

    Args:
      found: by stack, ranks (B, S), 0 where there is none, and such values by name, of which "weight" and "norm" are drawn.
    """
    figure, axes = panels(2 * len(found), 3.0, 2.4)
    drawn = [(stack, rank_BS, name, values[name]) for stack, (rank_BS, values) in found.items() for name in ("weight", "norm")]
    for panel, (stack, rank_BS, name, value_BS) in zip(axes, drawn, strict=False):
        at_BS = rank_BS > 0
        panel.semilogx(rank_BS[at_BS], value_BS[at_BS], ".", markersize=2, alpha=0.4, color=COLOURS[0], rasterized=True)
        panel.set_title(plain(stack), fontsize=9)
        panel.set_xlabel("frequency rank", fontsize=8)
        panel.set_ylabel(f"{name}, mean over layers", fontsize=8)
    write(figure, path, "weights that tokens get, and norms that they carry")


def weights_and_norms(path: pathlib.Path, found: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Writes a PNG with a panel for each layer: the norm of what a key carries over the weight that it gets, by kind of token.

    Args:
      found: by layer, weights, norms and kinds of tokens, (N,) each.
    """
    kinds = sorted({kind for *_, kind_N in found.values() for kind in kind_N.tolist()})
    figure, axes = panels(len(found), 2.8, 2.4)
    for panel, (layer, (weight_N, norm_N, kind_N)) in zip(axes, found.items(), strict=False):
        for kind, colour in zip(kinds, COLOURS, strict=False):
            of = kind_N == kind
            panel.plot(weight_N[of], norm_N[of], ".", markersize=2, alpha=0.4, color=colour, label=plain(kind), rasterized=True)
        panel.set_title(plain(layer.replace("_", " ")), fontsize=8)
        panel.set_xlabel("weight", fontsize=7)
        panel.set_ylabel("norm", fontsize=7)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7, frameon=False, markerscale=4)
    write(figure, path, "what a key carries over the weight it gets")


def agreement(path: pathlib.Path, found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> None:
    """Writes a PNG with a panel for each truth, and for each layer a bar for each kind of map: mean, and one deviation about it.

    Args:
      found: by layer, kind of map and truth, (mean, standard deviation) of a rank correlation, or None.
    """
    layers, kinds = list(found), list(next(iter(found.values())))
    truths = list(found[layers[0]][kinds[0]])
    figure, axes = panels(len(truths), 1.6 + 0.25 * len(layers) * len(kinds), 3.0)
    for panel, truth in zip(axes, truths, strict=False):
        for n, (kind, colour) in enumerate(zip(kinds, COLOURS, strict=False)):
            at = np.arange(len(layers)) + (n - (len(kinds) - 1) / 2) * 0.8 / len(kinds)
            mean, deviation = np.array([found[layer][kind][truth] for layer in layers], float).T
            panel.bar(at, mean, 0.8 / len(kinds), yerr=deviation, color=colour, error_kw={"elinewidth": 0.7}, label=kind)
        panel.axhline(0.0, color="k", linewidth=0.5)
        panel.set_xticks(range(len(layers)), [plain(layer.replace("_", " ")) for layer in layers], rotation=90, fontsize=7)
        panel.set_title(f"agreement with {truth}", fontsize=9)
        panel.set_ylabel("rank correlation", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    write(figure, path, "what a layer gives to a token, and whether it matters")
