"""What a variant adds to the loss of an example is in every task's loss, once, and told; rows that are no example add nothing."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants import tasks
from attention_variants.train import settings as settings_lib

TASKS = {
    "translation": ("tiny", {"task.packed": False, "data.train": 11}, ("source", "target")),
    "regression": ("", {"data.rows": 40}, ()),
    "classification": ("tiny", {"data.train": 211, "data.validation": 1, "data.test": 1}, ("source", "target")),
}


@pytest.mark.parametrize("name", TASKS)
def test_added_costs_are_in_the_loss_once(name):
    pieces, changes, sides = TASKS[name]
    config = importlib.import_module(f"configs.{name}").get_config(f"{pieces},variant=implicit_kernel".strip(","))
    config.update_from_flattened_dict(changes | {"variant.mode": "sampled", "variant.points": 4, "hypers.dropout": 0.0})
    hypers = {"dropout": None, "attention_dropout": None, "label_smoothing": 0.0}

    def parts(weight, batch=None):
        """(loss without what is added, what is added, the batch)."""
        config.variant.kl_weight = weight
        task = tasks.load(name).Task.new(settings_lib.parse(config))
        batch = task.batches("train", seed=0)[0] if batch is None else batch
        params, state = task.init(jax.random.key(0))
        params = jax.tree.map(lambda p: p + 0.02, params)  # off where columns of mean 0 are pooled to 0
        total, count, metrics, _ = task.loss(params, state, batch, jax.random.key(1), hypers)
        added, of = metrics["added"]
        assert of == count
        assert (float(metrics["loss"][0]), metrics["loss"][1]) == (pytest.approx(float(total - added), rel=1e-5), count)
        return float(total - added), float(added), batch

    own, added, batch = parts(1.0)
    free, nothing, _ = parts(0.0, batch)
    assert added > 0
    assert nothing == 0
    assert own == pytest.approx(free, rel=1e-4)
    assert parts(2.0, batch)[1] == pytest.approx(2 * added, rel=1e-4)
    if sides:  # rows that only fill the batch
        fill = lambda x: np.concatenate([x, np.zeros_like(x[:3])])
        filled = {key: fill(x) for key, x in batch.items()}
        assert parts(1.0, filled)[1] == pytest.approx(added, rel=1e-4)
    assert jnp.isfinite(added)
