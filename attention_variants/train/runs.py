"""What can be asked of a workdir: is it started, is it finished, how good is it, what does it answer."""

import contextlib
import functools
import json
import pathlib
from collections.abc import Sequence

import jax

from attention_variants import tasks
from attention_variants.errors import InputError, unknown
from attention_variants.train import devices
from attention_variants.train import step as step_lib
from attention_variants.train import workdir as workdir_lib
from attention_variants.train.settings import Parallel, Settings

RESULTS, ANSWERS, DONE = "results.json", "answers.jsonl", "DONE"


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps that there are checkpoints of, ascending."""
    folder = workdir / "checkpoints"
    return sorted(int(f.name) for f in folder.iterdir() if f.name.isdigit()) if folder.is_dir() else []


def started(workdir: pathlib.Path) -> bool:
    """Whether there is a checkpoint, from which the run goes on."""
    return bool(steps(workdir))


def finished(workdir: pathlib.Path) -> bool:
    """Whether the run came to its end."""
    return (workdir / DONE).exists()


def results(workdir: pathlib.Path) -> dict:
    """What a finished run found."""
    return json.loads((workdir / RESULTS).read_text())


def metric_of(results: dict, path: str) -> float:
    """The number at a path such as "test.bleu". Raises InputError, with the nearest, for one that the run did not find."""
    split, _, name = path.partition(".")
    known = [
        f"{s}.{n}" for s in ("validation", "test", "looks") for n, v in results.get(s, {}).items() if isinstance(v, int | float)
    ]
    if path not in known:
        raise unknown("metric", path, known)
    return results[split][name]


def in_words(numbers: dict) -> str:
    """The numbers in one line."""
    return ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if isinstance(v, float))


def conclude(workdir, task, state: step_lib.State, place, *, validation: dict | None, summary: dict, write: bool) -> dict:
    """The end of a run: the chosen state judged on the test split (once), answers, figures, results.json, DONE; the results.

    Args:
      state: of the best step. validation: its metrics on the validation split, where they are known.
      summary: what training itself has to say.
    """
    chosen = state.params, state.model_state
    found = {"validation": validation} if validation else {}
    *others, last = [split for split in ("validation", "test") if split in task.splits]
    for split in (*(split for split in others if split not in found), last):
        found[split], answers = task.evaluate(*chosen, split, place)
    report = {"metric": task.metric, "mode": task.mode, "best_step": int(state.step)} | summary | found
    if write:
        workdir_lib.write_whole(workdir / ANSWERS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answers))
        report["samples"] = answers[:3]
        paths = task.figures(*chosen, place, workdir / "figures")
        report["figures"] = [str(path.relative_to(workdir)) for path in paths]
        workdir_lib.write_json(workdir / RESULTS, report)
        (workdir / DONE).write_text("")
    return report


def show(workdir: pathlib.Path, report: dict, tell) -> None:
    """Tells a person what a run came to: metrics, samples, and where the pictures lie."""
    tell(f"best checkpoint by {report['metric']}: step {report['best_step']} of {report['steps']}")
    for split in ("validation", "test"):
        if split in report:
            tell(f"{split}: {in_words(report[split])}")
    for sample in report["samples"]:
        tell("".join(f"\n{name:>12}  {text}" for name, text in sample.items()))
    first, *others = report["figures"]
    tell(f"\npicture: {workdir / first}" + f" and {len(others)} more beside it" * bool(others))


class Loaded:
    """A finished or running workdir, ready to be asked: its task, and the parameters of its best (else its latest) checkpoint.

    `changes` are settings that it is asked with instead of those it was trained with, such as "task.beams=4".
    """

    def __init__(self, workdir: str | pathlib.Path, tell, changes: Sequence[str] = ()):
        from attention_variants.train import checkpoints as checkpoints_lib  # orbax takes half a second to import

        self.workdir, self.settings = workdir_lib.open_for_reading(workdir, changes)
        if not started(self.workdir):
            raise InputError(f"{self.workdir} has no checkpoint yet; expected a run that has saved one")
        kept = {name: getattr(self.settings.parallel, name) for name in ("cache", "keep_memory")}
        backend = devices.connect(Parallel(**kept))  # this machine, not the one it was trained on
        self.place = backend.place_whole
        self.task = _task(self.workdir, self.settings)
        judged = dict(metric=self.task.metric, mode=self.task.mode, keep=self.settings.run.keep)
        checkpoints = checkpoints_lib.Checkpoints(self.workdir, **judged, tell=tell, read_only=True)
        like = _shapes(self.task, self.settings)
        if changes:
            _, trained = workdir_lib.open_for_reading(workdir)
            for name in self.task.fixed:
                now, then = (functools.reduce(getattr, name.split("."), settings) for settings in (self.settings, trained))
                if now != then:
                    raise InputError(f"--change={name}={now}, which the run was trained with as {then}; expected it unchanged")
            if _shapes(_task(self.workdir, trained), trained).params != like.params:
                raise InputError(f"--change={' --change='.join(changes)} asks for other parameters than those that were trained")
        state = checkpoints.restore_newest(like, first=checkpoints.best_step()).state
        checkpoints.close()
        self.step = int(state.step)
        self._here = lambda state: backend.local(backend.replicate((state.params, state.model_state)))
        self._opened = lambda: checkpoints_lib.Checkpoints(self.workdir, **judged, tell=tell, read_only=True)
        self._like = like
        self.params, self.model_state = self._here(state)

    def at(self, step: int):
        """(params, model_state) of the checkpoint of a step. Raises InputError where it cannot be read."""
        with contextlib.closing(self._opened()) as checkpoints:
            try:
                return self._here(checkpoints.restore(step, self._like).state)
            except Exception as error:  # orbax, tensorstore and json each raise their own
                raise InputError(
                    f"the checkpoint of step {step} in {self.workdir} cannot be read ({type(error).__name__})"
                ) from None

    def evaluate(self, split: str) -> dict:
        """Metrics on a split. Raises InputError for a split that the data does not have."""
        if split not in self.task.splits:
            raise unknown("split", split, self.task.splits)
        return self.task.evaluate(self.params, self.model_state, split, self.place)[0]

    def predict(self, lines: list[str]) -> tuple[list[str], list[str]]:
        """One answer per line, and sentences on what was unusual."""
        return self.task.predict(self.params, self.model_state, lines, self.place)


def _task(workdir: pathlib.Path, settings: Settings):
    return tasks.load(settings.name("task")).Task.saved(settings, workdir)


def _shapes(task, settings: Settings) -> step_lib.State:
    return jax.eval_shape(lambda: step_lib.init(task, settings, 0))
