"""A small ablation, launched once by lanes; other launchers and reports are held against it."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

ABLATION = '''"""Does <b>dropout</b> & "smoothing" matter in twelve steps? No.

A small ablation that costs $3 to look at, and $5 to believe.
"""

from experiments.ablation import Ablation
from experiments.sweep import axis, chain

ABLATION = Ablation(
    config="configs/translation.py:data=dates",
    cells=chain([{}], axis("hypers.dropout", 0.2), axis("hypers.label_smoothing", 0.1)),
    metric="validation.loss",
    tiny={"run.duration": "12 steps", "run.evaluate": "6 steps", "run.checkpoint": "2 steps", "log.every": "1 steps"},
    paper={"dropout=0.2": 1.5},
    source="nobody's paper, table 0",
    pictures=("decoder_0_cross_attention.png",),
)
'''


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The file of the ablation."""
    path = tmp_path_factory.mktemp("ablation") / "small.py"
    path.write_text(ABLATION)
    return path


@pytest.fixture(scope="session")
def launched(launch, tmp_path_factory):
    """The workdir of the ablation, launched by lanes."""
    workdir = tmp_path_factory.mktemp("launched") / "small"
    done = launch(workdir, "--launcher=lanes")
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="session")
def launch(environment, small):
    """`launch(workdir, *flags)`: the finished process of a launch, tiny and with two seeds unless flags say otherwise."""

    def run(workdir, *flags, experiment=small, **kwargs):
        words = [f"--experiment={experiment}", f"--workdir={workdir}", "--seeds=2", "--tiny", *flags]
        command = [sys.executable, "-m", "experiments.launch", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, **kwargs)

    return run
