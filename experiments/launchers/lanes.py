"""Runs that differ in hypers and seeds alone train together, in one compiled program on all devices of this machine."""

import gc
import shlex

from attention_variants.errors import InputError
from attention_variants.train import loop, runs, signals, workdir
from experiments.ablation import Run
from experiments.board import watched
from experiments.launchers import Failure


def launch(plan, board, options) -> list[Failure]:
    """One group after the other, in this process. Ctrl-C and SIGTERM let what is in hand be saved."""
    failures, together = [], groups(plan, options.jobs)
    gc.freeze()  # as `cli.prepare`, of what this module has imported

    def failed(run: Run, reason: str) -> None:
        failures.append(Failure(run, reason))
        board.failed.add(run.workdir)

    def usable(run: Run) -> bool:
        """Whether it can train; if not, those beside it need not suffer from it."""
        try:
            workdir.check(run.workdir, run.settings())
            if workdir.busy(run.workdir):
                raise InputError(f"another process is at work in {run.workdir}; launch again when it has ended")
        except InputError as error:
            failed(run, str(error))
            return False
        return True

    with signals.caught(quiet=False) as stop:
        for number, group in enumerate(together, start=1):
            group = list(filter(usable, group))
            board.tell(f"program {number} of {len(together)}: {len(group)} runs")
            own = [run.resolve() for run in group], [run.workdir for run in group]
            commands = [shlex.join(run.command()) for run in group]
            try:
                with watched(board):
                    found = loop.train_together(*own, commands=commands, stop=stop, quiet=True) if group else []
            except Exception as error:  # a device without room, say; other groups may be smaller
                found = [error if isinstance(error, InputError) else InputError(f"{type(error).__name__}: {error}")] * len(group)
            for run, result in zip(group, found, strict=True):
                if isinstance(result, InputError):
                    failed(run, str(result))
            board.update(now=True)
            if stop.is_set() and not all(runs.finished(run.workdir) for run in plan):
                board.tell("stopped; the same command goes on from there")
                break
    return failures


def groups(plan: list[Run], most: int = 0) -> list[list[Run]]:
    """Runs whose settings are alike but for hypers and seed, at most so many in a group; 0 is any number."""
    found: dict[str, list[Run]] = {}
    for run in plan:
        config = run.resolve().to_dict() | {"hypers": None}
        config["run"].pop("seed")
        found.setdefault(repr(config), []).append(run)
    most = most or len(plan)
    return [alike[i : i + most] for alike in found.values() for i in range(0, len(alike), most)]
