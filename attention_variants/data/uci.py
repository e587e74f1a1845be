"""Four sets of the UCI repository with the twenty splits that the field compares on (Hernández-Lobato and Adams 2015).

The splits are those of Gal and Ghahramani 2016, who drew them by numpy's generator of 2016 from seed 1, test rows last.
"""

import dataclasses
from typing import Literal

import numpy as np

from attention_variants.data import downloads
from attention_variants.data.tables import Table

SPLITS = 20


@dataclasses.dataclass(frozen=True)
class Config:
    """Which set."""

    set: Literal["concrete", "kin8nm", "power-plant", "wine-quality-red"] = "concrete"


def table(config: Config) -> Table:
    """The split of a run is the one whose number is its seed. Raises InputError where a file cannot be had."""
    files = ("data", "index_features", "index_target")
    values, features, target = (np.loadtxt(downloads.fetch(f"uci_regression/{config.set}/{name}.txt"), ndmin=1) for name in files)
    x_NF, y_N = values[:, features.astype(int)], values[:, int(target[0])]
    return Table(x_NF, y_N, tuple(str(int(f) + 1) for f in features), str(int(target[0]) + 1), tests=splits(len(y_N)))


def splits(rows: int) -> tuple[np.ndarray, ...]:
    """The test rows of each of the standard splits."""
    draw = np.random.RandomState(1)
    orders = [draw.choice(range(rows), rows, replace=False) for _ in range(SPLITS)]
    return tuple(order[round(rows * 0.9) :] for order in orders)
