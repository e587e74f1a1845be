"""`train(config, workdir)`: from a config to a trained, evaluated, looked-at model; killed at any moment, it goes on where it was.

Runs that differ in hypers and seeds alone may train beside each other in one program, as lanes (`train_together`); each leaves the
workdir that it would have left alone. Resume order: the newest whole checkpoint of the workdir (that all lanes have), with the
pipeline's position saved in it; else from scratch.
"""

import collections
import contextlib
import functools
import math
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import jax

from attention_variants import tasks
from attention_variants.errors import InputError
from attention_variants.train import devices, durations, optimizers, repulsion, runs, signals
from attention_variants.train import lane as lanes_lib
from attention_variants.train import settings as settings_lib
from attention_variants.train import step as step_lib
from attention_variants.train import workdir as workdir_lib
from attention_variants.train.progress import Clock, Progress, parameter_table, profiled
from attention_variants.train.settings import Settings


class Result(NamedTuple):
    """The state after the last step, and what `results.json` holds (None where a signal stopped the run before its end)."""

    state: step_lib.State
    results: dict | None


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
    (result,) = train_together([config], [workdir], quiet=quiet)
    if isinstance(result, InputError):
        raise result
    return result


def train_together(
    configs: Sequence[Mapping],
    workdirs: Sequence[str | pathlib.Path],
    *,
    commands: Sequence[str] | None = None,
    stop: threading.Event | None = None,
    quiet: bool = False,
) -> list[Result | InputError]:
    """Trains runs that differ in hypers and seeds alone, as lanes of one compiled program; see `train`.

    Each workdir ends up as if its run had trained alone, and either way may be resumed by the other. A run whose loss is not
    finite stops, and the others go on.

    Args:
      configs, workdirs: of each run.
      commands: what each run's `command.txt` says; by default the command of this process.
      stop: when it is set, what is in hand is finished and saved; by default SIGTERM and Ctrl-C do so.

    Returns:
      The result of each run, or the error that stopped it.

    Raises:
      InputError: as `train`; runs that one program cannot serve; batches of several shapes.
    """
    settings = [settings_lib.parse(config) for config in configs]
    lanes_lib.refuse_unlike(settings)
    workdirs = [workdir_lib.check(workdir, own) for workdir, own in zip(workdirs, settings, strict=True)]
    for workdir in workdirs:
        if runs.finished(workdir) and not runs.started(workdir):
            raise InputError(f"{workdir} is finished, and its checkpoints are gone; expected another --workdir")
    saved = {i: runs.steps(workdir) for i, workdir in enumerate(workdirs) if not runs.finished(workdir)}
    together = [(None, [i]) for i in range(len(workdirs)) if i not in saved] + (lanes_lib.groups(saved) if saved else [])
    results = {}
    with contextlib.nullcontext(stop) if stop else signals.caught(quiet) as stop:
        for step, group in together:
            own = [[of[i] for i in group] for of in (settings, workdirs, commands or [None] * len(workdirs))]
            results |= zip(group, _train(*own, step, quiet, stop), strict=True)
    return [results[i] for i in range(len(workdirs))]


def _train(
    settings: list[Settings],
    workdirs: list[pathlib.Path],
    commands: list[str | None],
    start: int | None,
    quiet: bool,
    stop: threading.Event,
) -> list[Result | InputError]:
    """Trains the runs of a group from the step `start`, None for the newest checkpoint of a single one."""
    clock, first = Clock(runs=len(settings)), settings[0]
    before = [(runs.steps(workdir), runs.finished(workdir)) for workdir in workdirs]

    # Whatever can be refused is refused here, before anything is written.
    backend = devices.connect(first.parallel, lanes=len(settings))
    task_class = tasks.load(first.name("task")).Task
    known = next(filter(runs.started, workdirs), None)
    task = task_class.saved(first, known) if known else task_class.new(first)
    # Rows in eights, so that 1, 2, 4 and 8 devices or parts make the same batches.
    multiple = math.lcm(8, backend.place.multiple * first.optimizer.accumulate)
    process = (jax.process_index(), jax.process_count())
    batches = task.batches("train", seed=first.run.seed, multiple=multiple, process=process)
    most = first.parallel.steps_per_dispatch
    for what, several in ((f"parallel.steps_per_dispatch is {most}", most > 1), (f"{len(settings)} lanes", len(settings) > 1)):
        if several and len(batches.shapes) > 1:
            wanted = "expected 1, or batches of one shape (task.packed=True, where the task has it)"
            raise InputError(f"{what} with batches of {len(batches.shapes)} shapes; {wanted}")
    when = durations.plan(first, batches.per_epoch)
    shape = optimizers.schedule(first.optimizer, total=when.total, per_epoch=when.per_epoch, width=task.width)

    hypers = step_lib.hypers_of(*settings)
    initial = backend.trace(functools.partial(step_lib.init, task, first), hypers[0]["seed"])
    repulsion.check(first, initial.out_info.params)
    main = jax.process_index() == 0
    with workdir_lib.told_of(os.path.commonpath(workdirs)), contextlib.ExitStack() as opened:
        finished = runs.finished(workdirs[0])
        for own, workdir, command in zip(settings, workdirs, commands, strict=True):
            if main and not finished:
                opened.enter_context(workdir_lib.open_for_training(workdir, own, command))
                if before.pop(0) != (runs.steps(workdir), runs.finished(workdir)):
                    raise InputError(
                        f"another process was at work in {workdir} just now; the same command again goes on from there"
                    )
                if not runs.started(workdir):
                    task.save(workdir)
        progress = opened.enter_context(contextlib.closing(Progress(when.total, quiet=quiet or not main)))
        lanes = [
            opened.enter_context(contextlib.closing(lanes_lib.Lane(task, own, workdir, batches, when, clock, progress.tell)))
            for own, workdir in zip(settings, workdirs, strict=True)
        ]

        # State: the newest whole checkpoint, else from scratch. The step is compiled for its shapes, so both compile side by side.
        restored = [lane.restore(initial.out_info, start) for lane in lanes]
        if finished:
            runs.show(workdirs[0], runs.results(workdirs[0]), progress.tell)
            progress.tell(f"{workdirs[0]} is finished; a new run wants a new --workdir")
            return [Result(restored[0], runs.results(workdirs[0]))]
        if restored[0] is None:
            start, state = 0, backend.join([initial.out_info] * len(lanes))
            making = opened.enter_context(futures.ThreadPoolExecutor(1)).submit(initial.lower().compile)
            progress.console.print(parameter_table(initial.out_info.params))
        else:
            start, state = int(restored[0].step), backend.join(restored)
            progress.tell(f"going on from step {start} of {when.total}")
        lines = [f"{len(lanes)} runs in one program"] * (len(lanes) > 1) + [task.describe()]
        planning = f"{len(batches.shapes)} batch shape(s), {batches.padding:.1%} padding, {when.per_epoch} steps an epoch"
        progress.tell("; ".join([*lines, planning]))
        for lane in lanes:
            lane.open_records(start, write=main)
        del restored
        seeds, hypers = [own["seed"] for own in hypers], backend.join(hypers)
        clock.parts["start"] = clock.now

        steps = step_lib.several(step_lib.make(task, first, shape, when.repel))
        compiled, pending = {}, collections.deque()

        def live() -> list[tuple[int, lanes_lib.Lane]]:
            return [(i, lane) for i, lane in enumerate(lanes) if not lane.error]

        def report(keep: int) -> None:
            """Reads metrics of all but the newest `keep` dispatches, which the device may still be working on."""
            while len(pending) > keep:
                begun, metrics = pending.popleft()
                found = backend.apart(jax.device_get(metrics))
                for i, lane in live():
                    try:
                        for n in range(len(found[i]["loss"])):
                            lane.report(begun + n, {name: float(values[n]) for name, values in found[i].items()})
                    except InputError as error:
                        lane.error = error
                        if len(lanes) > 1:
                            progress.tell(f"{lane.workdir}: {error}")
                if not live():
                    return
                done = begun + n
                left = (when.total - done) * clock.busy / (done - start)
                loss = sum(float(found[i]["loss"][-1]) for i, _ in live()) / len(live())
                progress.update(done, loss=loss, seconds_left=left, **live()[0][1].speed())

        def save(step: int, own: list, validation: dict) -> None:
            report(keep=0)
            with clock.part("save"):
                for _, lane in live() if len(lanes) > 1 else ():
                    lane.checkpoints.wait()  # so that lanes are never more than one checkpoint apart
                for i, lane in live():
                    lane.save(step, own[i], validation.get(i))

        with profiled(first.log.profile, workdirs[0]) as profile:
            step = start
            while step < when.total:
                with clock.part("input"):
                    group = [[lane.next() for lane in lanes] for _ in range(when.together(step, most))]
                placed = tuple(backend.place(backend.join(beside)) for beside in group)
                shapes = tuple(v.shape for batch in group for v in batch[0].values())
                if shapes not in compiled:
                    report(keep=0)
                    with clock.part("compile"):
                        compiled[shapes] = backend.compile(steps, state, placed, hypers)
                        if step == 0:  # nothing was restored
                            made = making.result()
                            state = backend.join([made(seed) for seed in seeds])
                program = compiled[shapes]
                profile(step + 1 - start)
                state, metrics = program.run(state, placed, hypers)
                pending.append((step + 1, metrics))
                for i, lane in enumerate(lanes):
                    tokens = sum(task.tokens(beside[i]) for beside in group) * jax.process_count()
                    lane.count(program.flops / len(lanes), tokens, program.memory / len(lanes))
                report(keep=0 if step == start else 1)
                if not live():
                    break
                if step == start:
                    progress.tell(f"first step done {clock.now:.1f} s after the start")
                step += len(group)
                if when.due(when.evaluate, step):
                    report(keep=0)
                    own, found = backend.apart(state), {}
                    with clock.part("evaluate"):
                        for i, lane in live():
                            found[i] = lane.evaluate(step, *backend.local((own[i].params, own[i].model_state)), backend.place_whole)
                            of = f" {lane.workdir.name}" * (len(lanes) > 1)
                            progress.tell(f"step {step}:{of} validation {runs.in_words(found[i])}")
                    save(step, own, found)
                elif when.due(when.checkpoint, step) or step == when.total or stop.is_set():
                    save(step, backend.apart(state), {})
                if stop.is_set():
                    break
            for _, lane in live():
                lane.checkpoints.wait()

        own = backend.apart(state)
        stopped = step < when.total or stop.is_set()
        if stopped and live():
            progress.tell(f"stopped by a signal after step {step}; the same command goes on from there")
        if stopped:
            return [lane.error or Result(own[i], None) for i, lane in enumerate(lanes)]
        of_all = {"parameters": sum(x.size for x in jax.tree.leaves(initial.out_info.params)), "padding": batches.padding}
        summaries = {i: of_all | lane.summary() for i, lane in live()}  # before the first conclusion, whose time is nobody else's
        results = {i: lane.conclude(initial.out_info, backend, summaries[i], write=main) for i, lane in live()}
        for i, lane in live() if main else ():
            runs.show(lane.workdir, results[i], progress.tell)
        return [lane.error or Result(own[i], results[i]) for i, lane in enumerate(lanes)]
