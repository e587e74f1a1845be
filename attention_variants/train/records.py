"""What a run writes down: `metrics.jsonl`, one row per report, and the same as TensorBoard curves."""

import contextlib
import json
import pathlib

from attention_variants.train.workdir import write_whole


class Records:
    """Appends rows of numbers. A resumed run forgets what was written after the step it resumes from, and writes it again."""

    def __init__(self, workdir: pathlib.Path, *, resume_step: int, tensorboard: bool, write: bool = True):
        self._file = self._events = None
        if not write:
            return
        path = workdir / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= resume_step]
            write_whole(path, "".join(line + "\n" for line in kept))
        self._file = path.open("a")
        if tensorboard:
            import tensorboardX

            self._events = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1, flush_secs=10)

    def write(self, step: int, kind: str, numbers: dict) -> None:
        """One row of `kind` ("train", or a split) at a step; values that are not numbers only go to the file."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, "kind": kind} | numbers) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        for writer in (self._file, self._events):
            if writer is not None:
                with contextlib.suppress(OSError):  # a full disk was raised by `write`
                    writer.close()


def _step(line: str) -> float:
    """The step of a row; a row cut short by a kill belongs to no step that is kept."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
