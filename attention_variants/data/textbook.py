"""The textbook's curve: y = 2 sin(x) + x + ε, x uniform on [0, 5) ("Dive into Deep Learning", Zhang et al. 2021, section 10.2)."""

import dataclasses
import math

import numpy as np

from attention_variants.data.tables import Table
from attention_variants.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """How many rows are made, how noisy (the standard deviation of ε), and from which seed."""

    rows: int = 200
    noise: float = 0.5
    seed: int = 0

    def __post_init__(self):
        if self.rows < 2:
            raise InputError(f"data.rows is {self.rows}; expected at least 2")
        if not 0 <= self.noise < math.inf:
            raise InputError(f"data.noise is {self.noise}; expected a number from 0 on")


def curve(x):
    """The truth, without noise; pictures have it beside a fit."""
    return 2 * np.sin(x) + x


def table(config: Config) -> Table:
    draw = np.random.default_rng(config.seed)
    x = np.sort(draw.uniform(0, 5, config.rows))
    return Table(x[:, None], curve(x) + config.noise * draw.standard_normal(config.rows), ("x",), "y")
