"""Time and what a person sees of it: a progress bar on a terminal, plain lines elsewhere; always on standard error."""

import contextlib
import pathlib
import time
from typing import NamedTuple

import jax
import rich.console
import rich.progress
import rich.table

PROFILE_FROM = 10


class Spent(NamedTuple):
    """What a run has cost, in seconds: all of it, and each named part."""

    total: float = 0.0
    parts: dict[str, float] = {}  # noqa: RUF012 (nobody writes to it)

    @property
    def training(self) -> float:
        """Spent on steps, waiting for input included: neither on starting, compiling, evaluating nor saving."""
        return max(self.total - sum(v for k, v in self.parts.items() if k != "input"), 1e-9)


class Clock:
    """Where the time of a process goes, in seconds. `runs` that it works on at once have an equal share in it."""

    def __init__(self, runs: int = 1):
        self._started, self.runs = time.monotonic(), runs
        self.parts: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str):
        """Counts what happens inside as a part of its own."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + time.monotonic() - start

    @property
    def now(self) -> float:
        """Seconds since this process started."""
        return time.monotonic() - self._started

    @property
    def busy(self) -> float:
        """Seconds but for starting and compiling: what goes on in proportion to the steps."""
        return self.now - self.parts.get("start", 0.0) - self.parts.get("compile", 0.0)

    def spent(self, before: Spent) -> Spent:
        """What a run has cost by now, which had cost `before` when this process began with it."""
        names = before.parts | self.parts
        parts = {name: before.parts.get(name, 0.0) + self.parts.get(name, 0.0) / self.runs for name in names}
        return Spent(before.total + self.now / self.runs, parts)


class Progress:
    """The face of a run. `tell` prints a sentence; `update` moves the bar, or prints a line at most every few seconds."""

    def __init__(self, total: int, quiet: bool = False):
        self.console = rich.console.Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._total = total
        self._last = time.monotonic()
        self._bar = None
        if self.console.is_terminal and not quiet:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.completed}/{task.total} steps  {task.description}"),
                console=self.console,
            )
            self._task = self._bar.add_task("", total=total)

    def tell(self, sentence: str) -> None:
        self.console.print(sentence, markup=False)

    def update(self, step: int, *, loss: float, tokens_per_second: float, flops_per_second: float, seconds_left: float):
        """Shows where the run is; without a terminal, a line at most every ten seconds."""
        left = f"{int(seconds_left) // 60}:{int(seconds_left) % 60:02} left"
        numbers = f"loss {loss:.3f}  {tokens_per_second:,.0f} tokens/s  {_flops(flops_per_second)}  {left}"
        if self._bar is not None:
            self._bar.start()
            self._bar.update(self._task, completed=step, description=numbers)
        elif time.monotonic() - self._last >= 10 or step == self._total:
            self._last = time.monotonic()
            self.tell(f"step {step}/{self._total}  {numbers}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _flops(rate: float) -> str:
    for unit, size in (("PFLOP/s", 1e15), ("TFLOP/s", 1e12), ("GFLOP/s", 1e9)):
        if rate >= size:
            return f"{rate / size:.1f} {unit}"
    return f"{rate / 1e6:.1f} MFLOP/s"


def parameter_table(params) -> rich.table.Table:
    """How many parameters each part of the model has, with the shapes of its kernels, and the total."""
    kernels: dict[str, dict] = {}
    counts: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        part = "/".join(key.key for key in path[:2])
        counts[part] = counts.get(part, 0) + leaf.size
        if path[-1].key in ("kernel", "embedding"):
            kernels.setdefault(part, {})["×".join(map(str, leaf.shape))] = None
    columns = (rich.table.Column("part", no_wrap=True), "kernels", rich.table.Column("parameters", justify="right"))
    table = rich.table.Table(*columns, box=None)
    for part, count in counts.items():
        table.add_row(part, ", ".join(kernels.get(part, ())), f"{count:,}")
    table.add_row("total", "", f"{sum(counts.values()):,}", style="bold")
    return table


@contextlib.contextmanager
def profiled(steps: int, workdir: pathlib.Path):
    """A function of the steps done so far that has jax.profiler trace `steps` of them, from the tenth on, into the workdir."""
    running = finished = False

    def at(done: int) -> None:
        nonlocal running, finished
        if not steps or finished:
            return
        if not running and done >= PROFILE_FROM:
            jax.profiler.start_trace(str(workdir / "profile"))
            running = True
        elif running and done >= PROFILE_FROM + steps:
            jax.profiler.stop_trace()
            running, finished = False, True

    try:
        yield at
    finally:
        if running:
            jax.profiler.stop_trace()
