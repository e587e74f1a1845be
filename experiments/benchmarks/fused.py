"""How fast are the fused kernels of an accelerator, and what do scores with a magnitude pay for them?

Length 4,096, bfloat16, 4 sequences of 16 heads, forward and backward, against cuDNN's own attention as `jax.nn` calls it. The
Gaussian similarity with a magnitude of the keys, exp(−|q − k|² / 2σ²) · |k|, is an inner product of features: those of the key have
the logarithm of the rest beside them, in two parts, because one number of bfloat16 would round it (`ops.scores.with_key_term`). So
heads of size 56 cost what heads of size 64 do. On a CPU nothing is measured.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants.ops.attend import attend
from attention_variants.ops.scores import DotProduct, Score, float32, inner, with_key_term
from experiments.timing import Table, alternate, assert_same, compiled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gaussian(Score):
    """similarity exp(−|q_i − k_j|² / 2√K), magnitude |k_j|; what depends on i alone is left to the softmax."""

    def prepare_queries(self, q_BQHK, at_BQ=None):
        return q_BQHK / q_BQHK.shape[-1] ** 0.5

    def log_similarity(self, queries, keys):
        return inner(queries, keys) - _per_key(_squares(keys) / (2 * keys.shape[-1] ** 0.5))

    def log_magnitude(self, keys):
        return _per_key(0.5 * jnp.log(_squares(keys)))

    def as_dot(self, queries, keys):
        squares_BSH = _squares(keys)
        return with_key_term(queries, keys, 0.5 * jnp.log(squares_BSH) - squares_BSH / (2 * keys.shape[-1] ** 0.5))


def _squares(keys):
    return jnp.square(float32(keys)).sum(-1)


def _per_key(term_BSH):
    return term_BSH.swapaxes(1, 2)[:, :, None]


def measure(quick: bool) -> list[Table]:
    if jax.default_backend() == "cpu" and not quick:
        return []
    return [table(size, quick) for size in ((8,) if quick else (56, 64))]


def table(size: int, quick: bool) -> Table:
    batch, length, heads = (1, 128, 2) if quick else (4, 4096, 16)
    random = np.random.default_rng(0)
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    q, k, v, dout = (jnp.asarray(random.normal(size=(batch, length, heads, size)), dtype) for _ in range(4))

    def gradients(function):
        def both(q, k, v, dout):
            out, pull = jax.vjp(function, q, k, v)
            return out, *pull(dout)

        return both

    def ours(name, score, route="fused"):
        return compiled(name, gradients(functools.partial(attend, score=score, route=route)), q, k, v, dout)

    kernel = "xla" if jax.default_backend() == "cpu" else "cudnn"
    theirs = functools.partial(jax.nn.dot_product_attention, implementation=kernel)
    stock = compiled(f"jax.nn, {kernel}", gradients(theirs), q, k, v, dout)
    tolerance = 2e-5 if dtype == jnp.float32 else 3e-2
    same = functools.partial(assert_same, tolerance=tolerance)
    gaussian = ours("fused, Gaussian with magnitude", Gaussian())
    same(gaussian.run(), ours("blockwise", Gaussian(), "blockwise").run())
    rounds = 2 if quick else 15
    timings = alternate([stock, ours("fused, standard score", DotProduct())], rounds=rounds, same=same, least=0.05)
    timings += alternate([stock, gaussian], rounds=rounds, same=None, least=0.05)[1:]
    return Table(f"head size {size}", timings)
