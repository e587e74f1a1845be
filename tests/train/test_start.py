"""From the command to the first training step on dates: 20 s cold, 10 s with a warm compilation cache."""

import pathlib
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


def processor_seconds() -> tuple[float, float]:
    """What this machine's processors have spent so far: on everything, and on other machines that share them (Linux counts it)."""
    stat = pathlib.Path("/proc/stat")
    spent = [float(n) for n in stat.read_text().splitlines()[0].split()[1:9]] if stat.exists() else [1.0] + [0.0] * 7
    return sum(spent), spent[7]


def test_the_first_step_comes_soon(environment, command, tmp_path):
    """With the defaults of dates, whole; and SIGTERM after it is a clean exit. Measured where the processors are this machine's."""
    found = []
    for attempt in range(3):
        home, (before, stolen_before) = tmp_path / f"home{attempt}", processor_seconds()
        here = environment | {"JAX_NUM_CPU_DEVICES": "1", "HOME": str(home)}
        words = lambda name, attempt=attempt: command(
            "--config=configs/translation.py", f"--workdir={tmp_path / f'{name}{attempt}'}"
        )
        cold = seconds_to_first_step(words("cold"), here)
        assert any((home / ".cache" / "attention-variants" / "xla").iterdir())
        warm = seconds_to_first_step(words("warm"), here)
        after, stolen_after = processor_seconds()
        found.append((cold, warm, (stolen_after - stolen_before) / max(after - before, 1e-9)))
        if cold <= 20 and warm <= 10:
            return
    told = "; ".join(f"{cold:.1f} s cold, {warm:.1f} s warm, {stolen:.0%} of the processors taken" for cold, warm, stolen in found)
    if min(stolen for *_, stolen in found) > 0.02:
        pytest.skip(f"other machines take this one's processors, so that its seconds say nothing: {told}")
    raise AssertionError(told)
