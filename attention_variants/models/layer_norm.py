"""The normalisation of the models."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from attention_variants.ops.layer_norm import layer_norm


class LayerNorm(nn.Module):
    """`flax.linen.LayerNorm` over the last axis, with `ops.layer_norm`'s gradients: the same parameters and output.

    Attributes: epsilon, dtype and param_dtype as in flax.linen; the other attributes of linen's have their defaults.
    """

    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        """x (…, D) normalised."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], self.param_dtype)
        dtype = self.dtype or jnp.result_type(x, scale)
        return layer_norm(x.reshape(-1, x.shape[-1]), scale, bias, self.epsilon, dtype).reshape(x.shape)
