"""Heatmaps are PNG files with a panel per head, whatever the tokens."""

import struct

import numpy as np
import pytest

from attention_variants.figures import heatmaps


def weights(heads: int, queries: int, keys: int) -> np.ndarray:
    x = np.random.default_rng(0).random((heads, queries, keys))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize("heads", [1, 3, 4, 5])
def test_a_png_is_written_into_a_new_folder(tmp_path, heads):
    path = tmp_path / "new" / "map.png"
    heatmaps.draw(path, weights(heads, 3, 5), "abc", "vwxyz", title="cross attention")
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 100
    assert height > 100


def test_more_tokens_make_a_larger_picture(tmp_path):
    sizes = []
    for length in (3, 23):
        heatmaps.draw(tmp_path / "map.png", weights(1, length, 5), ["t"] * length, "vwxyz", title="t")
        sizes.append(struct.unpack(">II", (tmp_path / "map.png").read_bytes()[16:24]))
    assert sizes[1][1] > sizes[0][1]


@pytest.mark.parametrize(("queries", "keys"), [("ab", "vwxyz"), ("abc", "vwxy")])
def test_a_wrong_number_of_tokens_is_a_value_error(tmp_path, queries, keys):
    with pytest.raises(ValueError, match=rf"expected \(heads, {len(queries)}, {len(keys)}\)"):
        heatmaps.draw(tmp_path / "map.png", weights(2, 3, 5), queries, keys, title="t")
    assert not (tmp_path / "map.png").exists()


def test_tokens_are_never_read_as_formulas(tmp_path):
    """Dollars, backslashes and underscores are drawn as they are: `$\\frac$` alone would be a broken formula."""
    tokens = ["$\\frac$", "▁", "▁a_b", "\\alpha", "x$y$", "$"]
    heatmaps.draw(tmp_path / "map.png", weights(1, 6, 6), tokens, tokens, title="t")
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_weights_of_nothing_are_drawn(tmp_path):
    heatmaps.draw(tmp_path / "map.png", np.zeros((2, 3, 5)), "abc", "vwxyz", title="t")
    assert (tmp_path / "map.png").exists()
