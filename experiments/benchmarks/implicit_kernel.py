"""What does a learned spectral kernel cost at length 4,096, forward and backward, against the standard score?

One sequence, 4 heads of size 64, float32, no mask; 64 frequencies for each head, not stationary, squared, with the magnitude of
keys; its gradients into the frequencies are computed too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants.ops.attend import attend
from attention_variants.ops.magnitudes import Magnitude
from attention_variants.ops.scores import DotProduct
from attention_variants.ops.spectral import Spectral
from experiments.timing import Table, alternate, assert_same, compiled


def spectral(random, points: int, heads: int = 4, size: int = 64) -> Spectral:
    """A score with frequencies like a direct layer's initial ones."""
    reach = (heads * points) ** -0.5
    w1, w2 = (jnp.asarray(random.uniform(-reach, reach, (size, heads, points)), jnp.float32) for _ in range(2))
    return Spectral(w1, w2, magnitude=Magnitude())


def gradients(q, k, v, dout, score, route):
    """(out, gradients of queries, keys, values and score)."""
    out, pull = jax.vjp(lambda q, k, v, score: attend(q, k, v, score=score, route=route), q, k, v, score)
    return out, *pull(dout)


def arrays(random, length: int, heads: int = 4, size: int = 64):
    """Queries, keys, values and the gradient of what comes out."""
    return [jnp.asarray(random.normal(size=(1, length, heads, size)), jnp.float32) for _ in range(4)]


def measure(quick: bool) -> list[Table]:
    random = np.random.default_rng(0)
    given = arrays(random, 256 if quick else 4096)
    learned = spectral(random, points=64)

    def ours(name, score, route="blockwise"):
        return compiled(name, functools.partial(gradients, route=route), *given, score)

    def stock(q, k, v, dout):
        out, pull = jax.vjp(jax.nn.dot_product_attention, q, k, v)
        return out, *pull(dout)

    kernel = ours("spectral kernel, blockwise", learned)
    assert_same(kernel.run(), ours("dense", learned, "dense").run(), tolerance=1e-3)
    contenders = [ours("standard score, blockwise", DotProduct()), kernel, compiled("standard score, jax.nn", stock, *given)]
    timings = alternate(contenders, rounds=3 if quick else 15, same=None)
    return [Table("64 frequencies", timings)]
