"""Launchers, one file each: how the runs of a sweep are worked off. `--launcher=NAME` finds the file.

    launch(plan, board, options) -> list of Failure, or None where runs go on elsewhere

A launcher may also have `check(options)`, which raises InputError before anything is written. `plan` are the runs that are still
to be done; `board` shows them; `options` are the flags of `experiments.launch`. Whatever stops a launcher, the same command goes
on: a run that is DONE is not begun again, and one that is not resumes.
"""

import pathlib
from typing import NamedTuple

from attention_variants import modules
from experiments.ablation import Run


class Failure(NamedTuple):
    """A run that failed, and the last thing it said."""

    run: Run
    reason: str


def load(name: str):
    """The launcher of this name. Raises InputError, with the nearest name, where there is none."""
    return modules.load(__name__, name, ("launch",))


def last_words(log: pathlib.Path, lines: int = 8) -> str:
    """The end of a log, of which a mistake's one sentence is all that matters."""
    said = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = [line for line in said if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else "\n".join(said[-lines:]) or "it said nothing"
