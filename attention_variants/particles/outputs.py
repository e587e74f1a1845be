"""SVGD in the space of functions: heads repel each other by what they put out, not by their weights.

    out ↦ out,    backward  g_i ↦ (1/H) [Σ_j k(out_i, out_j) g_j − n α R_i]

An identity whose gradient is replaced: particle i is what head i puts out for all n queries of a batch, and the bandwidth is of
these. n is there because a loss that is summed over queries has a gradient for each, and repulsion is to weigh as in
`particles.svgd`, where it is a mean's. Queries that the loss does not depend on, such as padding, are no part of it.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp

from attention_variants.particles import svgd as svgd_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Repel:
    """`repel` for the attention layers that it is for: a pytree, whose leaf is alpha.

    Attributes:
      alpha: how strong heads repel each other. on: whether they do.
      select: what the path of an attention layer ends with, a regular expression.
      drive, rescale: as in `particles.heads.repulsive_heads`.
    """

    alpha: jax.Array
    on: jax.Array | bool = True
    select: str = dataclasses.field(default=".*", metadata={"static": True})
    drive: svgd_lib.Drive = dataclasses.field(default="kernel", metadata={"static": True})
    rescale: bool = dataclasses.field(default=False, metadata={"static": True})

    def __call__(self, out_BQHV: jax.Array, path: str) -> jax.Array:
        """The head outputs of the attention layer at a path, themselves."""
        if not re.fullmatch(rf"(.*/)?({self.select})", path):
            return out_BQHV
        return repel(out_BQHV, self.alpha, self.on, self.drive, self.rescale)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def repel(
    out_BQHV: jax.Array, alpha: jax.Array, on: jax.Array | bool = True, drive: svgd_lib.Drive = "kernel", rescale: bool = False
) -> jax.Array:
    """The head outputs themselves.

    Args:
      out_BQHV: B examples, Q queries, H heads. alpha, on, drive, rescale: as in `Repel`.
    """
    del alpha, on, drive, rescale
    return out_BQHV


def _forward(out_BQHV, alpha, on, drive, rescale):
    del drive, rescale
    return out_BQHV, (out_BQHV, alpha, on)


def _backward(drive, rescale, kept, g_BQHV):
    out_BQHV, alpha, on = kept
    heads = out_BQHV.shape[2]
    if heads < 2:
        return g_BQHV, None, None
    read_BQ11 = (g_BQHV != 0).any((2, 3), keepdims=True)
    read = jnp.where(read_BQ11, out_BQHV, 0)
    found_BQHV, _ = svgd_lib.svgd(read, g_BQHV, alpha * read_BQ11.sum(), drive)
    return jnp.where(on, (found_BQHV * (heads if rescale else 1)).astype(g_BQHV.dtype), g_BQHV), None, None


repel.defvjp(_forward, _backward)
