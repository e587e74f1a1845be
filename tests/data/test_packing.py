"""Laws of packing: each pair once an epoch, in one row, whole; batch k a pure function of (seed, k); shards are rows; one shape."""

import collections
import random

import numpy as np
import pytest

from attention_variants.data.batches import Ragged, Tokens, stream
from attention_variants.data.packing import PackedBatches, pack
from attention_variants.data.tokens import END, PAD


def made(count: int = 211) -> Tokens:
    """Pairs of a few lengths, all different, so that one is known by its tokens."""
    draw = random.Random(1)
    row = lambda i: [4 + i, *(draw.randrange(4, 99) for _ in range(draw.choice((1, 4, 9, 20)))), END]
    return Tokens(*(Ragged.of(row(i) for i in range(count)) for _ in range(2)))


TOKENS = made()
OPTIONS = dict(batch_tokens=600, seed=7, max_padding=0.05)
SIDES = ("source", "target")


def pairs(batch) -> list[list[tuple]]:
    """The pairs of each row, from its segments, as (source tokens, target tokens)."""
    rows = []
    for r in range(len(batch["id"])):
        count = batch["source_segment"][r].max()
        assert batch["target_segment"][r].max() == count
        pick = lambda side, n, r=r: tuple(batch[side][r][batch[f"{side}_segment"][r] == n].tolist())
        rows.append([tuple(pick(side, n) for side in SIDES) for n in range(1, count + 1)])
    return rows


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def wanted() -> collections.Counter:
    return collections.Counter(zip(*(map(tuple, (row.tolist() for row in side)) for side in TOKENS), strict=True))


def test_every_pair_is_there_whole_and_once_an_epoch():
    batches = PackedBatches(TOKENS, **OPTIONS).until(10_000)
    for epoch in range(3):
        found = [batches[epoch * batches.per_epoch + k] for k in range(batches.per_epoch)]
        assert collections.Counter(pair for batch in found for row in pairs(batch) for pair in row) == wanted()


def test_positions_count_within_a_pair_and_padding_has_no_segment():
    for batch in PackedBatches(TOKENS, **OPTIONS):
        assert {v.dtype for k, v in batch.items() if k != "id"} == {np.dtype(np.int32)}
        for side in SIDES:
            np.testing.assert_array_equal(batch[f"{side}_segment"] == 0, batch[side] == PAD)
            for segment, at in zip(batch[f"{side}_segment"], batch[f"{side}_at"], strict=True):
                for n in range(1, segment.max() + 1):
                    np.testing.assert_array_equal(at[segment == n], np.arange((segment == n).sum()))


def test_a_row_is_known_by_its_first_pair():
    for batch in PackedBatches(TOKENS, **OPTIONS):
        for row, at in zip(pairs(batch), batch["id"], strict=True):
            if row:
                assert row[0] == (tuple(TOKENS.source[at].tolist()), tuple(TOKENS.target[at].tolist()))


def test_there_is_one_shape_and_as_little_padding_as_it_says():
    batches = PackedBatches(TOKENS, **OPTIONS, multiple=3)
    (shape,) = batches.shapes
    assert {batch[side].shape for batch in batches for side in SIDES} <= {(shape.rows, shape.source), (shape.rows, shape.target)}
    assert shape.rows % 3 == 0
    assert shape.rows * max(shape.source, shape.target) <= 600
    cells = [batch[side] for batch in batches for side in SIDES]
    assert batches.padding == pytest.approx(1 - sum((x != PAD).sum() for x in cells) / sum(x.size for x in cells))


def test_less_padding_is_had_by_longer_rows():
    loose, tight = (PackedBatches(TOKENS, batch_tokens=600, seed=7, max_padding=most) for most in (0.5, 0.05))
    assert loose.padding < 0.5
    assert tight.padding < loose.padding
    assert tight.shapes[0].source > loose.shapes[0].source >= TOKENS.lengths()[:, 0].max()


def test_new_company_each_epoch_and_for_another_seed():
    batches = PackedBatches(TOKENS, **OPTIONS).until(10_000)
    epochs = [{str(row) for k in range(batches.per_epoch) for row in pairs(batches[e * batches.per_epoch + k])} for e in range(3)]
    other = {str(row) for batch in PackedBatches(TOKENS, **OPTIONS | {"seed": 8}) for row in pairs(batch)}
    for company in (epochs[1], epochs[2], other):
        assert len(epochs[0] & company) < len(epochs[0]) / 3


@pytest.mark.parametrize("of", [2, 3])
def test_the_shards_of_the_processes_are_the_rows_of_the_whole(of):
    options = OPTIONS | dict(multiple=6, batch_tokens=800)
    shards = [PackedBatches(TOKENS, process=(which, of), **options) for which in range(of)]
    for k, batch in enumerate(PackedBatches(TOKENS, **options)):
        pieces = [shard[k] for shard in shards]
        assert same(batch, {name: np.concatenate([p[name] for p in pieces]) for name in batch})


def test_the_position_is_saved_and_restored():
    new = lambda: stream(PackedBatches(TOKENS, **OPTIONS).until(50), threads=4)
    unbroken, iterator = list(new()), new()
    for _ in range(17):
        next(iterator)
    resumed = new()
    resumed.set_state(iterator.get_state())
    assert all(same(a, b) for a, b in zip(unbroken[17:], list(resumed), strict=True))


def test_a_pack_holds_every_item_and_no_row_too_much():
    draw = np.random.default_rng(0)
    lengths, room = draw.integers(1, 20, (997, 2)), np.array([41, 37])
    cells, counts = np.unique(lengths, axis=0, return_counts=True)
    row_of, cell_in = pack(cells, counts, room)
    np.testing.assert_array_equal(np.bincount(cell_in), counts)
    assert (np.diff(row_of) >= 0).all()
    for side in (0, 1):
        assert np.bincount(row_of, cells[cell_in, side]).max() <= room[side]


def test_padding_of_dates_is_under_ten_percent(dates_tokens):
    assert PackedBatches(dates_tokens, batch_tokens=2048, seed=0, max_padding=0.1, multiple=8).padding < 0.1


def test_padding_of_multi30k_is_under_three_percent(multi30k_tokens):
    assert PackedBatches(multi30k_tokens, batch_tokens=2560, seed=0, multiple=8).padding < 0.03
