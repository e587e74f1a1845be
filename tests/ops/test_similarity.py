"""How alike heads are: the formulas as loops, and the numbers that are known beforehand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from attention_variants.ops import similarity

B, Q, H, S, V = 2, 3, 5, 7, 11


def draw(*shape, seed: int = 0):
    return np.random.default_rng(seed).normal(size=shape)


def test_cosines():
    x = draw(H, V)
    expected = [[x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for j in range(H)] for i in range(H)]
    np.testing.assert_allclose(similarity.cosines(jnp.asarray(x)), expected, atol=1e-5)
    np.testing.assert_allclose(similarity.cosines(jnp.zeros((3, V))), np.eye(3))


def test_outputs_are_compared_query_by_query_where_they_are_real():
    out, real = draw(B, Q, H, V), np.array([[True, True, False], [True, False, False]])
    each = [np.asarray(similarity.cosines(jnp.asarray(out[b, q]))) for b in range(B) for q in range(Q) if real[b, q]]
    np.testing.assert_allclose(similarity.output_cosines(jnp.asarray(out), jnp.asarray(real)), np.mean(each, 0), atol=1e-5)


def test_divergences_are_those_of_scipy():
    """In bits, over the real queries that see a key at all."""
    weights = np.array(jax.nn.softmax(3 * draw(B, H, Q, S), axis=-1))
    weights[0, :, 1, :4], weights[1, :, 0] = 0.0, 0.0
    weights[0, :, 1] /= weights[0, :, 1].sum(-1, keepdims=True)
    real = np.array([[True, True, False], [True, True, True]])
    counted = [(0, 0), (0, 1), (1, 1), (1, 2)]
    expected = [
        [np.mean([jensenshannon(weights[b, i, q], weights[b, j, q], 2) ** 2 for b, q in counted]) for j in range(H)]
        for i in range(H)
    ]
    found = similarity.divergences(jnp.asarray(weights), jnp.asarray(real))
    np.testing.assert_allclose(found, np.nan_to_num(expected), atol=1e-5)


def test_maps_without_a_key_in_common_are_one_bit_apart_and_equal_ones_none():
    weights = jnp.zeros((1, 3, 1, 4)).at[0, [0, 1, 2], 0, [0, 1, 1]].set(1.0)
    found = similarity.divergences(weights, jnp.ones((1, 1), bool))
    np.testing.assert_allclose(found, [[0, 1, 1], [1, 0, 0], [1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 5])
def test_the_effective_number(heads):
    """All the same are one; nothing in common, all; two groups of the same, two."""
    assert similarity.effective_number(jnp.ones((heads, heads))) == pytest.approx(1, abs=1e-4)
    assert similarity.effective_number(jnp.eye(heads)) == pytest.approx(heads, rel=1e-4)
    assert similarity.effective_number(jnp.kron(jnp.eye(2), jnp.ones((heads, heads)))) == pytest.approx(2, rel=1e-4)


def test_the_order_of_heads_does_not_matter():
    x, order = jnp.asarray(draw(H, V)), np.array([3, 0, 4, 1, 2])
    one, two = similarity.cosines(x), similarity.cosines(x[order])
    np.testing.assert_allclose(one[order][:, order], two, atol=1e-6)
    assert similarity.effective_number(one) == pytest.approx(float(similarity.effective_number(two)), rel=1e-4)
    assert similarity.between(one) == pytest.approx(float(similarity.between(two)), abs=1e-6)


def test_the_mean_is_over_pairs_of_different_heads():
    assert similarity.between(jnp.array([[1.0, 0.2], [0.4, 1.0]])) == pytest.approx(0.3)
    assert np.isnan(similarity.between(jnp.ones((1, 1))))
