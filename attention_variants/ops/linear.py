"""The linear route: weights that are inner products of features, in time and memory proportional to length.

    out_i = ψ(q_i) · [Σ_j e^{m_j} ψ(k_j) v_jᵀ] / ψ(q_i) · [Σ_j e^{m_j} ψ(k_j)]

(Katharopoulos et al. 2020, equations 5 and 6; here exact, with whatever features a score has in `as_kernel`.) The sums over keys
are made block by block, relative to the largest log-magnitude m so far; features exist for a block at a time, and are made again
backward. With a causal mask each block of queries reads the sum of all blocks of keys before its own, and its own densely; these
sums, of as many numbers as a head has features times values, are kept for each block when there are gradients.
"""

import jax
import jax.numpy as jnp
from jax import lax

from attention_variants.ops.dense import masked_logits
from attention_variants.ops.masks import Mask
from attention_variants.ops.products import to_queries
from attention_variants.ops.scores import float32, length
from attention_variants.ops.varying import alike

BLOCK = 256  # queries, and keys, at a time, at the most …
AT_ONCE = 2**24  # … and that many features in all, but of no fewer than 16 of them
PRECISE = lax.Precision.HIGHEST  # the weights are sums of features that cancel, and GPUs round to 10 bits by default


def refusal(queries, keys, *, score, mask: Mask, bias, dropout) -> str | None:
    """Why the route cannot take this, or None where it can."""
    if jax.eval_shape(score.as_kernel, queries, keys) is None:
        return f"{type(score).__name__} has no as_kernel"
    if dropout is not None:
        return "weights that are never made cannot be dropped"
    if bias is not None:
        return "a bias is no inner product of features"
    if mask.window is not None or mask.others or mask.dense is not None or mask.q_segments is not None:
        return "it knows causal=True and padding, and no other mask"
    causal_by_place = mask.q_at is None and mask.k_at is None and length(queries) == length(keys)
    return None if not mask.causal or causal_by_place else "causal=True wants as many queries as keys, without positions"


def route(queries, keys, v_BSHV, *, score, mask: Mask, bias, dropout):
    """(out_BQHV in v's type, log_normaliser_BHQ in float32) of what is not refused by `refusal`."""
    del bias, dropout
    batch, k_length, heads, v_size = v_BSHV.shape
    q_length, dtype = length(queries), float32(v_BSHV).dtype
    ones = jnp.ones((*v_BSHV.shape[:3], 1), dtype)
    values = jnp.concatenate([float32(v_BSHV), ones], -1)  # the sums of weights are those of ones
    valid_BS = jnp.ones((batch, k_length), bool) if mask.k_valid is None else jnp.broadcast_to(mask.k_valid, (batch, k_length))

    def scaled(queries, keys, valid):
        psi_q, psi_k, scale_BSH = score.as_kernel(queries, keys)
        scale_BSH = jnp.zeros(psi_k.shape[:3], dtype) if scale_BSH is None else scale_BSH
        return psi_q, psi_k, jnp.where(valid[..., None], scale_BSH, -jnp.inf)

    @jax.checkpoint
    def add(carry, keys, values, valid):
        """The sums with a block of keys more."""
        top_BH, sums_BHFV = carry
        first = jax.tree.map(lambda x: x[:, :1], queries)  # features of keys are asked for alone
        _, psi_BSHF, scale_BSH = scaled(first, keys, valid)
        new_BH = jnp.maximum(top_BH, lax.stop_gradient(scale_BSH).max(1))
        finite_BH = jnp.where(jnp.isfinite(new_BH), new_BH, 0.0)
        weighted_BSHF = psi_BSHF * jnp.exp(scale_BSH - finite_BH[:, None])[..., None]
        sums_BHFV = sums_BHFV * jnp.exp(top_BH - finite_BH)[..., None, None]
        return new_BH, sums_BHFV + jnp.einsum("bshf,bshv->bhfv", weighted_BSHF, values, precision=PRECISE)

    @jax.checkpoint
    def read(carry, queries):
        """(top_BH, Σ_j weight v_j of a block of queries, with that of ones last) of the sums."""
        top_BH, sums_BHFV = carry
        first = jax.tree.map(lambda x: x[:, :1], keys)
        psi_BQHF, _, _ = scaled(queries, first, valid_BS[:, :1])
        return top_BH, jnp.einsum("bqhf,bhfv->bqhv", psi_BQHF, sums_BHFV, precision=PRECISE)

    @jax.checkpoint
    def both(carry, queries, keys, values, valid):
        """A block of queries over the sums of what was before, and over its own keys, causally; relative to its own largest."""
        logits_BHQS = masked_logits(queries, keys, score=score, mask=Mask(causal=True, k_valid=valid), bias=None)
        before_BH, read_BQHV = read(carry, queries)
        top_BHQ = jnp.maximum(before_BH[..., None], lax.stop_gradient(logits_BHQS).max(-1))
        finite_BHQ = jnp.where(jnp.isfinite(top_BHQ), top_BHQ, 0.0)
        own_BQHV = to_queries(jnp.exp(logits_BHQS - finite_BHQ[..., None]), values)
        shrink_BHQ = jnp.exp(before_BH[..., None] - finite_BHQ)
        return top_BHQ, own_BQHV + read_BQHV * shrink_BHQ.swapaxes(1, 2)[..., None]

    size = jax.eval_shape(lambda: scaled(queries, keys, valid_BS))[0].shape[-1]
    block = min(BLOCK, max(16, AT_ONCE // (batch * heads * size)))
    of_keys, of_queries = _blocked((keys, values, valid_BS), block), _blocked(queries, block)
    start = jnp.full((batch, heads), -jnp.inf, dtype), jnp.zeros((batch, heads, size, v_size + 1), dtype)
    start, _ = alike(start, (queries, keys, v_BSHV, score))
    if mask.causal:
        step = lambda carry, block: (add(carry, *block[1:]), both(carry, block[0], *block[1:]))
        _, (top_NBHQ, read_NBQHV) = lax.scan(step, start, (of_queries, *of_keys))
        top_BHQ = jnp.moveaxis(top_NBHQ, 0, 2).reshape(batch, heads, -1)[..., :q_length]
    else:
        sums, _ = lax.scan(lambda carry, block: (add(carry, *block), None), start, of_keys)
        _, read_NBQHV = lax.scan(lambda _, block: (None, read(sums, block)[1]), None, of_queries)
        top_BHQ = jnp.broadcast_to(sums[0][..., None], (batch, heads, q_length))
    read_BQHV = jnp.moveaxis(read_NBQHV, 0, 1).reshape(batch, -1, heads, v_size + 1)[:, :q_length]
    total_BHQ = read_BQHV[..., -1].swapaxes(1, 2)
    seen_BHQ = jnp.isfinite(top_BHQ)
    if mask.q_valid is not None:
        seen_BHQ &= jnp.broadcast_to(mask.q_valid, (batch, q_length))[:, None]
    total_BHQ = jnp.where(seen_BHQ, total_BHQ, 1.0)
    out_BQHV = jnp.where(seen_BHQ, 1 / total_BHQ, 0.0).swapaxes(1, 2)[..., None] * read_BQHV[..., :-1]
    log_normaliser_BHQ = jnp.where(seen_BHQ, jnp.where(seen_BHQ, top_BHQ, 0.0) + jnp.log(total_BHQ), -jnp.inf)
    return out_BQHV.astype(v_BSHV.dtype), log_normaliser_BHQ


def _blocked(tree, block: int):
    """Arrays (B, length, …) as (blocks, B, block, …), padded at the end with zeros; in blocks no longer than they are."""

    def one(x):
        size = min(block, x.shape[1])
        padded = jnp.pad(x, [(0, -x.shape[1] % size if axis == 1 else 0) for axis in range(x.ndim)])
        return jnp.moveaxis(padded.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

    return jax.tree.map(one, tree)
