"""Laws of the batches: each example once an epoch, batch k a pure function of (seed, k), shards are rows, little padding."""

import collections
import concurrent.futures
import random

import numpy as np
import pytest

from attention_variants.data.batches import Batches, Ragged, Tokens, stream
from attention_variants.data.tokens import END, PAD


def made(count: int = 211, longest: int = 41) -> Tokens:
    draw = random.Random(1)
    row = lambda: [draw.randrange(4, 99) for _ in range(draw.randrange(1, longest))] + [END]
    return Tokens(*(Ragged.of(row() for _ in range(count)) for _ in range(2)))


TOKENS = made()


def ids(batch) -> list[int]:
    real = (batch["source"] != PAD).any(1)
    return batch["id"][real].tolist()


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("multiple", [1, 6])
def test_every_example_is_there_exactly_once_an_epoch(seed, multiple):
    batches = Batches(TOKENS, batch_tokens=300, seed=seed, multiple=multiple).until(10_000)
    for epoch in range(3):
        found = [i for k in range(batches.per_epoch) for i in ids(batches[epoch * batches.per_epoch + k])]
        assert sorted(found) == list(range(211))


def test_rows_hold_their_pairs_and_padding():
    """Row r is pair id[r], then padding; types are what the device wants."""
    for batch in Batches(TOKENS, batch_tokens=300, seed=2):
        assert [batch[k].dtype for k in ("source", "target", "id")] == [np.int32, np.int32, np.uint32]
        for source, target, at in zip(*batch.values(), strict=True):
            if source.any():
                assert source[source != PAD].tolist() == TOKENS.source[at].tolist()
                assert target[target != PAD].tolist() == TOKENS.target[at].tolist()
                assert (source[: len(TOKENS.source[at])] != PAD).all()
            else:
                assert not target.any()


@pytest.mark.parametrize("max_padding", [0.1, 1.0])
def test_pairs_of_a_seed_are_those_of_its_epochs(max_padding):
    """Each once an epoch; in one shape, seeds share it and have as many batches."""
    among = lambda seed: np.random.default_rng(seed).permutation(211)[:89]
    batches = Batches(TOKENS, batch_tokens=300, seed=3, max_padding=max_padding, among=among)
    for seed, own in ((3, batches), (5, batches.seeded(5))):
        for epoch in range(2):
            k = epoch * own.per_epoch
            found = [i for batch in (own.until(10_000)[k + j] for j in range(own.per_epoch)) for i in ids(batch)]
            assert sorted(found) == sorted(among(seed))
        again = Batches(TOKENS, batch_tokens=300, seed=seed, max_padding=max_padding, among=among)
        assert (own.shapes, own.per_epoch, own.padding) == (again.shapes, again.per_epoch, again.padding)
        assert all(same(a, b) for a, b in zip(own, again, strict=True))
        assert own.shapes == batches.shapes
        real = sum((batch[side] != PAD).sum() for batch in own for side in ("source", "target"))
        assert own.padding == pytest.approx(1 - real / sum(batch[s].size for batch in own for s in ("source", "target")))


def test_ragged_rows_come_back():
    rows = [[1, 2], [], [3], [4, 5, 6]]
    ragged = Ragged.of(rows)
    assert [row.tolist() for row in ragged] == rows
    assert [ragged[i].tolist() for i in range(4)] == rows
    assert ragged.lengths().tolist() == [2, 0, 1, 3]
    assert (len(ragged), len(Ragged.of([]))) == (4, 0)


@pytest.mark.parametrize("round_to", [1, 8])
def test_lengths_are_rounded_up_so_that_other_data_finds_the_same_programs(round_to):
    shapes = Batches(TOKENS, batch_tokens=300, seed=2, round_to=round_to).shapes
    assert all(s.source % round_to == s.target % round_to == 0 for s in shapes)
    assert (shapes[-1].source, shapes[-1].target) == tuple(-(-n // round_to) * round_to for n in TOKENS.lengths().max(0))


def test_shapes_are_the_planned_ones_and_rows_a_multiple():
    batches = Batches(TOKENS, batch_tokens=300, seed=2, multiple=3)
    shapes = {(b["source"].shape[1], b["target"].shape[1], len(b["id"])) for b in batches}
    assert shapes <= {tuple(s) for s in batches.shapes}
    assert len(shapes) > 1
    for source, target, rows in shapes:
        assert rows % 3 == 0
        assert rows * max(source, target) <= 300


def test_only_one_batch_of_an_epoch_is_not_full():
    assert sum(not batch["source"].any(1).all() for batch in Batches(TOKENS, batch_tokens=300, seed=2)) <= 1


def test_a_new_order_and_new_company_each_epoch():
    batches = Batches(TOKENS, batch_tokens=300, seed=7).until(10_000)
    epochs = [[ids(batches[e * batches.per_epoch + k]) for k in range(batches.per_epoch)] for e in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    company = [{frozenset(batch) for batch in epoch} for epoch in epochs]
    assert len(company[0] & company[1]) < len(company[0]) / 3


def test_another_seed_is_another_order():
    a, b = (Batches(TOKENS, batch_tokens=300, seed=seed) for seed in (0, 1))
    assert [ids(x) for x in a] != [ids(x) for x in b]


def test_without_a_seed_the_order_stays():
    batches = Batches(TOKENS, batch_tokens=300, seed=None).until(10_000)
    assert all(same(batches[k], batches[k + batches.per_epoch]) for k in range(batches.per_epoch))


def test_batch_k_is_the_same_from_any_thread_in_any_order():
    wanted = list(Batches(TOKENS, batch_tokens=300, seed=7).until(60))
    shared = Batches(TOKENS, batch_tokens=300, seed=7).until(60)
    order = random.Random(0).sample(range(60), 60) * 5
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shared.__getitem__, order))
    assert all(same(wanted[k], batch) for k, batch in zip(order, found, strict=True))


@pytest.mark.parametrize("of", [2, 3])
def test_the_shards_of_the_processes_are_the_rows_of_the_whole(of):
    options = dict(batch_tokens=300, seed=7, multiple=6)
    whole = Batches(TOKENS, **options)
    shards = [Batches(TOKENS, process=(which, of), **options) for which in range(of)]
    for k, batch in enumerate(whole):
        pieces = [shard[k] for shard in shards]
        assert same(batch, {name: np.concatenate([p[name] for p in pieces]) for name in batch})


@pytest.mark.parametrize("threads", [1, 4])
def test_the_position_is_saved_and_restored(threads):
    """What comes after a saved position does not depend on who reads it, nor on what had been read ahead."""
    new = lambda: stream(Batches(TOKENS, batch_tokens=300, seed=7).until(50), threads=threads)
    unbroken = list(new())
    assert len(unbroken) == 50
    iterator = new()
    for _ in range(17):
        next(iterator)
    position = iterator.get_state()
    next(iterator)
    resumed = new()
    resumed.set_state(position)
    rest = list(resumed)
    assert len(rest) == 33
    assert all(same(a, b) for a, b in zip(unbroken[17:], rest, strict=True))


@pytest.mark.parametrize("k", [-1, 5, 10**9])
def test_past_the_end_is_an_index_error(k):
    with pytest.raises(IndexError, match=rf"batch {k} of 5"):
        Batches(TOKENS, batch_tokens=300, seed=7).until(5)[k]


def test_the_padding_that_is_reported_is_the_padding_there_is():
    batches = Batches(TOKENS, batch_tokens=300, seed=7)
    cells = collections.Counter()
    for batch in batches:
        for side in ("source", "target"):
            cells["all"] += batch[side].size
            cells["pad"] += int((batch[side] == PAD).sum())
    assert batches.padding == pytest.approx(cells["pad"] / cells["all"])


def test_padding_of_dates_is_under_ten_percent(dates_tokens):
    assert Batches(dates_tokens, batch_tokens=2048, seed=0).padding < 0.1


def test_padding_of_multi30k_is_under_ten_percent(multi30k_tokens):
    assert Batches(multi30k_tokens, batch_tokens=2560, seed=0).padding < 0.1
