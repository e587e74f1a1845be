"""What the laws of every variant are tried on: arrays whose axes have prime lengths, layers off their initial values, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants import variants
from attention_variants.ops.attend import attend
from attention_variants.variants import rbf

B, Q, S, H, K, V = 2, 5, 7, 3, 11, 13
# Every variant as it is by default, and what else one of them may be.
CONFIGS = {name: variants.load(name).Config() for name in variants.names()} | {
    "rbf, gaussian with a magnitude": rbf.Config(magnitude="squared", p=3.0),
    "rbf, learned": rbf.Config("laplace", learn_width=True, per_head=True, magnitude="squared", p=3.0, learn_p=True),
    "rbf, compact": rbf.Config("triangular", width=6.0, magnitude="p", p=1.5),
}


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def arrays(queries=Q, keys=S, scale=1.0):
    return scale * draw(1, B, queries, H, K), scale * draw(2, B, keys, H, K), draw(3, B, keys, H, V)


@functools.cache
def layer(name):
    """The variant's layer and its parameters, moved off their initial values, where some gradients may vanish."""
    q, k, _ = arrays()
    module = variants.layer(CONFIGS[name], heads=H, size=K)
    params = module.init(jax.random.key(0), q, k, None)
    return module, jax.tree.map(lambda p: p + 0.1 * draw(4, *p.shape), params)


def score_of(name, q, k, mask=None):
    return layer(name)[0].apply(layer(name)[1], q, k, mask)


def out(name, q, k, v, mask=None, **kwargs):
    return attend(q, k, v, score=score_of(name, q, k, mask), mask=mask, **kwargs)


def prepared(name, q, k):
    score = score_of(name, q, k)
    return score, score.prepare_queries(q, jnp.arange(q.shape[1])[None]), score.prepare_keys(k, jnp.arange(k.shape[1])[None])


def gradients(name, q, k, v, mask, weight, **kwargs):
    """Gradients of Σ weight · out into the score's leaves, q, k and v."""

    def total(score, q, k, v):
        return (weight * attend(q, k, v, score=score, mask=mask, **kwargs)).sum()

    return jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(score_of(name, q, k, mask), q, k, v)


def takes(name, route):
    """Skips a law where the route cannot take the variant, which then says so."""
    q, k, v = arrays()
    score, queries, keys = prepared(name, q, k)
    if route == "fused" and jax.eval_shape(score.as_dot, queries, keys) is None:
        with pytest.raises(ValueError, match="has no as_dot"):
            attend(q, k, v, score=score, route=route)
        pytest.skip("the variant is no inner product of features")


def assert_close(a, b, tolerance=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), a, b)


def finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))
