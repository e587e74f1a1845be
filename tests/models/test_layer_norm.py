"""LayerNorm in the place of `flax.linen.LayerNorm`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.models.layer_norm import LayerNorm

X = 3 + jax.random.normal(jax.random.key(1), (2, 5, 7))
BFLOAT16 = jnp.bfloat16
PARITY = {
    "defaults": (X, {}),
    "another epsilon": (X, dict(epsilon=0.1)),
    "bfloat16": (X.astype(BFLOAT16), dict(dtype=BFLOAT16)),
    "to bfloat16": (X, dict(dtype=BFLOAT16)),
    "from bfloat16": (X.astype(BFLOAT16), {}),
    "bfloat16 parameters": (X, dict(param_dtype=BFLOAT16)),
}


@pytest.mark.parametrize(("x", "fields"), PARITY.values(), ids=PARITY)
def test_it_is_linens(x, fields):
    """The same parameter names, shapes, types and initial values; the same output and gradients."""
    ours, theirs = LayerNorm(**fields), nn.LayerNorm(**fields)
    params, wanted = ours.init(jax.random.key(0), x), theirs.init(jax.random.key(0), x)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), wanted)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    params = jax.tree.map(lambda x: x + jnp.linspace(0, 1, x.size, dtype=x.dtype), params)
    tolerance = 1e-5 if x.dtype == jnp.float32 and not fields.get("dtype") and not fields.get("param_dtype") else 0.02

    def close(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())

    close(ours.apply(params, x), theirs.apply(params, x))
    loss = lambda module: lambda params, x: jnp.sin(module.apply(params, x).astype(jnp.float32)).sum()
    jax.tree.map(close, *(jax.grad(loss(module), argnums=(0, 1))(params, x) for module in (ours, theirs)))
