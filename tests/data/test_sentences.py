"""The six sets are read as they were published, and your own file as it is written."""

import gzip

import numpy as np
import pytest

from attention_variants.data import downloads, sentences, tsv_file
from attention_variants.errors import InputError

# Sentences of each split, and of each class of all of them (Kim 2014, table 1; SST-1's training split as published).
SIZES = {
    "mr": ([], [5331, 5331]),
    "subj": ([], [5000, 5000]),
    "mpqa": ([], [7294, 3312]),
    "trec": ([5452, 500], None),
    "sst1": ([8544, 1101, 2210], None),
    "sst2": ([6920, 872, 1821], None),
}
TEXT = "id\ttext\tlabel\n1\ta film .\tgood\n2\tno\tbad\n"


@pytest.mark.parametrize("name", sentences.FILES)
def test_a_set_has_its_sentences_and_classes(name):
    files = sentences.FILES[name].values()
    if not all((downloads.folder() / file).exists() for file in files):
        pytest.skip(f"ATTENTION_VARIANTS_DATA has no {name}")
    data = sentences.labelled(sentences.Config(name))
    splits, classes = SIZES[name]
    assert [len(rows) for rows in data.splits.values()] == splits
    assert set(data.label_N) == set(range(len(data.classes)))
    assert classes is None or np.bincount(data.label_N).tolist() == classes
    assert sum(not text for text in data.texts) == (3 if name == "mpqa" else 0)
    assert not any("\ufffd" in text or text != text.strip() for text in data.texts)
    assert not any("\x80" <= letter < "\xa0" for text in data.texts for letter in text)  # what a wrong encoding leaves
    if name == "trec":
        assert (data.texts[1], data.classes[data.label_N[1]]) == ("What films featured the character Popeye Doyle ?", "entity")


def test_every_file_of_every_set_is_pinned():
    assert {file for files in sentences.FILES.values() for file in files.values()} <= downloads.SOURCES.keys()
    assert sentences.ENCODINGS.keys() <= downloads.SOURCES.keys()


def config(path, lines=TEXT, **changes):
    path.write_bytes(lines.encode())
    return tsv_file.Config(**{"train": str(path)} | changes)


@pytest.mark.parametrize("separate", [{}, {"validation": "v"}, {"test": "t"}, {"validation": "v", "test": "t"}])
def test_files_are_splits_and_one_alone_is_folds(tmp_path, separate):
    for name in separate.values():
        config(tmp_path / name)
    data = tsv_file.labelled(config(tmp_path / "f", **{split: str(tmp_path / name) for split, name in separate.items()}))
    assert data.texts == ["a film .", "no"] * (1 + len(separate))
    assert [data.classes[label] for label in data.label_N] == ["good", "bad"] * (1 + len(separate))
    assert list(data.splits) == (["train", *separate] if separate else [])


def test_columns_are_found_by_name_or_number_in_plain_and_gzip(tmp_path):
    """Quotes are text, whatever stands in other columns."""
    lines = 'x"\t0\t"a\nb"\ty\t1\n'
    data = tsv_file.labelled(config(tmp_path / "f", lines, header=False, text="3", label="1"))
    assert (data.texts, data.classes) == (['"a', "1"], ('b"', 'x"'))
    (tmp_path / "z").write_bytes(gzip.compress(TEXT.encode()))
    assert tsv_file.labelled(tsv_file.Config(train=str(tmp_path / "z"))).texts == ["a film .", "no"]


@pytest.mark.parametrize(
    ("text", "changes", "sentence"),
    [
        (TEXT, {"train": ""}, "data.train is not set; give a file with --config.data.train=PATH"),
        (TEXT, {"label": "labl"}, "unknown column in .*: 'labl'; did you mean 'label'"),
        (TEXT, {"label": "text"}, "data.label and data.text are both 'text'"),
        (TEXT.replace("\tbad", ""), {}, "line 3, has 2 fields; expected 3"),
        (TEXT.replace("no", "n\to"), {}, "line 3, has 4 fields; expected 3"),
        (TEXT.replace("no", " "), {}, "line 3, has nothing in column 'text'"),
        (TEXT.replace("good", ""), {}, "line 2, has nothing in column 'label'"),
        (TEXT.replace("good", "bad"), {}, "all 2 sentences of .* have the label 'bad'; expected at least two labels"),
        ("text\tlabel\n", {}, "has no line below its names"),
        ("", {}, "is empty; expected lines"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        tsv_file.labelled(config(tmp_path / "f", text, **changes))
