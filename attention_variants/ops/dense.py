"""The dense route: all weights at once. It materialises (B, H, Q, S) and is the oracle that the other routes are held against."""

import jax
import jax.numpy as jnp

from attention_variants.ops import dropout as dropout_lib
from attention_variants.ops.masks import Mask
from attention_variants.ops.products import to_queries


def masked_logits(queries, keys, *, score, mask: Mask, bias, starts=(0, 0)):
    """The float32 logits (B, H, Q, S) of a block of queries and keys from `starts` on, −inf where the mask hides a key."""
    logits_BHQS = score.logits(queries, keys)
    block = (*logits_BHQS.shape[-2:], *starts)
    if bias is not None:
        logits_BHQS = logits_BHQS + bias(*mask.positions(*block))
    visible = mask.visible(*block)
    return logits_BHQS if visible is None else jnp.where(visible, logits_BHQS, -jnp.inf)


@jax.custom_jvp
def normalise(logits_BHQS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Softmax over the keys, with zeros where every logit is −inf: (weights_BHQS, log_normaliser_BHQ).

    dL_i = Σ_j w_ij dlogit_ij,   dw_ij = w_ij (dlogit_ij − dL_i)

    These are given because those of the division cost a CPU more than the exponential does, and keep one more array.
    """
    logits_BHQS = _once(logits_BHQS)
    top = logits_BHQS.max(-1, keepdims=True)
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    unnormalised = jnp.exp(logits_BHQS - top)
    total = unnormalised.sum(-1, keepdims=True)
    empty = total == 0
    total = jnp.where(empty, 1.0, total)
    log_normaliser = jnp.where(empty, -jnp.inf, top + jnp.log(total))
    return _once(unnormalised / total), log_normaliser[..., 0]


@normalise.defjvp
def _normalise_jvp(primals, tangents):
    (weights, log_normaliser), (dlogits,) = normalise(*primals), tangents
    dlog_normaliser = jnp.einsum("bhqs,bhqs->bhq", weights, dlogits, precision="highest")
    return (weights, log_normaliser), (weights * (dlogits - dlog_normaliser[..., None]), dlog_normaliser)


def _once(x: jax.Array) -> jax.Array:
    """x, which XLA on a CPU would compute again for each of its readers, with its logarithms and dropout."""
    return jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x


def route(queries, keys, v_BSHV, *, score, mask, bias, dropout):
    """(out_BQHV in v's type, log_normaliser_BHQ in float32) of prepared queries and keys."""
    weights, log_normaliser = normalise(masked_logits(queries, keys, score=score, mask=mask, bias=bias))
    weights = dropout_lib.drop(weights, dropout)
    out = to_queries(weights.astype(v_BSHV.dtype), v_BSHV)
    return out.astype(v_BSHV.dtype), log_normaliser
