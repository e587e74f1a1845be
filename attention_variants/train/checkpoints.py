"""Checkpoints by orbax: `<workdir>/checkpoints/<step>/`, written asynchronously and whole or not at all.

The latest ones and the best one are kept. Beside the state stand the pipeline's position and a checksum of every array, so
that a checkpoint which rotted on disk is noticed and the one before it taken.
"""

import contextlib
import pathlib
import zlib
from collections.abc import Callable
from typing import NamedTuple

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as managers

from attention_variants.errors import InputError


class Restored(NamedTuple):
    """The state, and what was saved beside it."""

    state: object
    meta: dict


class _Manager(ocp.CheckpointManager):
    """Metrics that cannot be read count as none: orbax would refuse every checkpoint because of one."""

    def __init__(self, metric: str, *args, **kwargs):
        self._metric = metric
        super().__init__(*args, **kwargs)

    def metrics(self, step):
        try:
            found = super().metrics(step)
            return found if isinstance(found[self._metric], int | float) else None
        except Exception:
            return None


class Checkpoints:
    """The checkpoints of one workdir: `metric` and `mode` choose the best one, `tell(sentence)` hears of broken ones."""

    def __init__(self, workdir: pathlib.Path, *, metric: str, mode: str, keep: int, tell: Callable, read_only: bool = False):
        self.folder, self._tell = workdir / "checkpoints", tell
        if read_only and not self.folder.is_dir():
            raise InputError(f"{workdir} has no checkpoints yet")
        latest = managers.LatestN(keep)
        best = managers.BestN(get_metric_fn=lambda m: m[metric], reverse=mode == "min", n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else managers.AnyPreservationPolicy([latest, best]),
            best_fn=lambda m: m[metric],
            best_mode=mode,
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
        )
        self._manager = _Manager(metric, self.folder.absolute(), options=options, item_names=("state", "meta"))

    def save(self, step: int, state, meta: dict, metrics: dict | None = None) -> None:
        """Starts writing; the state is copied before this returns.

        Raises:
          InputError: this write, or the one before it, failed; what was written earlier is untouched.
        """
        meta = meta | {"checksums": checksums(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with self._writing():
            self._manager.check_for_errors()
            told = absl.logging.get_verbosity()
            absl.logging.set_verbosity(absl.logging.ERROR)  # orbax warns of every checkpoint that has no metrics
            try:
                self._manager.save(step, args=args, metrics=metrics, force=True)
            finally:
                absl.logging.set_verbosity(told)

    def wait(self) -> None:
        """Returns when everything is on disk. Raises InputError as `save`."""
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except Exception as error:  # tensorstore and orbax raise their own for a full disk
            whole = [int(f.name) for f in self.folder.iterdir() if f.name.isdigit()]
            left = f"the checkpoint of step {max(whole)} is whole" if whole else "there is none yet"
            reason = "No space left on device" if "No space left" in str(error) else first_line(error)
            raise InputError(f"cannot write a checkpoint to {self.folder} ({reason}); {left}") from None

    def steps(self) -> list[int]:
        """The steps there are checkpoints of, ascending."""
        return sorted(self._manager.all_steps())

    def forget_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, which the run will write again."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def best_step(self) -> int | None:
        return self._manager.best_step()

    def restore(self, step: int, like) -> Restored:
        """The checkpoint of a step, in the shape of the state `like`. Raises ValueError where a checksum differs."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=args)
        meta = dict(restored["meta"])
        if checksums(restored["state"]) != meta.pop("checksums"):
            raise ValueError("its bytes are not those that were saved")
        return Restored(restored["state"], meta)

    def restore_newest(self, like, first: int | None = None, set_aside: bool = False) -> Restored | None:
        """`first` if it is given and whole, else the newest checkpoint that is; None where there is none.

        With `set_aside`, broken checkpoints are moved out of the way, so that the run can write them anew.

        Raises:
          InputError: there are checkpoints, and all of them are broken.
        """
        steps = self.steps()[::-1]
        broken = []
        for step in sorted(steps, key=lambda step: step != first):  # a stable sort: the others stay newest first
            try:
                restored = self.restore(step, like)
            except (MemoryError, PermissionError):
                raise
            except Exception as error:  # tensorstore, json and orbax each raise their own
                if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
                    raise  # a device without room says nothing about the checkpoint
                self._tell(f"the checkpoint of step {step} is broken ({first_line(error)}); trying the one before it")
                broken.append(step)
                continue
            if set_aside and broken:
                if jax.process_index() == 0:
                    for other in broken:
                        self._set_aside(other)
                if jax.process_count() > 1:  # nobody goes on before the folder is what all will see
                    multihost_utils.sync_global_devices("broken checkpoints are set aside")
                self._manager.reload()
            return restored
        if steps:
            raise InputError(f"none of the checkpoints in {self.folder} can be read; delete the folder to start again")
        return None

    def _set_aside(self, step: int) -> None:
        aside = self.folder.parent / "broken_checkpoints"
        aside.mkdir(exist_ok=True)
        (self.folder / str(step)).rename(aside / f"{step}.{len(list(aside.iterdir()))}")

    def close(self) -> None:
        """Ends the writer; what went wrong was raised by `save` or `wait`."""
        with contextlib.suppress(Exception):
            self._manager.close()


def first_line(error: Exception) -> str:
    """The beginning of what an error says, for a sentence of our own."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def checksums(state) -> list[int]:
    """A CRC-32 of every array's bytes."""
    return [zlib.crc32(np.ascontiguousarray(jax.device_get(x)).view(np.uint8)) for x in jax.tree.leaves(state)]
