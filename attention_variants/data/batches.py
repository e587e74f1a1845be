"""Batches of token pairs: shuffled, bucketed by length, sharded by process, and a pure function of (seed, position).

A few shapes (source length, target length) are chosen from the data so that little of an epoch is padding; every shape is
one compiled program. Batch k is the same whoever asks for it, so the pipeline's whole state is k, which grain keeps.
"""

import copy
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from attention_variants.data.tokens import PAD


class Shape(NamedTuple):
    """The lengths of source and target in a batch, and its number of rows over all processes."""

    source: int
    target: int
    rows: int


class Ragged(NamedTuple):
    """Rows of token ids of different lengths in one flat array: row i is `flat[starts[i] : starts[i + 1]]`."""

    flat: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[list[int]]) -> "Ragged":
        """The rows, as int32."""
        lengths, pieces = [0], []
        for row in rows:
            lengths.append(len(row))
            pieces.append(np.asarray(row, np.int32))
        return cls(np.concatenate(pieces) if pieces else np.zeros(0, np.int32), np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.flat[self.starts[i] : self.starts[i + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def lengths(self) -> np.ndarray:
        """(N,): how many tokens each row has."""
        return np.diff(self.starts)


class Tokens(NamedTuple):
    """Tokenised sentence pairs."""

    source: Ragged
    target: Ragged

    def lengths(self) -> np.ndarray:
        """(N, 2): how many tokens each source and target has."""
        return np.stack([self.source.lengths(), self.target.lengths()], axis=1)


class Epochs:
    """A random-access source of batches for grain: what a subclass plans for an epoch, epoch after epoch.

    Attributes:
      per_epoch: batches of an epoch. padding: the share of an epoch's tokens that is padding. shapes: those of its batches.
    """

    per_epoch: int
    padding: float
    shapes: list[Shape]
    _length: int | None = None
    _planned: tuple[int | None, list] = (None, [])

    def until(self, length: int):
        """The same batches, epoch after epoch, `length` of them in all."""
        other = copy.copy(self)
        other._length = length
        return other

    def seeded(self, seed: int):
        """The same plan, shuffled by another seed."""
        other = copy.copy(self)
        other._seed, other._planned = seed, (None, [])
        return other

    def __len__(self) -> int:
        return self.per_epoch if self._length is None else self._length

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if not 0 <= k < len(self):
            raise IndexError(f"batch {k} of {len(self)}")
        epoch, i = divmod(int(k), self.per_epoch)
        planned, batches = self._planned  # one assignment, so that grain's threads always see a pair that belongs together
        if planned != epoch:
            batches = self._plan(epoch)
            self._planned = (epoch, batches)
        return self._batch(batches[i])


class Batches(Epochs):
    """Batches with a pair in each row, of a few shapes: `batches[k]` for any k below `len(batches)`.

    A batch holds `source` (rows, source length), `target` (rows, target length), int32, padded with PAD, and `id` (rows,),
    the place of each pair in its split. A row that is only PAD stands for no example.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        batch_tokens: int,
        seed: int | None,
        max_padding: float = 0.1,
        multiple: int = 1,
        round_to: int = 1,
        process: tuple[int, int] = (0, 1),
        among: Callable[[int], np.ndarray] | None = None,
    ):
        """Plans the batches of an epoch.

        Args:
          tokens: the pairs.
          batch_tokens: a batch's rows times the longer of its two lengths, at the most (but for `multiple`).
          seed: of the shuffle, new for each epoch; None keeps the order.
          max_padding: shapes are added until less than this share of an epoch's tokens is padding, as far as that helps.
          multiple: rows are a multiple of this, for devices and accumulation to divide.
          round_to: lengths are a multiple of this, so that other data finds programs that are compiled already.
          process: (which, of how many): each takes its part of every batch's rows.
          among: the places of those pairs that a seed has, as many for each; by default all. Shapes are chosen for all pairs.
        """
        self._tokens, self._seed, self._process, self._among = tokens, seed, process, among
        lengths = tokens.lengths()
        many = len(lengths) if among is None else len(among(seed))
        cells, cell_of, counts = np.unique(lengths, axis=0, return_inverse=True, return_counts=True)
        best = None
        for pairs in candidate_lengths(cells, counts, round_to):
            shapes = [Shape(*pair, rows_of(max(pair), batch_tokens, many, multiple)) for pair in pairs]
            chosen = assign(cells, shapes)
            sizes = np.bincount(chosen, counts, minlength=len(shapes)).astype(int)
            filled = [shape for shape, _ in fill(shapes, [np.arange(size) for size in sizes])]
            padding = 1 - lengths.sum() / _room(filled)
            if best is None or padding < best[0]:
                best = padding, shapes, chosen
            if padding < max_padding:
                break
        _, self.shapes, chosen = best
        self._shape_of = chosen[cell_of.reshape(-1)]
        self._take()

    def seeded(self, seed: int):
        other = super().seeded(seed)
        other._take()
        return other

    def _take(self) -> None:
        """Plans an epoch of the pairs that the seed has."""
        rows = np.arange(len(self._shape_of)) if self._among is None else self._among(self._seed)
        self._members = [rows[self._shape_of[rows] == i] for i in range(len(self.shapes))]
        filled = [shape for shape, _ in fill(self.shapes, self._members)]
        self.per_epoch = len(filled)
        self.padding = 1 - self._tokens.lengths()[rows].sum() / _room(filled)

    def _batch(self, planned: tuple[Shape, np.ndarray]) -> dict[str, np.ndarray]:
        (shape, rows), (which, of) = planned, self._process
        rows = list(rows) + [None] * (shape.rows - len(rows))
        rows = rows[which * shape.rows // of : (which + 1) * shape.rows // of]
        batch = {
            "source": np.full((len(rows), shape.source), PAD, np.int32),
            "target": np.full((len(rows), shape.target), PAD, np.int32),
            "id": np.zeros(len(rows), np.uint32),
        }
        for at, row in enumerate(rows):
            if row is not None:
                row = int(row)
                source, target = self._tokens.source[row], self._tokens.target[row]
                batch["source"][at, : len(source)] = source
                batch["target"][at, : len(target)] = target
                batch["id"][at] = row
        return batch

    def _plan(self, epoch: int) -> list[tuple[Shape, np.ndarray]]:
        if self._seed is None:
            return list(fill(self.shapes, self._members))
        random = np.random.default_rng((self._seed, epoch))
        batches = list(fill(self.shapes, [random.permutation(members) for members in self._members]))
        return [batches[i] for i in random.permutation(len(batches))]


def stream(batches: Epochs, *, threads: int = 1, ahead: int = 8):
    """A grain iterator over `batches` that reads ahead; its position is `get_state()` and `set_state(...)`."""
    import grain  # here because it brings orbax, which takes half a second to import

    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(batches).to_iter_dataset(options))


def _room(shapes: list[Shape]) -> int:
    """How many tokens batches of these shapes have place for."""
    return sum(shape.rows * (shape.source + shape.target) for shape in shapes)


def rows_of(longer: int, batch_tokens: int, pairs: int, multiple: int) -> int:
    """Rows of a batch: as many as its tokens allow, not more than there are pairs, a multiple of `multiple`."""
    allowed = max(1, batch_tokens // longer // multiple) * multiple
    return min(allowed, -(-pairs // multiple) * multiple)


def assign(lengths_N2: np.ndarray, shapes: list[Shape]) -> np.ndarray:
    """(N,): which shape each pair of lengths goes to, the one with the fewest tokens that holds it."""
    best = np.full(len(lengths_N2), -1)
    cost = np.full(len(lengths_N2), np.inf)
    for i, shape in enumerate(shapes):
        better = (lengths_N2 <= (shape.source, shape.target)).all(1) & (shape.source + shape.target < cost)
        best[better], cost[better] = i, shape.source + shape.target
    return best


def fill(shapes: list[Shape], members: list[np.ndarray]) -> Iterator[tuple[Shape, np.ndarray]]:
    """Full batches of each shape; what is left over moves on to the next shape that holds it, so only one batch is not full."""
    waiting = list(members)
    for i, shape in enumerate(shapes):
        pool, larger = waiting[i], shapes[i + 1 :]
        full = len(pool) - len(pool) % shape.rows if larger else len(pool)
        for start in range(0, full, shape.rows):
            yield shape, pool[start : min(start + shape.rows, full)]
        if len(pool) > full:
            j = next(j for j, s in enumerate(larger, i + 1) if s.source >= shape.source and s.target >= shape.target)
            waiting[j] = np.concatenate([waiting[j], pool[full:]])


def candidate_lengths(cells_N2, counts_N, round_to: int = 1, most: int = 32) -> Iterator[list[tuple[int, int]]]:
    """Lists of 1, 2, 3, … pairs of lengths, each smallest first: the last pair holds everything, the others are chosen greedily.

    Every step adds the pair that saves most padding, among quantiles of the two lengths that count a pair by its tokens.

    Args:
      cells_N2: the different pairs of lengths there are. counts_N: how many there are of each.
    """
    edges = [_edges(cells_N2[:, side], counts_N, round_to) for side in (0, 1)]
    cell = tuple(np.searchsorted(edges[side], cells_N2[:, side]) for side in (0, 1))
    count_ST = np.zeros((len(edges[0]), len(edges[1])))
    np.add.at(count_ST, cell, counts_N)
    tokens_ST = np.add.outer(edges[0], edges[1])
    cost_ST = np.full(tokens_ST.shape, tokens_ST[-1, -1])
    chosen = {(len(edges[0]) - 1, len(edges[1]) - 1)}
    while len(chosen) <= most:
        yield sorted(((int(edges[0][i]), int(edges[1][j])) for i, j in chosen), key=sum)
        saved = [
            ((count_ST * np.maximum(cost_ST - tokens_ST[i, j], 0))[: i + 1, : j + 1].sum(), i, j)
            for i, j in np.ndindex(tokens_ST.shape)
        ]
        gain, i, j = max(saved)
        if gain <= 0:
            return
        cost_ST[: i + 1, : j + 1] = np.minimum(cost_ST[: i + 1, : j + 1], tokens_ST[i, j])
        chosen.add((i, j))


def _edges(lengths_N, counts_N, round_to: int) -> np.ndarray:
    """At most 32 lengths, ascending, between which lie equal numbers of tokens; the last is the greatest."""
    order = np.argsort(lengths_N, kind="stable")
    tokens = np.cumsum((lengths_N * counts_N)[order])
    at = np.searchsorted(tokens, np.linspace(0, 1, 32) * tokens[-1])
    return np.unique(-(-lengths_N[order][np.minimum(at, len(order) - 1)] // round_to) * round_to)


def together(tokens: Tokens, *, multiple: int, most: int = 64) -> dict[str, np.ndarray]:
    """One batch of the first pairs, at most so many."""
    first = Tokens(*(Ragged.of(itertools.islice(side, most)) for side in tokens))
    return Batches(first, batch_tokens=sys.maxsize, seed=None, max_padding=1.0, multiple=multiple)[0]
