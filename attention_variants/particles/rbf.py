"""The RBF kernel of particles, its bandwidth, and how they repel each other.

    k(x_i, x_j) = exp(−‖x_i − x_j‖² / 2h²),    h² = median_{i<j} ‖x_i − x_j‖² / (2 ln(H + 1))
    R_i = Σ_j ∇_{x_j} k(x_j, x_i) = Σ_j k(x_i, x_j) (x_i − x_j) / h²

Liu and Wang 2016, "Stein variational gradient descent", with the bandwidth of their code. The median is of the pairs i < j, which
two particles have, too. Nothing is of size particles × particles × parameters. Distances are sums of squared differences all the
same, as inner products lose those of particles that are near each other and far from a third; likewise repulsion of few particles.

Arrays x are (…, H, D): particle i is x[…, i, :] with all that … stands for, so that kernels (D, H, K) of attention need not move.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

FEW = 32  # up to here sums over particles, term by term, are faster on a CPU than matrix products (8: twice, 32: by a sixth)


class Rbf(NamedTuple):
    """A kernel between particles: its values, the squared distances that they are of, and h²."""

    k_HH: jax.Array
    distance_HH: jax.Array
    h2: jax.Array


def precise(x: jax.Array) -> jax.Array:
    """In float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def squares(x: jax.Array) -> jax.Array:
    """‖x_i‖², (H,)."""
    return jnp.square(precise(x)).sum((*range(x.ndim - 2), -1))


@jax.custom_vjp
def squared_distances(x: jax.Array) -> jax.Array:
    """‖x_i − x_j‖², (H, H), in one compiled loop that keeps no difference; nor does its derivative."""
    x = precise(x)
    return jnp.square(x[..., :, None, :] - x[..., None, :, :]).sum((*range(x.ndim - 2), -1))


squared_distances.defvjp(
    lambda x: (squared_distances(x), x),
    lambda x, c_HH: ((2 * weighted_differences(c_HH + c_HH.T, x)).astype(x.dtype),),
)


def measured(views: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """(squared distances, squared norms), (L, H, H) and (L, H), of particles that several (L, …, H, D) make up together."""
    return tuple(sum(map(jax.vmap(function), views)) for function in (squared_distances, squares))


def pairs(matrix_HH: jax.Array) -> jax.Array:
    """The entries i < j, one after the other."""
    return matrix_HH[np.triu_indices(len(matrix_HH), 1)]


def bandwidth(distance_HH: jax.Array, square_H: jax.Array | float = 0.0) -> jax.Array:
    """h² of squared distances; `square_H` are squared norms of particles, in whose rounding R would be lost were h² smaller."""
    heads, of = len(distance_HH), jnp.finfo(distance_HH.dtype)
    floor = of.eps * jnp.mean(square_H) + of.tiny / of.eps
    return jnp.maximum(jnp.median(pairs(distance_HH)) / (2 * math.log(heads + 1)), floor)


def of_distances(distance_HH: jax.Array, square_H: jax.Array | float = 0.0, h2: jax.Array | None = None) -> Rbf:
    """The kernel of squared distances, of a bandwidth that nothing is differentiated through.

    Args:
      square_H: see `bandwidth`. h2: the bandwidth, where it is not to be the median's.
    """
    h2 = jax.lax.stop_gradient(bandwidth(distance_HH, square_H)) if h2 is None else h2
    return Rbf(jnp.exp(-distance_HH / (2 * h2)), distance_HH, h2)


def rbf(x: jax.Array, square_H: jax.Array | float = 0.0, h2: jax.Array | None = None) -> Rbf:
    """The kernel of particles; otherwise as `of_distances`."""
    return of_distances(squared_distances(x), square_H, h2)


def repulsion(x: jax.Array, kernel: Rbf) -> jax.Array:
    """R, of x's shape; its sum over particles is 0."""
    return weighted_differences(kernel.k_HH, x) / kernel.h2


def size_of_repulsion(kernel: Rbf) -> jax.Array:
    """‖R‖ from distances alone, as (x_i − x_j)ᵀ(x_i − x_l) = (‖x_i − x_j‖² + ‖x_i − x_l‖² − ‖x_j − x_l‖²) / 2."""
    k_HH, apart_HH = kernel.k_HH, kernel.distance_HH / kernel.h2
    between_HH = jnp.matmul(k_HH, apart_HH, precision="highest")
    total = (k_HH.sum(1) * (k_HH * apart_HH).sum(1)).sum() - (between_HH * k_HH).sum() / 2
    return jnp.sqrt(jnp.maximum(total, 0) / kernel.h2)


def weighted_differences(w_HH: jax.Array, x: jax.Array) -> jax.Array:
    """Σ_j w_ij (x_i − x_j), w symmetric. Of few particles by differences, which are exactly 0 for equal ones."""
    x = precise(x)
    if len(w_HH) > FEW:
        near = x - x[..., :1, :]
        return w_HH.sum(1)[:, None] * near - mixed(w_HH, near)
    return functools.reduce(jnp.add, (w_HH[:, j, None] * (x - x[..., j, None, :]) for j in range(len(w_HH))))


def mixed(k_HH: jax.Array, x: jax.Array) -> jax.Array:
    """Σ_j k_ij x_j. For as many particles as there are heads, term by term: XLA makes one loop of it and all around it."""
    if len(k_HH) > FEW:
        return jnp.einsum("ij,...jd->...id", k_HH, x, precision="highest")
    return functools.reduce(jnp.add, (k_HH[:, j, None] * x[..., j, None, :] for j in range(len(k_HH))))
