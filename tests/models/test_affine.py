"""Affine in the place of `flax.linen.DenseGeneral`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.models.affine import Affine

X = jax.random.normal(jax.random.key(1), (2, 5, 3, 7))
PARITY = {
    "a width": dict(features=11),
    "heads": dict(features=(2, 11)),
    "over two axes": dict(features=11, axis=(-2, -1)),
    "no bias": dict(features=11, use_bias=False),
    "other initial values": dict(
        features=(2, 11), axis=(-2, -1), kernel_init=nn.initializers.xavier_uniform(), bias_init=nn.initializers.normal(1.0)
    ),
    "bfloat16": dict(features=11, dtype=jnp.bfloat16),
    "bfloat16 parameters": dict(features=11, param_dtype=jnp.bfloat16),
    "highest precision": dict(features=11, precision="highest"),
}


@pytest.mark.parametrize("fields", PARITY.values(), ids=PARITY)
def test_it_is_linens(fields):
    """The same parameter names, shapes, types and initial values from the same key; the same output and gradients."""
    ours, theirs = Affine(**fields), nn.DenseGeneral(**fields)
    params, wanted = ours.init(jax.random.key(0), X), theirs.init(jax.random.key(0), X)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), wanted)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    tolerance = 0.03 if "bfloat16" in str(fields) else 1e-5

    def close(a, b):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())

    out, expected = ours.apply(params, X), theirs.apply(params, X)
    assert (out.shape, out.dtype) == (expected.shape, expected.dtype)
    close(out, expected)
    loss = lambda module: lambda params, x: jnp.square(module.apply(params, x).astype(jnp.float32)).sum()
    jax.tree.map(close, *(jax.grad(loss(module), argnums=(0, 1))(params, X) for module in (ours, theirs)))


def test_initialisers_may_return_boxes():
    """Such as those of `nn.with_partitioning`, around a value of the parameter's own shape."""
    fields = dict(features=(2, 11), kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), (None, "heads", None)))
    found, wanted = (layer(**fields).init(jax.random.key(0), X) for layer in (Affine, nn.DenseGeneral))
    assert found["params"]["kernel"].names == (None, "heads", None)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("axis", [1, (-1, -2), (-3, -2)])
def test_other_axes_than_the_last_are_refused(axis):
    with pytest.raises(ValueError, match="expected the last axes"):
        Affine(11, axis=axis).init(jax.random.key(0), X)


def test_precision_reaches_the_product():
    module = Affine(11, precision="highest")
    params = module.init(jax.random.key(0), X)
    assert "HIGHEST" in jax.jit(module.apply).lower(params, X).as_text()
