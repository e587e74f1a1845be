"""Spectral kernels are the sums of cosines of their formulas, positive, and inner products of features."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.variants import B, H, K, Q, S, arrays, assert_close, draw, finite

from attention_variants.ops.magnitudes import Magnitude
from attention_variants.ops.spectral import MAPS, Spectral, features, squares

M = 5


def frequencies(own: bool, stationary: bool):
    shape = (B, K, H, M) if own else (K, H, M)
    return 0.2 * draw(4, *shape), None if stationary else 0.3 * draw(5, *shape)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("stationary", [False, True])
def test_the_kernel_is_a_sum_of_cosines(stationary, own):
    """κ = (1/4M) Σ_m Σ_{a,b} cos 2π(w_amᵀq − w_bmᵀk); stationary, (1/M) Σ_m cos 2πw_mᵀ(q − k)."""
    q, k, _ = arrays()
    w1, w2 = frequencies(own, stationary)
    found = jnp.einsum("bqhf,bshf->bhqs", features(q, w1, w2), features(k, w1, w2))
    q, k = np.float64(q), np.float64(k)
    for b, h, i, j in itertools.product(range(B), range(H), range(Q), range(S)):
        at = lambda w, b=b, h=h: np.float64(w[b, :, h] if own else w[:, h])
        if stationary:
            wanted = np.cos(2 * np.pi * at(w1).T @ (q[b, i, h] - k[b, j, h])).mean()
        else:
            pairs = itertools.product((at(w1), at(w2)), repeat=2)
            wanted = sum(np.cos(2 * np.pi * (x.T @ q[b, i, h] - y.T @ k[b, j, h])).mean() for x, y in pairs) / 4
        assert found[b, h, i, j] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("size", [2, 4, 10])
def test_pairs_of_features_make_the_square(size):
    a, b = draw(1, 7, size), draw(2, 7, size)
    assert squares(a).shape == (7, size * (size // 2 + 1))
    np.testing.assert_allclose((squares(a) * squares(b)).sum(-1), np.square((a * b).sum(-1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positive", MAPS)
@pytest.mark.parametrize("magnitude", [None, Magnitude(p=3.0)])
@pytest.mark.parametrize("stationary", [False, True])
def test_similarities_are_positive_and_inner_products(positive, magnitude, stationary):
    """κ² + ε, or (1 + κ)/2 + ε; and exp(logits) = ψ(q)·ψ(k) e^m."""
    q, k, _ = arrays()
    w1, w2 = frequencies(False, stationary)
    score = Spectral(w1, w2, positive, magnitude=magnitude)
    queries, keys = score.prepare_queries(q), score.prepare_keys(k)
    kappa = jnp.einsum("bqhf,bshf->bhqs", queries, keys.phi_BSHF)
    wanted = jnp.square(kappa) if positive == "squared" else (1 + kappa) / 2
    assert_close(jnp.exp(score.log_similarity(queries, keys)), wanted + 1e-5)
    psi_q, psi_k, scale_BSH = score.as_kernel(queries, keys)
    product = jnp.einsum("bqhf,bshf->bhqs", psi_q, psi_k)
    scale = 1.0 if magnitude is None else jnp.exp(scale_BSH).swapaxes(1, 2)[:, :, None]
    assert_close(product * scale, jnp.exp(score.logits(queries, keys)))


@pytest.mark.parametrize("positive", MAPS)
def test_gradients_are_finite_where_the_kernel_is_zero_one_or_minus_one(positive):
    """Bounded by 1/√ε, also where query and key coincide or are half a period apart."""
    w = jnp.full((1, 1, 2), 0.5)
    x = jnp.array([0.0, 0.5, 1.0, 1.5, 2.0])[None, :, None, None]

    def total(w, x):
        score = Spectral(w, None, positive)
        return score.logits(score.prepare_queries(x), score.prepare_keys(x)).sum()

    value, grads = jax.value_and_grad(total, argnums=(0, 1))(w, x)
    assert finite((value, grads))
    assert all(abs(g).max() < 2 * np.pi * 2 * 25 / np.sqrt(1e-5) for g in grads)
