"""Layer normalisation and its gradients against the formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.ops.layer_norm import layer_norm

R, D, EPSILON = 8, 5, 1e-3


def case(dtype=jnp.float32, rows=R):
    """(x, scale, bias, dy); parameters are float32."""
    random = np.random.default_rng(0)
    x, dy = (jnp.asarray(random.normal(size=(rows, D)) + shift, dtype) for shift in (2.0, 0.0))
    return x, *(jnp.asarray(random.normal(size=D), jnp.float32) for _ in range(2)), dy


def ours(x, scale, bias):
    return layer_norm(x, scale, bias, EPSILON)


def gradients(x, scale, bias, dy):
    y, pull = jax.vjp(ours, x, scale, bias)
    return y, *pull(dy)


def formula(x, scale, bias, dy):
    """Row by row in float64, gradients by the Jacobian of each row: ∂x̂_i/∂x_j = (1[i = j] − 1/D − x̂_i x̂_j / D) / √(var + ε)."""
    x, scale, bias, dy = (np.float64(np.asarray(a, np.float32)) for a in (x, scale, bias, dy))
    y, dx, dscale, dbias = np.zeros_like(x), np.zeros_like(x), np.zeros(D), np.zeros(D)
    for r, row in enumerate(x):
        deviation = np.sqrt(row.var() + EPSILON)
        normal = (row - row.mean()) / deviation
        y[r] = normal * scale + bias
        jacobian = (np.eye(D) - 1 / D - np.outer(normal, normal) / D) / deviation
        dx[r] = (dy[r] * scale) @ jacobian
        dscale += dy[r] * normal
        dbias += dy[r]
    return y, dx, dscale, dbias


def assert_close(found, wanted, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.float64(a), b, rtol=tolerance, atol=tolerance), found, wanted)


def test_it_is_its_formula():
    assert_close(gradients(*case()), formula(*case()))


def test_in_bfloat16_it_is_computed_and_its_gradients_are_summed_in_float32():
    """Of 1,024 rows; a sum in bfloat16 is off by far more than this."""
    given = case(jnp.bfloat16, rows=1024)
    y, dx, *parameters = gradients(*given)
    wanted = formula(*given)
    assert (y.dtype, dx.dtype, *(p.dtype for p in parameters)) == (jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32)
    assert_close((y, dx), wanted[:2], 2**-7)
    assert_close(tuple(parameters), wanted[2:], 1e-4)


def test_what_is_added_to_a_row_or_multiplies_it_is_gone():
    x, scale, bias, _ = case()
    found, wanted = (layer_norm(a, scale, bias, 0.0) for a in (7 * x + 3, x))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_rows_without_variance_become_the_bias_with_finite_gradients():
    _, scale, bias, dy = case()
    y, *grads = gradients(jnp.full((R, D), 3.0), scale, bias, dy)
    np.testing.assert_allclose(y, jnp.broadcast_to(bias, (R, D)), atol=1e-5)
    assert all(np.isfinite(g).all() for g in grads)


def test_lanes_are_solo():
    lanes = [jnp.stack([x, 2 * x, x - 1]) for x in case()]
    found = jax.jit(jax.vmap(gradients))(*lanes)
    wanted = [gradients(*(x[lane] for x in lanes)) for lane in range(3)]
    assert_close(found, jax.tree.map(lambda *x: jnp.stack(x), *wanted))


def test_over_a_mesh_rows_stay_where_they_are():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    places = (rows, everywhere, everywhere, rows)
    compiled = jax.jit(gradients, in_shardings=places).lower(*case()).compile()
    assert "all-gather" not in compiled.as_text()
    assert_close(compiled(*jax.device_put(case(), places)), formula(*case()))


def test_second_derivatives():
    """A Hessian times a vector, forward over reverse, is that of the plain expression."""
    x, scale, bias, dy = case()

    def plain(x, scale, bias):
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + EPSILON) * scale + bias

    def times_hessian(function):
        grad = jax.grad(lambda *given: (jnp.tanh(function(*given)) * dy).sum(), argnums=(0, 1, 2))
        return jax.jvp(grad, (x, scale, bias), (jnp.cos(x), scale, jnp.ones(D)))[1]

    assert_close(times_hessian(ours), times_hessian(plain), 1e-4)


def test_forward_mode_is_refused():
    x, scale, bias, _ = case()
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: ours(x, scale, bias), (x,), (x,))
