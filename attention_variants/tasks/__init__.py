"""Tasks, one file each: what joins data, model, loss, metrics and figures. `train/` knows this contract and no task by name.

A task file holds

- `Config`: a frozen dataclass of the task's own settings;
- `Hypers`: a frozen dataclass of the numbers that runs may differ in without another compiled program;
- `Task` with two constructors, `Task.new(settings)` and `Task.saved(settings, workdir)`, and what follows. `place(batch)` puts
  numpy arrays where the parameters are; rows are a multiple of `place.multiple`.

    metric: str, mode: "max" or "min"        what the best checkpoint is chosen by, on the validation split
    splits: tuple of names                   "train" and "validation" among them
    fixed: tuple of names, "run.seed" say    settings that a trained run cannot be asked with otherwise
    save(workdir)                            writes what `saved` reads (a vocabulary, say)
    describe() -> str                        a line about the data
    batches(split, seed=, multiple=, …)      `data.batches.Epochs`
    tokens(batch) -> int                     how much of a batch is not padding
    init(key) -> (params, model_state)
    loss(params, model_state, batch, key, hypers) -> (sum, weight, metrics, model_state)
                                             metrics are (sum, weight) pairs by name, `loss` among them where what is told is not
                                             what is minimised; key None is deterministic
    seeded(seed) -> Task                     the same with another seed, for runs that share data and program
    evaluate(params, model_state, split, place) -> (dict of numbers, list of dicts of strings)
                                             the answers, with what was asked (`source`) and expected (`reference`)
    predict(params, model_state, lines, place) -> (answers, remarks)
                                             one answer per line; sentences on what was unusual
    traces(params, model_state, place) -> dict
                                             by layer: a `trace` of attention (`models.heads`), and names of the queries and keys
                                             to show, which may be fewer than it has
    attention(params, model_state, place) -> dict
                                             by layer: a `trace` of many validation examples, (B, Q) which queries are real, and
                                             the names of each example's keys; may be left out where those of `traces` are of many
    figures(params, model_state, place, folder) -> paths, the one to look at first
    width                                    D, for the Transformer paper's learning-rate schedule
"""

import dataclasses
from typing import ClassVar

from attention_variants import modules
from attention_variants.errors import InputError

CONTRACT = ("Config", "Hypers", "Task")


@dataclasses.dataclass(frozen=True)
class Hypers:
    """What every task has: the learning rate at its peak; where heads repel each other, how strong (alpha), and SPOS's temperature.

    `SWITCHES` names those whose 0 switches something off: a step gets None for such a 0, and its program does without. `RATES`
    names those that are shares, in [0, 1).
    """

    SWITCHES: ClassVar[tuple[str, ...]] = ()
    RATES: ClassVar[tuple[str, ...]] = ()

    learning_rate: float = 1e-3
    alpha: float = 0.01
    temperature: float = 1.0

    def __post_init__(self):
        if not 0 <= self.learning_rate < 1e38:
            raise InputError(f"hypers.learning_rate is {self.learning_rate}; expected a number from 0 on that float32 can hold")
        for name in ("alpha", "temperature"):
            if not 0 <= getattr(self, name) < 1e38:
                raise InputError(f"hypers.{name} is {getattr(self, name)}; expected a number from 0 on that float32 can hold")
        for name in self.RATES:
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"hypers.{name} is {getattr(self, name)}; expected a rate of at least 0 and below 1")


def load(name: str):
    """The module of the task `name`; InputError (with the nearest name) where there is none."""
    return modules.load(__name__, name, CONTRACT)
