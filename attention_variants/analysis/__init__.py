"""Looks at what was trained: finished workdirs in, numbers and pictures out. Training knows nothing of it."""

from absl import flags

from attention_variants.errors import InputError
from attention_variants.train import program
from attention_variants.train.cli import prepare


def start(draw) -> None:
    """Runs a module as a program that has the flag --workdir: prints the paths of the pictures that `draw(workdir)` makes."""

    def main():
        prepare()
        if not flags.FLAGS.workdir:
            raise InputError("--workdir is missing; expected the folder of a training run")
        for path in draw(flags.FLAGS.workdir):
            print(path)

    program.start(main)
