"""What a person did wrong, told in one sentence."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake of the person at the keyboard: `main.py` prints its message without a traceback and exits with status 2."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that is not among `choices`: names it, the nearest choice and all of them."""
    choices = sorted(choices)
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {name!r}; {hint}choose from {', '.join(choices)}")
