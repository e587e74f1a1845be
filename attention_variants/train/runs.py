"""What can be asked of a workdir: is it started, is it finished, how good is it, what does it answer."""

import json
import pathlib

import jax
import jax.numpy as jnp

from attention_variants import tasks
from attention_variants.errors import InputError, unknown
from attention_variants.train import checkpoints as checkpoints_lib
from attention_variants.train import devices
from attention_variants.train import step as step_lib
from attention_variants.train import workdir as workdir_lib

RESULTS, DONE = "results.json", "DONE"


def started(workdir: pathlib.Path) -> bool:
    """Whether there is a checkpoint, from which the run goes on."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any(f.name.isdigit() for f in folder.iterdir())


def finished(workdir: pathlib.Path) -> bool:
    """Whether the run came to its end."""
    return (workdir / DONE).exists()


def results(workdir: pathlib.Path) -> dict:
    """What a finished run found."""
    return json.loads((workdir / RESULTS).read_text())


def in_words(numbers: dict) -> str:
    """The numbers in one line."""
    return ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if isinstance(v, float))


def conclude(workdir, task, checkpoints, state, place, summary: dict, tell, write: bool) -> dict:
    """The end of a run: the best checkpoint judged on validation and (once) test split, samples, figures, results.json, DONE."""
    best = checkpoints.best_step()
    last = int(state.step)
    if best is not None and best != last:
        state = checkpoints.restore_newest(state, tell, first=best).state
    params, model_state = devices.local(state.params), devices.local(state.model_state)
    found = {split: task.evaluate(params, model_state, split, place) for split in ("validation", "test") if split in task.splits}
    report = {"metric": task.metric, "steps": last, "best_step": int(state.step)} | summary | found
    if not write:
        return report
    paths = task.figures(params, model_state, place, workdir / "figures")
    samples = task.samples(params, model_state, place)
    for split, numbers in found.items():
        tell(f"{split}: {in_words(numbers)}")
    for sample in samples:
        tell("".join(f"\n{name:>12}  {text}" for name, text in sample.items()))
    tell(f"\nattention heatmaps: {paths[-1]} and {len(paths) - 1} more beside it")
    report["samples"] = samples
    workdir_lib.write_json(workdir / RESULTS, report)
    (workdir / DONE).write_text("")
    return report


class Loaded:
    """A finished or running workdir, ready to be asked: its task, and the parameters of its best (else its latest) checkpoint."""

    def __init__(self, workdir: str | pathlib.Path, tell):
        self.workdir, self.settings = workdir_lib.open_for_reading(workdir)
        if not started(self.workdir):
            raise InputError(f"{self.workdir} has no checkpoint yet; expected a run that has saved one")
        self.place = devices.connect(self.settings.parallel).place_whole
        self.task = tasks.load(self.settings.name("task")).Task.saved(self.settings, self.workdir)
        checkpoints = checkpoints_lib.Checkpoints(
            self.workdir, metric=self.task.metric, mode=self.task.mode, keep=self.settings.run.keep, read_only=True
        )
        shapes = jax.eval_shape(lambda: step_lib.init(self.task, self.settings))
        like = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        state = checkpoints.restore_newest(like, tell, first=checkpoints.best_step()).state
        checkpoints.close()
        self.step, self.params, self.model_state = int(state.step), state.params, state.model_state

    def evaluate(self, split: str) -> dict:
        """Metrics on a split. Raises InputError for a split that the data does not have."""
        if split not in self.task.splits:
            raise unknown("split", split, self.task.splits)
        return self.task.evaluate(self.params, self.model_state, split, self.place)

    def predict(self, lines: list[str], tell) -> list[str]:
        """One answer per line; what was unusual is told."""
        if longer := self.task.longer_than_trained(lines):
            limit = self.settings.task.max_length
            many = f"{len(longer)} of {len(lines)} lines are longer than the {limit} tokens of training"
            tell(f"{many} (first: line {longer[0]}); they are done whole all the same")
        answers, unfinished = self.task.predict(self.params, self.model_state, lines, self.place)
        if unfinished:
            tell(f"{unfinished} of {len(lines)} answers had not ended at the output limit")
        return answers
