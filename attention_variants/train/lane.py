"""One run while it trains, alone or beside others in one compiled program: its folder, pipeline, checkpoints, records, its time."""

import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from attention_variants.data.batches import Epochs, stream
from attention_variants.errors import InputError
from attention_variants.train import checkpoints as checkpoints_lib
from attention_variants.train import durations, records, runs
from attention_variants.train import settings as settings_lib
from attention_variants.train.progress import Clock, Spent
from attention_variants.train.settings import Settings


class Plan(NamedTuple):
    """Every duration of a run in steps; 0 is never."""

    total: int
    per_epoch: int
    evaluate: int
    checkpoint: int
    log: int

    def due(self, every: int, step: int) -> bool:
        return every > 0 and (step % every == 0 or step == self.total)

    def together(self, step: int, most: int) -> int:
        """How many steps after `step` go to the devices at once: `most`, or 1 where something is due before they end.

        It depends on nothing else, so a run that is resumed runs the same programs on the same steps as one that is not.
        """
        between = range(step + 1, step + most)
        due = any(self.due(every, s) for every in (self.evaluate, self.checkpoint) for s in between)
        return 1 if due or step % most or step + most > self.total else most


def plan(settings: Settings, per_epoch: int) -> Plan:
    """The durations of the settings. Raises InputError for one that is not a duration, or a run of no steps."""
    total = durations.as_steps(settings.run.duration, "run.duration", per_epoch=per_epoch)
    if total == 0:
        raise InputError(f"run.duration is {settings.run.duration!r}; expected at least one step")
    steps = {
        name: durations.as_steps(text, path, per_epoch=per_epoch, total=total)
        for name, path, text in (
            ("evaluate", "run.evaluate", settings.run.evaluate),
            ("checkpoint", "run.checkpoint", settings.run.checkpoint),
            ("log", "log.every", settings.log.every),
        )
    }
    return Plan(total, per_epoch, **steps)


class Lane:
    """What one run owns while it trains.

    Attributes:
      error: why it stopped, where it did; those beside it go on.
    """

    def __init__(self, task, settings: Settings, workdir: pathlib.Path, batches: Epochs, when: Plan, clock: Clock, tell: Callable):
        self.task, self.settings, self.workdir, self.when = task, settings, workdir, when
        self.error: InputError | None = None
        self._clock, self._tell, self._records = clock, tell, None
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
        if restored is None or runs.finished(self.workdir):
            return restored and restored.state
        state, meta = restored
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
        beside |= {
            "clock": self.spent._asdict(),
            "flops": self._flops,
            "tokens": self._tokens,
            "memory": self._memory,
            "lanes": self._lanes,
        }
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


def groups(saved: list[list[int]]) -> list[tuple[int, list[int]]]:
    """Which runs go on together, as (step, their numbers): all from the newest step that none has to fall far back to.

    Whatever stopped them, runs that train together are at most one checkpoint apart, so each may go back by one, to the beginning
    if it has no other. Where that does not bring them together, those at the same step are a group.

    Args:
      saved: the steps of each run's checkpoints, ascending.
    """
    reach = [set([0, *steps][-2:]) for steps in saved]
    if shared := set.intersection(*reach):
        return [(max(shared), list(range(len(saved))))]
    latest = [max(steps) for steps in reach]
    return [(step, [i for i, at in enumerate(latest) if at == step]) for step in sorted(set(latest))]
