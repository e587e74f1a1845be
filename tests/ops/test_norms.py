"""Norms of contributions against loops that form every vector; contributions against the layers they take apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.ops import contributions, norms
from attention_variants.ops.layer_norm import layer_norm

H, Q, S, V, D, F = 3, 5, 7, 11, 13, 17


def draw(seed=0, heads=H, queries=Q, keys=S):
    rng = np.random.default_rng(seed)
    weights = np.asarray(jax.nn.softmax(rng.normal(size=(heads, queries, keys)) * 2, axis=-1))
    return weights, rng.normal(size=(keys, heads, V)), rng.normal(size=(heads, V, D))


def vectors(weights, v, out):
    """S_ij, one by one, in float64."""
    weights, v, out = (np.asarray(x, np.float64) for x in (weights, v, out))
    found = np.zeros((weights.shape[1], len(v), out.shape[-1]))
    for i, j in np.ndindex(found.shape[:2]):
        for h in range(len(weights)):
            found[i, j] += weights[h, i, j] * (v[j, h] @ out[h])
    return found


def single(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


@pytest.mark.parametrize("heads", [1, 2, 3, 12])
def test_norms_are_those_of_the_vectors(heads):
    weights, v, out = single(*draw(heads=heads))
    f = norms.transformed(v, out)
    expected = np.linalg.norm(vectors(weights, v, out), axis=-1)
    np.testing.assert_allclose(norms.summed(weights, f), expected, rtol=1e-5)
    alone = [vectors(np.ones((1, 1, S)), v[:, h : h + 1], out[h : h + 1])[0] for h in range(heads)]
    np.testing.assert_allclose(norms.lengths(f), np.linalg.norm(alone, axis=-1), rtol=1e-5)


@pytest.mark.parametrize("apart", [1e-1, 1e-2, 1e-4, 0.0])
def test_heads_may_cancel_each_other(apart):
    """To 1e-6 of the lengths that cancel, as float32 can have it; where a tenth is left, to 1e-5 of that."""
    weights, v, out = single(*draw(heads=4))
    weights = weights.at[1].set(weights[0]).at[3].set(weights[2])
    v, out = v.at[:, 1].set(-(1 + apart) * v[:, 0]).at[:, 3].set(-(1 - apart) * v[:, 2]), out.at[1].set(out[0]).at[3].set(out[2])
    f = norms.transformed(v, out)
    expected = np.linalg.norm(np.einsum("hqs,hds->qsd", np.float64(weights), np.float64(f)), axis=-1)
    found = np.asarray(norms.summed(weights, f))
    size = np.einsum("hqs,hs->qs", weights, norms.lengths(f))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (abs(found - expected) / size).max() < 1e-6
    if apart >= 1e-1:
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_laws_of_summed_norms():
    weights, v, out = single(*draw())
    f = norms.transformed(v, out)
    found, each = norms.summed(weights, f), weights * norms.lengths(f)[:, None]
    assert (found <= each.sum(0) * (1 + 1e-6)).all(), "a sum is no longer than its parts"
    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(norms.summed(weights[order], f[order]), found, rtol=1e-5)
    np.testing.assert_allclose(norms.summed(weights, 3 * f), 3 * found, rtol=1e-5)
    np.testing.assert_allclose(norms.summed(weights[:1], f[:1]), each[0], rtol=1e-5)
    hidden = weights.at[:, 1, 2].set(0.0)
    assert norms.summed(hidden, f)[1, 2] == 0
    even = jnp.full_like(weights, 1 / S)
    np.testing.assert_allclose(norms.summed(even, f), np.tile(jnp.linalg.norm(f.sum(0), axis=0) / S, (Q, 1)), rtol=1e-5)


def test_heads_that_carry_nothing_are_no_trouble():
    weights, v, out = single(*draw())
    for some in (slice(None), slice(0, 1), slice(1, 3)):
        silent = v.at[:, some].set(0.0)
        found = norms.summed(weights, norms.transformed(silent, out))
        np.testing.assert_allclose(found, np.linalg.norm(vectors(weights, silent, out), axis=-1), rtol=1e-5, atol=1e-30)


def block(seed=0):
    """Self-attention with everything around it: what it needs, and its vectors one by one."""
    weights, v, out = draw(seed, queries=S)
    rng = np.random.default_rng(seed + 1)
    x, bias, scale, shift = rng.normal(size=(S, D)), rng.normal(size=D), rng.normal(size=D), rng.normal(size=D)
    slow = vectors(weights, v, out)
    slow[np.arange(S), np.arange(S)] += x
    return single(weights, v, out, x, bias, scale, shift), slow


def test_residual_and_layer_norm_change_what_they_should():
    (weights, v, out, x, bias, scale, _), slow = block()
    f = norms.transformed(v, out)
    np.testing.assert_allclose(
        norms.with_own(norms.summed(weights, f), norms.own(weights, f, x)), np.linalg.norm(slow, axis=-1), rtol=1e-5
    )
    s = np.sqrt((slow.sum(1) + bias).var(-1) + 1e-3)
    after = (slow - slow.mean(-1, keepdims=True)) * np.asarray(scale) / s[:, None, None]
    total = jnp.einsum("hqs,hds->qd", weights, f) + x + bias
    np.testing.assert_allclose(norms.deviation(total, 1e-3), s, rtol=1e-5)
    folded, own = norms.centred(f, scale, axis=1), norms.centred(norms.own(weights, f, x), scale)
    found = norms.with_own(norms.summed(weights, folded), own) / s[:, None]
    np.testing.assert_allclose(found, np.linalg.norm(after, axis=-1), rtol=2e-5)
    for vectors_, total_, own_ in (
        (slow, total - bias, norms.own(weights, f, x)),
        (after, norms.centred(total - bias, scale), own),
    ):
        others = np.array([np.linalg.norm(np.delete(vectors_[i], i, axis=0).sum(0)) for i in range(S)])
        expected = others / (others + np.linalg.norm(vectors_[np.arange(S), np.arange(S)], axis=-1))
        np.testing.assert_allclose(norms.mixing(total_, own_), expected, rtol=1e-5)


def test_mixing_is_none_where_there_is_nothing():
    assert norms.mixing(jnp.zeros((2, D)), jnp.zeros((2, D))).tolist() == [0.0, 0.0]


def test_expansion_is_the_root_mean_square_of_singular_values():
    rng = np.random.default_rng(0)
    value, value_bias, out, bias = (
        rng.normal(size=(D, H, V)),
        rng.normal(size=(H, V)),
        rng.normal(size=(H, V, D)),
        rng.normal(size=D),
    )
    homogeneous = lambda kernel, bias: np.block([[kernel, np.zeros((len(kernel), 1))], [bias, np.ones((1, 1))]])
    whole = homogeneous(value.reshape(D, -1), value_bias.reshape(1, -1)) @ homogeneous(out.reshape(-1, D), bias[None])
    expected = np.sqrt(np.mean(np.square(np.linalg.svd(whole)[1])))
    assert norms.expansion(*single(value, value_bias, out, bias)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activation", [jax.nn.relu, lambda x: jax.nn.gelu(x, approximate=False), jax.nn.silu])
def test_contributions_add_up_to_what_the_layers_compute(activation):
    (weights, v, out, x, bias, scale, shift), slow = block()
    parts = contributions.of_attention(weights, norms.transformed(v, out), bias)
    parts = contributions.residual(parts, x, jnp.arange(S))
    np.testing.assert_allclose(parts.vectors_QSD, slow, atol=1e-5)
    whole = jnp.einsum("hqs,shv,hvd->qd", weights, v, out) + bias + x
    np.testing.assert_allclose(parts.total_QD, whole, atol=1e-5)
    parts, whole = contributions.normalised(parts, scale, shift, 1e-5), layer_norm(whole, scale, shift, 1e-5)
    np.testing.assert_allclose(parts.total_QD, whole, atol=2e-5)
    rng = np.random.default_rng(3)
    inner, outer = (dict(kernel=single(rng.normal(size=of))[0], bias=single(rng.normal(size=of[1]))[0]) for of in ((D, F), (F, D)))
    inner["bias"] = inner["bias"].at[0].set(0.0)
    inner["kernel"] = inner["kernel"].at[:, 0].set(0.0)  # whose inner value is 0, where the slope has a limit alone
    after = contributions.feed_forward(parts, inner, outer, activation)
    expected = activation(whole @ inner["kernel"] + inner["bias"]) @ outer["kernel"] + outer["bias"]
    np.testing.assert_allclose(after.total_QD, expected, atol=2e-4)
    np.testing.assert_allclose((after + parts).total_QD, expected + whole, atol=2e-4)


def test_feed_forward_shares_are_integrated_gradients():
    """From zero, by the midpoint rule."""
    gelu = lambda x: jax.nn.gelu(x, approximate=False)
    z_k = np.array([1.5, -0.7, 0.3])
    steps = (np.arange(20_000) + 0.5) / 20_000
    gradient = jax.vmap(jax.grad(gelu))(jnp.asarray(steps * z_k.sum(), jnp.float32)).mean()
    assert z_k * float(contributions.slope(gelu, jnp.float32(z_k.sum()))) == pytest.approx(z_k * float(gradient), rel=1e-4)
