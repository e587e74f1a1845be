"""Looks at what was trained: finished workdirs in, numbers and pictures out. Training knows nothing of it."""

from absl import flags

from attention_variants.errors import InputError
from attention_variants.train import program
from attention_variants.train.cli import prepare


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
