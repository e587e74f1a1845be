"""Pictures of smoothing are PNG files that show what they were given, gaps included."""

import numpy as np
import pytest

from attention_variants.figures import smoothing


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


def drawn(path, fit, low=None, high=None, truth=None):
    x = np.linspace(0, 1, 50)
    smoothing.fit(path, x, np.sin(9 * x), x, fit, low, high, names=("$x", "y_"), truth=truth)
    return pixels(path)


def test_a_fit_has_its_line_its_band_and_the_truth(tmp_path):
    """Each of them changes the picture, and a band of nothing but gaps does not."""
    path, x = tmp_path / "new" / "fit.png", np.linspace(0, 1, 50)
    plain = drawn(path, np.sin(9 * x))
    assert not np.array_equal(drawn(path, np.zeros(50)), plain)
    assert not np.array_equal(drawn(path, np.sin(9 * x), np.sin(9 * x) - 1, np.sin(9 * x) + 1), plain)
    assert not np.array_equal(drawn(path, np.sin(9 * x), truth=np.cos), plain)
    gaps = np.full(50, np.nan)
    assert np.array_equal(drawn(path, gaps, gaps, gaps), drawn(path, gaps))


@pytest.mark.parametrize("heads", [1, 3, 5])
def test_weights_over_distance_and_their_parts_are_drawn(tmp_path, heads):
    draw = np.random.default_rng(0)
    weights, distance = draw.random((heads, 3, 5)), draw.random((heads, 3, 5))
    names = [f"head {h}" for h in range(heads)]
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    smoothing.over_distance(one, distance, weights, names, title="t")
    smoothing.over_distance(other, distance, weights[:, ::-1], names, title="t")
    assert not np.array_equal(pixels(one), pixels(other))
    parts = lambda path, magnitude: smoothing.decomposition(path, distance, magnitude, weights, "abc", "vwxyz", title="t")
    parts(one, draw.random((heads, 5)))
    parts(other, draw.random((heads, 5)))
    assert not np.array_equal(pixels(one), pixels(other))
