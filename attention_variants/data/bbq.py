"""CO2 and concrete as the code of implicit kernel attention used them (Song et al. 2021), from Tompkins et al. 2019.

Inputs and target are scaled to [−1, 1] over all rows, and their own split is not used: as that code does, rows are split anew.
"""

import dataclasses
from typing import Literal

from attention_variants.data import downloads
from attention_variants.data.tables import Table, read_csv


@dataclasses.dataclass(frozen=True)
class Config:
    """Which set."""

    set: Literal["co2", "concrete"] = "co2"


def table(config: Config) -> Table:
    """Raises InputError where a file cannot be had."""
    texts = [downloads.fetch(f"bbq/{config.set}_{split}.csv").read_text() for split in ("train", "test")]
    return read_csv("".join(text.rstrip("\n") + "\n" for text in texts), config.set, target="", header=False)
