"""Your own table: a CSV file (commas, semicolons or tabs) whose first line names the columns."""

import dataclasses

from attention_variants.data import text_files
from attention_variants.data.tables import Table, read_csv
from attention_variants.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    """`path` of the file, plain or gzip. `target`: the column to predict. `features`: columns, with commas; all others by default.

    `classes`: the target is a class, of which there may be words, and not a quantity.
    """

    path: str = ""
    target: str = ""
    features: str = ""
    classes: bool = False


def table(config: Config) -> Table:
    """Raises InputError for a file that cannot be read and for all that `read_csv` refuses."""
    for name in ("path", "target"):
        if not getattr(config, name):
            raise InputError(f"data.{name} is not set; give one with --config.data.{name}=…")
    features = tuple(name.strip() for name in config.features.split(",") if name.strip())
    text = "\n".join(text_files.read_lines(config.path))
    return read_csv(text, config.path, target=config.target, features=features, classes=config.classes)
