"""Durations as people say them: "20 epochs", "4000 steps", "5 percent"."""

import re

from attention_variants.errors import InputError

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
