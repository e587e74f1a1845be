"""ListOps has the values that its lists have, within its limits, and no sequence twice."""

import numpy as np
import pytest

from attention_variants.data import listops
from attention_variants.data.listops import Config
from attention_variants.errors import InputError

CONFIG = Config(train=211, validation=31, test=41)
OF = {"[MIN": np.min, "[MAX": np.max, "[MED": lambda x: int(np.median(x)), "[SM": lambda x: np.sum(x) % 10}


def evaluated(text: str) -> tuple[int, int, int]:
    """(value, lists in lists, most places of a list), read from the right."""
    stack, deepest, most, open_lists = [], 0, 0, 0
    for token in reversed(text.split()):
        if token == "]":
            open_lists += 1
            deepest = max(deepest, open_lists)
            stack.append(token)
        elif token in OF:
            places = []
            while stack[-1] != "]":
                places.append(stack.pop())
            stack[-1], open_lists, most = int(OF[token](places)), open_lists - 1, max(most, len(places))
        else:
            stack.append(int(token))
    (value,) = stack
    return value, deepest, most


@pytest.mark.parametrize(
    "config", [CONFIG, Config(train=97, validation=3, test=5, min_length=5, max_length=23, max_depth=4, max_args=3)]
)
def test_labels_are_values_and_sequences_keep_to_the_limits(config):
    data = listops.labelled(config)
    found = [evaluated(text) for text in data.texts]
    assert [data.classes[label] for label in data.label_N] == [str(value) for value, _, _ in found]
    lengths = [len(text.split()) for text in data.texts]
    assert config.min_length <= min(lengths) < max(lengths) <= config.max_length
    assert {places for _, _, places in found} <= set(range(2, config.max_args + 1))
    assert 1 < max(depth for _, depth, _ in found) <= config.max_depth - 1


def test_splits_are_disjoint_and_as_large_as_asked_for():
    data = listops.labelled(CONFIG)
    assert len(set(data.texts)) == len(data.texts) == 211 + 31 + 41
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 211, "validation": 31, "test": 41}
    assert sorted(np.concatenate(list(data.splits.values()))) == list(range(len(data.texts)))


def test_the_seed_is_all_that_they_are_made_of():
    """Another seed makes others, and more for training changes neither of the other splits."""

    def of(split, **changes):
        data = listops.labelled(Config(**{"train": 211, "validation": 31, "test": 41} | changes))
        return [data.texts[i] for i in data.splits[split]]

    assert of("train") == of("train")
    assert set(of("test")).isdisjoint(of("test", seed=1))
    for split in ("validation", "test"):
        assert of(split) == of(split, train=307)


def test_a_place_is_a_list_as_often_as_in_long_range_arena():
    """A quarter of the places, where no limit interferes, and every operator as often as another."""
    data = listops.labelled(Config(train=2000, validation=1, test=1, min_length=1, max_length=10_000, max_depth=3))
    tokens = " ".join(data.texts).split()
    inner = [token for text in data.texts for token in text.split()[1:] if token in OF]
    digits_outside = sum(_outside(text) for text in data.texts)
    assert len(inner) / (len(inner) + digits_outside) == pytest.approx(0.25, abs=0.02)
    for operator in OF:
        assert tokens.count(operator) / sum(token in OF for token in tokens) == pytest.approx(0.25, abs=0.02)


def _outside(text: str) -> int:
    """Digits that are in the outermost list itself."""
    depth = found = 0
    for token in text.split():
        depth += (token in OF) - (token == "]")
        found += depth == 1 and token.isdigit()
    return found


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"max_length": 9}, "data.max_length is 9; expected at least 10"),
        ({"max_args": 1}, "data.max_args is 1; expected at least 2"),
        ({"test": 0}, "data.test is 0; expected at least 1"),
    ],
)
def test_limits_that_leave_nothing_are_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        Config(**values)


def test_more_than_there_are_is_refused(monkeypatch):
    """Of four tokens there are 4 · 10 · 10."""
    monkeypatch.setattr(listops, "PATIENCE", 2_000)
    with pytest.raises(InputError, match="400 of 401 sequences were found with 4 to 4 tokens"):
        listops.labelled(Config(train=399, validation=1, test=1, min_length=4, max_length=4, max_depth=2, max_args=2))
