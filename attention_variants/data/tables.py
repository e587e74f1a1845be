"""Tables: rows of numbers with a target, how they are split, and batches that are the whole of one.

A source of tables is a file of this folder with a `Config` and `table(config) -> Table`; one that knows the truth behind a single
feature has it as `curve(x)`. A person's own table is `csv_file`.
"""

import csv
import io
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from attention_variants.data import Split
from attention_variants.data.batches import Epochs, Shape
from attention_variants.errors import InputError, unknown


class Table(NamedTuple):
    """Rows of numbers.

    Attributes:
      x_NF: features, float64. y_N: the target: float64, or the number of a class. features: their names. target: its name.
      classes: names of the classes, where the target is one of them. tests: test rows of each standard split, where there are such.
    """

    x_NF: np.ndarray
    y_N: np.ndarray
    features: tuple[str, ...]
    target: str
    classes: tuple[str, ...] = ()
    tests: tuple[np.ndarray, ...] = ()

    def save(self, path: pathlib.Path) -> None:
        """Writes the file (.npz) whole or not at all."""
        words = dict(features=np.array(self.features, str), classes=np.array(self.classes, str), target=np.array(self.target))
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, x=self.x_NF, y=self.y_N, **words, **{f"test_{i}": rows for i, rows in enumerate(self.tests)})
        os.replace(partial, path)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Table":
        """What `save` has written."""
        with np.load(path) as kept:
            features, classes = (tuple(kept[name].tolist()) for name in ("features", "classes"))
            tests = tuple(kept[f"test_{i}"] for i in range(sum(name.startswith("test_") for name in kept.files)))
            return cls(kept["x"], kept["y"], features, str(kept["target"]), classes, tests)


def split(table: Table, seed: int, validation: float, test: float) -> Split:
    """Rows at random, by seed; a table with standard splits has the one of that number, from 0 again after the last.

    Args:
      validation: share of the rows that are not for test. test: share of all rows, where there are no standard splits.

    Raises:
      InputError: too few rows for that.
    """
    draw = np.random.default_rng(seed)
    if table.tests:
        tested = table.tests[seed % len(table.tests)]
        order = draw.permutation(np.setdiff1d(np.arange(len(table.y_N)), tested))
    else:
        order = draw.permutation(len(table.y_N))
        cut = round(test * len(order))
        tested, order = order[:cut], order[cut:]
    cut = round(validation * len(order))
    found = Split(np.sort(order[cut:]), np.sort(order[:cut]), np.sort(tested))
    for name, share in (("train", 1.0), ("validation", validation), ("test", test)):
        if share and len(getattr(found, name)) < 2:
            raise InputError(f"{len(table.y_N)} rows leave {len(getattr(found, name))} for {name}; expected at least 2")
    return found


def check(table: Table, name: str) -> Table:
    """The table, if there is something to learn in it. Raises InputError for a constant target."""
    if len(np.unique(table.y_N)) < 2:
        raise InputError(
            f"the target {table.target!r} of {name} is the same in all {len(table.y_N)} rows; expected one that varies"
        )
    return table


def read_csv(
    text: str, name: str, *, target: str, features: Sequence[str] = (), classes: bool = False, header: bool = True
) -> Table:
    """A table from comma-, semicolon- or tab-separated values.

    Args:
      name: what messages call it. target: its column; "" is the last. features: columns, () is all others.
      classes: the target is one of several words. header: the first line names the columns; else they are "1", "2", ….

    Raises:
      InputError: a column that there is not, a cell that is no number (which line, which column), a constant target.
    """
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    try:
        lines = [(number, line) for number, line in enumerate(csv.reader(io.StringIO(text), delimiter=separator), 1) if line]
    except csv.Error as error:  # a quote that is never closed, say
        raise InputError(f"{name} cannot be read as separated values: {error}") from None
    if len(lines) < 2 + header:
        raise InputError(f"{name} has {max(len(lines) - header, 0)} rows; expected at least 2" + " below a line of names" * header)
    names = [cell.strip() for cell in lines.pop(0)[1]] if header else [str(n + 1) for n in range(len(lines[0][1]))]
    target = target or names[-1]
    if twice := [column for i, column in enumerate(names) if column in names[:i]]:
        raise InputError(f"{name} has two columns {twice[0]!r}; expected a name of its own for each")
    for column in (target, *features):
        if column not in names:
            raise unknown(f"column in {name}:", column, names)
    if target in features:
        raise InputError(f"{target!r} of {name} is the target and among the features; expected one of them")
    features = tuple(features) or tuple(column for column in names if column != target)
    if not features:
        raise InputError(f"{name} has no column for features beside the target {target!r}; expected at least one")
    for number, line in lines:
        if len(line) != len(names):
            raise InputError(f"{name}, line {number}, has {len(line)} cells; expected {len(names)}")

    def number_of(column: str) -> np.ndarray:
        at = names.index(column)
        return np.array([_number(line[at], f"{name}, line {number}, column {column!r},") for number, line in lines])

    x_NF = np.stack([number_of(column) for column in features], 1)
    if not classes:
        return check(Table(x_NF, number_of(target), features, target), name)
    words = [line[names.index(target)].strip() for _, line in lines]
    known = tuple(sorted(set(words)))
    return check(Table(x_NF, np.array([known.index(word) for word in words], float), features, target, known), name)


def numbers(lines: Sequence[str], features: Sequence[str]) -> np.ndarray:
    """(N, F): a row for each line of numbers with commas between. Raises InputError as `read_csv`."""
    if lines and [cell.strip() for cell in lines[0].split(",")] == list(features):
        raise InputError("line 1 names the columns; expected rows alone, numbers in this order")
    found = np.empty((len(lines), len(features)))
    for i, line in enumerate(lines):
        cells = line.split(",")
        if len(cells) != len(features):
            raise InputError(f"line {i + 1} has {len(cells)} cells; expected {len(features)}: {', '.join(features)}")
        found[i] = [_number(cell, f"line {i + 1}, column {name!r},") for cell, name in zip(cells, features, strict=True)]
    return found


def _number(cell: str, place: str) -> float:
    try:
        found = float(cell)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{place} is {cell!r}; expected a number")
    return found


class Scaled(NamedTuple):
    """A split, and the columns as they are learned from: (value − mean) / scale, or classes one-hot."""

    split: Split
    x: np.ndarray
    y: np.ndarray
    x_mean: np.ndarray
    x_scale: np.ndarray
    y_mean: np.ndarray
    y_scale: np.ndarray

    def target(self, out_NO: np.ndarray) -> np.ndarray:
        """(N,): predictions of a number, in its own units."""
        return out_NO[:, 0] * self.y_scale[0] + self.y_mean[0]


def scaled(table: Table, split: Split, *, to_range: bool = False) -> Scaled:
    """Columns scaled to mean 0 and standard deviation 1 of the training rows; or to the range from −1 to 1 of all rows.

    A constant column is 0.
    """

    def moments(x):
        if to_range:
            centre, reach = (x.max(0) + x.min(0)) / 2, (x.max(0) - x.min(0)) / 2
        else:
            centre, reach = x[split.train].mean(0), x[split.train].std(0)
        return centre, np.where(reach > 0, reach, 1.0)

    if table.classes:
        y_NO = np.eye(len(table.classes))[table.y_N.astype(int)]
        y_mean, y_scale = np.zeros(1), np.ones(1)
    else:
        y_NO = table.y_N[:, None]
        y_mean, y_scale = moments(y_NO)
    x_mean, x_scale = moments(table.x_NF)
    return Scaled(split, (table.x_NF - x_mean) / x_scale, (y_NO - y_mean) / y_scale, x_mean, x_scale, y_mean, y_scale)


def sequence(scaled: Scaled, asked_AF: Sequence = (), *, reads_all: bool) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(what models are given of rows, their numbers): those that may be read, ascending, then those that are asked for, −1.

    Features `x` (N, F) and targets `y` (N, O), float32; (N,) whose targets are `known`, which are the training rows', and which
    rows may be `read` by others.

    Args:
      asked_AF: features (A, F), scaled. reads_all: all rows may be read, and those asked for; else the training rows alone.
    """
    rows = np.arange(len(scaled.x)) if reads_all else scaled.split.train
    asked = len(asked_AF)
    made = {
        "x": np.concatenate([scaled.x[rows], np.reshape(asked_AF, (asked, scaled.x.shape[1]))]).astype(np.float32),
        "y": np.concatenate([scaled.y[rows], np.zeros((asked, scaled.y.shape[1]))]).astype(np.float32),
    }
    rows = np.concatenate([rows, np.full(asked, -1)])
    return made | {"known": np.isin(rows, scaled.split.train), "read": (rows >= 0) | reads_all}, rows


def training(scaled: Scaled, *, reads_all: bool) -> dict[str, np.ndarray]:
    """A training sequence by row, as `sequence` has it; float32: which rows are `trained` on, which `tested`, and their `scale`."""
    made, rows = sequence(scaled, reads_all=reads_all)
    more = {
        "trained": made["known"],
        "tested": np.isin(rows, scaled.split.test),
        "scale": np.full(len(rows), scaled.y_scale[0]),
    }
    return made | {name: value.astype(np.float32) for name, value in more.items()}


class Whole(Epochs):
    """Batches that are one sequence each: all rows, or as many of them at random; each of an axis of one more, and `id` (1,)."""

    def __init__(self, arrays_of: Callable[[int], dict[str, np.ndarray]], *, rows: int = 0, seed: int = 0):
        """`arrays_of(seed)`: what a row is made of, arrays of one length. `rows`: of them in a batch, by seed; 0 is all."""
        self._arrays_of, self._rows, self._seed = arrays_of, rows, seed
        self.padding, self.per_epoch = 0.0, 1
        many = min(rows or np.inf, len(arrays_of(seed)["x"]))
        self.shapes = [Shape(int(many), int(many), 1)]

    def _plan(self, epoch: int) -> list[dict[str, np.ndarray]]:
        arrays, order = self._arrays_of(self._seed), slice(None)
        if self._rows:
            order = np.sort(np.random.default_rng((self._seed, epoch)).permutation(len(arrays["x"]))[: self._rows])
        return [{name: array[order][None] for name, array in arrays.items()} | {"id": np.zeros(1, np.uint32)}]

    def _batch(self, planned: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return planned
