"""Durations as people say them: "20 epochs", "4000 steps", "5 percent"."""

import re
from typing import NamedTuple

from attention_variants.errors import InputError
from attention_variants.train.settings import Settings

FORM = re.compile(r"(\d+(?:\.\d+)?) *(steps?|epochs?|percent|%)?")


def as_steps(text: str, name: str, *, per_epoch: int, total: int | None = None) -> int:
    """The number of steps of a duration; anything above zero is at least one step, and zero means never.

    Args:
      text: a number and a unit: steps (also where none is given), epochs, percent or % (of the whole run).
      name: what messages call the setting.
      per_epoch: steps in an epoch. total: steps of the whole run, for percent.

    Raises:
      InputError: anything else.
    """
    match = FORM.fullmatch(str(text).strip())
    if not match:
        raise InputError(f"{name} is {text!r}; expected a number and a unit, such as '20 epochs', '4000 steps' or '5 percent'")
    amount, unit = float(match[1]), (match[2] or "steps").rstrip("s")
    if unit in ("percent", "%") and total is None:
        raise InputError(f"{name} is {text!r}; a percentage of itself means nothing, expected steps or epochs")
    steps = amount * {"step": 1, "epoch": per_epoch}.get(unit, (total or 0) / 100)
    return 0 if amount == 0 else max(1, round(steps))


class Plan(NamedTuple):
    """Every duration of a run in steps; 0 is never, but that heads `repel` from the first step on."""

    total: int
    per_epoch: int
    evaluate: int
    checkpoint: int
    log: int
    repel: int = 0

    def due(self, every: int, step: int) -> bool:
        return every > 0 and (step % every == 0 or step == self.total)

    def together(self, step: int, most: int) -> int:
        """How many steps after `step` go to the devices at once: `most`, or 1 where something is due before they end.

        It depends on nothing else, so a run that is resumed runs the same programs on the same steps as one that is not.
        """
        between = range(step + 1, step + most)
        due = any(self.due(every, s) for every in (self.evaluate, self.checkpoint) for s in between)
        return 1 if due or step % most or step + most > self.total else most


def plan(settings: Settings, per_epoch: int) -> Plan:
    """The durations of the settings. Raises InputError for one that is not a duration, or a run of no steps."""
    total = as_steps(settings.run.duration, "run.duration", per_epoch=per_epoch)
    if total == 0:
        raise InputError(f"run.duration is {settings.run.duration!r}; expected at least one step")
    steps = {
        name: as_steps(text, path, per_epoch=per_epoch, total=total)
        for name, path, text in (
            ("evaluate", "run.evaluate", settings.run.evaluate),
            ("checkpoint", "run.checkpoint", settings.run.checkpoint),
            ("log", "log.every", settings.log.every),
            ("repel", "particles.begin", settings.particles.begin),
        )
    }
    return Plan(total, per_epoch, **steps)
