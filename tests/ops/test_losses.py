"""Cross-entropy against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.ops.losses import cross_entropy

B, T, V = 3, 5, 7


def batch(scale=2.0):
    random = np.random.default_rng(0)
    logits = random.normal(size=(B, T, V)) * scale
    return np.float32(logits), random.integers(0, V, (B, T)), np.float32(random.integers(0, 3, (B, T)))


def definition(logits, labels, weights, smoothing):
    """(Σ weight · −Σ_v p_v log softmax_v, Σ weight, gradient) with p written out, in float64."""
    total, gradient = 0.0, np.zeros(logits.shape)
    for b, t in np.ndindex(*labels.shape):
        row = np.exp(np.float64(logits[b, t]))
        softmax = row / row.sum()
        p = np.full(V, smoothing / V)
        p[labels[b, t]] += 1 - smoothing
        total -= weights[b, t] * (p * np.log(softmax)).sum()
        gradient[b, t] = weights[b, t] * (softmax - p)
    return total, weights.sum(), gradient


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_is_its_definition(smoothing):
    """Sum, weight and the gradient weight · (softmax − p)."""
    logits, labels, weights = batch()
    total, weight, gradient = definition(logits, labels, weights, smoothing)
    np.testing.assert_allclose(cross_entropy(logits, labels, weights, smoothing), (total, weight), rtol=1e-5)
    found = jax.grad(lambda logits: cross_entropy(logits, labels, weights, smoothing)[0])(logits)
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)


def test_sums_and_weights_add_up():
    """A batch is its rows, however it is cut."""
    whole = cross_entropy(*batch(), 0.1)
    rows = [cross_entropy(*(x[b : b + 1] for x in batch()), 0.1) for b in range(B)]
    np.testing.assert_allclose(np.sum(rows, 0), whole, rtol=1e-6)


def test_tokens_of_no_weight_do_not_count():
    """Whatever stands there: other labels, other logits; a batch of them is zero over zero, without NaN."""
    logits, labels, weights = batch()
    whole = cross_entropy(logits, labels, weights, 0.1)
    absent = weights == 0
    assert 0 < absent.sum() < absent.size
    other = cross_entropy(np.where(absent[..., None], 50 - logits, logits), np.where(absent, V - 1 - labels, labels), weights, 0.1)
    np.testing.assert_allclose(other, whole, rtol=1e-6)
    assert cross_entropy(logits, labels, np.zeros_like(weights)) == (0, 0)
    present = weights > 0
    np.testing.assert_allclose(cross_entropy(logits, labels, present), cross_entropy(logits, labels, np.float32(present)))


def test_only_differences_of_logits_count():
    """Adding a number to all logits of a token changes nothing, up to thousands."""
    logits, labels, weights = batch()
    shifted = logits + np.float32(4096) * np.arange(-2, B * T - 2).reshape(B, T, 1).astype(np.float32) / B
    np.testing.assert_allclose(cross_entropy(shifted, labels, weights, 0.1), cross_entropy(logits, labels, weights, 0.1), rtol=1e-3)


def test_a_certain_model_has_no_loss_and_an_even_one_log_v():
    logits, labels, weights = batch()
    certain = 100 * jax.nn.one_hot(labels, V)
    np.testing.assert_allclose(cross_entropy(certain, labels, weights)[0], 0, atol=1e-5)
    for smoothing in (0.0, 0.3):
        np.testing.assert_allclose(cross_entropy(0 * logits, labels, weights, smoothing)[0], weights.sum() * np.log(V), rtol=1e-6)


def test_smoothing_can_be_traced_and_mapped():
    logits, labels, weights = batch()
    rates = jnp.array([0.0, 0.1, 0.9])
    lanes = jax.jit(jax.vmap(lambda rate: cross_entropy(logits, labels, weights, rate)[0]))(rates)
    np.testing.assert_allclose(lanes, [definition(logits, labels, weights, float(rate))[0] for rate in rates], rtol=1e-5)


def test_it_is_computed_in_float32_at_least():
    logits, labels, weights = batch()
    narrow = jnp.asarray(logits, jnp.bfloat16)
    total, weight = cross_entropy(narrow, labels, weights.astype(jnp.bfloat16), 0.1)
    assert total.dtype == weight.dtype == jnp.float32
    np.testing.assert_allclose(total, definition(np.float64(narrow.astype(jnp.float32)), labels, weights, 0.1)[0], rtol=1e-5)
    with jax.enable_x64(True):
        total, _ = cross_entropy(jnp.asarray(np.float64(logits)), labels, weights, 0.1)
        np.testing.assert_allclose(total, definition(logits, labels, weights, 0.1)[0], rtol=1e-12)
