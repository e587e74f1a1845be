"""The dense route: all weights at once. It materialises (B, H, Q, S) and is the oracle that the other routes are held against."""

import jax
import jax.numpy as jnp

from attention_variants.ops import dropout as dropout_lib
from attention_variants.ops.scores import float32


def masked_logits(queries, keys, *, score, mask, bias):
    """The float32 logits (B, H, Q, S), −inf where the mask hides a key."""
    logits_BHQS = score.logits(queries, keys)
    q_length, k_length = logits_BHQS.shape[-2:]
    if bias is not None:
        logits_BHQS = logits_BHQS + bias(q_length, k_length)
    visible = None if mask is None else mask.visible(q_length, k_length)
    return logits_BHQS if visible is None else jnp.where(visible, logits_BHQS, -jnp.inf)


def normalise(logits_BHQS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Softmax over the keys, with zeros where every logit is −inf: (weights_BHQS, log_normaliser_BHQ), gradients finite."""
    top = jax.lax.stop_gradient(logits_BHQS.max(-1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    unnormalised = jnp.exp(logits_BHQS - top)
    total = unnormalised.sum(-1, keepdims=True)
    empty = total == 0
    total = jnp.where(empty, 1.0, total)
    log_normaliser = jnp.where(empty, -jnp.inf, top + jnp.log(total))
    return unnormalised / total, log_normaliser[..., 0]


def route(queries, keys, v_BSHV, *, score, mask, bias, dropout):
    """(out_BQHV in v's type, log_normaliser_BHQ in float32) of prepared queries and keys."""
    weights, log_normaliser = normalise(masked_logits(queries, keys, score=score, mask=mask, bias=bias))
    weights = dropout_lib.drop(weights, dropout)
    accumulate = float32(v_BSHV).dtype
    out = jnp.einsum("bhqs,bshv->bqhv", weights.astype(v_BSHV.dtype), v_BSHV, preferred_element_type=accumulate)
    return out.astype(v_BSHV.dtype), log_normaliser
