"""Your own text: two line-aligned files (plain or gzip, UTF-8) for training, two for validation, and two for test if you like."""

import dataclasses

from attention_variants.data import Pairs, text_files
from attention_variants.errors import InputError

METRIC = "bleu"


@dataclasses.dataclass(frozen=True)
class Config:
    """Paths of the files; line n of a source file is translated by line n of its target file."""

    train_source: str = ""
    train_target: str = ""
    validation_source: str = ""
    validation_target: str = ""
    test_source: str = ""
    test_target: str = ""


def splits(config: Config) -> tuple[str, ...]:
    return ("train", "validation", "test") if config.test_source or config.test_target else ("train", "validation")


def read(config: Config, split: str) -> Pairs:
    """The pairs of a split. Raises InputError for a missing path and for all that `text_files.read_pairs` refuses."""
    paths = []
    for side in ("source", "target"):
        path = getattr(config, f"{split}_{side}")
        if not path:
            raise InputError(f"data.{split}_{side} is not set; give a file with --config.data.{split}_{side}=PATH")
        paths.append(path)
    return text_files.read_pairs(*paths)
