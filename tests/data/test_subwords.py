"""Laws of the vocabulary: text comes back, training is a function of the text, a saved vocabulary is the same one."""

import json

import pytest

from attention_variants.data import dates
from attention_variants.data import subwords as library
from attention_variants.data.subwords import Subwords
from attention_variants.data.tokens import BEGIN, END, PAD, SPECIAL, UNKNOWN
from attention_variants.errors import InputError

TEXT = [
    "Zwei junge weiße Männer sind im Freien, in der Nähe vieler Büsche.",
    "Two young, White males are outside near many bushes (maybe).",
    "it's a man's well-known \"quote\" – isn't it? 3.5 %!",
    "Une fille à l'école; où est-ce ?",
] * 3


def ids(subwords: Subwords, sentences: list[str]) -> list[list[int]]:
    return [row.tolist() for row in subwords.encode(sentences)]


@pytest.mark.parametrize("size", [0, 90, 300])
def test_text_comes_back_as_it_went_in(size):
    subwords = Subwords.train(TEXT, size)
    assert subwords.decode(ids(subwords, TEXT)) == TEXT


def test_runs_of_white_space_become_one_space():
    subwords = Subwords.train(TEXT, 100)
    assert subwords.decode(subwords.encode(["  Two\t young  ", "Two young"])) == ["Two young", "Two young"]


def test_composed_and_decomposed_letters_are_the_same_text():
    subwords = Subwords.train(TEXT, 100)
    assert ids(subwords, ["Ma\u0308nner"]) == ids(subwords, ["Männer"])


def test_size_zero_is_one_token_per_character():
    subwords = Subwords.train(TEXT, 0)
    assert [len(row) for row in ids(subwords, TEXT)] == [len(text) + 2 for text in TEXT]  # a space before, END after
    assert len(subwords) == len({c for text in TEXT for c in text} | {"▁"} - {" "}) - (" " in "".join(TEXT)) + len(SPECIAL)


def test_the_size_is_the_size_asked_for_and_more_subwords_make_shorter_rows():
    few, many = Subwords.train(TEXT, 90), Subwords.train(TEXT, 150)
    assert (len(few), len(many)) == (90, 150)
    assert sum(map(len, ids(many, TEXT))) < sum(map(len, ids(few, TEXT)))


def test_special_tokens_have_their_ids_and_rows_end():
    subwords = Subwords.train(TEXT, 100)
    assert subwords.pieces([PAD, BEGIN, UNKNOWN, END]) == ["<pad>", "<s>", "<unk>", "</s>"]
    for row in ids(subwords, TEXT):
        assert row[-1] == END
        assert not {PAD, BEGIN, END, UNKNOWN} & set(row[:-1])


def test_special_tokens_written_in_a_text_are_text():
    """A sentence about "</s>" neither ends there nor loses it."""
    text = ["a </s> tag, <pad> and <unk> too"]
    subwords = Subwords.train(text * 2, 0)
    assert not {PAD, BEGIN, END, UNKNOWN} & set(ids(subwords, text)[0][:-1])
    assert subwords.decode(ids(subwords, text)) == text


def test_characters_that_training_never_saw_are_unknown_and_leave_the_rest_alone():
    subwords = Subwords.train(TEXT, 100)
    (row,) = ids(subwords, ["Two 日 males"])
    assert row.count(UNKNOWN) == 1
    assert "".join(subwords.decode([row])[0].split()) == "Twomales"


def test_what_follows_the_end_is_left_out():
    subwords = Subwords.train(TEXT, 100)
    row = ids(subwords, ["Two males"])[0]
    assert subwords.decode([row + row, [*row, PAD, PAD]]) == ["Two males"] * 2
    assert subwords.pieces(row + row) == subwords.pieces(row)


def test_a_saved_vocabulary_is_the_same_one(tmp_path):
    subwords = Subwords.train(TEXT, 150)
    subwords.save(tmp_path / "vocabulary.json")
    again = Subwords.load(tmp_path / "vocabulary.json")
    assert len(again) == len(subwords)
    assert ids(again, TEXT) == ids(subwords, TEXT)
    assert again.decode(ids(again, TEXT)) == TEXT


@pytest.mark.parametrize("content", [None, "", "{", '{"version": "1.0"}'])
def test_a_vocabulary_that_cannot_be_read_is_an_input_error(tmp_path, content):
    if content is not None:
        (tmp_path / "vocabulary.json").write_text(content)
    with pytest.raises(InputError, match=r"cannot read the vocabulary .*vocabulary\.json"):
        Subwords.load(tmp_path / "vocabulary.json")


def test_long_lists_are_encoded_in_order(monkeypatch):
    """However many sentences are encoded at a time."""
    subwords = Subwords.train(TEXT, 100)
    wanted = [ids(subwords, [text])[0] for text in TEXT]
    monkeypatch.setattr(library, "CHUNK", 5)
    assert ids(subwords, TEXT) == wanted


def test_two_processes_train_the_same_vocabulary(python, tmp_path):
    """On a vocabulary with many ties, whatever the hash seed and the number of threads."""
    code = """
import sys, pathlib
from attention_variants.data import dates
from attention_variants.data.subwords import Subwords
pairs = dates.read(dates.Config(train=500), "train")
Subwords.train(pairs.source + pairs.target, 300).save(pathlib.Path(sys.argv[1]))
"""
    for name, hash_seed, parallel in (("a", "1", "true"), ("b", "2", "false")):
        python(code, tmp_path / name, PYTHONHASHSEED=hash_seed, TOKENIZERS_PARALLELISM=parallel)
    assert json.loads((tmp_path / "a").read_text()) == json.loads((tmp_path / "b").read_text())
    pairs = dates.read(dates.Config(train=500), "train")
    here = Subwords.train(pairs.source + pairs.target, 300)
    assert ids(Subwords.load(tmp_path / "a"), pairs.source) == ids(here, pairs.source)


def test_words_are_whole_and_rare_ones_unknown():
    """White space separates them; END is last; a special token that a text writes out is a word like another."""
    vocabulary = Subwords.of_words(["a b a  [MAX", "c's\ta [MAX ]"], least=2)
    assert {vocabulary.pieces([token])[0] for token in range(4, len(vocabulary))} == {"a", "[MAX"}
    a, list_of = (row[0] for row in vocabulary.encode(["a", "[MAX"]))
    rows = vocabulary.encode(["a b\u00a0[MAX", "", " <pad> </s> <s> <unk> a", "<pad>a"])
    assert [row.tolist() for row in rows] == [[a, UNKNOWN, list_of, END], [END], [UNKNOWN] * 4 + [a, END], [UNKNOWN, END]]


def test_words_come_back_from_their_file(tmp_path):
    vocabulary = Subwords.of_words(["one two", "two </s>"])
    vocabulary.save(tmp_path / "v.json")
    again = Subwords.load(tmp_path / "v.json")
    lines = ["two one three </s>"]
    assert [row.tolist() for row in again.encode(lines)] == [row.tolist() for row in vocabulary.encode(lines)]
    assert len(again) == len(vocabulary) == 7
