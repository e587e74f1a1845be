"""One run while it trains, alone or beside others in one compiled program: its folder, pipeline, checkpoints, records, its time."""

import math
import pathlib
from collections.abc import Callable

from attention_variants.data.batches import Epochs, stream
from attention_variants.errors import InputError
from attention_variants.train import checkpoints as checkpoints_lib
from attention_variants.train import records, runs
from attention_variants.train import settings as settings_lib
from attention_variants.train.durations import Plan
from attention_variants.train.progress import Clock, Spent
from attention_variants.train.settings import Settings


class Lane:
    """What one run owns while it trains.

    Attributes:
      error: why it stopped, where it did; those beside it go on.
    """

    def __init__(self, task, settings: Settings, workdir: pathlib.Path, batches: Epochs, when: Plan, clock: Clock, tell: Callable):
        """`task` and `batches` are shared with the runs beside it, whose seeds are others; `tell(sentence)` reaches a person."""
        self.task, batches = task.seeded(settings.run.seed), batches.seeded(settings.run.seed)
        self.settings, self.workdir, self.when = settings, workdir, when
        self.error: InputError | None = None
        self._clock, self._records = clock, None
        self._before, self._flops, self._tokens, self._memory = Spent(), 0.0, 0, 0.0
        self._lanes = clock.runs
        self._planned = {"steps": when.total, "epoch": when.per_epoch, "shapes": [list(s) for s in batches.shapes]}
        self._pipeline = stream(batches.until(when.total))
        judged = dict(metric=task.metric, mode=task.mode, keep=settings.run.keep)
        self.checkpoints = checkpoints_lib.Checkpoints(workdir, **judged, tell=tell)

    def restore(self, like, at: int | None):
        """The state of a checkpoint, and everything else as it was then; None where the run begins.

        Args:
          like: the state's shapes. at: the step to go on from, 0 to begin again, None for the newest whole checkpoint.

        Raises:
          InputError: no checkpoint can be read, or the data or devices are not those that the run began with.
        """
        if at == 0:
            self.checkpoints.forget_after(0)
        restored = self.checkpoints.restore_newest(like, first=at, set_aside=True)
        if restored is None:
            return None
        state, meta = restored
        if runs.finished(self.workdir):
            return state
        if at not in (None, int(state.step)):
            raise InputError(
                f"the checkpoint of step {at} in {self.workdir} is broken; let this run go on alone, by its command.txt"
            )
        if meta["plan"] != self._planned:
            was = f"{self.workdir} was planned as {meta['plan']}, now {self._planned}"
            raise InputError(f"{was}; expected the data and devices it began with")
        self.checkpoints.forget_after(int(state.step))
        self._pipeline.set_state(meta["pipeline"])
        self._before = Spent(**meta["clock"])
        self._flops, self._tokens, self._memory = meta["flops"], meta["tokens"], meta["memory"]
        if state.step == self.when.total:  # all that is left is its end
            self._lanes = meta["lanes"]
        return state

    def open_records(self, step: int, write: bool) -> None:
        """Metrics are written from `step` on, by one process of many."""
        tensorboard = self.settings.log.tensorboard
        self._records = records.Records(self.workdir, resume_step=step, tensorboard=tensorboard, write=write)

    def next(self):
        """The next batch."""
        return next(self._pipeline)

    def count(self, flops: float, tokens: int, memory: float) -> None:
        """Counts what steps took and saw: operations, tokens, and the bytes of memory in use."""
        self._flops += flops
        self._tokens += tokens
        self._memory = max(self._memory, memory)

    @property
    def spent(self) -> Spent:
        """Seconds that this run has cost, in all processes that worked on it."""
        return self._clock.spent(self._before)

    def speed(self) -> dict:
        seconds = self.spent.training
        return {"tokens_per_second": self._tokens / seconds, "flops_per_second": self._flops / seconds}

    def report(self, step: int, numbers: dict) -> None:
        """A row of training metrics, where one is due. Raises InputError for a number that is not finite."""
        if not all(math.isfinite(n) for n in numbers.values()):
            good = self.checkpoints.steps()
            left = f"the last good checkpoint is of step {good[-1]}" if good else "there is no checkpoint yet"
            found = ", ".join(f"{k} {n:.4g}" for k, n in numbers.items())
            raise InputError(f"step {step} is not finite ({found}); stopped, {left}")
        if self.when.due(self.when.log, step):
            self._write(step, "train", numbers | self.speed())

    def evaluate(self, step: int, params, model_state, place) -> dict:
        """Metrics on the validation split, written down."""
        found, _ = self.task.evaluate(params, model_state, "validation", place)
        self._write(step, "validation", found)
        return found

    def save(self, step: int, state, validation: dict | None = None) -> None:
        """A checkpoint, written in the background; `validation` are the metrics of this state."""
        beside = {"pipeline": self._pipeline.get_state(), "plan": self._planned, "validation": validation}
        beside |= {"clock": self.spent._asdict(), "flops": self._flops, "tokens": self._tokens}
        beside |= {"memory": self._memory, "lanes": self._lanes}
        numbers = {k: v for k, v in (validation or {}).items() if not isinstance(v, str)}
        self.checkpoints.save(step, state, beside, numbers or None)

    def summary(self) -> dict:
        """What training came to, but for its metrics."""
        spent = self.spent
        return {
            "steps": self.when.total,
            "lanes": self._lanes,
            **self.speed(),
            "step_seconds": spent.training / self.when.total,
            "peak_memory": self._memory,
            "seconds": spent.total,
            "seconds_of": spent.parts,
            "tokens": self._tokens,
            "flops": self._flops,
            "input_wait": spent.parts.get("input", 0.0) / spent.training,
        }

    def conclude(self, like, backend, summary: dict, write: bool) -> dict:
        """Judges the best checkpoint, draws the figures, and writes results.json and DONE; returns the results."""
        best = self.checkpoints.restore_newest(like, first=self.checkpoints.best_step())
        judged = dict(validation=best.meta["validation"], summary=summary, write=write)
        return runs.conclude(self.workdir, self.task, backend.local(best.state), backend.place_whole, **judged)

    def close(self) -> None:
        self.checkpoints.close()
        if self._records is not None:
            self._records.close()

    def _write(self, step: int, kind: str, numbers: dict) -> None:
        self._records.write(step, kind, numbers | {"seconds": self.spent.total, "epoch": step / self.when.per_epoch})


def refuse_unlike(settings: list[Settings]) -> None:
    """Raises InputError unless the runs differ in nothing but hypers and seeds, so that one program serves all of them."""
    first = settings[0].as_dict()
    for other in settings[1:]:
        theirs = other.as_dict()
        theirs["hypers"], theirs["run"]["seed"] = first["hypers"], first["run"]["seed"]
        if changed := settings_lib.differences(first, theirs):
            raise InputError(f"runs in one program may differ in hypers and run.seed alone; found {'; '.join(changed)}")


def groups(saved: dict[int, list[int]]) -> list[tuple[int | None, list[int]]]:
    """Which runs go on together, as (step, their numbers): all from the newest step that none has to fall far back to.

    Whatever stopped them, runs that train together are at most one checkpoint apart, so each may go back by one, to the beginning
    if it has no other. Where that does not bring them together, those at the same step are a group. A run that is alone goes on
    from its newest whole checkpoint, None.

    Args:
      saved: the steps of each run's checkpoints, ascending, by its number.
    """
    reach = {number: [0, *steps][-2:] for number, steps in saved.items()}
    if shared := set.intersection(*map(set, reach.values())):
        together = {max(shared): list(saved)}
    else:
        latest = {number: steps[-1] for number, steps in reach.items()}
        together = {step: [n for n in saved if latest[n] == step] for step in sorted(set(latest.values()))}
    return [(step if len(group) > 1 else None, group) for step, group in together.items()]
