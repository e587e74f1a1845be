"""Time and what a person sees of it: a progress bar on a terminal, plain lines elsewhere; always on standard error."""

import contextlib
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

    def __init__(self, total: int, quiet: bool = False):
        self.console = rich.console.Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._total = total
        self._last = time.monotonic()
        self._bar = None
        if self.console.is_terminal and not quiet:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.completed}/{task.total} steps  {task.description}"),
                rich.progress.TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task("", total=total)

    def tell(self, sentence: str) -> None:
        self.console.print(sentence, markup=False)

    def update(self, step: int, *, loss: float, tokens_per_second: float, flops_per_second: float, seconds_left: float, every=10.0):
        """Shows where the run is; without a terminal, a line at most every `every` seconds."""
        numbers = f"loss {loss:.3f}  {tokens_per_second:,.0f} tokens/s  {_flops(flops_per_second)}"
        if self._bar is not None:
            self._bar.start()
            self._bar.update(self._task, completed=step, description=numbers)
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
    """How many parameters each part of the model has, with the shapes of its kernels, and the total."""
    import jax

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
