"""Looks at what was trained: finished workdirs in, numbers and pictures out. Training knows nothing of it."""

import pathlib

from absl import flags

from attention_variants.errors import InputError
from attention_variants.train import program
from attention_variants.train.cli import prepare


def folder(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of --output, made where there is none. Raises InputError where it cannot be."""
    try:
        pathlib.Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output is {path}, where no folder can be: {error.strerror}; expected a folder") from None
    return pathlib.Path(path)


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
