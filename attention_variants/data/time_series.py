"""Small series with a time axis, from R: Mauna Loa CO2, a motorcycle helmet's impact, lakes, lynxes, temperatures, sunspots."""

import dataclasses
from typing import Literal

from attention_variants.data import downloads
from attention_variants.data.tables import Table, read_csv

COLUMNS = {"mcycle": ("times", "accel")}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which series. mcycle: acceleration in g over ms (Silverman 1985); CO2: ppm, monthly, 1959 to 1997; the others by year."""

    series: Literal["mcycle", "CO2", "LakeHuron", "lynx", "nottem", "sunspot.year"] = "mcycle"


def table(config: Config) -> Table:
    """Raises InputError where the file cannot be had."""
    path = downloads.fetch(f"time_series/{config.series}.csv")
    time, target = COLUMNS.get(config.series, ("time", "value"))
    return read_csv(path.read_text(), path.name, target=target, features=(time,))
