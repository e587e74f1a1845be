"""Kernels of distance: as their formulas say, zero outside their support, gradients, and the dot product where they are it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.variants import B, H, K, Q, S, V, arrays, assert_close, draw, finite

from attention_variants.ops import widths
from attention_variants.ops.attend import ROUTES, attend, attend_prepared, weights
from attention_variants.ops.kernels import KERNELS, Kernel, squared_distance
from attention_variants.ops.magnitudes import Magnitude
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import DotProduct

FORMULAS = {
    "gaussian": lambda u: math.exp(-(u**2) / 2),
    "laplace": lambda u: math.exp(-u),
    "epanechnikov": lambda u: max(1 - u * u, 0.0),
    "triangular": lambda u: max(1 - u, 0.0),
    "cosine": lambda u: math.cos(math.pi * u / 2) if u < 1 else 0.0,
    "boxcar": lambda u: float(u < 1),
    "constant": lambda u: 1.0,
}
COMPACT = ("epanechnikov", "triangular", "cosine", "boxcar")


def test_every_kernel_has_a_formula_here():
    assert KERNELS.keys() == FORMULAS.keys()


@pytest.mark.parametrize("size", [1, 3, K])
@pytest.mark.parametrize("kernel", KERNELS)
def test_similarity_is_the_kernel_of_the_distance(kernel, size):
    """In float64 loops, few dimensions and many, a width for each head and a unit; −inf exactly where the kernel is 0."""
    q, k, _ = (x[..., :size] for x in arrays())
    width, unit = np.array([0.9, 1.7, 3.1]), 1.3
    score = Kernel(jnp.asarray(width, jnp.float32), kernel, unit)
    found = np.asarray(score.log_similarity(score.prepare_queries(q), score.prepare_keys(k)))
    q, k = np.float64(q), np.float64(k)
    for b, h, i, j in np.ndindex(B, H, Q, S):
        u = np.linalg.norm(q[b, i, h] - k[b, j, h]) / (width[h] * math.sqrt(unit))
        wanted = FORMULAS[kernel](u)
        assert np.exp(found[b, h, i, j]) == pytest.approx(wanted, abs=1e-5)
        assert (found[b, h, i, j] == -np.inf) == (wanted == 0)


@pytest.mark.parametrize("route", ["dense", "blockwise"])
@pytest.mark.parametrize("kernel", COMPACT)
def test_a_query_without_a_neighbour_gets_zeros(kernel, route):
    """Beside others that have some; and so do their gradients."""
    q, k, v = arrays()
    q = q.at[:, 3].set(50.0)
    only = jnp.zeros((B, Q, H, V)).at[:, 3].set(draw(5, B, H, V))

    def run(q, k, v, width):
        out = attend(q, k, v, score=Kernel(width, kernel), route=route)
        return (only * out).sum(), out

    grads, out = jax.jit(jax.grad(run, argnums=(0, 1, 2, 3), has_aux=True))(q, k, v, jnp.float32(6.0))
    assert not out[:, 3].any()
    assert out[:, :3].all()
    assert not any(g.any() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("route", ["dense", "blockwise"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_finite_at_the_edge_of_the_support_and_where_points_coincide(kernel, route):
    """Distances of exactly 0 and 1 and the floats around, in one dimension and in many."""
    run = lambda q, k, v, width: (attend(q, k, v, score=Kernel(width, kernel), route=route) ** 2).sum()
    gradients = jax.jit(jax.value_and_grad(run, argnums=(0, 1, 2, 3)))
    for size in (1, K):
        at = np.array([0.0, np.nextafter(np.float32(0), 1), 1e-20, 1e-4, 0.5, 1 - 6e-8, 1.0, 1 + 1.2e-7, 1e4], np.float32)
        q = jnp.zeros((1, 3, 1, size))
        k = jnp.zeros((1, len(at), 1, size)).at[0, :, 0, 0].set(at)
        v = draw(3, 1, len(at), 1, V)
        for alone in (slice(None), slice(5, 6), slice(6, 7)):
            assert finite(gradients(q, k[:, alone], v[:, alone], jnp.float32(1.0)))


@pytest.mark.parametrize("route", sorted(ROUTES.keys() - {"linear"}))
@pytest.mark.parametrize("size", [8, 64])
def test_a_gaussian_times_the_squared_norm_is_scaled_dot_product_attention(route, size):
    """To 1e-6 in float32: weights, outputs, and gradients of both, under a mask too."""
    q, k = draw(1, B, 37, H, size), draw(2, B, 41, H, size)
    v = draw(3, B, 41, H, V)
    mask = Mask(k_valid=jnp.arange(41)[None] >= jnp.array([[2], [0]]))
    kernel = Kernel(jnp.float32(1.0), unit=math.sqrt(size), magnitude=Magnitude())

    def run(score, q, k, v):
        queries, keys = score.prepare_queries(q), score.prepare_keys(k)
        out, log_normaliser = attend_prepared(queries, keys, v, score=score, mask=mask, route=route)
        shares = weights(queries, keys, log_normaliser, score=score, mask=mask)
        return jnp.sin(3 * out).sum(), (shares, out)

    both = jax.jit(jax.value_and_grad(run, argnums=(1, 2, 3), has_aux=True))
    ((_, ours), our_grads), ((_, theirs), their_grads) = (both(score, q, k, v) for score in (kernel, DotProduct()))
    for a, b in zip(jax.tree.leaves((ours, our_grads)), jax.tree.leaves((theirs, their_grads)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1.0, float(abs(b).max())))


def test_similarity_times_magnitude_is_the_weight_of_the_dot_product():
    """The same, by its parts: exp(log similarity + log magnitude), normalised, with no form of their own for the sum."""
    q, k, _ = arrays()
    kernel = Kernel(jnp.float32(1.0), unit=math.sqrt(K), magnitude=Magnitude())
    keys = kernel.prepare_keys(k)
    parts = kernel.log_similarity(q, keys) + kernel.log_magnitude(keys)
    np.testing.assert_allclose(jax.nn.softmax(parts), jax.nn.softmax(DotProduct().logits(q, k)), atol=1e-6)


def test_distances_of_few_dimensions_do_not_cancel():
    """Far from the origin, where ‖q‖² + ‖k‖² − 2 q·k would have no digit left."""
    x = 5000 + jnp.linspace(0, 0.1, 7).reshape(1, 7, 1, 1)
    np.testing.assert_array_equal(squared_distance(x, x)[0, 0], jnp.square(x[0, :, 0] - x[0, :, 0].T))


@pytest.mark.parametrize("rule", widths.RULES)
@pytest.mark.parametrize("kernel", ["gaussian", "cosine"])
def test_a_key_of_its_own_width_is_weighed_as_in_a_density_estimate(kernel, rule):
    """Σ_j K(‖q − k_j‖ / h λ_j) λ_j^−K v_j, normalised, in float64 loops; on both routes."""
    q, k, v = arrays()
    adapt = widths.Adapt(rule, neighbours=2)
    own = np.float64(adapt(k))
    for route in ("dense", "blockwise"):
        run = jax.jit(functools.partial(attend, score=Kernel(jnp.float32(2.1), kernel, adapt=adapt), route=route))
        out = run(q, k, v)
        for b, i, h in np.ndindex(B, Q, H):
            distance = np.linalg.norm(np.float64(q[b, i, h]) - np.float64(k[b, :, h]), axis=-1)
            weight = [FORMULAS[kernel](d / (2.1 * w)) * w**-K for d, w in zip(distance, own[b, :, h], strict=True)]
            wanted = np.array(weight) @ np.float64(v[b, :, h]) / max(sum(weight), 1e-300)
            np.testing.assert_allclose(out[b, i, h], wanted, atol=1e-4)


def test_others_hides_the_key_at_the_place_of_the_query():
    q, k, v = arrays(keys=Q)
    here = jnp.eye(Q, dtype=bool)[None, None]
    for route in ("dense", "blockwise"):
        run = functools.partial(attend, q, k, v, score=DotProduct(), route=route)
        assert_close(run(mask=Mask(others=True)), run(mask=Mask(dense=~here)))
        at = jnp.array([[4, 3, 2, 1, 0]])
        assert_close(run(mask=Mask(others=True, q_at=at)), run(mask=Mask(dense=~here[..., ::-1])))
