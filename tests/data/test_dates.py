"""Laws of the dates: disjoint days, true targets, true alignments, one seed one data set."""

import datetime
import random
import re

import pytest

from attention_variants.data import Pairs, dates, links
from attention_variants.errors import InputError

CONFIG = dates.Config(train=3001, validation=307, test=509, seed=3)
MONTHS = [f"{datetime.date(2000, month, 1):%B}".lower() for month in range(1, 13)]


@pytest.fixture(scope="module")
def pairs():
    return {split: dates.read(CONFIG, split) for split in dates.splits(CONFIG)}


def test_the_splits_have_the_sizes_asked_for(pairs):
    assert {split: len(p.source) for split, p in pairs.items()} == {"train": 3001, "validation": 307, "test": 509}


def test_no_day_is_in_two_splits(pairs):
    days = [set(p.target) for p in pairs.values()]
    assert sum(map(len, days)) == len(set.union(*days))


def test_targets_are_iso_dates_from_1930_to_2029(pairs):
    for target in pairs["train"].target:
        assert datetime.date.fromisoformat(target).isoformat() == target
        assert 1930 <= int(target[:4]) <= 2029


def test_alignments_point_at_the_characters_of_day_month_and_year(pairs):
    """What an alignment covers in the source means what it covers in the target, and every part of the target is covered once."""
    for source, target, alignment in zip(*pairs["train"], strict=True):
        assert sorted(place for _, place in alignment) == [(0, 4), (5, 7), (8, 10)]
        for (start, end), (low, high) in alignment:
            written, number = source[start:end].lower(), int(target[low:high])
            if low == 0:
                assert int(written) == (number if len(written) == 4 else number % 100)
            elif low == 5:
                month = int(written) if written.isdigit() else [m[:3] for m in MONTHS].index(written[:3]) + 1
                assert month == number
                assert written.isdigit() or written in (MONTHS[number - 1], MONTHS[number - 1][:3])
            else:
                assert int(re.fullmatch(r"(\d+)(st|nd|rd|th)?", written)[1]) == number


def test_words_that_are_not_aligned_agree_with_the_date(pairs):
    """The weekday, which no alignment covers, is the date's own."""
    seen = 0
    for source, target in zip(pairs["train"].source, pairs["train"].target, strict=True):
        if day := re.match(r"(mon|tue|wed|thu|fri|sat|sun)[a-z]*", source.lower()):
            assert f"{datetime.date.fromisoformat(target):%A}".lower().startswith(day[0])
            seen += 1
    assert seen > 300


def test_the_same_seed_makes_the_same_data_and_another_seed_another(pairs):
    assert dates.read(CONFIG, "test") == pairs["test"]
    assert dates.read(dates.Config(test=509, seed=4), "test").source != pairs["test"].source


def test_a_split_does_not_depend_on_the_size_of_another(pairs):
    assert dates.read(dates.Config(train=7, validation=307, seed=3), "validation") == pairs["validation"]


def test_every_form_can_be_drawn_and_no_brace_is_left():
    written = [dates.write(datetime.date(2003, 11, 13), random.Random(seed))[0] for seed in range(500)]
    assert len({w.lower() for w in written}) > len(dates.FORMS) * 0.8
    assert not any(set("{}") & set(w) for w in written)


@pytest.mark.parametrize(
    ("day", "ending"), [(1, "st"), (2, "nd"), (3, "rd"), (4, "th"), (11, "th"), (12, "th"), (13, "th"), (22, "nd")]
)
def test_ordinals(day, ending):
    assert dates.ordinal(day) == ending


def test_a_split_of_no_pairs_is_refused():
    with pytest.raises(InputError, match=r"data\.test is 0"):
        dates.Config(test=0)


def test_every_digit_has_a_link_and_what_is_sure_is_the_same_digit(pairs):
    gold = dates.gold(pairs["train"])
    for source, target, sure, possible, alignment in zip(*gold, pairs["train"].alignments, strict=True):
        assert sure <= possible
        assert all(0 <= s < len(source) and target[t].isdigit() for s, t in possible)
        assert {t for _, t in possible} == {t for t, letter in enumerate(target) if letter.isdigit()}
        assert all(source[s] == target[t] for s, t in sure)
        assert len({s for s, _ in sure}) == len({t for _, t in sure}) == len(sure)  # one to one
        spanned = {s for (start, end), _ in alignment for s in range(start, end)}
        assert {s for s, _ in possible} == spanned
        assert {s for s, _ in sure} == {s for s in spanned if source[s].isdigit()}
        for s, t in possible - sure:  # letters, and digits for one that no other becomes
            assert source[s].isalpha() or t not in {b for _, b in sure}


def test_links_of_a_date_by_hand():
    made = Pairs(["Mar 3rd '98"], ["1998-03-03"], [[((0, 3), (5, 7)), ((4, 7), (8, 10)), ((9, 11), (0, 4))]])
    gold = dates.gold(made)
    assert gold.source == [list("Mar 3rd '98")]
    assert gold.sure == [{(4, 9), (9, 2), (10, 3)}]
    month = {(s, t) for s in (0, 1, 2) for t in (5, 6)}
    day = {(4, 8)} | {(s, t) for s in (5, 6) for t in (8, 9)}
    century = {(s, t) for s in (9, 10) for t in (0, 1)}
    assert gold.possible == [gold.sure[0] | month | day | century]


def test_the_links_of_dates_are_scored(pairs):
    """One link for a target digit can be right everywhere; the diagonal is wrong mostly."""
    found = links.bounds(dates.gold(pairs["test"]))
    assert found["oracle"].error_rate == 0
    assert found["random"].error_rate > found["diagonal"].error_rate > 0.5
