"""What tests of tasks share: the settings of the tiny config, and a trained run of it, loaded."""

import pytest

from attention_variants.train import runs
from attention_variants.train import settings as settings_lib


@pytest.fixture(scope="module")
def settings(make_config):
    return settings_lib.parse(make_config(**{"task.max_padding": 0.1}))


@pytest.fixture(scope="module")
def loaded(trained):
    return runs.Loaded(trained[0], print)


@pytest.fixture(scope="module")
def task(loaded):
    return loaded.task


@pytest.fixture(scope="module")
def place(loaded):
    return loaded.place


@pytest.fixture(scope="module")
def configured():
    """`configured(pieces, **changes)`: the config of regression, short."""

    def make(pieces="", **changes):
        from configs import regression

        config = regression.get_config(pieces)
        config.run.update(duration="6 steps", evaluate="3 steps")
        config.log.update(every="1 steps", tensorboard=False)
        config.update_from_flattened_dict(changes)
        return config

    return make
