"""Time and what a person sees of it: a progress bar on a terminal, plain lines elsewhere; always on standard error."""

import contextlib
import time

import rich.console
import rich.progress
import rich.table


class Clock:
    """Where time goes, in seconds: each named part, and all of it. What a resumed run has spent before goes on counting."""

    def __init__(self):
        self._started, self._before = time.monotonic(), 0.0
        self.parts: dict[str, float] = {}

    def resume(self, saved: dict) -> None:
        """Goes on from what `save` returned."""
        self._before, self.parts = saved["total"], self.parts | saved["parts"]

    def save(self) -> dict:
        return {"total": self.total, "parts": self.parts}

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
        """Seconds since this process started the run."""
        return time.monotonic() - self._started

    @property
    def total(self) -> float:
        """Seconds of all processes that worked on the run."""
        return self._before + self.now

    @property
    def busy(self) -> float:
        """Seconds but for starting and compiling: what goes on in proportion to the steps."""
        return self.total - self.parts.get("start", 0.0) - self.parts.get("compile", 0.0)

    @property
    def training(self) -> float:
        """Seconds spent on steps, waiting for input included: neither starting, compiling, evaluating nor saving."""
        return max(self.total - sum(v for k, v in self.parts.items() if k != "input"), 1e-9)


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
