"""Looks at what was trained: finished workdirs in, numbers and pictures out. Training knows nothing of it."""

import os
import pathlib

from absl import flags

from attention_variants.errors import InputError
from attention_variants.train import program
from attention_variants.train.cli import prepare


def run_or_model(workdir: str | None, model: str | None, expected: str, **flags: str | None) -> None:
    """Refuses what is not either a run or a pre-trained model with all that it takes.

    Args:
      expected: the flags of a model, as a person writes them. flags: the values of those that it cannot do without.

    Raises:
      InputError: both, neither, a flag that is missing, or an --output that is no folder; nothing is written.
    """
    if bool(workdir) == bool(model):
        raise InputError(f"found {'both' if model else 'neither'} of --workdir and --model; expected --workdir=RUN, or {expected}")
    for name, value in flags.items() if model else ():
        if not value:
            raise InputError(f"--model is given without --{name}; expected {expected}")
    if model and flags.get("output"):
        output = pathlib.Path(flags["output"]).absolute()
        there = next(path for path in (output, *output.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(f"--output is {output}, and {there} is no folder that can be written to; expected one, or a new one")


def start(draw, *names: str) -> None:
    """Runs a module as a program that prints the paths of the pictures that `draw` makes.

    Args:
      names: of the flags whose values `draw` gets; by default "workdir", which is then wanted.
    """

    def main():
        prepare()
        if not names and not flags.FLAGS.workdir:
            raise InputError("--workdir is missing; expected the folder of a training run")
        for path in draw(*(flags.FLAGS[name].value for name in names or ("workdir",))):
            print(path)

    program.start(main)
