"""What one group of particles descends along in place of its gradient: SVGD, and SPOS, which adds drift and noise.

    SVGD:  s · (1/H) [Σ_j k(x_i, x_j) g_j − α R_i]
    SPOS:  s · {(1/H) [Σ_j k(x_i, x_j) g_j − α R_i] + τ g_i − √(2τ/s) c ξ_i},    ξ_i ~ N(0, I)

x are particles, g the gradients of the loss, R the repulsion (`particles.rbf`), s the stepsize, τ the temperature (An et al. 2020,
their code; SPOS: Zhang, Zhang, Carin and Chen 2020, "Stochastic particle-optimization sampling"). c is the median of |g| over the
group. With α = 1, s = 1 and plain descent at rate ε, SVGD is x ← x + ε φ(x) of Liu and Wang 2016.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from attention_variants.particles import rbf

Drive = Literal["kernel", "gradient"]


class Numbers(NamedTuple):
    """What a group of particles looked like: all scalars, at no pass of its own.

    Attributes:
      distance: ‖x_i − x_j‖, mean over pairs. bandwidth: h. cosine: of the angle between x_i and x_j, mean over pairs.
      repulsion: its share, ‖α R‖ / (‖α R‖ + ‖what drives‖), from 0 to 1.
    """

    distance: Any
    bandwidth: Any
    cosine: Any
    repulsion: Any


def svgd(x_HD: jax.Array, g_HD: jax.Array, alpha, drive: Drive = "kernel") -> tuple[jax.Array, Numbers]:
    """(H, D) in float32 at least, for stepsize 1; and what there was to see.

    Args:
      x_HD, g_HD: at least two particles, and their gradients. alpha: how strong they repel.
      drive: "kernel" mixes the gradients of all, as published; "gradient" leaves them as they are.
    """
    near_HD = rbf.shifted(x_HD)
    g_HD = g_HD.astype(near_HD.dtype)
    square_H = jnp.square(x_HD.astype(near_HD.dtype)).sum(1)
    kernel = rbf.rbf(near_HD, square_H)
    repelled_HD = alpha * rbf.repulsion(near_HD, kernel)
    driven_HD = rbf.mixed(kernel.k_HH, g_HD) if drive == "kernel" else g_HD
    return (driven_HD - repelled_HD) / len(x_HD), numbers(kernel, square_H, repelled_HD, driven_HD)


def numbers(kernel: rbf.Rbf, square_H: jax.Array, repelled_HD: jax.Array, driven_HD: jax.Array) -> Numbers:
    """The numbers of a group; `square_H` are squared norms of the particles where they are."""
    apart = rbf.pairs(kernel.distance_HH)
    inner = (rbf.pairs(square_H[:, None] + square_H) - apart) / 2
    norms, tiny = jnp.sqrt(rbf.pairs(square_H[:, None] * square_H)), jnp.finfo(apart.dtype).tiny
    repelled, driven = (jnp.sqrt(jnp.square(x_HD).sum()) for x_HD in (repelled_HD, driven_HD))
    return Numbers(
        distance=jnp.sqrt(apart).mean(),
        bandwidth=jnp.sqrt(kernel.h2),
        cosine=(inner / jnp.maximum(norms, tiny)).mean(),
        repulsion=repelled / jnp.maximum(repelled + driven, tiny),
    )


def median_of_absolute(g_HD: jax.Array) -> jax.Array:
    """The median of |g|, the lower of two, to eight bits of its mantissa: nothing is sorted, and a scale of noise needs no more.

    Absolute values of float32 are in the order of their bits, read as integers; the highest 16 of the median's are found one by
    one, each by counting how many numbers lie below.
    """
    bits = jax.lax.bitcast_convert_type(jnp.abs(g_HD.astype(jnp.float32)), jnp.int32) >> 15
    half = (g_HD.size + 1) // 2

    def bit(n, found):
        tried = found | (1 << (15 - n))
        return jnp.where((bits < tried).sum() < half, tried, found)

    zero = bits[0, 0] & 0  # which varies over devices, inside `jax.shard_map`, where the numbers do
    found = jax.lax.fori_loop(0, 16, bit, zero)
    return jax.lax.bitcast_convert_type((found << 15) | (1 << 14), jnp.float32)
