"""From how many logits on is the blockwise route as fast as the dense one?

Forward and backward, heads of size 64, float32 on a CPU and bfloat16 elsewhere, standard score. This is what
`ops.attend.CROSSOVER` should be: where `route="auto"` changes from dense, which keeps all logits, to blockwise, which computes
them twice.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants.ops.attend import attend
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import DotProduct
from experiments.timing import Table, alternate, assert_same, compiled

SHAPES = [(1, 4), (32, 8)]  # batch, heads
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)


def measure(quick: bool) -> list[Table]:
    on_cpu = jax.default_backend() == "cpu"
    least, most = (2**14, 2**16) if quick else (2**18, 2**26) if on_cpu else (2**22, 2**30)
    work = [(*shape, n) for shape in SHAPES for n in LENGTHS if least <= shape[0] * shape[1] * n**2 <= most]
    rounds = 2 if quick else 7
    return [table(*shape, causal, rounds) for shape in work for causal in (False, True)]


def table(batch: int, heads: int, length: int, causal: bool, rounds: int) -> Table:
    random, dtype = np.random.default_rng(0), jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    q, k, v, dout = (jnp.asarray(random.normal(size=(batch, length, heads, 64)), dtype) for _ in range(4))

    def gradients(q, k, v, dout, route):
        out, pull = jax.vjp(functools.partial(attend, score=DotProduct(), mask=Mask(causal=causal), route=route), q, k, v)
        return out, *pull(dout)

    contenders = [compiled(route, functools.partial(gradients, route=route), q, k, v, dout) for route in ("dense", "blockwise")]
    same = functools.partial(assert_same, tolerance=2e-5 if dtype == jnp.float32 else 3e-2)
    logits = f"{batch} × {heads} heads, length {length:,}{', causal' if causal else ''}: {batch * heads * length**2:,} logits"
    return Table(logits, alternate(contenders, rounds=rounds, same=same, least=0.05))
