"""How alike the heads of an attention layer are: by their weights, by what they put out, by where they look; and how many they are.

    cosine_ij = ⟨x_i, x_j⟩ / ‖x_i‖ ‖x_j‖
    divergence_ij = H(½ (p_i + p_j)) − ½ H(p_i) − ½ H(p_j)      (Jensen-Shannon, in bits: 0 the same, 1 no key in common)
    effective number = exp(−Σ_n λ_n ln λ_n),  λ the eigenvalues of cosine / H      (Friedman and Dieng 2023, "The Vendi score")

The effective number is 1 where all heads are the same, and H where no two have anything in common.
"""

import jax
import jax.numpy as jnp


def cosines(x_HD: jax.Array) -> jax.Array:
    """(H, H), float32 at least: cosines between vectors; 0 for one that is 0, but 1 with itself."""
    x_HD = x_HD.astype(jnp.promote_types(x_HD.dtype, jnp.float32))
    norm_H1 = jnp.linalg.norm(x_HD, axis=1, keepdims=True)
    unit_HD = x_HD / jnp.maximum(norm_H1, jnp.finfo(x_HD.dtype).tiny)
    found_HH = jnp.dot(unit_HD, unit_HD.T, precision="highest")
    return jnp.where(jnp.eye(len(x_HD), dtype=bool), 1.0, jnp.clip(found_HH, -1.0, 1.0))


def output_cosines(out_BQHV: jax.Array, real_BQ: jax.Array) -> jax.Array:
    """(H, H): cosines between what heads put out for a query, mean over the queries that are real."""
    each_NHH = jax.vmap(cosines)(out_BQHV.reshape(-1, *out_BQHV.shape[2:]))
    return _mean(each_NHH, real_BQ.reshape(-1))


def divergences(weights_BHQS: jax.Array, real_BQ: jax.Array) -> jax.Array:
    """(H, H): Jensen-Shannon divergences in bits between attention weights of a query, mean over real queries that see any key."""
    weights_BHQS = weights_BHQS.astype(jnp.promote_types(weights_BHQS.dtype, jnp.float32))
    p_NHS = weights_BHQS.swapaxes(1, 2).reshape(-1, weights_BHQS.shape[1], weights_BHQS.shape[3])
    own_NH = entropy(p_NHS)
    one = lambda p_HS: entropy((p_HS[:, None] + p_HS) / 2)
    each_NHH = jax.lax.map(one, p_NHS, batch_size=64) - (own_NH[:, :, None] + own_NH[:, None]) / 2
    return _mean(jnp.maximum(each_NHH, 0.0), real_BQ.reshape(-1) & (p_NHS.sum((1, 2)) > 0))


def entropy(p_S: jax.Array) -> jax.Array:
    """−Σ p log₂ p over the last axis, where 0 log 0 is 0."""
    return -(p_S * jnp.log2(jnp.where(p_S > 0, p_S, 1.0))).sum(-1)


def effective_number(cosine_HH: jax.Array) -> jax.Array:
    """How many heads there are, counted by what they have not in common: from 1 to H."""
    share_H = jnp.maximum(jnp.linalg.eigvalsh(cosine_HH) / len(cosine_HH), 0.0)
    share_H = share_H / share_H.sum()
    return jnp.exp2(entropy(share_H))


def between(matrix_HH: jax.Array) -> jax.Array:
    """The mean over pairs of different heads; NaN of a single one."""
    heads = len(matrix_HH)
    return (matrix_HH.sum() - jnp.trace(matrix_HH)) / (heads * (heads - 1))


def _mean(each_NHH: jax.Array, counts_N: jax.Array) -> jax.Array:
    return jnp.where(counts_N[:, None, None], each_NHH, 0.0).sum(0) / jnp.maximum(counts_N.sum(), 1)
