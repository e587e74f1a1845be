"""x W + b and its gradients against the formula in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.ops.affine import affine

R = 8
WIDTHS = [(3, 5), (7, 2), (4, 4)]  # wider, narrower, square: what is transposed for the gradient differs


def case(d, f, rows=R, dtype=jnp.float32):
    """(x, kernel, bias, dy); parameters are float32."""
    random = np.random.default_rng(d)
    x, dy = (jnp.asarray(random.normal(size=(rows, n)), dtype) for n in (d, f))
    return x, *(jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((d, f), (f,))), dy


def gradients(x, kernel, bias, dy):
    """(y, (dx, dkernel, dbias))."""
    y, pull = jax.vjp(affine, x, kernel, bias)
    return y, pull(dy)


def formula(x, kernel, bias, dy):
    """The same as loops over rows, in float64; no bias is None."""
    x, kernel, dy = (np.float64(np.asarray(a, np.float32)) for a in (x, kernel, dy))
    y, dx, dkernel, dbias = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(kernel.shape), np.zeros(dy.shape[1])
    for r in range(len(x)):
        y[r] = x[r] @ kernel + (0 if bias is None else np.float64(bias))
        dx[r] = kernel @ dy[r]
        dkernel += np.outer(x[r], dy[r])
        dbias += dy[r]
    return y, (dx, dkernel, None if bias is None else dbias)


def assert_close(found, wanted, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, wanted)


@pytest.fixture(params=["cpu", "default"])
def platform(request, monkeypatch):
    """What another platform than this one computes can be asked for by name."""
    if request.param == "default":
        monkeypatch.setattr(lax, "platform_dependent", lambda *arguments, cpu, default: default(*arguments))


@pytest.mark.parametrize(("d", "f"), WIDTHS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.usefixtures("platform")
def test_it_is_its_formula(d, f, bias):
    x, kernel, b, dy = case(d, f)
    given = x, kernel, b if bias else None, dy
    assert_close(gradients(*given), formula(*given))


@pytest.mark.parametrize(("d", "f"), WIDTHS)
@pytest.mark.usefixtures("platform")
def test_in_bfloat16_gradients_of_parameters_are_summed_in_float32(d, f):
    """Of 1,024 rows; a sum in bfloat16, or one rounded to it, is off by up to 0.4 %."""
    given = case(d, f, rows=1024, dtype=jnp.bfloat16)
    y, (dx, dkernel, dbias) = gradients(*given)
    _, (_, wanted_dkernel, wanted_dbias) = formula(*given)
    assert (y.dtype, dx.dtype, dkernel.dtype, dbias.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32)
    assert_close((dkernel, dbias), (wanted_dkernel, wanted_dbias), 1e-4)


@pytest.mark.parametrize("own", ["all", "parameters"])
@pytest.mark.parametrize(("d", "f"), WIDTHS)
def test_lanes_are_solo(d, f, own):
    """Mapped over everything, as inside a model, or over parameters and cotangents with the same rows, as in its first layer."""
    given, scale = case(d, f), jnp.arange(1.0, 4.0)
    mapped = [own == "all", True, own == "all", True]
    lane = lambda s: [x * s if m else x for x, m in zip(given, mapped, strict=True)]
    lanes = [jnp.stack([lane(s)[i] for s in scale]) if m else given[i] for i, m in enumerate(mapped)]
    found = jax.jit(jax.vmap(gradients, [0 if m else None for m in mapped]))(*lanes)
    assert_close(found, jax.tree.map(lambda *lanes: jnp.stack(lanes), *(gradients(*lane(s)) for s in scale)))


@pytest.mark.parametrize(("d", "f"), WIDTHS)
def test_over_a_mesh_rows_stay_where_they_are(d, f):
    """Only the parameters' gradients are summed over devices."""
    given = case(d, f)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(gradients, in_shardings=(rows, everywhere, everywhere, rows)).lower(*given).compile()
    assert "all-gather" not in compiled.as_text()
    placed = jax.device_put(given, (rows, everywhere, everywhere, rows))
    assert_close(compiled(*placed), formula(*given))


def test_second_derivatives():
    """A Hessian times a vector, forward over reverse, is that of the plain expression."""
    x, kernel, bias, dy = case(3, 5)

    def times_hessian(function):
        loss = lambda kernel: (jnp.tanh(function(x, kernel, bias)) * dy).sum()
        return jax.jvp(jax.grad(loss), (kernel,), (jnp.ones_like(kernel),))[1]

    assert_close(times_hessian(affine), times_hessian(lambda x, kernel, bias: x @ kernel + bias))


def test_forward_mode_is_refused():
    """Not given up silently: the docstring says so, and `flax.linen.DenseGeneral` has it."""
    x, kernel, bias, _ = case(3, 5)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: affine(x, kernel, bias), (x,), (x,))


def test_float64_stays_float64():
    with jax.enable_x64(True):
        given = tuple(jnp.asarray(np.float64(a)) for a in case(7, 2))
        found = gradients(*given)
        assert {a.dtype for a in jax.tree.leaves(found)} == {jnp.dtype("float64")}
        x, kernel, bias, dy = map(np.asarray, given)
        assert_close(found, (x @ kernel + bias, (dy @ kernel.T, x.T @ dy, dy.sum(0))), 1e-12)


@pytest.mark.parametrize(("d", "f"), [(16, 64), (64, 16)])
@pytest.mark.usefixtures("as_users_compile")
def test_on_a_cpu_the_wider_factor_is_never_copied(d, f):
    """The product for dW reads the narrower factor transposed, and the wider one as it is."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((256, d), (d, f), (256, f))]
    text = jax.jit(lambda x, kernel, dy: gradients(x, kernel, None, dy)[1][1]).lower(*shapes).compile().as_text()
    assert "f32[16,256]" in text
    assert "f32[64,256]" not in text
    assert "f32[256,64]{0,1}" not in text


def test_precision_reaches_every_product():
    """Of y, dx and dW."""
    highest = functools.partial(affine, precision="highest")

    def both(x, kernel, bias, dy):
        y, pull = jax.vjp(highest, x, kernel, bias)
        return y, pull(dy)

    text = jax.jit(both).lower(*case(3, 5)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 3
    assert all("HIGHEST" in line for line in products)
