"""Every benchmark runs, checks that its contenders do the same work, and becomes a section of the page."""

import numpy as np
import pytest

from attention_variants.data import downloads
from attention_variants.errors import InputError
from experiments import speed
from experiments.timing import Contender, Table, Timing, alternate, assert_same

LONG = ("step", "decoding", "lanes", "lane_steps", "rows")  # contenders in processes of their own, PyTorch among them; whole runs


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in speed.names()])
def test_a_benchmark_answers_its_question(name):
    if name == "rows" and not (downloads.folder() / "bbq").exists():
        pytest.skip("ATTENTION_VARIANTS_DATA has no bbq")
    tables = speed.load(name).measure(quick=True)
    text = speed.in_markdown(name, [speed.Answer("a machine", "versions", tables)])
    assert text.startswith("## ")
    assert text.splitlines()[0].endswith("?")
    for table in tables:
        assert table.timings[0].ratio[0] == 1.0
        assert all(timing.name in text for timing in table.timings)


def test_contenders_take_turns_and_ratios_are_of_the_same_round(monkeypatch):
    """The clock goes on while a contender works. The machine is slow now and then, the second contender slower in other rounds."""
    clock, turns = [0.0], []
    slow, factor = [1, 1, 8, 1, 9], [3, 4, 2, 6, 5]  # of a round
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def work(name):
        def run():
            turns.append(name)
            number = (len(turns) - 1) // 2 - 2  # the first two rounds compare results and see how long a run takes
            clock[0] += slow[number] * (factor[number] if name == "b" else 1)

        return Contender(name, run)

    found = alternate([work("a"), work("b")], rounds=5, same=None)
    assert "".join(turns[-10:]) == "ab" * 5
    assert found[0].seconds == [1, 1, 8]
    assert found[0].ratio == [1, 1, 1]
    assert found[1].seconds == [6, 4, 16]
    assert found[1].ratio == [4, 3, 5]  # the ratio of the medians is 6


def test_contenders_that_do_other_work_are_not_timed():
    other = [Contender("a", lambda: np.ones(3)), Contender("b", lambda: np.ones(3) * 1.01)]
    with pytest.raises(AssertionError):
        alternate(other, rounds=1, same=lambda a, b: assert_same(a, b, tolerance=1e-3))


def test_answers_are_kept_and_the_page_is_made_of_them(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    name = speed.names()[0]
    answer = speed.Answer("a machine", "jax 1", [Table("some work", [Timing("us", [1.0, 0.5, 2.0], [1.0, 1.0, 1.0], 2**20)], 7)])
    speed.save(name, answer)
    assert speed.saved(name) == [answer]
    page = speed.page()
    assert "| us | 1.00 s | 500 ms – 2.00 s | 7 | 1.00 | 1.0 MiB |" in page
    assert page.count("## ") == 1


def test_an_unknown_benchmark_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="attention"):
        speed.load("atention")
