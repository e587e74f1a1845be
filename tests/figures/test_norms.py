"""Pictures of weights and norms: they are written, and show what they are given."""

import numpy as np
from matplotlib.figure import Figure

from attention_variants.figures import norms


def shown(monkeypatch) -> list[Figure]:
    """The figures that are written, as they are."""
    figures = []
    monkeypatch.setattr(norms, "write", lambda figure, path, title: figures.append(figure))
    return figures


def test_maps_have_one_scale(monkeypatch, tmp_path):
    figures = shown(monkeypatch)
    rng = np.random.default_rng(0)
    found = {"weight": rng.random((3, 5)), "norm": 10 * rng.random((3, 5)), "nothing": np.zeros((3, 5))}
    norms.maps(tmp_path / "x.png", found, ["a", "$b$", "c"], list("defgh"), title="t")
    images = [panel.images[0] for panel in figures[0].axes if panel.images and panel.get_title()]
    assert len(images) == 3
    for image, map_QS in zip(images, found.values(), strict=True):
        assert image.get_clim() == (0.0, 1.0)
        np.testing.assert_allclose(image.get_array(), map_QS / max(map_QS.max(), 1e-30))


def test_mixing_has_a_line_for_each_way_and_gaps_where_there_is_none(monkeypatch, tmp_path):
    figures = shown(monkeypatch)
    found = {"encoder_0": {"all": {"a": 0.1, "b": 0.2}, ".": {"a": 0.4}}, "decoder_0": {"all": {"b": 0.3}}}
    norms.mixing(tmp_path / "x.png", found)
    for panel, expected in zip(figures[0].axes, ([[0.1, np.nan], [0.2, 0.3]], [[0.4, np.nan], [np.nan, np.nan]]), strict=True):
        for name, shares in zip("ab", expected, strict=True):
            (line,) = (line for line in panel.lines if line.get_label() == name)
            np.testing.assert_array_equal(line.get_ydata(), shares)


def test_frequencies_are_of_what_has_a_rank(monkeypatch, tmp_path):
    figures = shown(monkeypatch)
    rank_BS = np.array([[0, 3, 1], [2, 0, 0]])
    values = {name: np.random.default_rng(n).random((2, 3)) for n, name in enumerate(("weight", "norm", "share"))}
    norms.frequencies(tmp_path / "x.png", {"encoder": (rank_BS, values)})
    panels = [panel for panel in figures[0].axes if panel.lines]
    for panel, name in zip(panels, ("weight", "norm"), strict=True):
        np.testing.assert_array_equal(panel.lines[0].get_xdata(), [3, 1, 2])
        np.testing.assert_array_equal(panel.lines[0].get_ydata(), values[name][rank_BS > 0])


def test_every_kind_of_token_has_its_points(tmp_path, monkeypatch):
    figures = shown(monkeypatch)
    rng = np.random.default_rng(0)
    kinds = np.array(["other", "special", "other", "punctuation"])
    norms.weights_and_norms(tmp_path / "x.png", {"encoder_0": (rng.random(4), rng.random(4), kinds)})
    assert {line.get_label(): len(line.get_xdata()) for line in figures[0].axes[0].lines} == {
        "other": 2,
        "punctuation": 1,
        "special": 1,
    }


def test_they_are_files(tmp_path):
    norms.mixing(tmp_path / "a" / "x.png", {"encoder_0": {"all": {"a": 0.1}}})
    assert (tmp_path / "a" / "x.png").stat().st_size > 1000
