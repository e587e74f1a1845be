"""Confusion is a PNG file, whatever the classes are called."""

import numpy as np
import pytest

from attention_variants.figures import confusion


@pytest.mark.parametrize("classes", [("a", "b"), ("$\\frac$", "_", "a name of more than twenty-four letters", "", "5")])
def test_a_png_is_written_into_a_new_folder(tmp_path, classes):
    path = tmp_path / "new" / "confusion.png"
    confusion.draw(path, np.arange(len(classes) ** 2).reshape(len(classes), -1), classes)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_wrong_number_of_classes_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match=r"counts have shape \(2, 2\); expected \(3, 3\) as there are classes"):
        confusion.draw(tmp_path / "confusion.png", np.zeros((2, 2), int), "abc")
    assert not (tmp_path / "confusion.png").exists()
