"""Checkpoints are whole or not taken: whatever breaks in the latest one, the one before it is restored, and it is said."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.errors import InputError
from attention_variants.train import checkpoints as library
from attention_variants.train.checkpoints import Checkpoints

# What tensorstore leaves behind when a read fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(step: int):
    """A state whose every number tells its step."""
    return {"step": jnp.int32(step), "w": jnp.arange(3000.0).reshape(60, 50) + step, "half": jnp.full(7, step, jnp.bfloat16)}


def open_(workdir, mode: str = "max", keep: int = 2, read_only: bool = False, tell=print) -> Checkpoints:
    return Checkpoints(workdir, metric="score", mode=mode, keep=keep, read_only=read_only, tell=tell)


def filled(workdir, scores, **kwargs):
    """A workdir with a checkpoint per score, saved at steps 1, 2, 3, …; a score of None is a checkpoint without metrics."""
    checkpoints = open_(workdir, **kwargs)
    for step, score in enumerate(scores, start=1):
        checkpoints.save(step, state(step), {"pipeline": {"next": step}}, None if score is None else {"score": score, "loss": 1.0})
    checkpoints.wait()
    checkpoints.close()


def restored(workdir, set_aside: bool = False, **kwargs):
    """(what the newest whole checkpoint holds, what was told)."""
    told = []
    checkpoints = open_(workdir, tell=told.append, **kwargs)
    try:
        return checkpoints.restore_newest(state(0), set_aside=set_aside), told
    finally:
        checkpoints.close()
        gc.collect()


def test_what_was_saved_comes_back_bit_by_bit(tmp_path):
    filled(tmp_path, [None, 0.5])
    found, told = restored(tmp_path)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and bool((a == b).all()), found.state, state(2)))
    assert found.meta == {"pipeline": {"next": 2}}
    assert told == []


def test_saving_copies_the_state_before_it_returns(tmp_path):
    """The next step donates the state's buffers: what is written must not be what they hold by then."""
    checkpoints = open_(tmp_path)
    mutable = np.zeros(100_000, np.float32)
    checkpoints.save(1, {"w": mutable}, {}, None)
    mutable += 1
    checkpoints.wait()
    assert float(checkpoints.restore(1, {"w": jnp.ones(100_000)}).state["w"].sum()) == 0
    checkpoints.close()


def test_a_device_without_room_is_no_broken_checkpoint(tmp_path, monkeypatch):
    filled(tmp_path, [None, 0.5])

    def full(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "restore", full)
        with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
            restored(tmp_path, set_aside=True)
    assert restored(tmp_path)[0].meta == {"pipeline": {"next": 2}}


def test_no_checkpoint_is_none(tmp_path):
    assert restored(tmp_path)[0] is None


@pytest.mark.parametrize(
    ("mode", "scores", "best", "kept"),
    [
        ("max", [0.1, 0.9, 0.3, 0.2, 0.4], 2, [2, 4, 5]),
        ("min", [0.3, 0.9, 0.1, 0.2, 0.4, 0.5], 3, [3, 5, 6]),
        ("max", [0.1, 0.2, 0.9], 3, [2, 3]),
        ("max", [0.7, None, None, None], 1, [1, 3, 4]),
        ("max", [None, 0.0, None, None, 0.0, None, None], None, None),
        ("max", [None] * 4, None, [3, 4]),
    ],
)
def test_the_best_and_the_latest_are_kept(tmp_path, mode, scores, best, kept):
    filled(tmp_path, scores, mode=mode)
    checkpoints = open_(tmp_path, mode=mode)
    if kept is not None:
        assert checkpoints.steps() == kept
        assert checkpoints.best_step() == best
    else:  # a tie: either, but one that is still there
        assert checkpoints.best_step() in (2, 5)
        assert checkpoints.best_step() in checkpoints.steps()
        assert checkpoints.steps()[-2:] == [6, 7]
    first = checkpoints.restore_newest(state(0), first=checkpoints.best_step())
    assert int(first.state["step"]) == (checkpoints.best_step() or 4)
    checkpoints.close()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(max(64, path.stat().st_size)))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty, garbage, flip, lambda path: path.unlink()])
@pytest.mark.parametrize("reader", [{"read_only": True}, {"set_aside": True}], ids=["asked", "resumed"])
def test_whichever_file_of_the_latest_is_broken_the_one_before_is_taken_or_nothing_was_lost(tmp_path, damage, reader):
    """Never an exception, never a wrong number: the latest state is whole all the same, or the one before it is taken, and told."""
    filled(tmp_path / "whole", [None, 0.1, 0.2])
    latest = tmp_path / "whole" / "checkpoints" / "3"
    files = [path.relative_to(latest) for path in sorted(latest.rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    fell_back = 0
    for number, file in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", workdir)
        damage(workdir / "checkpoints" / "3" / file)
        found, told = restored(workdir, **reader)
        step = int(found.state["step"])
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found.state, state(step))), file
        assert found.meta["pipeline"] == {"next": step}, file
        if step == 2:
            fell_back += 1
            assert "the checkpoint of step 3 is broken" in told[0], file
            assert all("\n" not in sentence for sentence in told)
        else:
            assert step == 3, file
            assert not told, file
        shutil.rmtree(workdir)
    assert fell_back > 1


def test_one_flipped_bit_in_the_largest_file_is_noticed_and_left_where_it_is_unless_asked(tmp_path):
    filled(tmp_path, [None, None])
    flip(max((tmp_path / "checkpoints" / "2").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0))
    files = sorted(tmp_path.rglob("*"))
    found, told = restored(tmp_path)
    assert int(found.state["step"]) == 1
    assert len(told) == 1
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("error", [MemoryError, PermissionError])
def test_what_is_no_fault_of_the_checkpoint_is_not_taken_for_one(tmp_path, monkeypatch, error):
    def refuse(*args):
        raise error

    filled(tmp_path, [None, None])
    monkeypatch.setattr(Checkpoints, "restore", refuse)
    with pytest.raises(error):
        restored(tmp_path, set_aside=True)
    assert not (tmp_path / "broken_checkpoints").exists()


def test_a_state_that_is_not_the_saved_one_is_noticed_by_its_checksum(tmp_path, monkeypatch):
    """Even where every file reads well."""
    with monkeypatch.context() as patch:
        patch.setattr(library, "checksums", lambda state: [0, 0, 0])
        filled(tmp_path, [None])
    with pytest.raises(InputError):
        restored(tmp_path)


@pytest.mark.parametrize("reader", [{"read_only": True}, {"set_aside": True}], ids=["asked", "resumed"])
def test_when_all_are_broken_it_is_an_input_error_every_time_and_nothing_is_deleted(tmp_path, reader):
    """Nor does the next start take what is left for a new run."""
    filled(tmp_path, [None, 0.3])
    for path in list(tmp_path.rglob("state/**/*")):
        if path.is_file():
            garbage(path)
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    for _ in range(2):
        with pytest.raises(InputError, match=r"none of the checkpoints in .*checkpoints can be read"):
            restored(tmp_path, **reader)
        assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == files


def test_a_broken_one_is_set_aside_so_that_its_step_can_be_saved_anew(tmp_path):
    filled(tmp_path, [None, None, None])
    for path in (tmp_path / "checkpoints" / "3" / "state").rglob("*"):
        if path.is_file():
            garbage(path)
    checkpoints = open_(tmp_path)
    assert int(checkpoints.restore_newest(state(0), set_aside=True).state["step"]) == 2
    assert checkpoints.steps() == [2]
    checkpoints.save(3, state(33), {}, None)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    assert int(checkpoints.restore_newest(state(0)).state["step"]) == 33
    checkpoints.close()
    assert len(list((tmp_path / "broken_checkpoints").iterdir())) == 1


@pytest.mark.parametrize("content", ["", "{", "3", "null", "[]", '{"loss": 1.0}', '{"score": "high"}'])
def test_metrics_that_cannot_be_read_count_as_none(tmp_path, content):
    """The state beside them is whole and is taken; saving goes on, and the best is chosen among those that can be read."""
    filled(tmp_path, [0.1, 0.9])
    (tmp_path / "checkpoints" / "2" / "metrics" / "metrics").write_text(content)
    checkpoints = open_(tmp_path)
    assert checkpoints.best_step() == 1
    assert int(checkpoints.restore_newest(state(0), set_aside=True).state["step"]) == 2
    for step, score in ((3, 0.5), (4, 0.2), (5, 0.3)):
        checkpoints.save(step, state(step), {}, {"score": score})
    checkpoints.wait()
    assert checkpoints.best_step() == 3
    assert checkpoints.steps() == [3, 4, 5]
    checkpoints.close()


def test_reading_writes_nothing(tmp_path):
    filled(tmp_path, [0.1, 0.2])
    partial = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    partial.mkdir()
    files = sorted(tmp_path.rglob("*"))
    assert int(restored(tmp_path, read_only=True)[0].state["step"]) == 2
    assert sorted(tmp_path.rglob("*")) == files


def test_reading_where_there_is_nothing_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="has no checkpoints yet"):
        open_(tmp_path, read_only=True)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_was_not_finished_is_not_there(tmp_path):
    filled(tmp_path, [None])
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    found, told = restored(tmp_path)
    assert int(found.state["step"]) == 1
    assert told == []
