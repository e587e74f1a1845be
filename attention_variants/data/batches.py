"""Batches of token pairs: shuffled, bucketed by length, sharded by process, and a pure function of (seed, position).

A few shapes (source length, target length) are chosen from the data so that little of an epoch is padding; every shape is
one compiled program. Batch k is the same whoever asks for it, so the pipeline's whole state is k, which grain keeps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import grain
import numpy as np

from attention_variants.data.tokens import PAD


class Shape(NamedTuple):
    """The lengths of source and target in a batch, and its number of rows over all processes."""

    source: int
    target: int
    rows: int


class Tokens(NamedTuple):
    """Tokenised sentence pairs."""

    source: list[list[int]]
    target: list[list[int]]

    def lengths(self) -> np.ndarray:
        """(N, 2): how many tokens each source and target has."""
        return np.array([(len(s), len(t)) for s, t in zip(self.source, self.target, strict=True)])


class Batches:
    """A random-access source of batches for grain: `batches[k]` for any k below `len(batches)`.

    A batch holds `source` (rows, source length), `target` (rows, target length), int32, padded with PAD, and `id` (rows,),
    the place of each pair in its split. A row that is only PAD stands for no example.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        batch_tokens: int,
        seed: int | None,
        length: int | None = None,
        max_padding: float = 0.1,
        multiple: int = 1,
        process: tuple[int, int] = (0, 1),
    ):
        """Plans the batches.

        Args:
          tokens: the pairs.
          batch_tokens: a batch's rows times the longer of its two lengths, at the most.
          seed: of the shuffle, new for each epoch; None keeps the order.
          length: how many batches there are in all; by default one epoch.
          max_padding: shapes are added until less than this share of an epoch's tokens is padding, as far as that helps.
          multiple: rows are a multiple of this, for devices and accumulation to divide.
          process: (which, of how many): each takes its part of every batch's rows.
        """
        self._tokens, self._seed, self._process = tokens, seed, process
        lengths = tokens.lengths()
        best = None
        for shapes in candidate_shapes(lengths, batch_tokens=batch_tokens, multiple=multiple):
            members = assign(lengths, shapes)
            filled = [shape for shape, _ in fill(shapes, members)]
            padding = 1 - lengths.sum() / sum(s.rows * (s.source + s.target) for s in filled)
            if best is None or padding < best[0]:
                best = padding, len(filled), shapes, members
            if padding < max_padding:
                break
        self.padding, self.per_epoch, self.shapes, self._members = best
        self._length = self.per_epoch if length is None else length
        self._epoch = (None, [])

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if not 0 <= k < self._length:
            raise IndexError(f"batch {k} of {self._length}")
        epoch, i = divmod(int(k), self.per_epoch)
        planned, batches = self._epoch  # one assignment, so that grain's threads always see a pair that belongs together
        if planned != epoch:
            batches = self._plan(epoch)
            self._epoch = (epoch, batches)
        shape, rows = batches[i]
        which, of = self._process
        rows = list(rows) + [None] * (shape.rows - len(rows))
        return self._pad(shape, rows[which * shape.rows // of : (which + 1) * shape.rows // of])

    def _pad(self, shape: Shape, rows: list) -> dict[str, np.ndarray]:
        batch = {
            "source": np.full((len(rows), shape.source), PAD, np.int32),
            "target": np.full((len(rows), shape.target), PAD, np.int32),
            "id": np.zeros(len(rows), np.uint32),
        }
        for at, row in enumerate(rows):
            if row is not None:
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


def stream(batches: Batches, *, threads: int = 1, ahead: int = 8):
    """A grain iterator over `batches` that reads ahead; its position is `get_state()` and `set_state(...)`."""
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    return iter(grain.MapDataset.source(batches).to_iter_dataset(options))


def assign(lengths_N2: np.ndarray, shapes: list[Shape]) -> list[np.ndarray]:
    """Which pairs go to each shape: the one with the fewest tokens that holds the pair."""
    cost = np.full((len(lengths_N2), len(shapes)), np.inf)
    for i, shape in enumerate(shapes):
        fits = (lengths_N2 <= (shape.source, shape.target)).all(1)
        cost[fits, i] = shape.source + shape.target
    best = cost.argmin(1)
    return [np.flatnonzero(best == i) for i in range(len(shapes))]


def fill(shapes: list[Shape], members: list[np.ndarray]) -> Iterator[tuple[Shape, np.ndarray]]:
    """Full batches of each shape; what is left over moves on to the next shape that holds it, so only one batch is not full."""
    waiting = [list(m) for m in members]
    for i, shape in enumerate(shapes):
        pool, larger = waiting[i], shapes[i + 1 :]
        full = len(pool) - len(pool) % shape.rows if larger else len(pool)
        for start in range(0, full, shape.rows):
            yield shape, np.array(pool[start : min(start + shape.rows, full)])
        if pool[full:]:
            holds = (j for j, s in enumerate(larger, i + 1) if s.source >= shape.source and s.target >= shape.target)
            waiting[next(holds)] += pool[full:]


def candidate_shapes(lengths_N2, *, batch_tokens: int, multiple: int, most: int = 32) -> Iterator[list[Shape]]:
    """Lists of 1, 2, 3, … shapes, each smallest first: the last shape holds everything, the others are chosen greedily.

    Every step adds the shape that saves most padding, among the quantiles of the two lengths.
    """
    edges = [np.unique(np.quantile(lengths_N2[:, side], np.linspace(0, 1, 33), method="higher")) for side in (0, 1)]
    cell = tuple(np.searchsorted(edges[side], lengths_N2[:, side]) for side in (0, 1))
    count_ST = np.zeros((len(edges[0]), len(edges[1])))
    np.add.at(count_ST, cell, 1)
    tokens_ST = np.add.outer(edges[0], edges[1])
    cost_ST = np.full(tokens_ST.shape, tokens_ST[-1, -1])
    chosen = [(-1, -1)]
    while len(chosen) <= most:
        pairs = sorted({(int(edges[0][i]), int(edges[1][j])) for i, j in chosen}, key=sum)
        yield [Shape(s, t, max(1, batch_tokens // max(s, t) // multiple) * multiple) for s, t in pairs]
        saved = [
            ((count_ST * np.maximum(cost_ST - tokens_ST[i, j], 0))[: i + 1, : j + 1].sum(), i, j)
            for i, j in np.ndindex(tokens_ST.shape)
        ]
        gain, i, j = max(saved)
        if gain <= 0:
            return
        cost_ST[: i + 1, : j + 1] = np.minimum(cost_ST[: i + 1, : j + 1], tokens_ST[i, j])
        chosen.append((i, j))
