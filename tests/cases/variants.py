"""What the laws of every variant are tried on: arrays whose axes have prime lengths, layers off their initial values, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants import variants
from attention_variants.ops.attend import attend
from attention_variants.ops.masks import Mask
from attention_variants.variants import implicit_kernel, rbf

B, Q, S, H, K, V = 2, 5, 7, 3, 11, 13
# Every variant as it is by default but for its size, and what else one of them may be.
CONFIGS = {name: variants.load(name).Config() for name in variants.names()} | {
    "implicit_kernel": implicit_kernel.Config(points=6),  # of 64, squares for the linear route take minutes to compile
    "rbf, gaussian with a magnitude": rbf.Config(magnitude="squared", p=3.0),
    "rbf, learned": rbf.Config("laplace", learn_width=True, per_head=True, magnitude="squared", p=3.0, learn_p=True),
    "rbf, compact": rbf.Config("triangular", width=6.0, magnitude="p", p=1.5),
    "implicit_kernel, sampled": implicit_kernel.Config(mode="sampled", points=6, stationary=True, positive="shifted"),
    "implicit_kernel, copula": implicit_kernel.Config(mode="copula", points=6, magnitude="none"),
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


@functools.cache
def _apply(name):
    return jax.jit(layer(name)[0].apply)


def score_of(name, q, k, mask=None):
    own = q.shape[1] == k.shape[1]  # queries of another sequence are not shown to a variant
    return _apply(name)(layer(name)[1], q if own else None, k, mask)


def out(name, q, k, v, mask=None, **kwargs):
    return attend(q, k, v, score=score_of(name, q, k, mask), mask=mask, **kwargs)


def prepared(name, q, k, mask=None):
    score = score_of(name, q, k, mask)
    return score, score.prepare_queries(q, jnp.arange(q.shape[1])[None]), score.prepare_keys(k, jnp.arange(k.shape[1])[None])


@functools.partial(jax.jit, static_argnums=6)  # once for all laws that give it the same shapes
def _outcome(score, q, k, v, mask, weight, route):
    def total(score, q, k, v):
        out = attend(q, k, v, score=score, mask=mask, route=route)
        return (weight * out).sum(), out

    gradients, out = jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True)(score, q, k, v)
    return out, gradients


def outcome(name, q, k, v, mask, weight, route="auto"):
    """(out, gradients of Σ weight · out into the score's leaves, q, k and v)."""
    return _outcome(score_of(name, q, k, mask), q, k, v, mask, weight, route)


def padded(k_valid, q_valid=True, keys=S) -> Mask:
    """A causal mask with padding, of one shape."""
    return Mask(causal=True, k_valid=np.broadcast_to(k_valid, (B, keys)), q_valid=np.broadcast_to(q_valid, (B, Q)))


def takes(name, route, mask=None, keys=S):
    """Skips a law where the route cannot take the variant, or the mask, which must then be refused."""
    q, k, v = arrays(keys=keys)
    score, queries, keys_ = prepared(name, q, k)
    mask = mask or Mask()
    spectral = name.startswith("implicit_kernel") and "authors" not in name
    if route == "linear" and not (spectral and mask.dense is None and not (mask.causal and keys != Q)):
        why = "it knows causal=True|causal=True wants as many" if spectral else "has no as_kernel"
    elif route == "fused" and jax.eval_shape(score.as_dot, queries, keys_) is None:
        why = "has no as_dot"
    else:
        return
    with pytest.raises(ValueError, match=why):
        attend(q, k, v, score=score, mask=mask, route=route)
    pytest.skip(why)


def assert_close(a, b, tolerance=1e-5, relative=False):
    """To so much, of each number and beside; `relative` is beside to the largest of each array, where that is above 1."""

    def close(a, b):
        size = max(1.0, float(np.max(np.abs(np.where(np.isfinite(b), b, 0.0)), initial=0.0))) if relative else 1.0
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * size)

    jax.tree.map(close, a, b)


def rounds(name) -> bool:
    """Whether the logarithm of a small square is in the variant's logits, whose rounding is that of numbers far above it."""
    return name.startswith("implicit_kernel")


def finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))
