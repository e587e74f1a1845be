"""A full disk is told in a sentence; the checkpoint before it survives, and the run goes on when there is room."""

import os
import pathlib
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow
FLAGS = (
    "--config=configs/translation.py:tiny",
    "--config.model.width=64",
    "--config.model.feed_forward=512",
    "--config.task.max_padding=1.0",
    "--config.run.duration=30 steps",
    "--config.run.checkpoint=5 steps",
    "--config.run.evaluate=0",
    "--config.log.tensorboard=false",
)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def steps(workdir: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def test_the_checkpoint_before_survives_and_the_run_goes_on(small_disk, program, tmp_path):
    whole = program(*FLAGS, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    size = sum(p.stat().st_size for p in (tmp_path / "whole" / "checkpoints" / "30").rglob("*") if p.is_file())
    assert size < 3e6
    first = program(*FLAGS[:-1], FLAGS[-1], "--config.log.every=1 steps", f"--workdir={small_disk / 'run'}", PAUSE="")
    assert first.returncode == 0, first.stderr
    for path in (small_disk / "run" / "DONE", small_disk / "run" / "results.json"):
        path.unlink()
    shutil.rmtree(small_disk / "run" / "checkpoints" / "30")  # as if it had been stopped after step 25
    room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(b"0" * int(room - 0.5 * size))
    full = program(*FLAGS, "--config.log.every=1 steps", f"--workdir={small_disk / 'run'}")
    assert "Traceback" not in full.stderr
    assert full.returncode == 2, full.stderr
    assert full.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "space" in full.stderr.strip().splitlines()[-1]
    assert 25 in steps(small_disk / "run")
    assert not (small_disk / "run" / "DONE").exists()
    asked = program("--mode=predict", f"--workdir={small_disk / 'run'}", stdin=b"1 May 1999\n")
    assert asked.returncode == 0, asked.stderr
    (small_disk / "ballast").unlink()
    again = program(*FLAGS, "--config.log.every=1 steps", f"--workdir={small_disk / 'run'}")
    assert again.returncode == 0, again.stderr
    assert "going on from step 25 of 30" in again.stderr
    assert again.stdout == whole.stdout
