"""Your own labelled sentences: tab-separated files with a column for the label and one for the text (plain or gzip, UTF-8).

One file is split by seed: a run has the fold of its seed out of ten for test, and a vocabulary of the whole file, so that all folds
share it. With a file for test, or for validation, that is what they are for.
"""

import dataclasses

import numpy as np

from attention_variants.data import text_files
from attention_variants.data.labelled import Labelled
from attention_variants.errors import InputError, unknown


@dataclasses.dataclass(frozen=True)
class Config:
    """Paths of the files, and the names of the two columns, of which there may be others.

    `header`: the first line names the columns; else they are "1", "2", …. Tabs separate; quotes are part of the text.
    """

    train: str = ""
    validation: str = ""
    test: str = ""
    label: str = "label"
    text: str = "text"
    header: bool = True


def labelled(config: Config) -> Labelled:
    """The sentences of all files. Raises InputError for a missing path and for all that `read` refuses."""
    if not config.train:
        raise InputError("data.train is not set; give a file with --config.data.train=PATH")
    if config.label == config.text:
        raise InputError(f"data.label and data.text are both {config.text!r}; expected two columns")
    texts, labels, splits = [], [], {}
    for split in ("train", "validation", "test"):
        if path := getattr(config, split):
            rows = read(path, config)
            splits[split] = np.arange(len(texts), len(texts) + len(rows))
            texts += [text for text, _ in rows]
            labels += [label for _, label in rows]
    names, label_N = np.unique(labels, return_inverse=True)
    classes = tuple(names.tolist())
    if len(classes) < 2:
        raise InputError(
            f"all {len(texts)} sentences of {config.train} have the label {classes[0]!r}; expected at least two labels"
        )
    return Labelled(texts, label_N, classes, splits if len(splits) > 1 else {})


def read(path: str, config: Config) -> list[tuple[str, str]]:
    """(text, label) of each line.

    Raises:
      InputError: as `text_files.read_lines`; a column that there is not; a line with other than the first one's number of fields,
        or without text or label (which).
    """
    rows = [line.split("\t") for line in text_files.read_lines(path)]
    names = [name.strip() for name in rows[0]] if config.header else [str(n + 1) for n in range(len(rows[0]))]
    for column in (config.label, config.text):
        if column not in names:
            raise unknown(f"column in {path}:", column, names)
        if names.count(column) > 1:
            raise InputError(f"{path} has {names.count(column)} columns {column!r}; expected one")
    found = []
    for number, row in list(enumerate(rows, start=1))[config.header :]:
        if len(row) != len(names):
            raise InputError(f"{path}, line {number}, has {len(row)} fields; expected {len(names)}, with tabs between")
        found.append(tuple(row[names.index(column)].strip() for column in (config.text, config.label)))
        for column, value in zip((config.text, config.label), found[-1], strict=True):
            if not value:
                raise InputError(f"{path}, line {number}, has nothing in column {column!r}; expected a label and a sentence")
    if not found:
        raise InputError(f"{path} has no line below its names; expected sentences")
    return found
