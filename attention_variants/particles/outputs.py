"""SVGD in the space of functions: heads repel each other by what they put out, not by their weights.

    out ↦ out,    backward  g_i ↦ (1/H) [Σ_j k(out_i, out_j) g_j − n α R_i]

An identity whose gradient is replaced: particle i is what head i puts out for all n queries of a batch, and the bandwidth is of
these. n is there because a loss that is summed over queries has a gradient for each, and repulsion is to weigh as in
`particles.svgd`, where it is a mean's. Queries that the loss does not depend on, such as padding, are no part of it.
"""

import functools

import jax
import jax.numpy as jnp

from attention_variants.particles import svgd as svgd_lib


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def repel(out_BQHV: jax.Array, alpha: jax.Array, drive: str = "kernel", rescale: bool = False) -> jax.Array:
    """The head outputs themselves.

    Args:
      out_BQHV: B examples, Q queries, H heads. alpha: how strong they repel. drive: as in `particles.svgd.svgd`.
      rescale: times H, as in `particles.heads.repulsive_heads`.
    """
    del alpha, drive, rescale
    return out_BQHV


def _forward(out_BQHV, alpha, drive, rescale):
    return out_BQHV, (out_BQHV, alpha)


def _backward(drive, rescale, kept, g_BQHV):
    out_BQHV, alpha = kept
    heads = out_BQHV.shape[2]
    if heads < 2:
        return g_BQHV, jnp.zeros_like(alpha)
    read_BQ11 = (g_BQHV != 0).any((2, 3), keepdims=True)
    particles = lambda x_BQHV: jnp.moveaxis(jnp.where(read_BQ11, x_BQHV, 0), 2, 0).reshape(heads, -1)
    found_HD, _ = svgd_lib.svgd(particles(out_BQHV), particles(g_BQHV), alpha * read_BQ11.sum(), drive)
    batch, queries, _, size = out_BQHV.shape
    found_BQHV = jnp.moveaxis(found_HD.reshape(heads, batch, queries, size), 0, 2) * (heads if rescale else 1)
    return found_BQHV.astype(g_BQHV.dtype), jnp.zeros_like(alpha)


repel.defvjp(_forward, _backward)
