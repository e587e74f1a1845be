"""cos 2πt and sin 2πt together, of angles in turns: on CPUs, faster than `jnp.cos` and `jnp.sin`, and nearer to the truth.

    t = n/4 + r,   n a whole number, |r| ≤ 1/8

What is left of t is exact, where 2πt would be rounded first and reduced after; Taylor's series of it are short; and n says which
of them, and with which sign, is whose. XLA calls a function of the C library for each number instead.
"""

import math

import jax
import jax.numpy as jnp

TERMS = {"float32": 5, "float64": 10}  # of each series, whose rest is below half a unit in the last place


@jax.custom_jvp
@jax.jit
def cos_sin(turns: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(cos 2πt, sin 2πt), float32 or float64 as t is; its derivatives are made of the two again."""
    quarters = jnp.round(4 * turns)
    r = turns - quarters / 4
    square = jnp.square(2 * jnp.pi * r)
    cos, sin = _series(square, 0), 2 * jnp.pi * r * _series(square, 1)
    quarter = quarters.astype(jnp.int32) & 3
    swapped = (quarter & 1) == 1
    first, second = jnp.where(swapped, sin, cos), jnp.where(swapped, cos, sin)
    return jnp.where((quarter == 1) | (quarter == 2), -first, first), jnp.where(quarter > 1, -second, second)


@cos_sin.defjvp
def _cos_sin_jvp(primals, tangents):
    (turns,), (dturns,) = primals, tangents
    cos, sin = cos_sin(turns)
    return (cos, sin), (-2 * jnp.pi * sin * dturns, 2 * jnp.pi * cos * dturns)


def _series(square: jax.Array, start: int) -> jax.Array:
    """Σ_n (−x²)ⁿ / (2n + start)!, by Horner's rule."""
    total = jnp.zeros_like(square)
    for n in reversed(range(TERMS[str(square.dtype)])):
        total = 1 / math.factorial(2 * n + start) - square * total
    return total
