"""What tokens contribute to what attention puts out: weights times the norms of the vectors that they carry.

    f_h(x_j) = v_j^h W_O^h,    S_ij = Σ_h w_ij^h f_h(x_j),    out_i = Σ_j S_ij + b_O
    R_ij = S_ij + δ_ij x_i                                            with the residual connection
    T_ij = (R_ij − mean(R_ij)) / s_i ∘ γ,    s_i = √(var(Σ_j R_ij + b_O) + ε)      after layer normalisation

Kobayashi et al. 2020, "Attention is not only a weight" (‖w f‖ and ‖S‖), and 2021, "Incorporating residual and normalization layers
into analysis of masked language models" (‖R‖, ‖T‖ and mixing ratios). Nothing here is of size queries × keys × width: with f_1, …,
f_H = Q R, of which only R (H × H) is made for each key, ‖S_ij‖ is ‖R w_ij‖. It is a root of squares, never of what may be below 0.

Arrays f are (H, D, S), keys last: sums over D then run along keys, as they lie in memory.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from attention_variants.ops.scores import float32


def transformed(v_SHV: jax.Array, out_HVD: jax.Array) -> jax.Array:
    """f, (H, D, S): values as the output projection passes them on, in float32 at least."""
    return jnp.einsum("shv,hvd->hds", float32(v_SHV), float32(out_HVD), precision="highest")


def lengths(f_HDS: jax.Array) -> jax.Array:
    """‖f_h(x_j)‖, (H, S)."""
    return jnp.sqrt(jnp.square(f_HDS).sum(1))


def summed(weights_HQS: jax.Array, f_HDS: jax.Array) -> jax.Array:
    """‖S_ij‖, (Q, S)."""
    heads = len(weights_HQS)
    square_QS = jnp.zeros(weights_HQS.shape[1:], f_HDS.dtype)
    for g, row in enumerate(triangle(f_HDS)):
        square_QS += jnp.square(sum(row[h] * weights_HQS[h] for h in range(g, heads)))
    return jnp.sqrt(square_QS)


def triangle(f_HDS: jax.Array) -> list[Sequence[jax.Array]]:
    """R of f = Q R: row g is of (S,) arrays, 0 before the diagonal.

    Modified Gram-Schmidt, as exact as Householder's reflections for R, and for many small matrices at once many times as fast as
    LAPACK; with a Gram matrix and Cholesky half the digits would be lost where heads cancel each other.
    """
    rest, rows = list(f_HDS), []
    for g, f_DS in enumerate(rest):
        length_S = jnp.sqrt(jnp.square(f_DS).sum(0))
        unit_DS = f_DS / jnp.maximum(length_S, jnp.finfo(f_DS.dtype).tiny)
        row = [jnp.zeros_like(length_S)] * g + [length_S]
        for h in range(g + 1, len(rest)):
            row.append((unit_DS * rest[h]).sum(0))
            rest[h] = rest[h] - row[h] * unit_DS
        rows.append(row)
    return rows


def own(weights_HQS: jax.Array, f_HDS: jax.Array, x_SD: jax.Array) -> jax.Array:
    """R_ii of self-attention, (S, D): what a token keeps of itself."""
    diagonal_HS = jnp.diagonal(weights_HQS, axis1=1, axis2=2)
    return jnp.einsum("hs,hds->sd", diagonal_HS, f_HDS, precision="highest") + x_SD


def with_own(pairs_QS: jax.Array, own_QD: jax.Array) -> jax.Array:
    """‖R_ij‖ of self-attention from ‖S_ij‖ and R_ii: they differ on the diagonal alone."""
    at = jnp.arange(len(own_QD))
    return pairs_QS.at[at, at].set(jnp.linalg.norm(own_QD, axis=-1))


def centred(x: jax.Array, scale_D: jax.Array, axis: int = -1) -> jax.Array:
    """(x − mean(x)) ∘ γ: the part of layer normalisation that is linear, of vectors that lie along an axis."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return (x - x.mean(axis, keepdims=True)) * float32(scale_D).reshape(shape)


def deviation(u_QD: jax.Array, epsilon: float) -> jax.Array:
    """s_i, (Q,): what layer normalisation divides by."""
    return jnp.sqrt(jnp.var(u_QD, axis=-1) + epsilon)


def mixing(total_QD: jax.Array, own_QD: jax.Array) -> jax.Array:
    """Of each token, the share of others: ‖Σ_{j≠i} R_ij‖ / (‖Σ_{j≠i} R_ij‖ + ‖R_ii‖), (Q,); 0 where there is nothing at all."""
    others_Q, own_Q = (jnp.linalg.norm(x, axis=-1) for x in (total_QD - own_QD, own_QD))
    return others_Q / jnp.maximum(others_Q + own_Q, jnp.finfo(own_Q.dtype).tiny)


def expansion(value_DHV: jax.Array, value_bias_HV: jax.Array, out_HVD: jax.Array, out_bias_D: jax.Array) -> jax.Array:
    """How much longer a vector is after values and output projection, in the root mean square over directions.

    ‖[[W_V, 0], [b_V, 1]] [[W_O, 0], [b_O, 1]]‖_F / √(D + 1), the singular values' root mean square, for equal weights in all heads
    (Kobayashi et al. 2021; their script puts b_O into a column, where it is multiplied).
    """
    flat = lambda x, last: float32(x).reshape(-1, last)
    width, inner = out_bias_D.shape[0], value_bias_HV.size
    value, out = flat(value_DHV, inner), flat(out_HVD, width)
    product = jnp.matmul(jnp.vstack([value, flat(value_bias_HV, inner)]), out, precision="highest")
    square = jnp.square(product[:-1]).sum() + jnp.square(product[-1] + float32(out_bias_D)).sum() + 1.0
    return jnp.sqrt(square / (len(value) + 1))
