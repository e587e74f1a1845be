"""Looks at what was trained: finished workdirs in, numbers and pictures out. Training knows nothing of it."""

from absl import flags

from attention_variants.errors import InputError
from attention_variants.train import program
from attention_variants.train.cli import prepare


def start(draw, *more: str) -> None:
    """Runs a module as a program that has the flag --workdir: prints the paths of the pictures that `draw(workdir)` makes.

    Args:
      more: names of flags whose values `draw` gets, too.
    """

    def main():
        prepare()
        if not flags.FLAGS.workdir:
            raise InputError("--workdir is missing; expected the folder of a training run")
        for path in draw(flags.FLAGS.workdir, *(flags.FLAGS[name].value for name in more)):
            print(path)

    program.start(main)
