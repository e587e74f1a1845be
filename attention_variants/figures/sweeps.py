"""What a sweep shows, as SVG to stand in a page: curves with bands, and a metric against what was swept with every seed visible."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from attention_variants.figures import COLOURS, plain


def curves(series: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], *, title: str, across: str = "step") -> str:
    """One line a name, the mean of its curves, in a band from the lowest to the highest of them; an SVG element.

    Args:
      series: by name, (x, y) of each curve, arrays of one axis; they may have other x, and end earlier.
      title: above the panel. across: what x is.
    """
    figure, panel = _panel(5.2, 3.2)
    for i, (name, curves_of) in enumerate(series.items()):
        grid = np.unique(np.concatenate([x for x, _ in curves_of]))
        together = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in curves_of])
        seen = ~np.isnan(together).all(0)
        grid, together = grid[seen], together[:, seen]
        colour = COLOURS[i % len(COLOURS)]
        style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
        panel.plot(grid, np.nanmean(together, 0), color=colour, linestyle=style, label=plain(name), linewidth=1.5)
        panel.fill_between(grid, np.nanmin(together, 0), np.nanmax(together, 0), color=colour, alpha=0.18, linewidth=0)
    panel.set_xlabel(plain(across))
    panel.set_title(plain(title), fontsize=10, loc="left")
    if series:
        panel.legend(frameon=False, fontsize=8)
    return _svg(figure)


def against(
    values: Mapping[str, Sequence[float]], intervals: Mapping[str, tuple[float, float, float]], *, title: str, across: str
) -> str:
    """A metric against the values of one axis: every seed a dot, the mean and its interval beside them; an SVG element.

    Args:
      values: by the value of the axis, the metric of each seed. intervals: (mean, low, high) of each.
      title: above the panel, the metric. across: what was swept.
    """
    wide = sum(len(name) + 2 for name in values) > 9 * len(values)  # labels that would run into each other
    figure, panel = _panel(max(2.6, 1.2 + 0.8 * len(values)), 3.8 if wide else 3.2)
    for at, (name, found) in enumerate(values.items()):
        spread = np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else [0.0]
        panel.plot(at + np.asarray(spread), found, "o", color=COLOURS[0], alpha=0.55, markersize=4, markeredgewidth=0)
        mean, low, high = intervals[name]
        if np.isfinite([low, high]).all():
            panel.plot([at + 0.25] * 2, [low, high], color=COLOURS[1], linewidth=2, solid_capstyle="butt")
        panel.plot(at + 0.25, mean, "D", color=COLOURS[1], markersize=4)
    turned = dict(rotation=35, ha="right", rotation_mode="anchor", fontsize=8) if wide else {}
    panel.set_xticks(range(len(values)), [plain(name) for name in values], **turned)
    panel.set_xlim(-0.5, len(values) - 0.4)
    panel.set_xlabel(plain(across))
    panel.set_title(plain(title), fontsize=10, loc="left")
    return _svg(figure)


def _panel(width: float, height: float):
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    panel = figure.subplots()
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    return figure, panel


def _svg(figure: Figure) -> str:
    """The element alone, its text as text; the same bytes for the same numbers."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sweeps"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
