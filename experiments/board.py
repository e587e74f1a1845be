"""What a sweep looks like while it runs: a line for each cell, a mark for each seed, the time that is left."""

import contextlib
import json
import math
import threading
import time
from typing import NamedTuple

import rich.console
import rich.live
import rich.table

from attention_variants.errors import InputError
from attention_variants.train import durations, runs
from attention_variants.train.runs import metric_of
from experiments import sweep
from experiments.ablation import Ablation, Run

SILENCE = 30  # seconds, after which a line without a terminal says how far things are
TAIL = 8192  # bytes of metrics.jsonl, which hold its last whole rows


class State(NamedTuple):
    """Where a run is: the share of its steps that are done, and its metric if it is finished."""

    done: float
    finished: bool
    metric: float | None


def state(run: Run, metric: str) -> State:
    """Where a run is, from its workdir."""
    if runs.finished(run.workdir):
        with contextlib.suppress(InputError):  # the table at the end will say that there is no such metric
            return State(1.0, True, metric_of(runs.results(run.workdir), metric))
        return State(1.0, True, math.nan)
    path = run.workdir / "metrics.jsonl"
    if not path.exists():
        return State(0.0, False, None)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.endswith("}") and line.startswith("{")]
    if not lines:
        return State(0.0, False, None)
    row = json.loads(lines[-1])
    planned = run.resolve().run.duration
    amount = float(durations.FORM.fullmatch(planned)[1])
    return State(min(row["epoch" if "epoch" in planned else "step"] / amount, 1.0), False, None)


class Board:
    """The face of a sweep on standard error: a live table in a terminal, a line for each run elsewhere."""

    def __init__(self, ablation: Ablation, plan: list[Run], console: rich.console.Console | None = None):
        self._ablation, self._plan = ablation, plan
        self.console = console or rich.console.Console(stderr=True, highlight=False, soft_wrap=True)
        self._begun = self._told = time.monotonic()
        self._last = 0.0
        self._states = {run.workdir: state(run, ablation.metric) for run in plan}
        self._before = self._done()
        self.failed: set = set()
        self._live = rich.live.Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self):
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_):
        self.update(now=True)
        if self._live:
            self._live.stop()

    def tell(self, sentence: str) -> None:
        """Prints a sentence."""
        self._told = time.monotonic()
        self.console.print(sentence, markup=False)

    def update(self, now: bool = False) -> None:
        """Looks at the workdirs, at most once a second."""
        if not now and time.monotonic() - self._last < 1:
            return
        self._last = time.monotonic()
        for run in self._plan:
            before = self._states[run.workdir]
            if not before.finished:
                self._states[run.workdir] = after = state(run, self._ablation.metric)
                if after.finished and not self._live:
                    self.tell(f"{run.name}: {self._ablation.metric} {after.metric:.4g}; {self._left()}")
        if self._live:
            self._live.update(self._table(), refresh=True)
        elif not now and time.monotonic() - self._told >= SILENCE and self._done() > self._before:
            self.tell(self._left())

    def _done(self) -> float:
        return sum(s.done for s in self._states.values())

    def _left(self) -> str:
        """By the speed so far."""
        finished, gained = sum(s.finished for s in self._states.values()), self._done() - self._before
        of = f"{finished} of {len(self._plan)} runs finished"
        if gained <= 0 or finished == len(self._plan):
            return of
        seconds = (len(self._plan) - self._done()) * (time.monotonic() - self._begun) / gained
        return f"{of}, {self._done() / len(self._plan):.0%} of the steps; {in_words(seconds)} left" if seconds >= 1 else of

    def _table(self) -> rich.table.Table:
        table = rich.table.Table("cell", "seeds", rich.table.Column(self._ablation.metric, justify="right"), box=None)
        for cell in self._ablation.cells:
            own = [(run, self._states[run.workdir]) for run in self._plan if run.cell == cell]
            marks = ["failed" if run.workdir in self.failed else "done" if s.finished else f"{s.done:.0%}" for run, s in own]
            found = [s.metric for _, s in own if s.finished]
            table.add_row(sweep.name(cell), "  ".join(marks), f"{sum(found) / len(found):.4g}" if found else "")
        table.caption = self._left()
        return table


def in_words(seconds: float) -> str:
    """A time as people say it."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@contextlib.contextmanager
def watched(board: Board):
    """Keeps the board up to date from a thread, while this one works."""
    done = threading.Event()

    def watch():
        while not done.wait(0.5):
            board.update()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
