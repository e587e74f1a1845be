"""The training step lowers for accelerators that this machine does not have."""

import jax
import jax.export
import pytest

from attention_variants.tasks.translation import Task
from attention_variants.train import optimizers, step
from attention_variants.train import settings as settings_lib


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(
    "changes", [{}, {"model.dtype": "bfloat16", "optimizer.accumulate": 2}], ids=["float32", "bfloat16 in parts"]
)
def test_the_step_lowers(make_config, platform, changes):
    settings = settings_lib.parse(make_config(**{"hypers.dropout": 0.1}, **changes))
    task = Task.new(settings)
    shape = optimizers.schedule(settings.optimizer, total=10, per_epoch=10, width=task.width)
    batch = task.batches("train", seed=0, multiple=2)[0]
    state = jax.eval_shape(lambda: step.init(task, settings, 0))
    exported = jax.export.export(jax.jit(step.make(task, settings, shape)), platforms=[platform])(
        state, batch, step.hypers_of(settings)[0]
    )
    assert exported.platforms == (platform,)
    assert "stablehlo.dot_general" in exported.mlir_module()
    after, metrics = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
