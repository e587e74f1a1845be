"""Spectral kernels: similarity by features whose frequencies are samples of a spectral density (Song et al. 2021).

    κ(q, k) = φ(q) · φ(k)
    φ(x) = [cos 2πw₁ᵀx + cos 2πw₂ᵀx ; sin 2πw₁ᵀx + sin 2πw₂ᵀx] / 2√M     w₁, w₂: M frequencies each, (K, M) (Yaglom)
    φ(x) = [cos 2πwᵀx ; sin 2πwᵀx] / √M                                  stationary: w₁ = w₂, κ a function of q − k (Bochner)

κ lies in [−1, 1] and is made positive by a map, with ε = 1e-5 so that its logarithm is finite:

    similarity = κ² + ε           "squared", as the authors have it
    similarity = (1 + κ)/2 + ε    "shifted"

Both are inner products of features again, so attention with them runs in linear time (`ops.linear`): κ² = ψ(q)·ψ(k) with the
products of pairs of features ψ.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from attention_variants.ops.magnitudes import Magnitude
from attention_variants.ops.products import inner, to_queries
from attention_variants.ops.scores import Score, float32
from attention_variants.ops.turns import cos_sin

# What is added to ε.
MAPS = {
    "squared": jnp.square,
    "shifted": lambda kappa: jnp.maximum(1 + kappa, 0.0) / 2,  # below −1 by rounding alone
}


def features(x_BSHK: jax.Array, w1: jax.Array, w2: jax.Array | None = None) -> jax.Array:
    """φ: (B, S, H, 2M), at least float32.

    Args:
      w1, w2: frequencies in cycles, (K, H, M), or (B or 1, K, H, M) where each example has its own; w2 None is w1, stationary.
    """

    def waves(w):
        own = w.ndim == 4 and len(w) > 1
        x = x_BSHK if own else x_BSHK.reshape(1, -1, *x_BSHK.shape[2:])
        with jax.default_matmul_precision("highest"):  # GPUs round products to 10 bits by default, and turns are large
            turns = to_queries(float32(x).swapaxes(1, 2), float32(w.reshape(-1, *w.shape[-3:])))
        return cos_sin(turns.reshape(*x_BSHK.shape[:3], -1))

    (cos, sin), scale = waves(w1), 1 / math.sqrt(w1.shape[-1])
    if w2 is not None:
        cos, sin = (a + b for a, b in zip((cos, sin), waves(w2), strict=True))
        scale = scale / 2
    return jnp.concatenate([scale * cos, scale * sin], -1)


def squares(phi: jax.Array) -> jax.Array:
    """ψ with ψ(a)·ψ(b) = (φ(a)·φ(b))², from an even number F of features: F (F / 2 + 1) of them.

    Each feature with the one that stands s places on, around the end, for s = 0 … F / 2: every pair once, those at s = F / 2
    twice. Slices side by side, where picking the pairs one by one would be slow.
    """
    size = phi.shape[-1]
    twice = jnp.concatenate([phi, phi], -1)
    weight = lambda s: math.sqrt(2) if 0 < 2 * s < size else 1.0
    return jnp.concatenate([weight(s) * phi * twice[..., s : s + size] for s in range(size // 2 + 1)], -1)


class Keys(NamedTuple):
    """Prepared keys: their features φ, and their log-magnitude, (B, S, H), where there is one."""

    phi_BSHF: jax.Array
    log_magnitude_BSH: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Spectral(Score):
    """log(similarity of κ) + log magnitude(k).

    Attributes:
      w1, w2: frequencies, see `features`.
      positive: the map, a name in `MAPS`. epsilon: ε.
      magnitude: of keys, see `ops.magnitudes`; None is 1.
    """

    w1: jax.Array
    w2: jax.Array | None = None
    positive: str = dataclasses.field(default="squared", metadata={"static": True})
    epsilon: float = dataclasses.field(default=1e-5, metadata={"static": True})
    magnitude: Magnitude | None = None

    def prepare_queries(self, q_BQHK, at_BQ=None):
        del at_BQ
        return features(q_BQHK, self.w1, self.w2)

    def prepare_keys(self, k_BSHK, at_BS=None) -> Keys:
        del at_BS
        return Keys(features(k_BSHK, self.w1, self.w2), None if self.magnitude is None else self.magnitude(k_BSHK))

    def log_similarity(self, queries, keys):
        with jax.default_matmul_precision("highest"):  # as in `features`; the logarithm's slope is up to 1 / √ε
            kappa = inner(queries, keys.phi_BSHF)
        return jnp.log(MAPS[self.positive](kappa) + self.epsilon)

    def log_magnitude(self, keys):
        if keys.log_magnitude_BSH is None:
            return jnp.zeros((1, 1, 1, 1), keys.phi_BSHF.dtype)
        return keys.log_magnitude_BSH.swapaxes(1, 2)[:, :, None, :]

    def as_kernel(self, queries, keys):
        def positive(phi):
            if self.positive == "squared":
                return with_constant(squares(phi), self.epsilon)
            return with_constant(phi / math.sqrt(2), 0.5 + self.epsilon)

        return positive(queries), positive(keys.phi_BSHF), keys.log_magnitude_BSH


def with_constant(psi: jax.Array, constant: float) -> jax.Array:
    """Features whose inner products are those of ψ plus a constant."""
    return jnp.concatenate([psi, jnp.full((*psi.shape[:-1], 1), math.sqrt(constant), psi.dtype)], -1)
