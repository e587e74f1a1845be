"""From the command to the first training step on dates: 20 s cold, 10 s with a warm compilation cache."""

import subprocess
import time

import pytest

pytestmark = pytest.mark.slow


def seconds_to_first_step(words, environment) -> float:
    start = time.monotonic()
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        told = []
        for line in process.stderr:
            told.append(line)
            if line.startswith("first step"):
                found = time.monotonic() - start
                process.terminate()
                process.stderr.read()
                assert process.wait(60) == 0
                return found
    raise AssertionError("".join(told))


def test_the_first_step_comes_soon(environment, command, tmp_path):
    """With the defaults of dates, whole; and SIGTERM after it is a clean exit."""
    here = environment | {"JAX_NUM_CPU_DEVICES": "1", "HOME": str(tmp_path)}
    words = lambda name: command("--config=configs/translation.py", f"--workdir={tmp_path / name}")
    assert seconds_to_first_step(words("cold"), here) <= 20
    assert any((tmp_path / ".cache" / "attention-variants" / "xla").iterdir())
    assert seconds_to_first_step(words("warm"), here) <= 10
