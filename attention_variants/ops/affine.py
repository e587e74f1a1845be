"""x W + b, in products that a CPU is fast at, backward too.

    y = x W + b,   dx = dy Wᵀ,   dW = xᵀ dy,   db = Σ dy   (sums over all rows)

In dW the summed axis is the first of both factors. For that, XLA has no fast product on a CPU and copies a factor, often the
wider one; here the narrower one is transposed, and the rest is a product as in y. Compilers of other devices are left alone.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from attention_variants.ops.varying import alike


def affine(x_RD: jax.Array, kernel_DF: jax.Array, bias_F: jax.Array | None, precision=None) -> jax.Array:
    """`x W + b` (R, F) of rows (R, D), in the type of `x`.

    Gradients of kernel and bias are summed in at least float32 and returned in the parameters' type: `nn.DenseGeneral`, which
    narrows the kernel first, would round them to bfloat16. No forward-mode differentiation (`jax.jvp`) of its own; over reverse.

    Args:
      kernel_DF, bias_F: parameters in their own type, float32 where `x` is bfloat16; bias_F may be None.
      precision: of the products, as for `jax.lax.dot_general`.
    """
    return _affine(*alike(x_RD, kernel_DF, bias_F), precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _affine(x_RD, kernel_DF, bias_F, precision):
    return _value(x_RD, kernel_DF, bias_F, precision)


def _value(x_RD, kernel_DF, bias_F, precision):
    y_RF = jnp.dot(x_RD, kernel_DF.astype(x_RD.dtype), precision=precision)
    return y_RF if bias_F is None else y_RF + bias_F.astype(x_RD.dtype)


def _forward(x_RD, kernel_DF, bias_F, precision):
    return _value(x_RD, kernel_DF, bias_F, precision), (x_RD, kernel_DF, bias_F)


def _backward(precision, saved, dy_RF):
    x_RD, kernel_DF, bias_F = saved
    dx_RD = jnp.dot(dy_RF, kernel_DF.astype(x_RD.dtype).T, precision=precision)
    wide = jnp.promote_types(x_RD.dtype, jnp.float32)
    product = functools.partial(lax.dot_general, precision=precision, preferred_element_type=wide)
    dkernel_DF = lax.platform_dependent(
        x_RD,
        dy_RF,
        cpu=functools.partial(_transpose_the_narrower, product),
        default=lambda x_RD, dy_RF: product(x_RD, dy_RF, (((0,), (0,)), ((), ()))),
    )
    dbias_F = None if bias_F is None else dy_RF.astype(wide).sum(0).astype(bias_F.dtype)
    return dx_RD, dkernel_DF.astype(kernel_DF.dtype), dbias_F


_affine.defvjp(_forward, _backward)


def _transpose_the_narrower(product, x_RD, dy_RF):
    """xᵀ dy; the barrier keeps XLA from folding the transposition into the product again."""
    plain = (((1,), (0,)), ((), ()))
    if x_RD.shape[1] <= dy_RF.shape[1]:
        return product(lax.optimization_barrier(x_RD.T), dy_RF, plain)
    return product(lax.optimization_barrier(dy_RF.T), x_RD, plain).T
