"""What one group of particles descends along in place of its gradient: SVGD, and SPOS, which adds drift and noise.

    SVGD:  s · (1/H) [Σ_j k(x_i, x_j) g_j − α R_i]
    SPOS:  s · {(1/H) [Σ_j k(x_i, x_j) g_j − α R_i] + τ g_i − √(2τ/s) c ξ_i},    ξ_i ~ N(0, I)

x are particles, g the gradients of the loss, R the repulsion (`particles.rbf`), s the stepsize, τ the temperature (An et al. 2020,
their code; SPOS: Zhang, Zhang, Carin and Chen 2020, "Stochastic particle-optimization sampling"). c is the median of |g| over the
group. With α = 1, s = 1 and plain descent at rate ε, SVGD is x ← x + ε φ(x) of Liu and Wang 2016.
"""

import functools
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


def svgd(x: jax.Array, g: jax.Array, alpha, drive: Drive = "kernel") -> tuple[jax.Array, Numbers]:
    """What to descend along, in float32 at least, for stepsize 1; and what there was to see.

    Args:
      x, g: (…, H, D), at least two particles, as `particles.rbf` has them, and their gradients. alpha: how strong they repel.
      drive: "kernel" mixes the gradients of all, as published; "gradient" leaves them as they are.
    """
    ((direction,),), (seen,) = of_groups([[x[None]]], [[g[None]]], alpha, drive)
    return direction[0], jax.tree.map(lambda number: number[0], seen)


Views = list[jax.Array]  # (L, …, H, D), which together are L groups of H particles


def of_groups(x: list[Views], g: list[Views], alpha, drive: Drive = "kernel") -> tuple[list[Views], list[Numbers]]:
    """`svgd` of many groups. What is of size H × H is made for all of them together, as it is small and in many steps; what is of
    their own size for each view alone, in loops over it as it lies in memory."""
    measured = [rbf.measured(own) for own in x]
    kernels = together(jax.vmap(rbf.of_distances), measured)
    descent = jax.vmap(functools.partial(_descent, alpha=alpha, drive=drive))
    moved = [[descent(*of, kernel) for of in zip(*own, strict=True)] for *own, kernel in zip(x, g, kernels, strict=True)]
    driven = [sum(size for _, size in own) for own in moved]
    seen = [(kernel, square, size) for kernel, (_, square), size in zip(kernels, measured, driven, strict=True)]
    return [[direction for direction, _ in own] for own in moved], together(
        jax.vmap(functools.partial(_numbers, alpha=alpha)), seen
    )


def together(function, inputs: list[tuple]) -> list:
    """`function`, which maps over first axes, of each input; of those of one shape in one go."""
    results: list = [None] * len(inputs)
    shapes = [tuple((leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(of)) for of in inputs]
    for shape in dict.fromkeys(shapes):
        alike = [i for i, other in enumerate(shapes) if other == shape]
        outputs = function(*jax.tree.map(lambda *of: jnp.concatenate(of), *(inputs[i] for i in alike)))
        start = 0
        for i in alike:
            own = slice(start, start := start + len(jax.tree.leaves(inputs[i])[0]))
            results[i] = jax.tree.map(lambda leaf, own=own: leaf[own], outputs)
    return results


def _descent(x: jax.Array, g: jax.Array, kernel: rbf.Rbf, alpha, drive: Drive) -> tuple[jax.Array, jax.Array]:
    """The direction of particles whose kernel is known; and the squared norm of what drives."""
    g = g.astype(kernel.k_HH.dtype)
    driven = rbf.mixed(kernel.k_HH, g) if drive == "kernel" else g
    return (driven - alpha * rbf.repulsion(x, kernel)) / len(kernel.k_HH), jnp.square(driven).sum()


def _numbers(kernel: rbf.Rbf, square_H: jax.Array, driven: jax.Array, alpha) -> Numbers:
    """The numbers of a group, from its kernel, the squared norms of its particles and that of what drives."""
    apart = rbf.pairs(kernel.distance_HH)
    inner = (rbf.pairs(square_H[:, None] + square_H) - apart) / 2
    norm_H, tiny = jnp.sqrt(square_H), jnp.finfo(apart.dtype).tiny
    norms = rbf.pairs(norm_H[:, None] * norm_H)
    repelled, driven = alpha * rbf.size_of_repulsion(kernel), jnp.sqrt(driven)
    return Numbers(
        distance=jnp.sqrt(apart).mean(),
        bandwidth=jnp.sqrt(kernel.h2),
        cosine=(inner / jnp.maximum(norms, tiny)).mean(),
        repulsion=repelled / jnp.maximum(repelled + driven, tiny),
    )


def median_of_absolute(g: jax.Array) -> jax.Array:
    """The median of |g|, the lower of two, to eight bits of its mantissa: nothing is sorted, and a scale of noise needs no more.

    Absolute values of float32 are in the order of their bits, read as integers; the highest 16 of the median's are found by
    counting how many numbers lie below. On a CPU that is one bit a round, as it is counting that takes time; elsewhere it is the
    rounds, so there are four, of four bits. Both find the same number.
    """
    return jax.lax.platform_dependent(g, cpu=functools.partial(_median, width=1), default=functools.partial(_median, width=4))


def _median(g: jax.Array, width: int) -> jax.Array:
    """`median_of_absolute`, `width` bits a round. Columns are counted in 16 bits, too, which is several times as fast."""
    bits = jax.lax.bitcast_convert_type(jnp.abs(g.astype(jnp.float32)), jnp.uint32) >> 15
    half, columns = (g.size + 1) // 2, max(256, -(-g.size // 2**14))
    most = jnp.uint16(2**16 - 1)  # of no number: it fills the last row up
    bits_NC = jnp.pad(bits.astype(jnp.uint16).ravel(), (0, -g.size % columns), constant_values=most).reshape(-1, columns)
    digits_T = jnp.arange(1, 2**width, dtype=jnp.uint16)

    def digit(n, found):
        place = (16 - width * (n + 1)).astype(jnp.uint16)
        tried_T = found | (digits_T << place)
        below_TC = (bits_NC < tried_T[:, None, None]).astype(jnp.int16).sum(1, dtype=jnp.int16)
        fits_T = below_TC.sum(1, dtype=jnp.int32) < half
        return found | (fits_T.sum(dtype=jnp.uint16) << place)

    zero = bits_NC[0, 0] & 0  # which varies over devices, inside `jax.shard_map`, where the numbers do
    found = jax.lax.fori_loop(0, 16 // width, digit, zero, unroll=width > 1).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type((found << 15) | (1 << 14), jnp.float32)
