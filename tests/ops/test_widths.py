"""Widths by rules are what their formulas say of the keys that there are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.variants import B, H, K, S, draw, finite

from attention_variants import variants
from attention_variants.ops import widths
from attention_variants.ops.widths import RULES, Adapt
from attention_variants.variants import rbf

VALID = np.arange(S) != np.array([[1], [3]])


def slow(rule, x_NK, neighbours):
    """Widths of a set of points, in loops."""
    n, d = x_NK.shape
    silverman = np.sqrt(x_NK.var(0, ddof=1).mean()) * (4 / ((d + 2) * n)) ** (1 / (d + 4))
    distance = np.linalg.norm(x_NK[:, None] - x_NK[None], axis=-1)
    if rule == "nearest":
        return np.array([np.sort(np.delete(distance[i], i))[min(neighbours, n - 1) - 1] for i in range(n)])
    if rule == "silverman":
        return np.full(n, silverman)
    density = np.exp(-((distance / silverman) ** 2) / 2).mean(1)
    return silverman * (density / np.exp(np.log(density).mean())) ** -0.5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("neighbours", [1, 3, 100])
def test_widths_are_those_of_the_formulas(rule, neighbours):
    """Over the keys that there are; padding has no part in it."""
    k = 1.5 * draw(2, B, S, H, K)
    found = Adapt(rule, neighbours, jnp.asarray(VALID, jnp.float32))(k)
    assert found.shape == (B, S, H)
    for b, h in np.ndindex(B, H):
        np.testing.assert_allclose(found[b, VALID[b], h], slow(rule, np.float64(k)[b, VALID[b], h], neighbours), rtol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_keys_that_coincide_have_a_width(rule):
    for k in (jnp.ones((B, S, H, K)), draw(2, B, S, H, K).at[:, 1].set(0.0).at[:, 2].set(0.0)):
        found, grads = jax.value_and_grad(lambda k: Adapt(rule, neighbours=1)(k).sum())(k)
        assert found > 0
        assert finite((found, grads))
        assert not grads.any()
        assert (Adapt(rule, neighbours=1)(k) > 0).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("valid", [VALID, np.zeros((B, S), bool)])
def test_padding_may_be_far_away(rule, valid):
    """So far that its density is 0; or everywhere."""
    near = draw(2, B, S, H, K)
    far = jnp.where(valid[..., None, None], near, 200.0 + 50 * near)
    found = Adapt(rule, valid_BS=jnp.asarray(valid, jnp.float32))(far)
    assert finite(found)
    assert (found > 0).all()
    if valid.any():
        other = Adapt(rule, valid_BS=jnp.asarray(valid, jnp.float32))(near)
        np.testing.assert_allclose(np.asarray(found)[valid], np.asarray(other)[valid], rtol=1e-5)


def test_the_nearest_neighbour_is_as_far_as_the_kernel_reaches():
    """Whatever the number of dimensions, and whatever the variant measures other widths in."""
    neighbours = 3
    k = draw(2, 1, 53, 1, 16)
    config = rbf.Config(kernel="boxcar", rule="nearest", neighbours=neighbours, width=1.0001)
    score = variants.layer(config, heads=1, size=16).apply({}, k, k, None)
    reached = np.isfinite(score.logits(score.prepare_queries(k), score.prepare_keys(k)))[0, 0].sum(0)
    assert reached.tolist() == [1 + neighbours] * 53  # itself among them


def test_a_rule_reads_keys_in_parts(monkeypatch):
    k = draw(2, B, S, H, K)
    whole = Adapt("abramson")(k)
    monkeypatch.setattr(widths, "AT_ONCE", 3)
    np.testing.assert_allclose(Adapt("abramson")(k), whole, rtol=1e-6)
