"""ListOps: nested lists of digits and their value, a class from 0 to 9, made from a seed (Nangia and Bowman 2018).

"[MAX 2 9 [MIN 4 7 ] 0 ]" → 9. The grammar, its operators and its parameters are those of Long Range Arena (Tay et al. 2021): a list
has 2 to `max_args` places, each of which is a list with probability 1/4 and else a digit; lists nest `max_depth` − 1 deep; what has
too few or too many tokens is thrown away. MED is the median, rounded down; SM the sum modulo 10. Nothing is downloaded, and no
sequence is made twice, so the three splits are disjoint. Long Range Arena has 96,000 training sequences, of 500 to 2,000 tokens.
"""

import dataclasses
import random

import numpy as np

from attention_variants.data.labelled import Labelled
from attention_variants.errors import InputError

OPERATORS = {
    "MIN": lambda ordered: ordered[0],
    "MAX": lambda ordered: ordered[-1],
    "MED": lambda ordered: (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2,
    "SM": lambda ordered: sum(ordered) % 10,
}
NAMES, DIGITS = tuple(OPERATORS), "0123456789"
A_LIST = 0.25  # the probability of one
PATIENCE = 100_000  # draws without a new sequence, after which there are too few of them


@dataclasses.dataclass(frozen=True)
class Config:
    """How many sequences are made, from which seed, with how many tokens (both ends included), and how nested."""

    train: int = 20_000
    validation: int = 1_000
    test: int = 2_000
    seed: int = 0
    min_length: int = 10
    max_length: int = 200
    max_depth: int = 10
    max_args: int = 10

    def __post_init__(self):
        least = {"train": 1, "validation": 1, "test": 1, "min_length": 1, "max_depth": 2, "max_args": 2}
        for name, number in (least | {"max_length": self.min_length}).items():
            if getattr(self, name) < number:
                raise InputError(f"data.{name} is {getattr(self, name)}; expected at least {number}")


def labelled(config: Config) -> Labelled:
    """The sequences of all splits. Raises InputError where there are not as many of these lengths."""
    draw, values = random.Random(config.seed), {}
    sizes = {name: getattr(config, name) for name in ("test", "validation", "train")}  # more for training change no other split
    idle = 0
    while idle < PATIENCE:
        tokens, value = write(draw, config)
        idle += 1
        if value is not None and len(tokens) >= config.min_length and (text := " ".join(tokens)) not in values:
            values[text], idle = value, 0
        if len(values) == sum(sizes.values()):
            ends = np.cumsum([0, *sizes.values()])
            splits = {name: np.arange(*ends[i : i + 2]) for i, name in enumerate(sizes)}
            return Labelled(list(values), np.array(list(values.values())), tuple(DIGITS), splits)
    raise InputError(
        f"{len(values)} of {sum(sizes.values())} sequences were found with {config.min_length} to {config.max_length} tokens; "
        "expected fewer of them (data.train, data.validation, data.test), or other lengths"
    )


def write(draw: random.Random, config: Config) -> tuple[list[str], int | None]:
    """The tokens of a random list and its value; None as soon as there must be too many of them."""
    tokens, length, uniform = [], 1, draw.random  # `length`: of the list if all that is still to be written are digits

    def write_list(depth: int) -> int | None:
        nonlocal length
        operator, places = NAMES[int(len(NAMES) * uniform())], 2 + int((config.max_args - 1) * uniform())
        length += places + 1
        if length > config.max_length:
            return None
        tokens.append(f"[{operator}")
        values = []
        for _ in range(places):
            if depth + 1 == config.max_depth or uniform() > A_LIST:
                tokens.append(DIGITS[digit := int(10 * uniform())])
                values.append(digit)
            elif (value := write_list(depth + 1)) is None:
                return None
            else:
                values.append(value)
        tokens.append("]")
        return OPERATORS[operator](sorted(values))

    return tokens, write_list(1)
