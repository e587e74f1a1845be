"""Dates as people write them → ISO 8601, made from a seed, with the true word alignments.

"Tuesday, 3rd of March 1998" → "1998-03-03". Nothing is downloaded. The days of the three splits are disjoint, so a model is
judged on dates it has never seen. Years run from 1930 to 2029: a two-digit year has one meaning. In numbers alone, dots mean
day.month.year and slashes month/day/year.
"""

import dataclasses
import datetime
import itertools
import random

from attention_variants.data import Pairs
from attention_variants.data.links import Gold
from attention_variants.errors import InputError

METRIC = "exact_match"
FIRST, DAYS = datetime.date(1930, 1, 1), 36_525
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
SHARES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
# d, m, y stand for the day, month and year in the forms below; w for the weekday, which says nothing new.
FORMS = (
    "{d} {B} {y}", "{d} {b} {y}", "{D} {B} {y}", "{D} of {B} {y}", "the {D} of {B}, {y}", "{w}, {d} {B} {y}", "{w}, {D} of {B} {y}",
    "{B} {d}, {y}", "{b} {d}, {y}", "{B} {D}, {y}", "{b}. {d} {y}", "{w}, {B} {d}, {y}", "{W} {b} {d} {y}", "{W}, {d} {b} {y}",
    "{y} {B} {d}", "{y}, {b} {d}", "{B} the {D}, {y}", "{d}-{b}-{y}", "{d} {b} '{Y}", "{b} {d} '{Y}", "{w} {d}.{m}.{y}",
    "{d}.{m}.{y}", "{0d}.{0m}.{y}", "{m}/{d}/{y}", "{0m}/{0d}/{y}", "{m}/{d}/{Y}", "{d}.{m}.{Y}", "{y}{0m}{0d}", "{y}/{0m}/{0d}",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """How many pairs are made, and from which seed."""

    train: int = 20_000
    validation: int = 500
    test: int = 1_000
    seed: int = 0

    def __post_init__(self):
        for split in SHARES:
            if getattr(self, split) < 1:
                raise InputError(f"data.{split} is {getattr(self, split)}; expected at least 1 pair")


def splits(config: Config) -> tuple[str, ...]:
    del config
    return tuple(SHARES)


def read(config: Config, split: str) -> Pairs:
    """The pairs of a split, with alignments of the day, the month and the year."""
    days = list(range(DAYS))
    random.Random(config.seed).shuffle(days)
    low, high = (round(share * DAYS) for share in SHARES[split])
    draw = random.Random(f"{config.seed} {split}")
    made = [write(FIRST + datetime.timedelta(days[draw.randrange(low, high)]), draw) for _ in range(getattr(config, split))]
    return Pairs(*(list(column) for column in zip(*made, strict=True)))


def write(date: datetime.date, draw: random.Random):
    """(the date in a random form, ISO 8601, alignments of characters)."""
    month, weekday = MONTHS[date.month - 1], WEEKDAYS[date.weekday()]
    parts = {
        "d": f"{date.day}", "0d": f"{date.day:02}", "D": f"{date.day}{ordinal(date.day)}",
        "m": f"{date.month}", "0m": f"{date.month:02}", "b": month[:3], "B": month,
        "y": f"{date.year}", "Y": f"{date.year % 100:02}", "w": weekday, "W": weekday[:3],
    }  # fmt: skip
    iso_places = {"y": (0, 4), "m": (5, 7), "b": (5, 7), "d": (8, 10)}
    text, alignments = "", []
    for piece in draw.choice(FORMS).replace("}", "{").split("{"):
        written = parts.get(piece, piece)
        place = iso_places.get(piece[-1:].lower()) if piece in parts else None
        if place:
            alignments.append(((len(text), len(text) + len(written)), place))
        text += written
    case = draw.choice((str, str, str.lower, str.upper))
    return case(text), date.isoformat(), alignments


def ordinal(day: int) -> str:
    """The ending of a day's number: st, nd, rd or th."""
    return "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def gold(pairs: Pairs) -> Gold:
    """The links between characters that the alignments of `pairs` come to.

    A digit is surely linked with the digit it becomes: units with units, and so on. A digit that no other becomes, such as the 0 of
    03 or the 19 of 1998 out of 98, may have any digit of its number. The letters of a month's name, and the ending of an ordinal,
    may belong to every digit of the month or day. Hyphens, weekdays and all other characters have no link.
    """
    sure, possible = [], []
    for source, alignments in zip(pairs.source, pairs.alignments, strict=True):
        sure.append(set())
        possible.append(set())
        for span, (low, high) in alignments:
            digits = [s for s in range(*span) if source[s].isdigit()]
            letters = [s for s in range(*span) if not source[s].isdigit()]
            sure[-1].update(zip(digits, range(high - len(digits), high), strict=True))
            possible[-1].update(
                itertools.product(digits, range(low, high - len(digits))), itertools.product(letters, range(low, high))
            )
        possible[-1] |= sure[-1]
    return Gold(list(map(list, pairs.source)), list(map(list, pairs.target)), sure, possible)
