"""`train(config, workdir)`: from a config to a trained, evaluated, looked-at model; killed at any moment, it goes on where it was.

Resume order: the newest whole checkpoint of the workdir, with the pipeline's position saved in it; else from scratch.
"""

import collections
import contextlib
import functools
import math
import os
import pathlib
import signal
import threading
from collections.abc import Mapping
from concurrent import futures
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

    def together(self, step: int, most: int) -> int:
        """How many steps after `step` go to the devices at once: `most`, or 1 where something is due before they end.

        It depends on nothing else, so a run that is resumed runs the same programs on the same steps as one that is not.
        """
        between = range(step + 1, step + most)
        due = any(self.due(every, s) for every in (self.evaluate, self.checkpoint) for s in between)
        return 1 if due or step % most or step + most > self.total else most


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
    with _signals(quiet) as stop:
        return _train(config, workdir, quiet, stop)


def _train(config: Mapping, workdir: str | pathlib.Path, quiet: bool, stop: threading.Event) -> Result:
    clock = Clock()

    # Whatever can be refused is refused here, before anything is written.
    settings = settings_lib.parse(config)
    backend = devices.connect(settings.parallel)
    workdir = workdir_lib.check(workdir, settings)
    if runs.finished(workdir) and not runs.started(workdir):
        raise InputError(f"{workdir} is finished, and its checkpoints are gone; expected another --workdir")
    task_class = tasks.load(settings.name("task")).Task
    task = task_class.saved(settings, workdir) if runs.started(workdir) else task_class.new(settings)
    # Rows in eights, so that 1, 2, 4 and 8 devices or parts make the same batches.
    multiple = math.lcm(8, backend.place.multiple * settings.optimizer.accumulate)
    process = (jax.process_index(), jax.process_count())
    batches = task.batches("train", seed=settings.run.seed, multiple=multiple, process=process)
    most = settings.parallel.steps_per_dispatch
    if most > 1 and len(batches.shapes) > 1:
        wanted = "expected 1, or batches of one shape (task.packed=True, where the task has it)"
        raise InputError(f"parallel.steps_per_dispatch is {most} with batches of {len(batches.shapes)} shapes; {wanted}")
    when = plan(settings, batches.per_epoch)
    shape = optimizers.schedule(settings.optimizer, total=when.total, per_epoch=when.per_epoch, width=task.width)

    main = jax.process_index() == 0
    with workdir_lib.told_of(workdir), contextlib.ExitStack() as opened:
        if main and not runs.finished(workdir):
            workdir_lib.open_for_training(workdir, settings)
            if not runs.started(workdir):
                task.save(workdir)
        progress = opened.enter_context(contextlib.closing(Progress(when.total, quiet=quiet or not main)))
        judged = dict(metric=task.metric, mode=task.mode, keep=settings.run.keep)
        manager = checkpoints_lib.Checkpoints(workdir, **judged, tell=progress.tell)
        checkpoints = opened.enter_context(contextlib.closing(manager))

        # State: the newest whole checkpoint, else from scratch. The step is compiled for its shapes, so both compile side by side.
        hypers = backend.replicate(step_lib.hypers_of(settings))
        initial = backend.trace(functools.partial(step_lib.init, task, settings), hypers["seed"])
        restored = checkpoints.restore_newest(initial.out_info, set_aside=True)
        if runs.finished(workdir):
            runs.show(workdir, runs.results(workdir), progress.tell)
            progress.tell(f"{workdir} is finished; a new run wants a new --workdir")
            return Result(restored.state, runs.results(workdir))
        planned = {"steps": when.total, "epoch": when.per_epoch, "shapes": [list(s) for s in batches.shapes]}
        iterator = stream(batches.until(when.total))
        flops, tokens = 0.0, 0
        if restored is None:
            start, state = 0, initial.out_info
            making = opened.enter_context(futures.ThreadPoolExecutor(1)).submit(initial.lower().compile)
            progress.console.print(parameter_table(state.params))
        else:
            state, meta = restored
            start = int(state.step)
            if meta["plan"] != planned:
                raise InputError(
                    f"{workdir} was planned as {meta['plan']}, now {planned}; expected the data and devices it began with"
                )
            iterator.set_state(meta["pipeline"])
            clock.resume(meta["clock"])
            flops, tokens = meta["flops"], meta["tokens"]
            progress.tell(f"going on from step {start} of {when.total}")
        planning = f"{len(batches.shapes)} batch shape(s), {batches.padding:.1%} padding, {when.per_epoch} steps an epoch"
        progress.tell(f"{task.describe()}; {planning}")
        rows = records.Records(workdir, resume_step=start, tensorboard=settings.log.tensorboard, write=main)
        opened.enter_context(contextlib.closing(rows))
        clock.parts["start"] = clock.parts.get("start", 0.0) + clock.now

        steps = step_lib.several(step_lib.make(task, settings, shape))
        compiled, pending = {}, collections.deque()
        busy_before = clock.busy

        def speed() -> dict:
            return {"tokens_per_second": tokens / clock.training, "flops_per_second": flops / clock.training}

        def report(keep: int) -> None:
            """Reads metrics of all but the newest `keep` dispatches, which the device may still be working on."""
            while len(pending) > keep:
                first, metrics = pending.popleft()
                found = jax.device_get(metrics)
                for i in range(len(found["loss"])):
                    tell_of(first + i, {name: float(values[i]) for name, values in found.items()})

        def tell_of(done: int, numbers: dict) -> None:
            if not all(math.isfinite(n) for n in numbers.values()):
                good = checkpoints.steps()
                left = f"the last good checkpoint is of step {good[-1]}" if good else "there is no checkpoint yet"
                found = ", ".join(f"{k} {n:.4g}" for k, n in numbers.items())
                raise InputError(f"step {done} is not finite ({found}); stopped, {left}")
            if when.due(when.log, done):
                rows.write(done, "train", numbers | speed() | {"seconds": clock.total, "epoch": done / when.per_epoch})
            left = (when.total - done) * (clock.busy - busy_before) / (done - start)
            progress.update(done, loss=numbers["loss"], seconds_left=left, **speed())

        def save(step: int, validation: dict | None = None) -> None:
            report(keep=0)
            with clock.part("save"):
                beside = {"pipeline": iterator.get_state(), "plan": planned, "validation": validation}
                beside |= {"clock": clock.save(), "flops": flops, "tokens": tokens}
                numbers = {k: v for k, v in (validation or {}).items() if not isinstance(v, str)}
                checkpoints.save(step, state, beside, numbers or None)

        with _profile(settings.log.profile, workdir) as profile:
            step = start
            while step < when.total:
                with clock.part("input"):
                    group = [next(iterator) for _ in range(when.together(step, most))]
                placed = tuple(map(backend.place, group))
                shapes = tuple(v.shape for batch in group for v in batch.values())
                if shapes not in compiled:
                    report(keep=0)
                    with clock.part("compile"):
                        compiled[shapes] = backend.compile(steps, state, placed, hypers)
                        if step == 0:  # nothing was restored
                            state = making.result()(hypers["seed"])
                run, cost = compiled[shapes]
                profile(step + 1 - start)
                state, metrics = run(state, placed, hypers)
                pending.append((step + 1, metrics))
                flops += cost
                tokens += sum(map(task.tokens, group)) * jax.process_count()
                report(keep=0 if step == start else 1)
                if step == start:
                    progress.tell(f"first step done {clock.now:.1f} s after the start")
                step += len(group)
                if when.due(when.evaluate, step):
                    report(keep=0)
                    with clock.part("evaluate"):
                        ours = backend.local(state.params), backend.local(state.model_state)
                        found = task.evaluate(*ours, "validation", backend.place_whole)
                    rows.write(step, "validation", found | {"seconds": clock.total, "epoch": step / when.per_epoch})
                    progress.tell(f"step {step}: validation {runs.in_words(found)}")
                    save(step, found)
                elif when.due(when.checkpoint, step) or step == when.total or stop.is_set():
                    save(step)
                if stop.is_set():
                    checkpoints.wait()
                    progress.tell(f"stopped by a signal after step {step}; the same command goes on from there")
                    return Result(state, None)
            checkpoints.wait()

        best = checkpoints.restore_newest(state, first=checkpoints.best_step())
        summary = speed() | {
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
            "seconds": clock.total,
            "seconds_of": clock.parts,
            "tokens": tokens,
            "flops": flops,
            "input_wait": clock.parts.get("input", 0.0) / clock.training,
            "padding": batches.padding,
        }
        results = runs.conclude(workdir, task, backend, best.state, when.total, summary, best.meta["validation"], write=main)
        if main:
            runs.show(workdir, results, progress.tell)
        return Result(state, results)


@contextlib.contextmanager
def _signals(quiet: bool):
    """An event that SIGTERM and Ctrl-C set, so that the step in hand (the first one, at the start) can be finished and saved."""
    stop = threading.Event()
    # Hosts would stop at different steps. (To count processes would start jax, before `devices.connect` has prepared for it.)
    if threading.current_thread() is not threading.main_thread() or jax.distributed.is_initialized():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(*_):
        stop.set()
        restore()  # the next signal does what it always does
        if not quiet:
            os.write(2, b"\nstopping when what is in hand is finished and saved; the same signal again stops at once\n")

    for number in before:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        restore()


@contextlib.contextmanager
def _profile(steps: int, workdir: pathlib.Path):
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
