"""A workdir is one process's at a time."""

import shutil

import pytest

from attention_variants.errors import InputError
from attention_variants.train import loop, runs
from attention_variants.train import workdir as workdir_lib


def test_one_process_trains_in_a_workdir(make_config, trained, tmp_path):
    """Another is refused while it is at work and changes nothing; the lock is gone with whoever had it, however it ended."""
    shutil.copytree(trained[0], tmp_path / "w")
    (tmp_path / "w" / "DONE").unlink()
    before = {p: p.read_bytes() for p in (tmp_path / "w").rglob("*") if p.is_file()}
    config = make_config(**{"hypers.dropout": 0.1, "log.tensorboard": True})
    with workdir_lib.alone(tmp_path / "w", "first"):
        assert workdir_lib.busy(tmp_path / "w")
        before[tmp_path / "w" / "command.txt"] += b"first\n"
        with pytest.raises(InputError, match="another process is at work in"):
            loop.train(config, tmp_path / "w", quiet=True)
        assert {p: p.read_bytes() for p in (tmp_path / "w").rglob("*") if p.is_file()} == before
    assert not workdir_lib.busy(tmp_path / "w")
    assert loop.train(config, tmp_path / "w", quiet=True).results is not None


def test_what_another_process_did_meanwhile_is_not_overwritten(make_config, tmp_path, monkeypatch):
    """Between reading a workdir and having it alone: here the run of another, which has come to its end."""
    config, opened = make_config(), workdir_lib.open_for_training

    def late(workdir, *given):
        monkeypatch.setattr(workdir_lib, "open_for_training", opened)
        loop.train(config, workdir, quiet=True)
        return opened(workdir, *given)

    monkeypatch.setattr(workdir_lib, "open_for_training", late)
    with pytest.raises(InputError, match="another process was at work in"):
        loop.train(config, tmp_path / "w", quiet=True)
    assert runs.finished(tmp_path / "w")
    assert runs.steps(tmp_path / "w")
