"""The linear layer of the models."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import meta
from flax.linen import initializers

from attention_variants.ops.affine import affine


class Affine(nn.Module):
    """`flax.linen.DenseGeneral` over the last axes, with `ops.affine`'s gradients: the same parameters and output.

    What differs: gradients of the parameters are summed in float32 at least, whatever `dtype`, and are faster on a CPU; jax
    refuses forward-mode differentiation. Of linen's attributes it has these alone:

    Attributes:
      features: the shape of the output's last axes, or its width. axis: the axes of the input that are summed over, its last ones.
      use_bias, dtype, param_dtype, precision, kernel_init, bias_init: as in flax.linen.
    """

    features: int | Sequence[int]
    axis: int | Sequence[int] = -1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Any = None
    kernel_init: Callable = initializers.lecun_normal()
    bias_init: Callable = initializers.zeros_init()

    @nn.compact
    def __call__(self, x):
        """x (…, *summed) to (…, *features); ValueError where `axis` are not the last axes in their order."""
        features, over = (tuple(n) if isinstance(n, Iterable) else (n,) for n in (self.features, self.axis))
        if over != tuple(range(-len(over), 0)):
            raise ValueError(f"axis is {self.axis}; expected the last axes in their order, {tuple(range(-len(over), 0))}")
        rows, summed = x.shape[: -len(over)], x.shape[-len(over) :]
        d, f = math.prod(summed), math.prod(features)

        def made(init: Callable, flat: tuple, shape: tuple):
            """Initialisers count inputs and outputs of the matrix, whatever the parameter's shape; they may return boxes."""

            def of(key):
                value = init(key, flat, self.param_dtype)
                return meta.replace_boxed(value, jnp.reshape(meta.unbox(value), shape))

            return of

        kernel = self.param("kernel", made(self.kernel_init, (d, f), (*summed, *features)))
        bias = self.param("bias", made(self.bias_init, (f,), features)) if self.use_bias else None
        x_RD = x.reshape(-1, d).astype(self.dtype or jnp.result_type(x, kernel))
        y_RF = affine(x_RD, kernel.reshape(d, f), None if bias is None else bias.reshape(f), self.precision)
        return y_RF.reshape(*rows, *features)
