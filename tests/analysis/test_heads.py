"""How alike the heads of a run are: of every task, at every checkpoint, and what is known beforehand of heads made alike."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.analysis import heads
from attention_variants.errors import InputError
from attention_variants.train import loop, runs
from configs import classification, regression


@pytest.fixture(scope="module")
def loaded(trained):
    return runs.Loaded(trained[0], print)


def alike(loaded, params):
    return heads.alike(params, heads.layers(loaded.task, params, {}, loaded.place))


def test_every_layer_of_a_translation(loaded):
    found = alike(loaded, loaded.params)
    assert set(found) == {"encoder_0_self_attention", "decoder_0_self_attention", "decoder_0_cross_attention"}
    for of in found.values():
        assert list(of.matrices) == list(heads.NAMES)
        assert 1 <= of.effective <= 2
        for matrix in of.matrices.values():
            assert matrix.shape == (2, 2)
            np.testing.assert_allclose(matrix, matrix.T, atol=1e-5)


def test_heads_that_are_made_the_same_are_one(loaded):
    same = lambda x: jnp.broadcast_to(x[..., :1, :], x.shape) if x.ndim > 1 and x.shape[-2:] == (2, 8) else x
    params = jax.tree.map(same, loaded.params)
    for of in alike(loaded, params).values():
        numbers = of.numbers()
        assert numbers["effective"] == pytest.approx(1, abs=1e-3)
        assert numbers["divergence"] == pytest.approx(0, abs=1e-4)
        for name in ("query", "key", "value", "outputs"):
            assert numbers[name] == pytest.approx(1, abs=1e-4)


def test_padding_is_not_looked_at(loaded):
    """Of sources, which have several lengths, what the padding's queries put out changes nothing."""
    layers = heads.layers(loaded.task, loaded.params, {}, loaded.place)
    for name, (trace, real_BQ, keys) in layers.items():
        assert len(keys) == len(real_BQ), name
        assert real_BQ.shape == trace["q_BQHK"].shape[:2], name
    trace, real_BQ, _ = layers["encoder_0_self_attention"]
    assert 0 < real_BQ.mean() < 1
    moved = trace | {"queries": jnp.where(real_BQ[..., None, None], trace["queries"], 9.0)}
    one, two = (heads.alike(loaded.params, {"encoder_0_self_attention": (of, real_BQ)}) for of in (trace, moved))
    jax.tree.map(np.testing.assert_array_equal, *one.values(), *two.values())


def test_pictures_and_numbers_of_every_checkpoint(trained, capsys):
    paths = heads.draw(trained[0])
    assert all(path.stat().st_size > 0 for path in paths)
    numbers = json.loads(paths[-1].read_text())
    assert list(map(int, numbers)) == runs.steps(trained[0])
    best = runs.Loaded(trained[0], print)
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == numbers[str(best.step)]
    other = next(step for step in numbers if int(step) != best.step)
    assert numbers[other] != numbers[str(best.step)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: classification.get_config("tiny"),
        lambda: classification.get_config("tiny,variant=implicit_kernel"),
        lambda: regression.get_config("variant=rbf,tiny"),
    ],
    ids=["classification", "implicit kernel", "regression"],
)
def test_every_task_has_heads_to_compare(make, tmp_path):
    config = make()
    config.model.heads = 2
    config.run.duration = "2 steps"
    loop.train(config, tmp_path / "run", quiet=True)
    loaded = runs.Loaded(tmp_path / "run", print)
    found = alike(loaded, loaded.params)
    assert found
    for of in found.values():
        assert all(np.isfinite(value) for value in of.numbers().values())
        assert list(of.matrices) == list(heads.NAMES)


def test_a_single_head_has_nobody_to_be_compared_with(tmp_path):
    loop.train(regression.get_config("tiny"), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="no attention layer of this run has two heads"):
        heads.draw(tmp_path / "run")
