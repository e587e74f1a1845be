"""The output of a block as a sum over tokens: a vector for each, and one for all biases, through every layer of it exactly.

    attention        C_ij = Σ_h w_ij^h f_h(x_j),                     b_i = b_O
    residual         C_ij + δ_ij x_i  (or another column)            b_i
    normalisation    (C_ij − mean(C_ij)) / s_i ∘ γ                   (b_i − mean(b_i)) / s_i ∘ γ + β
    feed-forward     ((C_ij W_1) ∘ θ_i) W_2                          ((b_i W_1 + b_1) ∘ θ_i) W_2 + b_2,    θ_i = g(z_i) / z_i

z_i are the inner values of all of token i. That slope shares g(z) − g(0) out as integrated gradients from 0 do (Kobayashi et al.
2024, "Analyzing feed-forward blocks in Transformers through the lens of attention maps"), in closed form: for g of a sum Σ_k z_k
they are z_k ∫ g'(t Σ z) dt = z_k (g(Σ z) − g(0)) / Σ z. Vectors are of size queries × keys × width, so queries come in chunks.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from attention_variants.ops import norms
from attention_variants.ops.scores import float32


class Contributions(NamedTuple):
    """`vectors_QSD`: what each of S sources gives to each of Q tokens; `bias_QD`: what comes from no token."""

    vectors_QSD: jax.Array
    bias_QD: jax.Array

    @property
    def total_QD(self) -> jax.Array:
        """What they are the parts of."""
        return self.vectors_QSD.sum(1) + self.bias_QD

    @property
    def norm_QS(self) -> jax.Array:
        """The norm of each vector."""
        return jnp.linalg.norm(self.vectors_QSD, axis=-1)

    def __add__(self, other: "Contributions") -> "Contributions":
        return Contributions(self.vectors_QSD + other.vectors_QSD, self.bias_QD + other.bias_QD)


def of_attention(weights_HQS: jax.Array, f_HDS: jax.Array, bias_D: jax.Array) -> Contributions:
    """Of the keys, to what attention puts out; `f_HDS` as `ops.norms.transformed` makes it."""
    vectors_QSD = jnp.einsum("hqs,hds->qsd", float32(weights_HQS), f_HDS, precision="highest")
    return Contributions(vectors_QSD, jnp.broadcast_to(float32(bias_D), (len(vectors_QSD), f_HDS.shape[1])))


def residual(parts: Contributions, x_QD: jax.Array, source_Q: jax.Array) -> Contributions:
    """With x added, which comes from the sources `source_Q`, one for each token."""
    rows = jnp.arange(len(x_QD))
    return parts._replace(vectors_QSD=parts.vectors_QSD.at[rows, source_Q].add(float32(x_QD)))


def normalised(parts: Contributions, scale_D: jax.Array, bias_D: jax.Array, epsilon: float) -> Contributions:
    """After layer normalisation of the total."""
    s_Q = norms.deviation(parts.total_QD, epsilon)
    vectors_QSD = norms.centred(parts.vectors_QSD, scale_D) / s_Q[:, None, None]
    return Contributions(vectors_QSD, norms.centred(parts.bias_QD, scale_D) / s_Q[:, None] + float32(bias_D))


def feed_forward(parts: Contributions, inner: dict, out: dict, activation: Callable) -> Contributions:
    """After g(x W_1 + b_1) W_2 + b_2 of the total.

    Args:
      inner, out: `kernel` and `bias` of each layer. activation: g, element by element, with g(0) = 0.
    """
    dot = lambda x, kernel: jnp.matmul(x, float32(kernel), precision="highest")
    z_QF = dot(parts.total_QD, inner["kernel"]) + float32(inner["bias"])
    slope_QF = slope(activation, z_QF)
    vectors_QSD = dot(dot(parts.vectors_QSD, inner["kernel"]) * slope_QF[:, None], out["kernel"])
    bias_QD = dot((dot(parts.bias_QD, inner["kernel"]) + float32(inner["bias"])) * slope_QF, out["kernel"]) + float32(out["bias"])
    return Contributions(vectors_QSD, bias_QD)


def slope(activation: Callable, z: jax.Array) -> jax.Array:
    """g(z) / z, and its limit g'(0) at 0."""
    zero = z == 0
    at_zero = jax.grad(activation)(jnp.zeros((), z.dtype))
    return jnp.where(zero, at_zero, activation(z) / jnp.where(zero, 1.0, z))
