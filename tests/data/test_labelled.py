"""Splits of labelled sentences are every sentence once, by seed where none are given, and as large in every fold."""

import numpy as np
import pytest

from attention_variants.data import baselines, labelled
from attention_variants.data.batches import Ragged
from attention_variants.data.labelled import FOLDS, Labelled
from attention_variants.errors import InputError

N = 211
FITS = np.arange(N) % 17 != 5
GIVEN = {
    "folds": {},
    "train and test": {"train": np.arange(13, N), "test": np.arange(13)},
    "all three": {"train": np.arange(29, N), "validation": np.arange(13, 29), "test": np.arange(13)},
    "no test": {"train": np.arange(29, N), "validation": np.arange(29)},
}


def made(splits, label_N=None):
    label_N = np.arange(N) % 3 if label_N is None else label_N
    return Labelled([f"sentence {n}" for n in range(N)], label_N, ("a", "b", "c"), splits)


@pytest.mark.parametrize("splits", GIVEN.values(), ids=GIVEN)
def test_a_split_is_every_sentence_once_that_is_given_for_it(splits):
    """But for training sentences that do not fit, where the validation split is given; the same for whoever asks again."""
    data = made(splits)
    for seed in range(FOLDS + 1):
        found, again = (labelled.split(data, seed, FITS) for _ in range(2))
        assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
        left_out = [] if data.drawn else splits["train"][~FITS[splits["train"]]]
        assert sorted(np.concatenate([*found, left_out])) == list(range(N))
        assert FITS[found.train].all()
        for name, rows in splits.items():
            if name != "train":
                assert np.array_equal(getattr(found, name), rows)
        assert ("test" in data.names) == bool(len(found.test))
        others = labelled.split(data, seed + 1, FITS)
        assert np.array_equal(found.train, others.train) != data.drawn
        assert len(found.train) == len(others.train)


def test_folds_are_a_tenth_each_and_every_sentence_once():
    """Test sentences of the first ten seeds are all sentences; those of the next ten are the same, with other validation."""
    data = made({})
    found = [labelled.split(data, seed, FITS) for seed in range(2 * FOLDS)]
    assert sorted(np.concatenate([split.test for split in found[:FOLDS]])) == list(range(N))
    assert {len(split.test) for split in found} == {N // FOLDS, N // FOLDS + 1}
    assert {len(split.train) for split in found} == {round(0.9 * min(FITS.sum() - FITS[split.test].sum() for split in found))}
    for one, later in zip(found[:FOLDS], found[FOLDS:], strict=True):
        assert np.array_equal(one.test, later.test)
        assert not np.array_equal(one.validation, later.validation)


@pytest.mark.parametrize("splits", [GIVEN["folds"], GIVEN["all three"], GIVEN["no test"]])
def test_a_label_that_training_has_not_is_named(splits):
    """With its sentence and its split, whichever that is."""
    alone = 7
    label_N = np.where(np.arange(N) == alone, 2, np.arange(N) % 2)
    seed = next(s for s in range(FOLDS) if alone in labelled.split(made(splits), s, FITS).test) if not splits else 0
    name = "validation" if "test" not in made(splits).names else "test"
    with pytest.raises(InputError, match=f"the label 'c' of the {name} sentence 'sentence 7' is that of no training sentence"):
        labelled.split(made(splits, label_N), seed, FITS)


def test_a_split_of_nothing_is_refused():
    with pytest.raises(InputError, match="211 sentences leave none for train; expected more, or a longer task"):
        labelled.split(made({}), 0, np.zeros(N, bool))


def test_baselines_know_their_part_of_a_sentence_and_the_training_sentences_alone():
    """Classes that are in the last word, in the tokens, or in neither; and judged sentences do not teach."""
    draw, stop, words = np.random.default_rng(0), 0, 7
    is_word = np.arange(words) != stop
    rows = [[*draw.integers(1, words, 5), stop] for _ in range(400)]
    train, judged = Ragged.of(rows[:300]), Ragged.of(rows[300:])
    classes = {
        "floor_last_word": np.array([row[-2] % 3 for row in rows]),
        "floor_bag_of_tokens": np.array([row.count(3) > 0 for row in rows]).astype(int),
        "floor_majority": np.array([0] * 300 + [0, 1] * 50),
    }
    for name, label_N in classes.items():
        if name == "floor_majority":
            label_N[:2] = 1
        found = baselines.accuracies(train, label_N[:300], judged, label_N[300:], is_word)
        assert found[name] == (0.5 if name == "floor_majority" else 1.0)
        assert found["floor_majority"] == np.mean(label_N[300:] == np.bincount(label_N[:300]).argmax())
        if name == "floor_last_word":
            assert found["floor_bag_of_tokens"] < 0.8
        if name == "floor_bag_of_tokens":
            assert found["floor_last_word"] < 0.9


def test_baselines_of_a_single_class_are_that_class():
    train, judged = Ragged.of([[1, 0], [2, 0]]), Ragged.of([[1], [2]])
    found = baselines.accuracies(train, np.array([1, 1]), judged, np.array([1, 0]), np.array([False, True, True]))
    assert set(found.values()) == {0.5}


def test_a_last_word_that_training_never_saw_is_of_the_most_frequent_class():
    train, judged = Ragged.of([[1, 0], [1, 0], [2], [0]]), Ragged.of([[3], [0, 0], [2, 0]])
    found = baselines.accuracies(train, np.array([1, 1, 0, 1]), judged, np.array([1, 1, 0]), np.array([False, True, True, True]))
    assert found["floor_last_word"] == 1
