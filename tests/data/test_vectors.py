"""Word vectors are read as GloVe and word2vec write them, and land where their words are."""

import gzip

import numpy as np
import pytest

from attention_variants.data import vectors
from attention_variants.data.subwords import Subwords
from attention_variants.errors import InputError

LINES = "the 1 2 3\ncat -1 0.5 4e0\n. . . 7 8 9\nthe 0 0 0\ndog 2 2 2\n"


def written(tmp_path, text=LINES, pack=lambda raw: raw):
    (tmp_path / "v").write_bytes(pack(text.encode()))
    return tmp_path / "v"


@pytest.mark.parametrize("header", ["", "5 3\n"])
@pytest.mark.parametrize("pack", [lambda raw: raw, gzip.compress])
def test_words_have_the_numbers_of_their_first_line(tmp_path, header, pack):
    """With word2vec's header or without, words with spaces among them, broken words of others too; and no other words."""
    found = vectors.read(written(tmp_path, header + LINES, pack), ["the", "cat", ". . .", "bird"])
    assert {word: vector.tolist() for word, vector in found.items()} == {"the": [1, 2, 3], "cat": [-1, 0.5, 4], ". . .": [7, 8, 9]}
    (tmp_path / "w").write_bytes(b"\xff\xfe 1 2 3\ncat 1 1 1\n")
    assert vectors.read(tmp_path / "w", ["cat"])["cat"].tolist() == [1, 1, 1]


def test_tokens_have_the_vectors_of_their_words_or_of_their_lower_case(tmp_path):
    """All by one factor, which makes them as large as the embeddings beside them."""
    vocabulary = Subwords.of_words(["the The CAT bird cat"])
    found = vectors.of(vocabulary, written(tmp_path), 3)
    words = [vocabulary.pieces([token])[0] for token in found["tokens"]]
    assert sorted(words) == ["CAT", "The", "cat", "the"]
    wanted = np.array([{"the": [1, 2, 3], "cat": [-1, 0.5, 4]}[word.lower()] for word in words])
    factor = found["vectors"][0, 0] / wanted[0, 0]
    np.testing.assert_allclose(found["vectors"], factor * wanted, rtol=1e-6)
    assert found["vectors"].std() == pytest.approx(3**-0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LINES.replace("dog 2 2 2", "dog 2 2 2 2"), r"v, line 5, has 4 numbers; expected 3, as on line 1"),
        (LINES.replace("dog 2 2 2", "dog 2 2"), r"v, line 5, has 2 numbers; expected 3, as on line 1"),
        ("5 4\n" + LINES, r"v, line 2, has 3 numbers; expected 4, as on line 1"),
        (LINES.replace("4e0", "four"), r"v, line 2, has something else than numbers after 'cat'"),
        (LINES.replace("4e0", "nan"), r"v, line 2, has something else than numbers after 'cat'"),
        (LINES.replace("cat", "cow").replace("the", "der"), r"v has none of the 2 words"),
        ("the 1 2\ncat 1 2\n", r"v has vectors of 2 numbers and model.width is 3"),
        ("", r"v has none of the 2 words"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        vectors.of(Subwords.of_words(["the cat"]), written(tmp_path, text), 3)


def test_a_file_that_is_not_there_or_broken_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        vectors.read(tmp_path / "nowhere", ["a"])
    (tmp_path / "broken").write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(InputError, match="cannot read"):
        vectors.read(tmp_path / "broken", ["a"])
