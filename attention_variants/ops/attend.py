"""Attention with any score, mask and route: out_i = Σ_j weight_ij v_j."""

import jax
import jax.numpy as jnp

from attention_variants.ops import dense
from attention_variants.ops.dropout import Dropout
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import Prepared, Score

ROUTES = {"dense": dense.route}


def attend(
    q_BQHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHV: jax.Array,
    *,
    score: Score,
    mask: Mask | None = None,
    bias=None,
    dropout: Dropout | None = None,
    route: str = "auto",
) -> jax.Array:
    """Multi-head attention of queries over keys and values.

    A query whose keys are all masked gets zeros, and zero gradient.

    Args:
      q_BQHK: queries (B, Q, H, K).
      k_BSHK: keys (B, S, H, K).
      v_BSHV: values (B, S, H, V).
      score: the logarithm of similarity times magnitude (`ops.scores`).
      mask: which keys a query may see; everything by default. Required by keyword wherever there is padding.
      bias: a function of (query length, key length) that returns an additive term broadcastable to (B, H, Q, S).
      dropout: dropout of the weights after normalisation.
      route: how it is computed: "dense", or "auto" for the best one known for this score and shape.

    Returns:
      (B, Q, H, V), in the type of the values.

    Raises:
      ValueError: an unknown route, or shapes that do not fit together.
    """
    _check(q_BQHK, k_BSHK, v_BSHV)
    queries, keys = score.prepare_queries(q_BQHK), score.prepare_keys(k_BSHK)
    return attend_prepared(queries, keys, v_BSHV, score=score, mask=mask, bias=bias, dropout=dropout, route=route)[0]


def attend_prepared(
    queries: Prepared,
    keys: Prepared,
    v_BSHV: jax.Array,
    *,
    score: Score,
    mask: Mask | None,
    bias=None,
    dropout: Dropout | None = None,
    route: str = "auto",
) -> tuple[jax.Array, jax.Array]:
    """`attend` on what the score has already prepared; also returns the log-normaliser (B, H, Q), −inf for empty rows.

    Raises:
      ValueError: an unknown route, or a mask that does not fit.
    """
    route = "dense" if route == "auto" else route
    if route not in ROUTES:
        raise ValueError(f"unknown route {route!r}; choose from auto, {', '.join(sorted(ROUTES))}")
    if mask is not None:
        batch, q_length = jax.tree.leaves(queries)[0].shape[:2]
        mask.check(batch, q_length, v_BSHV.shape[1])
    return ROUTES[route](queries, keys, v_BSHV, score=score, mask=mask, bias=bias, dropout=dropout)


def weights(queries: Prepared, keys: Prepared, log_normaliser_BHQ, *, score: Score, mask: Mask | None, bias=None):
    """The attention weights (B, H, Q, S), recomputed from the log-normaliser that any route returns; empty rows are zeros."""
    logits = dense.masked_logits(queries, keys, score=score, mask=mask, bias=bias)
    finite = jnp.where(jnp.isfinite(log_normaliser_BHQ), log_normaliser_BHQ, 0.0)
    return jnp.exp(logits - finite[..., None])


def _check(q, k, v):
    for name, x in (("queries", q), ("keys", k), ("values", v)):
        if x.ndim != 4:
            raise ValueError(f"{name} have shape {x.shape}; expected (batch, length, heads, head size)")
    if q.shape[0] != k.shape[0] or k.shape[:3] != v.shape[:3] or q.shape[2:] != k.shape[2:]:
        raise ValueError(
            f"queries {q.shape}, keys {k.shape} and values {v.shape} do not fit; expected (B, Q, H, K), (B, S, H, K), (B, S, H, V)"
        )
