"""Losses as (sum, weight) pairs, so that a mean over uneven batches and devices is right."""

import jax
import jax.numpy as jnp

from attention_variants.ops.scores import float32


def cross_entropy(logits_BTV: jax.Array, labels_BT: jax.Array, weights_BT: jax.Array, smoothing=0.0):
    """Cross-entropy against labels smoothed towards the uniform distribution (Szegedy et al. 2016, section 7).

        −Σ_v p_v log softmax(logits)_v,   p = (1 − ε) · one-hot(label) + ε / V,

    computed in float32 as logsumexp − (1 − ε) · logit_label − ε · mean(logits), without writing log-probabilities.

    Args:
      logits_BTV: (B, T, V). labels_BT: (B, T) integers. weights_BT: (B, T), 0 where a token does not count.
      smoothing: ε, a number or a traced scalar in [0, 1).

    Returns:
      (sum of weight · loss in nats, sum of the weights), float32 scalars.
    """
    logits_BTV = float32(logits_BTV)
    weights_BT = weights_BT.astype(logits_BTV.dtype)
    is_label = jnp.arange(logits_BTV.shape[-1]) == labels_BT[..., None]
    label_BT = jnp.where(is_label, logits_BTV, 0.0).sum(-1)
    loss_BT = jax.nn.logsumexp(logits_BTV, -1) - (1 - smoothing) * label_BT - smoothing * logits_BTV.mean(-1)
    return (loss_BT * weights_BT).sum(), weights_BT.sum()
