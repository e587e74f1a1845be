"""Links that a map holds are those of a slow loop over its words, in both settings, and the pieces of words do not matter."""

import numpy as np
import pytest

from attention_variants.analysis import word_maps
from tests.cases.word_maps import links_of

SOURCE_S, TARGET_T = [0, 1, 1, 2, 3, 3, 3, 4, 5, 5, 6], [0, 0, 1, 2, 2, 2, 3]  # 7 words of 11 pieces, 4 of 7
HEADS = 3


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((HEADS, len(TARGET_T) + 1, len(SOURCE_S) + 1)) ** 3


def slow(map_TS, source_S, target_T, setting):
    """As the paper's protocol is told, a number at a time."""
    rows = list(map_TS)
    if setting == "AWO":  # the step that predicts the token: the first is fed with BEGIN, the last predicts END
        rows.pop()
    else:  # the step that is fed with the token
        rows.pop(0)
    links = set()
    for word in sorted(set(target_T)):
        own = [row for row, of in zip(rows, target_T, strict=True) if of == word]
        has = {}
        for other in [*sorted(set(source_S)), "END"]:
            total = 0.0
            for row in own:
                for s, amount in enumerate(row):
                    if (source_S[s] if s < len(source_S) else "END") == other:
                        total += amount
            has[other] = total / len(own)
        best = max(has, key=has.get)
        if best != "END":
            links.add((best, word))
    return links


@pytest.mark.parametrize("setting", ["AWO", "AWI"])
def test_links_are_those_of_a_slow_loop(setting):
    sizes = set()
    for seed in range(17):
        for map_TS in drawn(seed):
            found = links_of(map_TS, SOURCE_S, TARGET_T, setting)
            assert found == slow(map_TS, SOURCE_S, TARGET_T, setting)
            sizes.add(len(found))
    assert len(sizes) > 1


def test_a_target_word_has_one_link_or_where_end_has_most_none():
    map_TS = drawn(0)[0]
    map_TS[:, -1] = 0
    for setting in word_maps.STEPS:
        found = links_of(map_TS, SOURCE_S, TARGET_T, setting)
        assert sorted(t for _, t in found) == [0, 1, 2, 3]
        moved = map_TS.copy()
        moved[[2, 3], -1] = 99.0  # the only piece of the second target word: row 2 predicts it, row 3 is fed with it
        assert links_of(moved, SOURCE_S, TARGET_T, setting) == {
            (s, t) for s, t in found if t not in {"AWO": (1, 2), "AWI": (0, 1)}[setting]
        }


def test_the_settings_are_the_same_map_a_step_apart():
    """A map whose steps look at the word they predict is right with output, one step later with input."""
    size = 5
    looks = np.zeros((size + 1, size + 1))
    looks[np.arange(size), [3, 1, 4, 0, 2]] = 1.0
    right = {(3, 0), (1, 1), (4, 2), (0, 3), (2, 4)}
    assert links_of(looks, range(size), range(size), "AWO") == right
    assert links_of(np.roll(looks, 1, 0), range(size), range(size), "AWI") == right


@pytest.mark.parametrize("setting", ["AWO", "AWI"])
def test_a_map_of_words_is_its_own_and_heads_are_taken_one_by_one(setting):
    maps = drawn(1)
    alone = [word_maps.to_words(map_TS, SOURCE_S, TARGET_T, setting) for map_TS in maps]
    np.testing.assert_allclose(word_maps.to_words(maps, SOURCE_S, TARGET_T, setting), alone)
    assert alone[0].shape == (4, 8)
    whole = word_maps.to_words(maps, range(11), range(7), setting)
    np.testing.assert_array_equal(whole, maps[:, word_maps.STEPS[setting]])


def test_rows_that_sum_to_one_still_do():
    maps = drawn(2)
    maps /= maps.sum(-1, keepdims=True)
    np.testing.assert_allclose(word_maps.to_words(maps, SOURCE_S, TARGET_T, "AWI").sum(-1), 1.0)


@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_links_do_not_depend_on_the_scale(factor):
    """Norms do not sum to one."""
    map_TS = drawn(3)[0]
    found, scaled = (links_of(of, SOURCE_S, TARGET_T, "AWO") for of in (map_TS, factor * map_TS))
    assert found == scaled


@pytest.mark.parametrize(
    ("source_S", "target_T", "message"),
    [
        (SOURCE_S[1:], TARGET_T, r"expected \(…, 8, 11\)"),
        (SOURCE_S, TARGET_T[:-1], r"expected \(…, 7, 12\)"),
        ([w + 1 for w in SOURCE_S], TARGET_T, "expected numbers from 0 in order, none left out"),
        (SOURCE_S, [2 * w for w in TARGET_T], "none left out"),
        (SOURCE_S[::-1], TARGET_T, "in order"),
    ],
)
def test_maps_and_words_that_do_not_fit_are_value_errors(source_S, target_T, message):
    with pytest.raises(ValueError, match=message):
        links_of(drawn(0)[0], source_S, target_T, "AWO")
