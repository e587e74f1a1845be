"""Six sets of labelled sentences as the field compares on them (Kim 2014, "Convolutional neural networks for sentence
classification").

mr: film reviews, negative or positive (Pang and Lee 2005); subj: subjective or objective (Pang and Lee 2004); mpqa: polarity of
phrases (Wiebe et al. 2005); trec: what a question asks for (Li and Roth 2002); sst1 and sst2: the Stanford Sentiment Treebank in
five and in two classes, of whole sentences alone (Socher et al. 2013). White space separates their tokens, in the case that they
are published in.

The first three have no splits: a run has the fold of its seed out of ten. trec has no validation split. Of mpqa's 10,606 phrases,
as Kim counts them, three are empty, and 3,256 stand there more than once: of a fold's 1,061 test phrases some 300 are training
phrases, too, word for word. So are 9 of trec's 500 test questions. The data is for research use; it is downloaded on request and
not part of this project.
"""

import dataclasses
from typing import Literal

import numpy as np

from attention_variants.data import downloads
from attention_variants.data.labelled import Labelled

POLARITY = ("negative", "positive")
CLASSES = {
    "mr": POLARITY,
    "subj": ("subjective", "objective"),
    "mpqa": POLARITY,
    "trec": ("description", "entity", "abbreviation", "human", "location", "number"),
    "sst1": ("very negative", "negative", "neutral", "positive", "very positive"),
    "sst2": POLARITY,
}
# The files of each set by split, "" where it has none; and their encodings, UTF-8 but for these.
FILES = {
    "mr": {"": "mr/rt-polarity.all"},
    "subj": {"": "subj/subj.all"},
    "mpqa": {"": "mpqa/mpqa.all"},
    "trec": {"train": "trec/TREC.train.all", "test": "trec/TREC.test.all"},
    "sst1": {"train": "sst/stsa.fine.train", "validation": "sst/stsa.fine.dev", "test": "sst/stsa.fine.test"},
    "sst2": {"train": "sst/stsa.binary.train", "validation": "sst/stsa.binary.dev", "test": "sst/stsa.binary.test"},
}
ENCODINGS = {"mr/rt-polarity.all": "cp1252", "subj/subj.all": "cp1252", "trec/TREC.train.all": "latin-1"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which set."""

    set: Literal["mr", "subj", "mpqa", "trec", "sst1", "sst2"] = "trec"


def labelled(config: Config) -> Labelled:
    """The sentences of a set. Raises InputError where a file cannot be had."""
    texts, labels, splits = [], [], {}
    for split, name in FILES[config.set].items():
        lines = downloads.fetch(name).read_bytes().decode(ENCODINGS.get(name, "utf-8")).removesuffix("\n").split("\n")
        splits[split] = np.arange(len(texts), len(texts) + len(lines))
        for line in lines:
            number, _, text = line.partition(" ")
            labels.append(int(number))
            texts.append(text.strip())
    splits.pop("", None)
    return Labelled(texts, np.array(labels), CLASSES[config.set], splits)
