"""What tests of runs share: a config of sixteen steps, and its run from beginning to end."""

import pytest

from attention_variants.figures import heatmaps
from attention_variants.train import loop

SHORT = {
    "data.train": 100,
    "hypers.dropout": 0.1,
    "task.packed": True,
    "run.duration": "16 steps",
    "run.evaluate": "8 steps",
    "run.checkpoint": "3 steps",
}


@pytest.fixture(scope="module", autouse=True)
def _pictures_take_no_time():
    """Heatmaps are empty files here: a run draws them in seconds, and other tests look at them."""

    def draw(path, *args, **kwargs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heatmaps, "draw", draw)
        yield


@pytest.fixture
def config(make_config):
    """Sixteen steps over more than two epochs; checkpoints at 3, 6, 8 (evaluated), 9, 12, 15, 16 (evaluated)."""
    return make_config(**SHORT)


@pytest.fixture(scope="module")
def unbroken(make_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    return workdir, loop.train(make_config(**SHORT), workdir, quiet=True)
