"""Labelled sentences, and how they are split.

A source of them is a file of this folder with a `Config` and `labelled(config) -> Labelled`. A person's own are `tsv_file`.
"""

from typing import NamedTuple

import numpy as np

from attention_variants.data import Split
from attention_variants.errors import InputError

FOLDS = 10  # of a set without splits, as is the custom (Kim 2014)
VALIDATION = 0.1  # share of what may be trained on, where there is no validation split


class Labelled(NamedTuple):
    """Sentences with a class each.

    Attributes:
      texts: the sentences. label_N: the number of the class of each. classes: their names.
      splits: the numbers of the sentences of "train" and, where they are given, of "validation" and "test"; none in a set of folds.
    """

    texts: list[str]
    label_N: np.ndarray
    classes: tuple[str, ...]
    splits: dict[str, np.ndarray]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the splits; there is always one for validation."""
        return ("train", "validation") + ("test",) * ("test" in self.splits or not self.splits)

    @property
    def drawn(self) -> bool:
        """Whether the split depends on the seed."""
        return "validation" not in self.splits

    @property
    def pool(self) -> np.ndarray:
        """The sentences that some seed may train on."""
        return self.splits.get("train", np.arange(len(self.texts)))

    @property
    def folds(self) -> list[np.ndarray]:
        """The test sentences of each fold: a tenth of all, at random, the same whoever asks; of one fold, where they are given."""
        if self.splits:
            return [self.splits.get("test", np.zeros(0, int))]
        return np.array_split(np.random.default_rng(0).permutation(len(self.texts)), FOLDS)


def split(labelled: Labelled, seed: int, fits_N: np.ndarray) -> Split:
    """The split of a seed.

    In a set of folds, test sentences are those of the fold whose number is the seed, from 0 again after the last. Where validation
    sentences are not given they are a tenth of the others, at random by seed, with what does not fit, and with so many more that
    every fold has as many for training: runs on several folds can then train in one program.

    Args:
      fits_N: bool, which sentences may be trained on.

    Raises:
      InputError: a split without a sentence, or with a label that no training sentence has.
    """
    folds = labelled.folds
    tested = folds[seed % len(folds)]
    rest = np.setdiff1d(labelled.pool, tested)
    fitting = rest[fits_N[rest]]
    if labelled.drawn:
        least = min(fits_N[np.setdiff1d(labelled.pool, fold)].sum() for fold in folds)
        train = np.random.default_rng(seed).permutation(fitting)[: least - round(VALIDATION * least)]
        found = Split(np.sort(train), np.setdiff1d(rest, train), np.sort(tested))
    else:
        found = Split(fitting, labelled.splits["validation"], tested)
    for name in labelled.names:
        rows = getattr(found, name)
        if not len(rows):
            raise InputError(f"{len(labelled.texts)} sentences leave none for {name}; expected more, or a longer task.max_length")
        unknown = rows[~np.isin(labelled.label_N[rows], labelled.label_N[found.train])]
        if len(unknown):
            text, label = labelled.texts[unknown[0]], labelled.classes[labelled.label_N[unknown[0]]]
            raise InputError(f"the label {label!r} of the {name} sentence {text[:60]!r} is that of no training sentence")
    return found
