"""How long does attention take at length 4,096, forward and backward?

One sequence, 4 heads of size 64, float32, no mask; the gradients of queries, keys and values are computed too. The learned score
is the dot product and both norms under a soft cap with a learned height: nothing of it but its formula is known to the route.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants.ops import blocks as blocks_lib
from attention_variants.ops.attend import attend
from attention_variants.ops.scores import DotProduct, Score, inner
from experiments.timing import Contender, Table, alternate, assert_same, compiled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SoftCap(Score):
    """logit_ij = c · tanh((⟨q_i, k_j⟩ + m · |q_i| · |k_j|) / (√K · c)) with learned c and m."""

    cap: jax.Array
    norms: jax.Array

    def prepare_queries(self, q_BQHK, at_BQ=None):
        return _with_norm(q_BQHK / q_BQHK.shape[-1] ** 0.5)

    def prepare_keys(self, k_BSHK, at_BS=None):
        return _with_norm(k_BSHK)

    def log_similarity(self, queries, keys):
        (q, q_norm), (k, k_norm) = queries, keys
        return self.curve(inner(q, k), inner(q_norm, k_norm))

    def curve(self, dots, norms):
        return self.cap * jnp.tanh((dots + self.norms * norms) / self.cap)


def _with_norm(x_BLHK):
    return x_BLHK, jnp.sqrt(jnp.square(x_BLHK).sum(-1, keepdims=True))


def measure(quick: bool) -> list[Table]:
    length = 256 if quick else 4096
    random = np.random.default_rng(0)
    q, k, v, dout = (jnp.asarray(random.normal(size=(1, length, 4, 64)), jnp.float32) for _ in range(4))
    learned = SoftCap(jnp.float32(20.0), jnp.float32(0.1))

    def gradients(q, k, v, dout, score, route):
        out, pull = jax.vjp(lambda q, k, v, score: attend(q, k, v, score=score, route=route), q, k, v, score)
        return out, *pull(dout)

    def ours(name, score, route):
        run = compiled(name, functools.partial(gradients, route=route), q, k, v, dout, score)
        return run._replace(run=lambda: run.run()[:4])

    def stock(q, k, v, dout):
        out, pull = jax.vjp(jax.nn.dot_product_attention, q, k, v)
        return out, *pull(dout)

    blocks = blocks_lib.choose(4, length, length, jax.default_backend())
    dots, norms = (jnp.asarray(random.normal(size=(4, *blocks)), jnp.float32) for _ in range(2))
    times = (length // blocks.queries) * (length // blocks.keys)
    arithmetic = compiled("the learned score's own arithmetic", functools.partial(_arithmetic, times=times), learned, dots, norms)
    rounds = dict(rounds=3 if quick else 15, same=functools.partial(assert_same, tolerance=2e-5))
    standard = [ours("blockwise, standard score", DotProduct(), "blockwise"), compiled("jax.nn, xla", stock, q, k, v, dout)]
    standard += [*_torch(q, k, v, dout), ours("dense, standard score", DotProduct(), "dense")]
    generality = [standard[0], ours("blockwise, learned score", learned, "blockwise"), arithmetic]
    rounds["same"](generality[1].run(), ours("dense", learned, "dense").run())
    return [
        Table("the standard score", alternate(standard, **rounds)),
        Table("a learned score", alternate(generality, **rounds | dict(same=None))),
    ]


def _arithmetic(score: SoftCap, dots, norms, times: int):
    """What the learned score adds to the dot products of a block, forward, forward again and backward, `times` over."""

    def visit(carry, _):
        dots, total = carry
        first = score.curve(dots, norms)
        again, pull = jax.vjp(lambda score, dots, norms: score.curve(dots, norms), score, dots, norms)
        dscore, ddots, dnorms = pull(again)
        return (first + ddots, jax.tree.map(jnp.add, total, (dscore, dnorms.sum()))), None

    start = dots, jax.tree.map(jnp.zeros_like, (score, jnp.float32(0.0)))
    return jax.lax.scan(visit, start, None, length=times)[0]


def _torch(*arrays) -> list[Contender]:
    """PyTorch's scaled_dot_product_attention, where PyTorch is installed."""
    try:
        import torch
    except ImportError:
        return []
    q, k, v, dout = (torch.from_numpy(np.array(x.swapaxes(1, 2))) for x in arrays)
    for x in (q, k, v):
        x.requires_grad_()

    def run():
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        grads = torch.autograd.grad(out, (q, k, v), dout)
        return [x.detach().numpy().swapaxes(1, 2) for x in (out, *grads)]

    return [Contender(f"PyTorch {torch.__version__.split('+')[0]}, SDPA", run)]
