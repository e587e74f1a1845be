"""Prints the command of each run, one complete line each, for any other scheduler."""

import shlex


def launch(plan, board, options) -> None:
    del board, options
    for run in plan:
        print(shlex.join(run.command()))
