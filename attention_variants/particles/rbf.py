"""The RBF kernel of particles, its bandwidth, and how they repel each other.

    k(x_i, x_j) = exp(−‖x_i − x_j‖² / 2h²),    h² = median_{i<j} ‖x_i − x_j‖² / (2 ln(H + 1))
    R_i = Σ_j ∇_{x_j} k(x_j, x_i) = Σ_j k(x_i, x_j) (x_i − x_j) / h²

Liu and Wang 2016, "Stein variational gradient descent", with the bandwidth of their code. The median is of the pairs i < j, which
two particles have, too. Nothing is of size particles × particles × parameters. Distances are sums of squared differences all the
same, as inner products lose those of particles that are near each other and far from a third; repulsion is made of products.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Rbf(NamedTuple):
    """A kernel between particles: its values, the squared distances that they are of, and h²."""

    k_HH: jax.Array
    distance_HH: jax.Array
    h2: jax.Array


def shifted(x_HD: jax.Array) -> jax.Array:
    """Particles in float32 at least, moved together so that the first is 0: distances stay, and equal particles are exactly 0."""
    x_HD = x_HD.astype(jnp.promote_types(x_HD.dtype, jnp.float32))
    return x_HD - x_HD[:1]


def squared_distances(x_HD: jax.Array) -> jax.Array:
    """‖x_i − x_j‖², (H, H); of a sixteenth of the numbers at a time."""
    heads, size = x_HD.shape
    strip = min(size, max(128, -(-size // 16)))
    x_NHS = jnp.pad(x_HD, ((0, 0), (0, -size % strip))).reshape(heads, -1, strip).swapaxes(0, 1)
    square = lambda x_HS: jnp.square(x_HS[:, None] - x_HS)
    total_HHS, _ = jax.lax.scan(lambda total, x_HS: (total + square(x_HS), None), square(x_NHS[0]), x_NHS[1:])
    return total_HHS.sum(-1)


def pairs(matrix_HH: jax.Array) -> jax.Array:
    """The entries i < j, one after the other."""
    return matrix_HH[np.triu_indices(len(matrix_HH), 1)]


def bandwidth(distance_HH: jax.Array, square_H: jax.Array | float = 0.0) -> jax.Array:
    """h² of squared distances; `square_H` are squared norms of particles, in whose rounding R would be lost were h² smaller."""
    heads, of = len(distance_HH), jnp.finfo(distance_HH.dtype)
    floor = of.eps * jnp.mean(square_H) + of.tiny / of.eps
    return jnp.maximum(jnp.median(pairs(distance_HH)) / (2 * math.log(heads + 1)), floor)


def rbf(x_HD: jax.Array, square_H: jax.Array | float = 0.0, h2: jax.Array | None = None) -> Rbf:
    """The kernel of `shifted` particles, of a bandwidth that nothing is differentiated through.

    Args:
      square_H: see `bandwidth`. h2: the bandwidth, where it is not to be the median's.
    """
    distance_HH = squared_distances(x_HD)
    h2 = jax.lax.stop_gradient(bandwidth(distance_HH, square_H)) if h2 is None else h2
    return Rbf(jnp.exp(-distance_HH / (2 * h2)), distance_HH, h2)


def repulsion(x_HD: jax.Array, kernel: Rbf) -> jax.Array:
    """R, (H, D), of `shifted` particles; its sum over them is 0."""
    return (kernel.k_HH.sum(1, keepdims=True) * x_HD - mixed(kernel.k_HH, x_HD)) / kernel.h2


def mixed(k_HH: jax.Array, x_HD: jax.Array) -> jax.Array:
    """Σ_j k_ij x_j."""
    return jnp.dot(k_HH, x_HD, precision="highest")
