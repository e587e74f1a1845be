"""Encodings of positions."""

import math

import jax
import jax.numpy as jnp


def sinusoidal(at_BQ: jax.Array, width: int) -> jax.Array:
    """Sines and cosines of positions (Vaswani et al. 2017, section 3.5).

        PE(pos, 2i) = sin(pos / 10000^(2i / width)),   PE(pos, 2i + 1) = cos(pos / 10000^(2i / width))

    Args:
      at_BQ: integer positions, any shape. width: D, even.

    Returns:
      at_BQ.shape + (width,), float32.

    Raises:
      ValueError: an odd width.
    """
    if width % 2:
        raise ValueError(f"sinusoidal positions take pairs of features; found the odd width {width}, try {width + 1}")
    rate = jnp.exp(jnp.arange(0, width, 2, dtype=jnp.float32) * (-math.log(10000.0) / width))
    angle = at_BQ[..., None].astype(jnp.float32) * rate
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*at_BQ.shape, width)
