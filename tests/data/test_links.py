"""Error rates are what they are by hand, floors what drawing gives, and two directions become one as the rule says."""

import itertools

import numpy as np
import pytest

from attention_variants.data import downloads, gold_alignments, links
from attention_variants.data.links import SYMMETRISED, Gold

LENGTHS = [(5, 7), (3, 2), (11, 13), (1, 5), (7, 1)]


def drawn(seed: int, share: float = 0.3) -> list[set]:
    """Random links of sentence pairs of these lengths."""
    draw = np.random.default_rng(seed)
    return [set(map(tuple, np.argwhere(draw.random(shape) < share).tolist())) for shape in LENGTHS]


def gold(sure, possible) -> Gold:
    words = lambda side: [["w"] * lengths[side] for lengths in LENGTHS[: len(sure)]]
    return Gold(words(0), words(1), sure, [s | p for s, p in zip(sure, possible, strict=True)])


GOLD = gold(drawn(0, 0.2), drawn(1))


def test_rates_by_hand():
    """Three links of two sentences: one sure, one only possible, one wrong; one sure link is not found."""
    known = gold([{(0, 0), (1, 1)}, set()], [{(2, 1)}, {(0, 1), (1, 0)}])
    found = links.count([{(0, 0), (3, 3)}, {(0, 1)}], known)
    assert found == (3, 2, 2, 1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(1 / 2)
    assert found.error_rate == pytest.approx(1 - (1 + 2) / (3 + 2))


def test_counts_are_summed_before_anything_is_divided():
    """A long sentence weighs more: the mean over sentences would be 1/2."""
    known = gold([{(i, i) for i in range(3)}, {(0, 0)}], [set(), set()])
    assert links.count([{(i, i) for i in range(3)}, {(1, 1)}], known).error_rate == pytest.approx(1 - 6 / 8)


def test_where_all_that_is_possible_is_sure_the_error_rate_is_one_minus_f1():
    sure = drawn(2)
    for seed in range(3, 13):
        found = links.count(drawn(seed), gold(sure, sure))
        assert found.error_rate == pytest.approx(1 - 2 / (1 / found.precision + 1 / found.recall), abs=1e-12)


def test_what_is_right_has_no_error():
    for found in (GOLD.sure, GOLD.possible):
        assert links.count(found, GOLD).error_rate == 0


def test_found_nothing_is_all_wrong_and_no_links_at_all_are_no_number():
    nothing = [set() for _ in LENGTHS]
    found = links.count(nothing, GOLD)
    assert (found.error_rate, found.recall) == (1, 0)
    assert np.isnan(found.precision)
    empty = links.count(nothing, gold(nothing, nothing))
    assert np.isnan([empty.error_rate, empty.recall, empty.precision]).all()


def test_reversing_all_links_or_the_order_of_sentences_changes_nothing():
    found, order = drawn(2), np.random.default_rng(0).permutation(len(LENGTHS))
    assert links.count(links.flipped(found), links.other_way(GOLD)) == links.count(found, GOLD)
    assert links.other_way(links.other_way(GOLD)) == GOLD
    moved = Gold(*([column[n] for n in order] for column in GOLD))
    assert links.count([found[n] for n in order], moved) == links.count(found, GOLD)
    for name in ("random", "diagonal", "oracle"):
        assert links.bounds(moved)[name] == pytest.approx(links.bounds(GOLD)[name])


def test_links_of_another_number_of_sentences_are_a_value_error():
    with pytest.raises(ValueError, match="links of 4 sentence pairs; expected 5"):
        links.count(drawn(0)[:4], GOLD)


def test_the_random_floor_is_the_mean_of_draws():
    draw = np.random.default_rng(0)
    one = lambda: [{(int(draw.integers(source)), t) for t in range(target)} for source, target in LENGTHS]
    counts = np.array([links.count(one(), GOLD) for _ in range(4000)])
    error = counts.std(0) / np.sqrt(len(counts))
    assert (abs(counts.mean(0) - links.bounds(GOLD)["random"]) <= 4 * error).all()


def test_the_diagonal_links_every_target_word_with_the_source_word_at_its_middle():
    for source, target in LENGTHS:
        found = links.diagonal(source, target)
        assert sorted(t for _, t in found) == list(range(target))
        for s, t in found:
            assert s / source <= (t + 0.5) / target < (s + 1) / source
    assert links.diagonal(7, 7) == {(i, i) for i in range(7)}


def test_no_choice_of_one_link_or_none_for_each_target_word_is_better_than_the_oracle():
    """Of all there are: three target words, each with one of four source words or none."""
    for seed in range(23):
        draw = np.random.default_rng(seed)
        sure, more = (set(map(tuple, np.argwhere(draw.random((4, 3)) < share).tolist())) for share in (0.2, 0.3))
        if not sure | more:
            continue
        known = Gold([["w"] * 4], [["w"] * 3], [sure], [sure | more])
        choices = itertools.product([None, 0, 1, 2, 3], repeat=3)
        chosen = [{(s, t) for t, s in enumerate(choice) if s is not None} for choice in choices]
        rates = [links.count([found], known).error_rate for found in chosen if found or sure]
        assert links.bounds(known)["oracle"].error_rate == pytest.approx(min(rates))


def test_floors_and_ceiling_of_the_english_french_set(english_french):
    """As they were measured by others' scorer on the same files."""
    found = {name: 100 * counts.error_rate for name, counts in links.bounds(english_french).items()}
    assert found == {
        "random": pytest.approx(88.6, abs=0.1),
        "diagonal": pytest.approx(53.8, abs=0.1),
        "oracle": pytest.approx(0.4, abs=0.1),
    }


@pytest.fixture
def english_french():
    if not all((downloads.folder() / file).exists() for file in gold_alignments.ENGLISH_FRENCH):
        pytest.skip("ATTENTION_VARIANTS_DATA has no gold_alignments")
    return gold_alignments.english_french()


def slow_grow(forward, backward):
    """The rule as it is told, one link at a time: of all that may be added at a step, the nearest to the beginning first."""
    found, union = list(forward & backward), forward | backward
    while True:
        near = []
        for s, t in union:
            for of_s, of_t in found:
                if max(abs(s - of_s), abs(t - of_t)) == 1:
                    near.append((s, t))
        new = slow_free(near, found)
        if not new:
            return found
        found += new


def slow_free(candidates, found):
    new = []
    for total in range(100):
        for s, t in set(candidates):
            if s + t == total and all(s != a and t != b for a, b in found + new):
                new.append((s, t))
    return new


def slow_final(forward, backward):
    found = slow_grow(forward, backward)
    found += slow_free(forward, found)
    return found + slow_free(backward, found)


DIRECTIONS = [pair for seed in range(20) for pair in zip(drawn(seed, 0.25), drawn(seed + 100, 0.25), strict=True)]


@pytest.mark.parametrize(("name", "slow"), [("grow_diagonal", slow_grow), ("grow_diagonal_final", slow_final)])
def test_growing_is_what_a_slow_loop_of_the_rule_gives(name, slow):
    more = 0
    for forward, backward in DIRECTIONS:
        found = SYMMETRISED[name](forward, backward)
        assert found == set(slow(forward, backward))
        more += found > forward & backward
    assert more > 20


def test_growing_by_hand():
    """From (1, 1) to its corner (2, 2), and never to (3, 1): target 1 has a link already. (6, 6) touches nothing."""
    forward, backward = {(1, 1), (2, 2), (3, 1), (1, 2)}, {(1, 1), (6, 6), (6, 5)}
    assert links.grow_diagonal(forward, backward) == {(1, 1), (2, 2)}
    assert links.grow_diagonal_final(forward, backward) == {(1, 1), (2, 2), (6, 5)}


def test_each_way_to_make_one_of_two_lies_between_the_ways_before_and_after_it():
    for forward, backward in DIRECTIONS:
        one, grown, final, union = (
            SYMMETRISED[name](forward, backward) for name in ("intersection", "grow_diagonal", "grow_diagonal_final", "union")
        )
        assert one <= grown <= final <= union
        added = grown - one
        assert all(s != a and t != b for (s, t), (a, b) in itertools.permutations(added, 2))
        free = {s for s, _ in union} - {s for s, _ in final}, {t for _, t in union} - {t for _, t in final}
        assert not any(s in free[0] and t in free[1] for s, t in union)


@pytest.mark.parametrize("name", SYMMETRISED)
def test_it_does_not_matter_which_language_is_called_the_source(name):
    """Nor, but for what comes last, which direction is called forward; and two directions that agree are themselves."""
    turned = lambda of: {(t, s) for s, t in of}
    for forward, backward in DIRECTIONS:
        found = SYMMETRISED[name](forward, backward)
        assert SYMMETRISED[name](turned(forward), turned(backward)) == turned(found)
        assert SYMMETRISED[name](forward, forward) == forward
        if name != "grow_diagonal_final":
            assert SYMMETRISED[name](backward, forward) == found
