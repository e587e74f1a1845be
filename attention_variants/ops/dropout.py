"""Dropout whose bits depend on where an element stands, not on how a batch was cut or in which order layers were called.

The bits are a hash of (key, example, coordinates): a row keeps its bits when it moves to another batch, device, lane or
block, and the hash fuses with the multiplication it feeds, so that no array of random numbers is ever written.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Dropout(NamedTuple):
    """What is dropped: `rate` (a number or a traced scalar in [0, 1)), `key` (a PRNG key), `row_B` (B,) ids of the examples."""

    rate: jax.Array | float
    key: jax.Array
    row_B: jax.Array


def mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 with full avalanche: multiply and xor-shift, constants of Wellons' "lowbias32" (2018)."""
    x = x ^ (x >> 16)
    x = x * jnp.uint32(0x7FEB352D)
    x = x ^ (x >> 15)
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def bits(key: jax.Array, *coordinates: jax.Array) -> jax.Array:
    """32 random bits (uint32) for every point of the broadcast coordinates; only the last coordinate costs full size."""
    words = jax.random.key_data(key).reshape(-1)
    state = mix(words[0]) ^ words[-1]
    for coordinate in coordinates:
        state = mix(state + coordinate.astype(jnp.uint32) * jnp.uint32(0x9E3779B9))
    return mix(state)


def kept(dropout: Dropout, shape: tuple[int, ...], starts: tuple = ()) -> jax.Array:
    """Which elements of an array of `shape` (B, …) stay: bool. `starts` are the offsets of its axes after the first."""
    starts = starts or (0,) * (len(shape) - 1)
    coordinates = [dropout.row_B.reshape((-1,) + (1,) * (len(shape) - 1))]
    for axis, (size, start) in enumerate(zip(shape[1:], starts, strict=True), start=1):
        at = jnp.arange(size, dtype=jnp.uint32) + jnp.asarray(start, jnp.uint32)
        coordinates.append(at.reshape((1,) * axis + (-1,) + (1,) * (len(shape) - axis - 1)))
    threshold = (jnp.asarray(dropout.rate, jnp.float32) * 2.0**32).astype(jnp.uint32)
    return bits(dropout.key, *coordinates) >= threshold


def drop(x: jax.Array, dropout: Dropout | None, starts: tuple = ()) -> jax.Array:
    """`x` (B, …) with each element zeroed with probability `rate` and the others divided by 1 − rate (Srivastava et al. 2014)."""
    if dropout is None:
        return x
    scale = (1.0 / (1.0 - jnp.asarray(dropout.rate, jnp.float32))).astype(x.dtype)
    return jnp.where(kept(dropout, x.shape, starts), x * scale, jnp.zeros((), x.dtype))
