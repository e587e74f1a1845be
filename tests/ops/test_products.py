"""The products are those of the formulas, and are differentiated, vectorised and compiled as `jnp.einsum` is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.ops import products

B, Q, S, H = 2, 5, 11, 3
WIDTHS = [7, 13]  # narrower and wider than the keys are many: what is copied for `to_keys` differs
FORMULAS = {"inner": "bqhk,bshk->bhqs", "to_queries": "bhqs,bshv->bqhv", "to_keys": "bhqs,bqhv->bshv"}
DERIVATIVES = {
    "forward": jax.jacfwd,
    "reverse": jax.jacrev,
    "forward over reverse": jax.hessian,
    "reverse over reverse": lambda f: jax.jacrev(jax.jacrev(f)),
}


def of_every(test):
    return pytest.mark.parametrize("name", FORMULAS)(pytest.mark.parametrize("width", WIDTHS)(test))


def inputs(name: str, width: int, dtype=jnp.float32):
    random, sizes = np.random.default_rng(width), dict(b=B, q=Q, s=S, h=H, k=width, v=width)
    factors = FORMULAS[name].split("->")[0].split(",")
    return tuple(jnp.asarray(random.normal(size=[sizes[axis] for axis in factor]), dtype) for factor in factors)


def both(name: str):
    """(ours, `jnp.einsum`)."""
    return getattr(products, name), functools.partial(jnp.einsum, FORMULAS[name], preferred_element_type=jnp.float32)


def assert_close(found, wanted, tolerance=1e-5):
    def one(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.float64(a), np.float64(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max(initial=1))

    jax.tree.map(one, found, wanted)


def test_they_are_the_sums_of_their_formulas():
    (w, x_BSHK), (_, x_BQHK) = inputs("to_queries", 7), inputs("to_keys", 7)
    pairs, of_queries, of_keys = np.zeros((B, H, Q, S)), np.zeros((B, Q, H, 7)), np.zeros((B, S, H, 7))
    for b, h, i, j in np.ndindex(B, H, Q, S):
        pairs[b, h, i, j] = np.dot(x_BQHK[b, i, h], x_BSHK[b, j, h])
        of_queries[b, i, h] += w[b, h, i, j] * x_BSHK[b, j, h]
        of_keys[b, j, h] += w[b, h, i, j] * x_BQHK[b, i, h]
    narrow = lambda x: jnp.asarray(x, jnp.float32)
    assert_close(products.inner(x_BQHK, x_BSHK), narrow(pairs))
    assert_close(products.to_queries(w, x_BSHK), narrow(of_queries))
    assert_close(products.to_keys(w, x_BQHK), narrow(of_keys))


@of_every
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_have_the_types_and_numbers_of_einsums(name, width, dtype):
    found, wanted = (jax.vjp(f, *inputs(name, width, dtype)) for f in both(name))
    assert_close(found[0], wanted[0])
    assert_close(found[1](jnp.sin(wanted[0])), wanted[1](jnp.sin(wanted[0])), 1e-5 if dtype == jnp.float32 else 2**-7)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_cpu_copies_another_factor_to_the_same_effect(width):
    """Other platforms are left alone."""
    given = inputs("to_keys", width)
    traced = jax.jit(products.to_keys).trace(*given)
    there, here = (traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cuda", "cpu"))
    assert "optimization_barrier" not in there
    assert ("optimization_barrier" in here) == (width > S)
    assert_close(products.to_keys(*given), products._to_keys_as_dot(*given))


@of_every
def test_a_precision_asked_for_around_them_reaches_their_products_and_gradients(name, width):
    def gradients(*given):
        with jax.default_matmul_precision("highest"):
            return jax.grad(lambda *given: jnp.sin(getattr(products, name)(*given)).sum(), argnums=(0, 1))(*given)

    lowered = jax.jit(gradients).lower(*inputs(name, width)).as_text()
    dots = [line for line in lowered.splitlines() if "dot_general" in line]
    assert len(dots) == 3
    assert all("HIGHEST" in line for line in dots)


@of_every
def test_in_float64_they_are_einsums_to_1e_12(name, width):
    with jax.enable_x64(True):
        given = inputs(name, width, jnp.float64)
        ours, theirs = getattr(products, name), functools.partial(jnp.einsum, FORMULAS[name])
        found, wanted = (jax.vjp(f, *given) for f in (ours, theirs))
        assert_close((found[0], *found[1](wanted[0])), (wanted[0], *wanted[1](wanted[0])), 1e-12)


@of_every
def test_over_a_mesh_lanes_and_rows_stay_where_they_are(name, width):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec(None, "data"))
    lanes = [jnp.stack([x, 2 * x, -x]) for x in inputs(name, width)]
    run = jax.jit(jax.vmap(getattr(products, name)), in_shardings=(rows, rows), out_shardings=rows).lower(*lanes).compile()
    assert "all-gather" not in run.as_text()
    assert_close(run(*jax.device_put(lanes, rows)), jax.vmap(both(name)[1])(*lanes))


@pytest.mark.parametrize("name", FORMULAS)
def test_without_features_there_is_nothing_to_compute(name):
    first, second = (x[..., :0] if x.shape[-1] == 7 else x for x in inputs(name, 7))
    stack = lambda x: jnp.stack([x, x])
    assert_close(*(jax.vmap(f)(stack(first), stack(second)) for f in both(name)))


@of_every
@pytest.mark.parametrize("derivative", DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.parametrize("of", [0, 1])
def test_derivatives_of_every_kind(name, width, derivative, of):
    """Along three random directions of one factor."""
    given, random = inputs(name, width), np.random.default_rng(0)
    along = jnp.asarray(random.normal(size=(3, *given[of].shape)), jnp.float32)

    def loss(f):
        move = lambda t: [x + jnp.tensordot(t, along, 1) if i == of else x for i, x in enumerate(given)]
        return lambda t: jnp.tanh(f(*move(t))).sum()

    assert_close(*(jax.jit(derivative(loss(f)))(jnp.ones(3)) for f in both(name)), 1e-4)


@of_every
@pytest.mark.parametrize("axes", [(0, 0), (2, 4), (None, 1), (3, None)], ids=str)
def test_vmap_over_either_or_both(name, width, axes):
    put = lambda x, axis: x if axis is None else jnp.stack([x, 2 * x, -x, x + 1], axis)
    given = [put(x, axis) for x, axis in zip(inputs(name, width), axes, strict=True)]
    assert_close(*(jax.jit(jax.vmap(f, axes, 1))(*given) for f in both(name)))
    loss = lambda f: lambda a, b: jnp.sin(jax.vmap(f, axes)(a, b)).sum()
    assert_close(*(jax.jit(jax.grad(loss(f), argnums=(0, 1)))(*given) for f in both(name)))


@of_every
def test_shapes_that_do_not_fit_are_refused(name, width):
    first, second = inputs(name, width)
    with pytest.raises(TypeError, match="same shape"):
        getattr(products, name)(first, second[:, :-1] if name != "inner" else second[..., :-1])
