"""`train(config, workdir)`: from a config to a trained, evaluated, looked-at model; killed at any moment, it goes on where it was.

Resume order: the newest whole checkpoint of the workdir, with the pipeline's position saved in it; else from scratch.
"""

import collections
import contextlib
import math
import pathlib
import signal
import threading
from collections.abc import Mapping
from typing import NamedTuple

import jax

from attention_variants import tasks
from attention_variants.data.batches import stream
from attention_variants.errors import InputError
from attention_variants.train import checkpoints as checkpoints_lib
from attention_variants.train import devices, durations, optimizers, records, runs
from attention_variants.train import settings as settings_lib
from attention_variants.train import step as step_lib
from attention_variants.train import workdir as workdir_lib
from attention_variants.train.progress import Clock, Progress, parameter_table

PROFILE_FROM = 10


class Result(NamedTuple):
    """The state after the last step, and what `results.json` holds (None where a signal stopped the run before its end)."""

    state: step_lib.State
    results: dict | None


class Plan(NamedTuple):
    """Every duration of a run in steps; 0 is never."""

    total: int
    per_epoch: int
    evaluate: int
    checkpoint: int
    log: int

    def due(self, every: int, step: int) -> bool:
        return every > 0 and (step % every == 0 or step == self.total)


def plan(settings: settings_lib.Settings, per_epoch: int) -> Plan:
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


def train(config: Mapping, workdir: str | pathlib.Path, *, quiet: bool = False) -> Result:
    """Trains as the config says, in a workdir; the same workdir again resumes.

    Args:
      config: a config from `configs/`, or any mapping that `settings.parse` takes.
      workdir: the run's folder.
      quiet: print nothing.

    Returns:
      The state after the last step and the results: metrics of the best checkpoint on validation and test split.

    Raises:
      InputError: a mistake in the config, the data or the workdir; a full disk; a loss that is not finite.
    """
    clock = Clock()

    # Whatever can be refused is refused here, before anything is written.
    settings = settings_lib.parse(config)
    backend = devices.connect(settings.parallel)
    multiple = backend.place.multiple * settings.optimizer.accumulate
    workdir = workdir_lib.check(workdir, settings)
    task_class = tasks.load(settings.name("task")).Task
    task = task_class.saved(settings, workdir) if runs.started(workdir) else task_class.new(settings)
    pipeline = dict(seed=settings.run.seed, multiple=multiple, process=(jax.process_index(), jax.process_count()))
    batches = task.batches("train", **pipeline)
    when = plan(settings, batches.per_epoch)
    shape = optimizers.schedule(settings.optimizer, total=when.total, per_epoch=when.per_epoch, width=task.width)

    with _one_sentence_for_a_full_disk(workdir), contextlib.ExitStack() as opened:
        main = jax.process_index() == 0
        if main:
            workdir_lib.open_for_training(workdir, settings)
            if not runs.started(workdir):
                task.save(workdir)
        progress = opened.enter_context(contextlib.closing(Progress(when.total, quiet=quiet or not main)))
        keep = dict(metric=task.metric, mode=task.mode, keep=settings.run.keep)
        checkpoints = opened.enter_context(contextlib.closing(checkpoints_lib.Checkpoints(workdir, **keep)))

        # State: the newest whole checkpoint, else from scratch.
        hypers = backend.replicate(step_lib.hypers_of(settings))
        state = backend.replicate(jax.jit(lambda: step_lib.init(task, settings))())
        restored = checkpoints.restore_newest(state, progress.tell)
        iterator = stream(task.batches("train", length=when.total, **pipeline))
        if restored is None:
            progress.console.print(parameter_table(state.params))
        else:
            state, clock.before = restored.state, restored.meta["seconds"]
            iterator.set_state(restored.meta["pipeline"])
        start = int(state.step)
        checkpoints.delete_after(start)
        if runs.finished(workdir):
            progress.tell(f"{workdir} is finished; a new run wants a new --workdir")
            return Result(state, runs.results(workdir))
        if start:
            progress.tell(f"going on from step {start} of {when.total}")
        shapes = f"{len(batches.shapes)} batch shapes, {batches.padding:.1%} padding, {when.per_epoch} steps an epoch"
        progress.tell(f"{task.describe()}; {shapes}")
        writer = records.Records(workdir, resume_step=start, tensorboard=settings.log.tensorboard, write=main)
        rows = opened.enter_context(contextlib.closing(writer))

        compiled, flops, tokens = {}, 0.0, 0
        pending = collections.deque()

        def speed() -> dict:
            seconds = max(clock.training, 1e-9)
            return {"tokens_per_second": tokens / seconds, "flops_per_second": flops / seconds}

        def report(keep: int) -> None:
            """Reads metrics of all but the newest `keep` steps, which the device may still be working on."""
            while len(pending) > keep:
                at, metrics = pending.popleft()
                numbers = {k: float(v) for k, v in jax.device_get(metrics).items()}
                if not all(math.isfinite(n) for n in numbers.values()):
                    good = checkpoints.steps()
                    left = f"the last good checkpoint is of step {good[-1]}" if good else "there is no checkpoint yet"
                    found = ", ".join(f"{k} {n:.4g}" for k, n in numbers.items())
                    raise InputError(f"step {at} is not finite ({found}); stopped, {left}")
                if when.due(when.log, at):
                    rows.write(at, "train", numbers | speed() | {"seconds": clock.total, "epoch": at / when.per_epoch})
                left = (when.total - at) * clock.training / (at - start)
                progress.update(at, loss=numbers["loss"], seconds_left=left, **speed())

        def save(metrics: dict | None = None) -> None:
            report(0)
            with clock.part("save"):
                checkpoints.save(at, state, {"pipeline": iterator.get_state(), "seconds": clock.total}, metrics)

        with _signals() as stop, _profile(settings.log.profile, workdir) as profile:
            for at in range(start + 1, when.total + 1):
                with clock.part("input"):
                    batch = next(iterator)
                placed = backend.place(batch)
                lengths = tuple(v.shape for v in batch.values())
                if lengths not in compiled:
                    report(0)
                    with clock.part("compile"):
                        compiled[lengths] = backend.compile(step_lib.make(task, settings, shape), state, placed, hypers)
                run, cost = compiled[lengths]
                profile(at - start)
                state, metrics = run(state, placed, hypers)
                pending.append((at, metrics))
                flops, tokens = flops + cost, tokens + task.tokens(batch)
                report(keep=0 if at == start + 1 else 1)
                if at == start + 1:
                    progress.tell(f"first step done {clock.total - clock.before:.1f} s after the start")
                if when.due(when.evaluate, at):
                    report(0)
                    with clock.part("evaluate"):
                        found = task.evaluate(*_local(state), "validation", backend.place_whole)
                    rows.write(at, "validation", found | {"seconds": clock.total, "epoch": at / when.per_epoch})
                    progress.tell(f"step {at}: validation " + runs.in_words(found))
                    save({k: v for k, v in found.items() if not isinstance(v, str)})
                elif when.due(when.checkpoint, at) or at == when.total or stop.is_set():
                    save()
                if stop.is_set() and at < when.total:
                    checkpoints.wait()
                    progress.tell(f"stopped by a signal after step {at}; the same command goes on from there")
                    return Result(state, None)
        checkpoints.wait()
        summary = speed() | {
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
            "seconds": clock.total,
            "seconds_aside": clock.parts,
            "input_wait": clock.parts.get("input", 0.0) / max(clock.training, 1e-9),
            "padding": batches.padding,
        }
        return Result(state, runs.conclude(workdir, task, checkpoints, state, backend.place_whole, summary, progress.tell, main))


def _local(state: step_lib.State):
    return devices.local(state.params), devices.local(state.model_state)


@contextlib.contextmanager
def _signals():
    """An event that SIGTERM and Ctrl-C set, so that the step in hand can be finished and saved."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]

    def restore(*_):
        stop.set()  # and the next signal does what it always does
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    for number in numbers:
        signal.signal(number, restore)
    try:
        yield stop
    finally:
        restore()


@contextlib.contextmanager
def _profile(steps: int, workdir: pathlib.Path):
    """A function of the steps done so far that has jax.profiler trace `steps` of them, from the tenth on, into the workdir."""
    running = False

    def at(done: int) -> None:
        nonlocal running
        if steps and done in (PROFILE_FROM, PROFILE_FROM + steps):
            running = done == PROFILE_FROM
            jax.profiler.start_trace(str(workdir / "profile")) if running else jax.profiler.stop_trace()

    try:
        yield at
    finally:
        if running:
            jax.profiler.stop_trace()


@contextlib.contextmanager
def _one_sentence_for_a_full_disk(workdir: pathlib.Path):
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {workdir}: {error.strerror or error}; its checkpoints are whole") from None
