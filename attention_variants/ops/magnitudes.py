"""How much a key weighs, whatever the query: exponentials of Lp norms.

    log magnitude(k) = ‖k‖_p² / (2√d)     power = "squared" (implicit kernel attention: Song et al. 2021, as their code has it)
    log magnitude(k) = ‖k‖_p^p / (2√d)    power = "p"

Both are the magnitude inside scaled dot-product attention at p = 2. The query's own magnitude is constant over the keys and cancels
in the normalisation, so there is none. A small p makes magnitudes large and attention peaked, a large one flat.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from attention_variants.ops.scores import float32

POWERS = ("squared", "p")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Magnitude:
    """`magnitude(k_BSHK) -> log_magnitude_BSH`, at least float32.

    Attributes:
      p_H: p ≥ 1 where it is learned, (H,) or (); else None.
      p: p where it is fixed.
      power: "squared" or "p".
      kept_BSH: factors of the log-magnitudes, where some are dropped in training (0) and the others divided by 1 − rate.
    """

    p_H: jax.Array | None = None
    p: float = dataclasses.field(default=2.0, metadata={"static": True})
    power: str = dataclasses.field(default="squared", metadata={"static": True})
    kept_BSH: jax.Array | None = None

    def __call__(self, k_BSHK: jax.Array) -> jax.Array:
        size = k_BSHK.shape[-1]
        powered_BSH = squared_norm(k_BSHK, self._p) if self.power == "squared" else summed_powers(k_BSHK, self._p)
        log_magnitude_BSH = powered_BSH / (2 * math.sqrt(size))
        return log_magnitude_BSH if self.kept_BSH is None else log_magnitude_BSH * self.kept_BSH

    @property
    def _p(self) -> jax.Array | float:
        return self.p if self.p_H is None else self.p_H


def squared_norm(x: jax.Array, p: jax.Array | float) -> jax.Array:
    """‖x‖_p² over the last axis, with finite gradients everywhere, into p too; 0 at zero.

    Args:
      p: at least 1, a number, or an array that broadcasts to `x` without its last axis.
    """
    x = float32(x)
    if isinstance(p, float | int) and p == 2:
        return jnp.einsum("...k,...k->...", x, x)
    top = jax.lax.stop_gradient(abs(x).max(-1))  # so that powers neither overflow nor vanish
    top = jnp.where(top > 0, top, 1.0)
    return jnp.square(top) * _power(summed_powers(x / top[..., None], p), 2 / p)


def summed_powers(x: jax.Array, p: jax.Array | float) -> jax.Array:
    """‖x‖_p^p = Σ |x|^p over the last axis, as `squared_norm`."""
    x = float32(x)
    if isinstance(p, float | int) and p == 2:
        return jnp.einsum("...k,...k->...", x, x)
    return _power(abs(x), jnp.expand_dims(jnp.asarray(p, x.dtype), -1)).sum(-1)


def _power(x, p):
    """x^p of x ≥ 0 and p > 0; no gradient at 0, where that of p is 0 · log 0."""
    positive = x > 0
    return jnp.where(positive, jnp.exp(p * jnp.log(jnp.where(positive, x, 1.0))), 0.0)
