"""How much memory does attention need, forward and backward?

Temporary memory by XLA's own analysis of the compiled program: one sequence, 4 heads of size 64, float32, standard score.
"""

import jax
import jax.numpy as jnp

from attention_variants.ops.attend import attend
from attention_variants.ops.scores import DotProduct
from experiments.timing import Contender, Table, alternate, temporary_bytes


def measure(quick: bool) -> list[Table]:
    tables = []
    for length in (128, 256) if quick else (1024, 2048, 4096, 8192, 32768):
        x = jnp.ones((1, length, 4, 64), jnp.float32)
        programs = {route: gradients(route).lower(x, x, x).compile() for route in ("blockwise", "dense")}
        memory = {route: temporary_bytes(program) for route, program in programs.items()}
        run = lambda program=programs["blockwise"], x=x: jax.block_until_ready(program(x, x, x))
        timings = alternate([Contender("blockwise", run, memory["blockwise"])], rounds=1, same=None)
        timings.append(timings[0]._replace(name="dense", seconds=None, ratio=None, memory=memory["dense"]))
        tables.append(Table(f"length {length:,}", timings))
    return tables


def gradients(route: str):
    loss = lambda q, k, v: jnp.square(attend(q, k, v, score=DotProduct(), route=route)).sum()
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
