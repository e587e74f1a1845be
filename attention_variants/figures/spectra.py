"""What a learned spectral kernel is made of: its frequencies, its values, and how its heads hang together."""

import pathlib

import numpy as np

from attention_variants.figures import COLOURS, panels, plain, write


def densities(path: pathlib.Path, frequencies_HN, deviation: float, *, title: str) -> None:
    """Writes a PNG with a panel for each head: a histogram of frequencies, and the spectral density of an RBF kernel.

    Args:
      frequencies_HN: all components of all of them, in cycles. deviation: of the RBF kernel's density, which is normal.
    """
    figure, axes = panels(len(frequencies_HN), 3.0, 2.6)
    reach = max(float(np.quantile(abs(frequencies_HN), 0.995)), 3 * deviation)
    at = np.linspace(-reach, reach, 200)
    normal = np.exp(-np.square(at / deviation) / 2) / (deviation * np.sqrt(2 * np.pi))
    for head, (axis, frequencies) in enumerate(zip(axes, frequencies_HN, strict=False)):
        axis.hist(frequencies, bins=60, range=(-reach, reach), density=True, color=COLOURS[0], alpha=0.7)
        axis.plot(at, normal, color="black", linewidth=1, label="RBF")
        axis.set_title(f"head {head}", fontsize=9)
        axis.set_xlabel("frequency (cycles)", fontsize=8)
        axis.set_ylabel("density", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
    write(figure, path, title)


def histograms(path: pathlib.Path, values: dict[str, np.ndarray], *, title: str) -> None:
    """Writes a PNG with a panel for each name: a histogram of the values, of all heads and pairs; the share below 0 is told."""
    figure, axes = panels(len(values), 3.0, 2.6)
    for axis, (name, found), colour in zip(axes, values.items(), COLOURS, strict=False):
        axis.hist(np.ravel(found), bins=60, color=colour, alpha=0.8)
        below = f", {np.mean(found < 0):.0%} below 0" if (found < 0).any() else ""
        axis.set_title(plain(name) + below, fontsize=9)
        axis.set_ylabel("pairs", fontsize=8)
    write(figure, path, title)


def correlations(path: pathlib.Path, correlation_HH, *, title: str) -> None:
    """Writes a PNG of how the noise of heads is correlated: the mean over features of the absolute correlation."""
    figure, axes = panels(1, 3.4, 3.0)
    image = axes[0].imshow(correlation_HH, cmap="magma", vmin=0.0, vmax=1.0)
    axes[0].set(xticks=range(len(correlation_HH)), yticks=range(len(correlation_HH)))
    axes[0].tick_params(labelsize=8)
    axes[0].set_xlabel("head", fontsize=8)
    axes[0].set_ylabel("head", fontsize=8)
    figure.colorbar(image, ax=axes[0], shrink=0.8)
    write(figure, path, title)
