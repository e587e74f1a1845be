"""Parameters of attention layers, and their gradients, that laws of repulsion are tried on."""

import jax.numpy as jnp
import numpy as np

D, H, K, V = 7, 4, 3, 5


def tree(seed: int, heads: int = H, stacked: tuple[int, ...] = (), dtype=jnp.float32):
    """Parameters, or gradients, of two attention layers and what stands beside them."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=(*stacked, *shape)), dtype)
    layer = lambda: {
        **{name: {"kernel": draw(D, heads, K), "bias": draw(heads, K)} for name in ("query", "key")},
        "value": {"kernel": draw(D, heads, V), "bias": draw(heads, V)},
        "out": {"kernel": draw(heads, V, D), "bias": draw(D)},
    }
    names = ("encoder_0/self_attention", "decoder_0/cross_attention")
    return {first: {second: layer(), "feed_forward": {"kernel": draw(D, D)}} for first, second in (n.split("/") for n in names)}


def particles(kernel, axis: int = -2):
    """(H, D·K), float64."""
    return np.moveaxis(np.asarray(kernel, np.float64), axis, 0).reshape(np.shape(kernel)[axis], -1)


def updated(transformation, grads, params):
    return transformation.update(grads, transformation.init(params), params)
