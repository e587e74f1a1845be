"""Pictures of alignments are PNG files, with a frame for each right link."""

import struct

import numpy as np
import pytest

from attention_variants.figures import alignment

FOUND = {"error rate": np.random.default_rng(0).random((3, 5)), "mean norm $": np.full((3, 5), np.nan)}
SOURCE, TARGET = ["$\\frac$", "la", "maison", "bleue", "</s>"], ["the", "blue", "house"]
MAPS = {"weights": np.random.default_rng(1).random((3, 5)), "norms": np.zeros((3, 5))}
SURE, POSSIBLE = {(2, 2), (3, 1)}, {(2, 2), (3, 1), (1, 0)}


def size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_a_number_for_every_layer_and_head(tmp_path):
    path = tmp_path / "new" / "heads.png"
    alignment.by_layer_and_head(path, FOUND, title="dates")
    first = size(path)
    alignment.by_layer_and_head(path, {"error rate": np.zeros((7, 5))}, title="dates")
    assert size(path)[1] > first[1]


def test_every_number_is_written_and_none_where_there_is_none(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(alignment, "write", lambda figure, path, title: written.extend(figure.axes))
    values = np.array([[12.34, 5.0, np.nan], [0.5, 99.0, 1.0]])
    alignment.by_layer_and_head(tmp_path / "x.png", {"error rate": values}, title="t")
    found = {tuple(map(int, text.get_position())): text.get_text() for text in written[0].texts}
    assert found == {(0, 0): "12.3", (1, 0): "5", (0, 1): "0.5", (1, 1): "99", (2, 1): "1"}


def test_panels_have_the_colours_of_one_scale_where_it_is_given(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(alignment, "write", lambda figure, path, title: written.append(figure.axes))
    found = {"weights": np.array([[12.0, 50.0]]), "norms": np.array([[3.0, 4.0]])}
    for scale, expected in (((1.0, 100.0), [(1.0, 100.0)] * 2), (None, [(12.0, 50.0), (3.0, 4.0)])):
        alignment.by_layer_and_head(tmp_path / "x.png", found, title="t", scale=scale)
        assert [panel.images[0].get_clim() for panel in written.pop() if panel.images] == expected


def test_the_map_of_a_sentence(tmp_path):
    alignment.sentence(tmp_path / "new" / "map.png", MAPS, SOURCE, TARGET, SURE, POSSIBLE, title="t")
    assert min(size(tmp_path / "new" / "map.png")) > 100


def test_right_links_have_frames_and_sure_ones_another(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(alignment, "write", lambda figure, path, title: written.extend(figure.axes))
    alignment.sentence(tmp_path / "x.png", MAPS, SOURCE, TARGET, SURE, POSSIBLE, title="t")
    for panel in written[:2]:
        middles = {tuple(np.round(p.get_center()).astype(int).tolist()): p.get_linestyle() for p in panel.patches}
        assert middles.keys() == POSSIBLE
        styles = {middles[link] for link in SURE}
        assert len(styles) == 1
        assert middles[(1, 0)] not in styles


def test_words_that_are_not_those_of_the_map_are_a_value_error(tmp_path):
    with pytest.raises(ValueError, match=r"weights has shape \(3, 5\); expected \(3, 4\)"):
        alignment.sentence(tmp_path / "x.png", MAPS, SOURCE[:-1], TARGET, SURE, POSSIBLE, title="t")
    assert not (tmp_path / "x.png").exists()
