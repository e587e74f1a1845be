"""Which tokens matter: what is erased and moved, against loops and finite differences; agreement, against itself."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from attention_variants.analysis import erasure
from attention_variants.data.tokens import END, PAD, UNKNOWN
from attention_variants.errors import InputError
from attention_variants.models import classifier
from attention_variants.train import loop
from configs import classification

TOKENS = np.array([[7, 5, 9, 8, END], [6, 10, END, PAD, PAD]])


def model(pooling: str):
    config = classifier.Config(layers=2, width=12, heads=3, feed_forward=10, pooling=pooling)
    built = classifier.build(config, "standard", 11, 4)
    params = jax.jit(built.init)(jax.random.key(0), TOKENS)["params"]
    return built, jax.tree.map(lambda x: 2 * x, params)


def chances(built, params, row):
    return np.asarray(jax.nn.softmax(built.apply({"params": params}, jnp.asarray(row)[None])[0]), np.float64)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_token_is_erased_by_making_it_unknown(pooling):
    built, params = model(pooling)
    found = erasure.erasures(built, params, TOKENS)
    for b, row in enumerate(TOKENS):
        whole = chances(built, params, row)
        for s, token in enumerate(row):
            without = row.copy()
            without[s] = UNKNOWN
            lost = abs(chances(built, params, without) - whole)[whole.argmax()]
            np.testing.assert_allclose(found[b, s], 0.0 if token == PAD else lost, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_gradients_are_by_the_embedding_of_each_token(pooling):
    """No token stands twice, so an embedding's row is one token's; it is multiplied by √D before it is moved."""
    built, params = model(pooling)
    found = erasure.gradients(built, params, TOKENS[:1])
    answer = chances(built, params, TOKENS[0]).argmax()
    of = lambda table: jax.nn.softmax(built.apply({"params": params | {"embedding": {"embedding": table}}}, TOKENS[:1])[0])[answer]
    by_row = jax.grad(of)(params["embedding"]["embedding"])
    expected = [np.linalg.norm(by_row[token]) for token in TOKENS[0]]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)


def test_correlations_are_of_the_tokens_that_count():
    rng = np.random.default_rng(0)
    one, other, counts = rng.normal(size=(3, 7)), rng.normal(size=(3, 7)), np.ones((3, 7), bool)
    counts[0, 4:], counts[1, 2:] = False, False
    one[2] = 1.0
    found = erasure.correlations(one, other, counts)
    np.testing.assert_allclose(found[0], stats.spearmanr(one[0, :4], other[0, :4])[0])
    assert np.isnan(found[1:]).all(), "of two tokens, and where all are the same"
    assert erasure.correlations(other[:1], np.exp(other[:1]), counts[:1])[0] == pytest.approx(1.0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_run_of_classification(pooling, tmp_path, capsys):
    config = classification.get_config("tiny")
    config.model.pooling, config.run.duration = pooling, "2 steps"
    loop.train(config, tmp_path / "run", quiet=True)
    paths = erasure.draw(tmp_path / "run")
    assert all(path.stat().st_size > 0 for path in paths)
    found = json.loads(paths[-1].read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[0]).keys() == found.keys()
    for kinds in found.values():
        for truths in kinds.values():
            for mean, deviation in truths.values():
                assert -1 <= mean <= 1
                assert deviation > 0


def test_translation_has_no_answer_that_is_a_class(trained):
    with pytest.raises(InputError, match="is no run of classification; expected one, whose answer is a class"):
        erasure.draw(trained[0])
