"""Multi30k, task 1: image captions in German, English and French (Elliott et al. 2016, 2017; Barrault et al. 2018).

29,000 training, 1,014 validation and 1,000 test pairs, raw text. The data is for non-commercial research; it is downloaded
on request and not part of this project.
"""

import dataclasses
from typing import Literal

from attention_variants.data import Pairs, downloads, text_files
from attention_variants.errors import InputError

METRIC = "bleu"
FILES = {
    "train": "train",
    "validation": "val",
    "test": "test_2016_flickr",
    "test_2017_flickr": "test_2017_flickr",
    "test_2017_mscoco": "test_2017_mscoco",
    "test_2018_flickr": "test_2018_flickr",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The languages translated from and to, and which share of the training pairs, the first ones."""

    source: Literal["de", "en", "fr"] = "de"
    target: Literal["de", "en", "fr"] = "en"
    share: float = 1.0

    def __post_init__(self):
        if self.source == self.target:
            raise InputError(f"data.source and data.target are both {self.source!r}; expected two languages of de, en, fr")
        if not 0 < self.share <= 1:
            raise InputError(f"data.share is {self.share}; expected a share of the training pairs above 0 and up to 1")


def splits(config: Config) -> tuple[str, ...]:
    del config
    return tuple(FILES)


def read(config: Config, split: str) -> Pairs:
    """The pairs of a split. Raises InputError where a file cannot be had."""
    name = FILES[split]
    paths = [downloads.fetch(f"multi30k/{name}.{language}.gz") for language in (config.source, config.target)]
    pairs = text_files.read_pairs(*paths)
    if split != "train" or config.share == 1:
        return pairs
    most = max(1, round(config.share * len(pairs.source)))
    return Pairs(pairs.source[:most], pairs.target[:most])
