"""cos 2πt and sin 2πt: near to the truth for any t, on the circle, exact where they are whole, and each other's derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.ops.turns import cos_sin

LAST = {"float32": 2**-23, "float64": 2**-52}  # one unit in the last place of 1


def angles(dtype, scale):
    return jnp.asarray(np.random.default_rng(0).normal(size=1009) * scale, dtype)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", LAST)
def test_it_is_near_to_the_truth(dtype, scale):
    """Which has all digits of t: whole turns are taken off it before anything is rounded."""
    with jax.enable_x64(dtype == "float64"):
        t = angles(dtype, scale)
        cos, sin = cos_sin(t)
        exact = np.asarray(t, np.longdouble)
        left = 2 * np.arccos(np.longdouble(-1)) * (exact - np.round(exact))
        assert cos.dtype == sin.dtype == dtype
        np.testing.assert_allclose(cos, np.cos(left), rtol=0, atol=1.5 * LAST[dtype])
        np.testing.assert_allclose(sin, np.sin(left), rtol=0, atol=1.5 * LAST[dtype])
        np.testing.assert_allclose(cos**2 + sin**2, 1, rtol=0, atol=4 * LAST[dtype])


def test_quarters_are_exact():
    cos, sin = cos_sin(jnp.arange(-8, 9) / 4)
    assert cos.tolist() == [1, 0, -1, 0] * 4 + [1]
    assert sin.tolist() == [0, 1, 0, -1] * 4 + [0]


def test_it_is_even_and_odd():
    t = angles("float32", 1.0)
    (cos, sin), (mirrored, turned) = cos_sin(t), cos_sin(-t)
    np.testing.assert_array_equal(cos, mirrored)
    np.testing.assert_array_equal(sin, -turned)


@pytest.mark.parametrize("derive", [jax.jacrev, jax.jacfwd])
def test_each_is_the_others_derivative(derive):
    """Once, and twice."""
    t = angles("float32", 1.0)[:5]
    cos, sin = cos_sin(t)
    once = [np.diagonal(d) for d in derive(cos_sin)(t)]
    np.testing.assert_allclose(once[0], -2 * np.pi * sin, rtol=1e-6)
    np.testing.assert_allclose(once[1], 2 * np.pi * cos, rtol=1e-6)
    twice = [jnp.einsum("iii->i", d) for d in derive(derive(cos_sin))(t)]
    np.testing.assert_allclose(twice[0], -4 * np.pi**2 * cos, rtol=1e-5)
    np.testing.assert_allclose(twice[1], -4 * np.pi**2 * sin, rtol=1e-5)
