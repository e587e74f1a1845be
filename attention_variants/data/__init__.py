"""Text in, batches of numpy arrays out: numpy, grain, tokenizers and pooch, scikit-learn for baselines; never jax.

A source of sentence pairs is a file with

- `Config`: a frozen dataclass of its settings;
- `METRIC`: the name of the metric that a run on it is judged by;
- `splits(config)`: the names of its splits, "train" and "validation" among them;
- `read(config, split) -> Pairs`.

A source of tables has `Config` and `table(config) -> tables.Table`; one of labelled sentences `Config` and
`labelled(config) -> labelled.Labelled`.

To add one, write the file; it is selected by its name.
"""

from typing import NamedTuple

import numpy as np

from attention_variants import modules

CONTRACT = ("Config",)
PAIRS, TABLES, LABELLED = ("Config", "METRIC", "splits", "read"), ("Config", "table"), ("Config", "labelled")


class Pairs(NamedTuple):
    """Line-aligned sentences, and where they are known the spans of characters that belong together.

    `alignments[n]` holds ((start, end) in source n, (start, end) in target n) for each.
    """

    source: list[str]
    target: list[str]
    alignments: list[list[tuple[tuple[int, int], tuple[int, int]]]] | None = None


class Split(NamedTuple):
    """Numbers of what is for training, validation and test, ascending."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def load(name: str, contract: tuple[str, ...] = CONTRACT):
    """The module of the source `name`; InputError (with the nearest name) where there is none, or none that keeps the contract."""
    return modules.load(__name__, name, contract)
