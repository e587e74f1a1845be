"""SVGD in function space: an identity forward, and backward the formula over head outputs, of the queries that are read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import particles as slow

from attention_variants.particles.outputs import repel

B, Q, H, V = 2, 3, 5, 7


def draw(seed: int):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(B, Q, H, V)))


def backward(out, g, alpha, *more):
    value, pull = jax.vjp(lambda x, a: repel(x, a, True, *more), out, alpha)
    np.testing.assert_array_equal(value, out)
    return pull(g)


@pytest.mark.parametrize("drive", ["kernel", "gradient"])
@pytest.mark.parametrize("rescale", [False, True])
def test_the_formula(drive, rescale):
    with jax.enable_x64(True):
        out, g = draw(0), draw(1)
        found, of_alpha = backward(out, g, jnp.float64(0.7), drive, rescale)
        heads = lambda x: np.moveaxis(np.asarray(x), 2, 0).reshape(H, -1)
        expected = slow.svgd(heads(out), heads(g), 0.7 * B * Q, drive=drive) * (H if rescale else 1)
    np.testing.assert_allclose(heads(found), expected, rtol=1e-8)
    assert float(of_alpha) == 0


def test_queries_that_nothing_depends_on_neither_repel_nor_are_repelled():
    out, g = draw(0), draw(1).at[:, 2].set(0.0)
    found, _ = backward(out, g, jnp.float32(0.7))
    other, _ = backward(out.at[:, 2].add(9.0), g, jnp.float32(0.7))
    assert not found[:, 2].any()
    np.testing.assert_array_equal(found, other)


def test_one_head_is_left_alone():
    out, g = draw(0)[:, :, :1], draw(1)[:, :, :1]
    np.testing.assert_array_equal(backward(out, g, jnp.float32(0.7))[0], g)


def test_the_type_of_gradients_is_kept():
    out, g = draw(0).astype(jnp.bfloat16), draw(1).astype(jnp.bfloat16)
    found, _ = backward(out, g, jnp.float32(0.7))
    assert found.dtype == jnp.bfloat16
    assert np.isfinite(np.asarray(found, np.float32)).all()
