"""Losses as (sum, weight) pairs, so that a mean over uneven batches and devices is right."""

import functools

import jax
import jax.numpy as jnp

from attention_variants.ops.scores import float32
from attention_variants.ops.varying import alike


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


def projected_cross_entropy(x_BTD, table_VD, labels_BT, weights_BT, smoothing=0.0, *, chunk: int = 1024):
    """`cross_entropy` of the logits x · tableᵀ, which are never written: some positions of all rows at a time.

    Where a gradient is asked for, dlogits = weight · (softmax − p) of a chunk goes into dx and dtable while the chunk is at hand,
    so that logits are neither kept nor computed twice.

    Args:
      x_BTD: (B, T, D), float32 or bfloat16. table_VD: (V, D), of the same type. Only these two get gradients.
      labels_BT: (B, T) integers from 0 to V − 1. weights_BT, smoothing: as for `cross_entropy`.
      chunk: about how many tokens are worked on at a time.

    Returns:
      (sum, weight), as `cross_entropy`.
    """
    batch, length, _ = x_BTD.shape
    positions = -(-length // -(-batch * length // chunk))  # pieces of one size, so that little is filled up
    weights_BT, smoothing = jax.lax.stop_gradient((weights_BT.astype(float32(x_BTD).dtype), smoothing))
    return _projected(positions, *alike(x_BTD, table_VD, labels_BT, weights_BT, smoothing)), weights_BT.sum()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _projected(positions, x_BTD, table_VD, labels_BT, weights_BT, smoothing):
    mean_D = table_VD.mean(0, dtype=weights_BT.dtype)

    def add(total, piece):
        return total + _piece(*piece, table_VD, mean_D, smoothing)[0], None

    start, pieces = alike(jnp.zeros((), weights_BT.dtype), _split(positions, x_BTD, labels_BT, weights_BT))
    return jax.lax.scan(add, start, pieces)[0]


def _forward(positions, x_BTD, table_VD, labels_BT, weights_BT, smoothing):
    mean_D = table_VD.mean(0, dtype=weights_BT.dtype)

    def add(carry, piece):
        total, dtable_DV = carry
        loss, dlogits_BCV = _piece(*piece, table_VD, mean_D, smoothing)
        narrow = dlogits_BCV.astype(x_BTD.dtype)
        dx_BCD = jnp.einsum("bcv,vd->bcd", narrow, table_VD, preferred_element_type=total.dtype)
        # Summed over the first axes of both, of which XLA on a CPU copies the factor that comes first: the narrower one.
        dtable_DV += jnp.tensordot(piece[0], narrow, axes=((0, 1), (0, 1)), preferred_element_type=total.dtype)
        return (total + loss, dtable_DV), dx_BCD.astype(x_BTD.dtype)

    start = jnp.zeros((), weights_BT.dtype), jnp.zeros(table_VD.shape[::-1], weights_BT.dtype)
    (total, dtable_DV), dx = jax.lax.scan(add, *alike(start, _split(positions, x_BTD, labels_BT, weights_BT)))
    dx_BTD = jnp.moveaxis(dx, 0, 1).reshape(x_BTD.shape[0], -1, x_BTD.shape[2])[:, : x_BTD.shape[1]]
    return total, (dx_BTD, dtable_DV.T.astype(table_VD.dtype))


def _backward(positions, saved, dtotal):
    del positions
    dx_BTD, dtable_VD = saved
    return dx_BTD * dtotal.astype(dx_BTD.dtype), dtable_VD * dtotal.astype(dtable_VD.dtype), None, None, None


_projected.defvjp(_forward, _backward)


def _piece(x_BCD, labels_BC, weights_BC, table_VD, mean_D, smoothing):
    """(sum of weight · loss, its gradient into the logits) of some tokens; `mean_D` is the mean of the table's rows.

    The mean of a token's logits is x · mean, so that nothing but maximum and exp has to read all of them.
    """
    dtype, vocabulary = weights_BC.dtype, table_VD.shape[0]
    logits_BCV = jnp.einsum("bcd,vd->bcv", x_BCD, table_VD, preferred_element_type=dtype)
    label_BC = jnp.take_along_axis(logits_BCV, labels_BC[..., None], axis=-1)[..., 0]
    mean_BC = (x_BCD.astype(dtype) * mean_D).sum(-1)
    top_BC1 = logits_BCV.max(-1, keepdims=True)
    exp_BCV = jnp.exp(logits_BCV - top_BC1)
    total_BC1 = exp_BCV.sum(-1, keepdims=True)
    loss_BC = (top_BC1 + jnp.log(total_BC1))[..., 0] - (1 - smoothing) * label_BC - smoothing * mean_BC
    is_label = jnp.arange(vocabulary) == labels_BC[..., None]
    wanted_BCV = jnp.where(is_label, 1 - smoothing, 0.0) + smoothing / vocabulary
    weights_BC1 = weights_BC[..., None]
    return (loss_BC * weights_BC).sum(), exp_BCV * (weights_BC1 / total_BC1) - weights_BC1 * wanted_BCV


def _split(positions: int, *arrays_BT):
    """Each array (B, T, …) as (pieces, B, positions, …), the last piece filled up with zeros."""

    def split(x):
        fill = -x.shape[1] % positions
        x = jnp.pad(x, ((0, 0), (0, fill)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], -1, positions, *x.shape[2:]), 1, 0)

    return tuple(split(x) for x in arrays_BT)
