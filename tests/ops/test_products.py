"""The products are those of the formulas, and `inner` is differentiated, vectorised and compiled as `jnp.einsum` is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.ops.products import inner, to_keys, to_queries

B, Q, S, H, K = 2, 5, 11, 3, 7


def random(seed: int, *shape: int, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def inputs(dtype=jnp.float32):
    return random(0, B, Q, H, K, dtype=dtype), random(1, B, S, H, K, dtype=dtype)


def einsum(q, k):
    return jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32)


def close(found, wanted, tolerance=1e-5):
    def one(a, b):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=tolerance, atol=tolerance)

    jax.tree.map(one, found, wanted)


def test_they_are_the_sums_of_the_formulas():
    q, k = (np.float64(x) for x in inputs())
    w = np.float64(random(2, B, H, Q, S))
    pairs, of_queries, of_keys = np.zeros((B, H, Q, S)), np.zeros((B, Q, H, K)), np.zeros((B, S, H, K))
    for b, h, i, j in np.ndindex(B, H, Q, S):
        pairs[b, h, i, j] = q[b, i, h] @ k[b, j, h]
        of_queries[b, i, h] += w[b, h, i, j] * k[b, j, h]
        of_keys[b, j, h] += w[b, h, i, j] * q[b, i, h]
    narrow = lambda x: jnp.asarray(x, jnp.float32)
    close(inner(*inputs()), narrow(pairs))
    close(to_queries(narrow(w), inputs()[1]), narrow(of_queries))
    close(to_keys(narrow(w), inputs()[0]), narrow(of_keys))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_have_the_types_and_values_of_einsums(dtype):
    found, wanted = (jax.vjp(f, *inputs(dtype)) for f in (inner, einsum))
    close(found[0], wanted[0])
    close(found[1](random(2, B, H, Q, S)), wanted[1](random(2, B, H, Q, S)), 1e-5 if dtype == jnp.float32 else 2**-7)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev, jax.hessian, lambda f: jax.jacrev(jax.jacrev(f))])
@pytest.mark.parametrize("of", [0, 1])
def test_any_order_of_differentiation(derivative, of):
    given = list(inputs())

    def loss(f):
        return lambda x: jnp.tanh(f(*given[:of], x, *given[of + 1 :])).sum()

    close(derivative(loss(inner))(given[of]), derivative(loss(einsum))(given[of]))


@pytest.mark.parametrize("axes", [(0, 0), (2, 4), (None, 1), (3, None)], ids=str)
def test_vmap_over_either_or_both(axes):
    put = lambda x, axis: x if axis is None else jnp.stack([x, 2 * x, -x, x + 1], axis)
    given = [put(x, axis) for x, axis in zip(inputs(), axes, strict=True)]
    close(*(jax.jit(jax.vmap(f, axes, 1))(*given) for f in (inner, einsum)))
    loss = lambda f: lambda q, k: jnp.sin(jax.vmap(f, axes)(q, k)).sum()
    close(*(jax.grad(loss(f), argnums=(0, 1))(*given) for f in (inner, einsum)))


def test_shapes_that_do_not_fit_are_refused():
    q, k = inputs()
    with pytest.raises(TypeError, match="same shape"):
        inner(q, k[..., :-1])
