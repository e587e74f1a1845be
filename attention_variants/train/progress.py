"""Time and what a person sees of it: a progress bar on a terminal, plain lines elsewhere; always on standard error."""

import contextlib
import sys
import time

import rich.console
import rich.progress
import rich.table


class Clock:
    """Where time goes: the sum of each named part, in seconds. Training time is what is left of the total."""

    def __init__(self, before: float = 0.0):
        self.started, self.before = time.monotonic(), before
        self.parts: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str):
        start = time.monotonic()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + time.monotonic() - start

    @property
    def total(self) -> float:
        """Seconds since the start, those before a resumption included."""
        return self.before + time.monotonic() - self.started

    @property
    def training(self) -> float:
        """Seconds of this process spent on steps: neither compiling nor evaluating nor saving."""
        aside = sum(v for k, v in self.parts.items() if k != "input")
        return time.monotonic() - self.started - aside


class Progress:
    """The face of a run. `tell` prints a sentence; `update` moves the bar, or prints a line at most every few seconds."""

    def __init__(self, total: int, done: int = 0, quiet: bool = False):
        self.console = rich.console.Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bar = self._task = None
        self._last = time.monotonic()
        self._total = total
        if sys.stderr.isatty() and not quiet:
            columns = ("{task.description}", rich.progress.BarColumn(), "{task.completed}/{task.total}", "{task.fields[numbers]}")
            self._bar = rich.progress.Progress(
                *(rich.progress.TextColumn(c) if isinstance(c, str) else c for c in columns),
                rich.progress.TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task("training", total=total, completed=done, numbers="")
            self._bar.start()

    def tell(self, sentence: str) -> None:
        self.console.print(sentence, markup=False)

    def update(self, step: int, *, loss: float, tokens_per_second: float, flops_per_second: float, seconds_left: float, every=10.0):
        """Shows where the run is; without a terminal, a line at most every `every` seconds."""
        numbers = f"loss {loss:.3f}  {tokens_per_second:,.0f} tokens/s  {_flops(flops_per_second)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=numbers)
        elif time.monotonic() - self._last >= every or step == self._total:
            self._last = time.monotonic()
            self.tell(f"step {step}/{self._total}  {numbers}  {seconds_left / 60:.1f} min left")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _flops(rate: float) -> str:
    for unit, size in (("PFLOP/s", 1e15), ("TFLOP/s", 1e12), ("GFLOP/s", 1e9)):
        if rate >= size:
            return f"{rate / size:.1f} {unit}"
    return f"{rate / 1e6:.1f} MFLOP/s"


def parameter_table(params) -> rich.table.Table:
    """Every parameter with its shape and count, and the total."""
    import jax

    table = rich.table.Table("parameter", "shape", rich.table.Column("count", justify="right"), box=None)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        table.add_row("/".join(str(part.key) for part in path), "×".join(map(str, leaf.shape)), f"{leaf.size:,}")
    table.add_row("total", "", f"{sum(leaf.size for _, leaf in leaves):,}", style="bold")
    return table
