"""Durations as people say them."""

import pytest

from attention_variants.errors import InputError
from attention_variants.train import durations


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("20 epochs", 140), ("1 epoch", 7), ("0.5 epochs", 4), ("4000 steps", 4000), ("1 step", 1), ("4000", 4000), ("12steps", 12),
        ("5 percent", 10), ("5%", 10), ("100 percent", 200), ("0.1 percent", 1), ("0", 0), ("0 epochs", 0), ("0 percent", 0),
        (12, 12), (" 3 steps ", 3),
    ],
)  # fmt: skip
def test_steps(text, steps):
    assert durations.as_steps(text, "run.duration", per_epoch=7, total=200) == steps


@pytest.mark.parametrize("text", ["", "soon", "-3 steps", "3 days", "1e3 steps", "epochs", "3 steps 4", "nan", "5 epochs!", None])
def test_anything_else_is_refused_with_the_name_of_the_setting(text):
    with pytest.raises(InputError, match=r"run\.evaluate is .*; expected a number and a unit, such as '20 epochs'"):
        durations.as_steps(text, "run.evaluate", per_epoch=7, total=200)


@pytest.mark.parametrize("text", ["50 percent", "50%"])
def test_a_percentage_of_itself_is_refused(text):
    with pytest.raises(InputError, match="a percentage of itself"):
        durations.as_steps(text, "run.duration", per_epoch=7)
