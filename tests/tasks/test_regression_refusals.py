"""What the regression task refuses, before anything is written."""

import pytest

from attention_variants.errors import InputError
from attention_variants.train import loop

BAD = {
    "p below 1": ("variant=rbf", {"variant.p": 0.5}, "variant.p is 0.5; expected a number from 1 on"),
    "no width": ("", {"variant.width": 0.0}, "variant.width is 0.0; expected a number above 0"),
    "a width without a gradient": ("", {"variant.kernel": "boxcar"}, "whose width has no gradient"),
    "several devices": ("", {"parallel.devices": 2}, "a table is one sequence"),
    "no path": ("data=csv_file", {}, "data.path is not set"),
    "an unknown set": ("data=uci,set=concret", {}, "concret"),
    "rows of a whole": ("protocol=authors", {"task.rows": 5}, "expected 0"),
    "a rule without a kernel": (
        "variant=standard,rule=silverman",
        {},
        "rule=silverman is of kernels, and variant=standard has none",
    ),
    "a route without dropout": (
        "model=row_transformer",
        {"model.route": "fused", "hypers.attention_dropout": 0.1},
        "route='fused' cannot take this: fused kernels have no dropout",
    ),
    "a route of other kernels": (
        "model=row_transformer,variant=rbf",
        {"model.route": "linear"},
        "route='linear' cannot take this: Kernel has no as_kernel",
    ),
    "parts of a whole": ("", {"optimizer.accumulate": 2}, "optimizer.accumulate is 2; a table is one sequence, expected 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_sentence(case, configured, tmp_path):
    pieces, changes, sentence = BAD[case]
    with pytest.raises(InputError) as caught:
        loop.train(configured(pieces, **changes), tmp_path / "w", quiet=True)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w").exists()
