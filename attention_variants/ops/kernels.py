"""Kernels of the distance between a query and a key, and the score that is made of one: kernel smoothing as attention.

    similarity(q, k) = K(u),   u = ‖q − k‖ / h

With values y_j and no magnitude, attention is the Nadaraya-Watson estimator Σ_j K(u_ij) y_j / Σ_j K(u_ij) (Nadaraya 1964; Watson
1964). Factors that do not depend on u cancel in the normalisation and are left out:

| kernel | K(u) | |
|---|---|---|
| gaussian | exp(−u²/2) | |
| laplace | exp(−u) | |
| epanechnikov | 1 − u² | 0 from u = 1 on |
| triangular | 1 − u | 0 from u = 1 on |
| cosine | cos(πu/2) | 0 from u = 1 on |
| boxcar | 1 | 0 from u = 1 on |
| constant | 1 | |

A query that has no key in the support of a compact kernel gets zeros, as one whose keys are all masked does. Gradients there, at
the edge of the support and where query and key coincide (triangular and laplace have a corner) are finite: the corner's is 0.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from attention_variants.ops.magnitudes import Magnitude
from attention_variants.ops.products import inner
from attention_variants.ops.scores import Score, float32, with_key_term

FEW = 4  # dimensions, up to which distances are sums of squared differences: exact, but slow with many


def _log(value):
    """log, −inf where the value is not positive; no gradient there."""
    positive = value > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, value, 1.0)), -jnp.inf)


def _root(squared):
    """√, with gradient 0 at 0."""
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


# log K as a function of u².
KERNELS: dict[str, Callable] = {
    "gaussian": lambda squared: -squared / 2,
    "laplace": lambda squared: -_root(squared),
    "epanechnikov": lambda squared: _log(1 - squared),
    "triangular": lambda squared: _log(1 - _root(squared)),
    "cosine": lambda squared: _log(jnp.sin(jnp.pi / 2 * jnp.maximum(1 - _root(squared), 0.0))),
    "boxcar": lambda squared: jnp.where(squared < 1, 0.0, -jnp.inf).astype(squared.dtype),
    "constant": jnp.zeros_like,
}
FLAT = ("boxcar", "constant")  # whose width has no gradient


def squared_distance(q_BQHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
    """‖q_i − k_j‖²: (B, H, Q, S), at least float32.

    In more than four dimensions as ‖q‖² + ‖k‖² − 2 q·k, whose error is that of the squared norms.
    """
    q, k = float32(q_BQHK), float32(k_BSHK)
    if q.shape[-1] <= FEW:
        differences = (q[..., n].swapaxes(1, 2)[..., :, None] - k[..., n].swapaxes(1, 2)[..., None, :] for n in range(q.shape[-1]))
        return sum(jnp.square(difference) for difference in differences)
    return jnp.maximum(_squares(q)[..., :, None] + _squares(k)[..., None, :] - 2 * inner(q, k), 0.0)


class Keys(NamedTuple):
    """Prepared keys: as they are; their log-magnitude, and their own widths, (B, S, H), where there are such."""

    k_BSHK: jax.Array
    log_magnitude_BSH: jax.Array | None
    width_BSH: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kernel(Score):
    """log K(‖q − k‖ / (h √unit)) + log magnitude(k).

    Attributes:
      width_H: h, (H,) or (); positive.
      kernel: a name in `KERNELS`.
      unit: of squared widths, where there is no `adapt`. With √d, a Gaussian of width 1 with the squared 2-norm is the dot product.
      magnitude: of keys, see `ops.magnitudes`; None is 1.
      adapt: `adapt(k_BSHK) -> width_BSH`, factors of h for each key made from all keys (`ops.widths`). A key of width h_j then
        weighs h_j^−K, as in a density estimate of varying width (Breiman, Meisel and Purcell 1977).
    """

    width_H: jax.Array
    kernel: str = dataclasses.field(default="gaussian", metadata={"static": True})
    unit: float = dataclasses.field(default=1.0, metadata={"static": True})
    magnitude: Magnitude | None = None
    adapt: Callable | None = None

    def prepare_keys(self, k_BSHK, at_BS=None) -> Keys:
        del at_BS
        width_BSH = None if self.adapt is None else self.adapt(k_BSHK)
        log_magnitude_BSH = None if self.magnitude is None else self.magnitude(k_BSHK)
        if width_BSH is not None:
            density_BSH = -k_BSHK.shape[-1] * jnp.log(width_BSH)
            log_magnitude_BSH = density_BSH if log_magnitude_BSH is None else log_magnitude_BSH + density_BSH
        return Keys(k_BSHK, log_magnitude_BSH, width_BSH)

    def log_similarity(self, queries, keys):
        return KERNELS[self.kernel](squared_distance(queries, keys.k_BSHK) / self._squared_width(keys))

    def log_magnitude(self, keys):
        if keys.log_magnitude_BSH is None:
            return jnp.zeros((1, 1, 1, 1), float32(keys.k_BSHK).dtype)
        return keys.log_magnitude_BSH.swapaxes(1, 2)[:, :, None, :]

    def logits(self, queries, keys):
        if (expanded := self._expanded(queries, keys)) is None:
            return self.log_similarity(queries, keys) + self.log_magnitude(keys)
        fq_BQHK, term_BSH = expanded
        return inner(fq_BQHK, keys.k_BSHK) + term_BSH.swapaxes(1, 2)[:, :, None, :]

    def as_dot(self, queries, keys):
        if (expanded := self._expanded(queries, keys)) is None:
            return None
        fq_BQHK, term_BSH = expanded
        return with_key_term(fq_BQHK, keys.k_BSHK, term_BSH)

    def _expanded(self, queries, keys):
        """Of a Gaussian of one width: −‖q − k‖² / 2h² + m(k) = q·k / h² + (m(k) − ‖k‖² / 2h²) + what is constant over keys."""
        if self.kernel != "gaussian" or keys.width_BSH is not None or keys.k_BSHK.shape[-1] <= FEW:
            return None
        squared_H1 = self.unit * jnp.square(jnp.reshape(self.width_H, (-1, 1)))
        fq_BQHK = (float32(queries) / squared_H1).astype(queries.dtype)
        term_BSH = -_squares(float32(keys.k_BSHK)).swapaxes(1, 2) / (2 * squared_H1[:, 0])
        return fq_BQHK, term_BSH if keys.log_magnitude_BSH is None else keys.log_magnitude_BSH + term_BSH

    def _squared_width(self, keys):
        """(1 or B, 1 or H, 1, 1 or S)."""
        squared = jnp.square(jnp.reshape(self.width_H, (1, -1, 1, 1)))
        return squared * (self.unit if keys.width_BSH is None else jnp.square(keys.width_BSH).swapaxes(1, 2)[:, :, None, :])


def _squares(x_BSHK):
    """‖x‖²: (B, H, S)."""
    return jnp.einsum("bshk,bshk->bhs", x_BSHK, x_BSHK)
