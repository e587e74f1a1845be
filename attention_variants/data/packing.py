"""Batches whose rows hold several pairs each, told apart by segments: one shape, one compiled program, next to no padding.

Which lengths share a row is decided once; which pair of those lengths it is, and the order of the rows, is new in each epoch.
An epoch thus always has as many batches, and batch k is a pure function of (seed, k), as in `batches`. (Grain's packing, which
works on a stream, gives an epoch's number of batches only when it is over.)
"""

import numpy as np

from attention_variants.data.batches import Epochs, Shape, Tokens, rows_of
from attention_variants.data.tokens import PAD


class PackedBatches(Epochs):
    """A random-access source of packed batches for grain: `batches[k]` for any k below `len(batches)`.

    A batch holds `source` (rows, source length), `target` (rows, target length), int32; beside each, as `source_segment`,
    `source_at`, …, which pair of its row a token is of, from 1 (0 is padding), and its position in it, from 0; and `id` (rows,),
    the place of a row's first pair in the split. Dropout, which belongs to ids and places in a row, thus belongs to rows here: a
    pair is dropped otherwise in other company.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        batch_tokens: int,
        seed: int,
        max_padding: float = 0.03,
        multiple: int = 1,
        process: tuple[int, int] = (0, 1),
    ):
        """Plans the rows of an epoch.

        Args:
          max_padding: rows are made longer, up to `batch_tokens`, until less than this share of an epoch's tokens is padding.
          tokens, batch_tokens, seed, multiple, process: as for `Batches`.
        """
        self._tokens, self._seed, self._process = tokens, seed, process
        lengths = tokens.lengths()
        cells_N2, self._cell_of, counts_N = np.unique(lengths, axis=0, return_inverse=True, return_counts=True)
        means_2 = lengths.mean(0)
        pairs, best = (cells_N2.max(0) / means_2).max(), None
        while best is None or (best[0] >= max_padding and (pairs * means_2).max() * multiple <= batch_tokens):
            room_2 = np.ceil(pairs * means_2).astype(int)
            row_of, cell_in = pack(cells_N2, counts_N, room_2)
            rows = rows_of(room_2.max(), batch_tokens, row_of[-1] + 1, multiple)
            per_epoch = -(-(row_of[-1] + 1) // rows)
            padding = 1 - lengths.sum() / (per_epoch * rows * room_2.sum())
            if best is None or padding < best[0]:
                best = padding, int(per_epoch), Shape(*map(int, room_2), int(rows)), row_of, cell_in
            pairs *= 1.25
        self.padding, self.per_epoch, shape, self._row_of, self._cell_in = best
        self.shapes = [shape]

    def _plan(self, epoch: int) -> list[list[np.ndarray]]:
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._cell_of))
        pairs = np.empty_like(order)
        pairs[np.argsort(self._cell_in, kind="stable")] = order[np.argsort(self._cell_of.reshape(-1)[order], kind="stable")]
        rows = np.split(pairs, np.flatnonzero(np.diff(self._row_of)) + 1)
        rows = [rows[i] for i in random.permutation(len(rows))]
        size = self.shapes[0].rows
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _batch(self, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
        shape, (which, of) = self.shapes[0], self._process
        rows = rows[which * shape.rows // of : (which + 1) * shape.rows // of]
        batch = {"id": np.zeros(shape.rows // of, np.uint32)}
        batch["id"][: len(rows)] = [pairs[0] for pairs in rows]
        for side, length in (("source", shape.source), ("target", shape.target)):
            tokens, segment, at = (np.full((shape.rows // of, length), fill, np.int32) for fill in (PAD, 0, 0))
            for r, pairs in enumerate(rows):
                start = 0
                for number, pair in enumerate(pairs, start=1):
                    row = getattr(self._tokens, side)[int(pair)]
                    place = slice(start, start := start + len(row))
                    tokens[r, place], segment[r, place], at[r, place] = row, number, np.arange(len(row))
            batch |= {side: tokens, f"{side}_segment": segment, f"{side}_at": at}
        return batch


def pack(cells_N2, counts_N, room_2) -> tuple[np.ndarray, np.ndarray]:
    """(the row, the cell) of every item, rows ascending, such that no row holds more than `room_2` of either length.

    A row takes the largest item that fits, until none does; one that would fill one side more than the other counts as smaller.
    The same row is made as often as there are items for it.

    Args:
      cells_N2: the different pairs of lengths there are, none longer than the room. counts_N: how many items have them.
    """
    left_N, share_N2 = counts_N.copy(), cells_N2 / room_2
    rows, cells, made = [], [], 0
    while left_N.any():
        pattern_N, room, filled_2 = np.zeros_like(left_N), np.array(room_2), np.zeros(2)
        while (fits := (left_N > pattern_N) & (cells_N2 <= room).all(1)).any():
            uneven_N = np.abs((filled_2 + share_N2) @ (1, -1))
            best = np.argmax(np.where(fits, share_N2.sum(1) - 2 * uneven_N, -np.inf))
            pattern_N[best] += 1
            room, filled_2 = room - cells_N2[best], filled_2 + share_N2[best]
        used = pattern_N > 0
        times = int((left_N[used] // pattern_N[used]).min())
        pattern = np.repeat(np.arange(len(cells_N2)), pattern_N)
        cells.append(np.tile(pattern, times))
        rows.append(np.repeat(np.arange(made, made + times), len(pattern)))
        left_N, made = left_N - times * pattern_N, made + times
    return np.concatenate(rows), np.concatenate(cells)
