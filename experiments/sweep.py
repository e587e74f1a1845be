"""The sweep language: a sweep is a list of dictionaries, one for each cell; printable, countable, testable, nothing launched.

    chain([{}], axis("model.heads", 1, 2, 8))                                    # as the config has it, and three others
    product(axis("variant", "standard", "rbf"), axis("model.layers", 2, 4))      # four cells
    zipped(axis("model.width", 64, 128), axis("model.feed_forward", 256, 512))   # two cells, both keys in each

A key with a dot is a setting (`model.heads`, as in --config.model.heads=8), one without is a piece of the config string
(`variant`, as in FILE.py:variant=rbf).
"""

import itertools
import random
import re
from collections.abc import Iterable

from attention_variants.errors import InputError

Cell = dict[str, object]
Sweep = list[Cell]


def axis(key: str, *values) -> Sweep:
    """A cell for each value of one key."""
    return [{key: value} for value in values]


def chain(*sweeps: Iterable[Cell]) -> Sweep:
    """One sweep after the other."""
    return list(itertools.chain(*sweeps))


def product(*sweeps: Iterable[Cell]) -> Sweep:
    """Every cell of the first with every cell of the others; the last one varies fastest.

    Raises:
      InputError: two of them set the same key.
    """
    return [_merged(cells) for cells in itertools.product(*sweeps)]


def zipped(*sweeps: Iterable[Cell]) -> Sweep:
    """The first cell with the first, the second with the second, and so on.

    Raises:
      InputError: sweeps of different lengths, or two that set the same key.
    """
    lists = [list(sweep) for sweep in sweeps]
    if len({len(cells) for cells in lists}) > 1:
        raise InputError(f"zipped sweeps have {' and '.join(str(len(cells)) for cells in lists)} cells; expected as many in each")
    return [_merged(cells) for cells in zip(*lists, strict=True)]


def subsample(sweep: Iterable[Cell], count: int, seed: int = 0) -> Sweep:
    """`count` cells drawn without replacement, in the order of the sweep; the same ones for the same seed.

    Raises:
      InputError: more than there are.
    """
    cells = list(sweep)
    if not 0 <= count <= len(cells):
        raise InputError(f"a subsample of {count} cells is asked of a sweep of {len(cells)}; expected at most as many")
    return [cells[i] for i in sorted(random.Random(seed).sample(range(len(cells)), count))]


def name(cell: Cell) -> str:
    """What a cell is called in tables, "heads=8, layers=2"; a cell that changes nothing is "as configured".

    A key is shortened to its last part where no other key of the cell ends the same way.
    """
    last = [key.rpartition(".")[2] for key in cell]
    short = {key: end if last.count(end) == 1 else key for key, end in zip(cell, last, strict=True)}
    return ", ".join(f"{short[key]}={value}" for key, value in cell.items()) or "as configured"


def folder(cell: Cell) -> str:
    """The name of a cell as the name of a folder."""
    return re.sub(r"[^\w.=+,-]+", "-", name(cell).replace(", ", ","))


def _merged(cells: Iterable[Cell]) -> Cell:
    merged: Cell = {}
    for cell in cells:
        if twice := merged.keys() & cell.keys():
            raise InputError(f"{min(twice)} is set twice in one cell: {merged[min(twice)]!r} and {cell[min(twice)]!r}")
        merged |= cell
    return merged
