"""Heads that repel each other through the loss: the energy of their kernel, as a term that is added to it.

    E = (α / H) Σ_{i<j} k(θ_i, θ_j)

Its gradient, where nothing is differentiated through the bandwidth, is −(α/H) R_i: the repulsion of SVGD. There it stands beside
1/H of the gradient, here beside all of it, so that H α here weighs what α does there.
"""

import jax
import jax.numpy as jnp

from attention_variants.particles import groups, rbf


def energy(params, alpha, *, select: str = groups.PROJECTIONS, joint: bool = False) -> jax.Array:
    """E, summed over groups. Arguments and errors are those of `particles.heads.repulsive_heads`."""
    leaves, total = groups.by_path(params), 0.0
    of_layer = lambda distance_HH, square_H: rbf.pairs(rbf.of_distances(distance_HH, square_H).k_HH).sum()
    for group in groups.find(params, select, joint):
        total += jax.vmap(of_layer)(*rbf.measured(group.views(leaves))).sum() / group.heads
    return alpha * jnp.asarray(total)
