"""The blockwise route: any score in memory proportional to length, forward and backward.

    out_i = Σ_j exp(logit_ij − L_i) v_j,   L_i = log Σ_j exp(logit_ij)

Forward, a running maximum and a running sum over blocks of keys (Milakov and Gimelshein 2018, algorithm 3; Rabe and Staats
2021). Backward, each block of logits is computed again from the saved L (Dao et al. 2022, algorithm 4), and `jax.vjp` carries
its gradient into queries, keys, and every leaf of the score and the bias, whatever they compute:

    dlogit_ij = w_ij (dout_i · v_j − dout_i · out_i + dL_i),   w_ij = exp(logit_ij − L_i),   dv_j = Σ_i w_ij dout_i

Where a length is no multiple of its block, the last block ends at the end and overlaps the one before it; what was seen there
is hidden, so that nothing is padded. Blocks that a causal mask or a window hides are never visited.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attention_variants.ops import blocks as blocks_lib
from attention_variants.ops import dropout as dropout_lib
from attention_variants.ops.dense import masked_logits
from attention_variants.ops.dropout import Dropout
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import float32, length


class _Context(NamedTuple):
    """What is not differentiated, besides the static blocks."""

    mask: Mask
    dropout: Dropout | None


def route(queries, keys, v_BSHV, *, score, mask, bias, dropout):
    """(out_BQHV in v's type, log_normaliser_BHQ in float32) of prepared queries and keys."""
    batch, k_length, heads, _ = v_BSHV.shape
    blocks = blocks_lib.choose(batch * heads, length(queries), k_length, jax.default_backend())
    return _attend(blocks, queries, keys, v_BSHV, score, bias, _Context(mask, dropout))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(blocks, queries, keys, v_BSHV, score, bias, context):
    dtype = float32(v_BSHV).dtype
    batch, k_length, heads, v_size = v_BSHV.shape
    q_length = length(queries)

    def visit(carry, pair):
        top, total, out = carry
        q_at, k_at, fresh = blocks_lib.place(pair, blocks, q_length, k_length)
        cut_q = functools.partial(blocks_lib.cut, at=q_at, size=blocks.queries)
        cut_k = functools.partial(blocks_lib.cut, at=k_at, size=blocks.keys)
        logits = masked_logits(cut_q(queries), cut_k(keys), score=score, mask=context.mask, bias=bias, starts=(q_at, k_at))
        logits = jnp.where(fresh, logits, -jnp.inf)
        old_top = cut_q(top)
        new_top = jnp.maximum(old_top, logits.max(-1).swapaxes(1, 2))
        finite = jnp.where(jnp.isfinite(new_top), new_top, 0.0)
        shrink = jnp.exp(old_top - finite)
        weights = jnp.exp(logits - finite.swapaxes(1, 2)[..., None])
        new_total = cut_q(total) * shrink + weights.sum(-1).swapaxes(1, 2)
        weights = dropout_lib.drop(weights, context.dropout, (0, q_at, k_at))
        new_out = cut_q(out) * shrink[..., None] + _weigh(weights, cut_k(v_BSHV), "bhqs,bshv->bqhv")
        put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=q_at, axis=1)
        return (put(top, new_top), put(total, new_total), put(out, new_out)), None

    top = jnp.full((batch, q_length, heads), -jnp.inf, dtype)
    total, out = jnp.zeros_like(top), jnp.zeros((batch, q_length, heads, v_size), dtype)
    pairs = blocks_lib.pairs(context.mask, blocks, q_length, k_length)
    (top, total, out), _ = lax.scan(visit, (top, total, out), pairs)
    empty = total == 0
    total = jnp.where(empty, 1.0, total)
    log_normaliser = jnp.where(empty, -jnp.inf, top + jnp.log(total))
    return (out / total[..., None]).astype(v_BSHV.dtype), log_normaliser.swapaxes(1, 2)


def _forward(blocks, queries, keys, v_BSHV, score, bias, context):
    out, log_normaliser = _attend(blocks, queries, keys, v_BSHV, score, bias, context)
    return (out, log_normaliser), (queries, keys, v_BSHV, score, bias, context, out, log_normaliser)


def _backward(blocks, saved, cotangents):
    queries, keys, v_BSHV, score, bias, context, out, log_normaliser = saved
    dout, dlog_normaliser = cotangents
    q_length, k_length = length(queries), v_BSHV.shape[1]
    normaliser = jnp.where(jnp.isfinite(log_normaliser), log_normaliser, 0.0)
    inner_BHQ = jnp.einsum("bqhv,bqhv->bhq", float32(dout), float32(out)) - dlog_normaliser

    def visit(grads, pair):
        q_at, k_at, fresh = blocks_lib.place(pair, blocks, q_length, k_length)
        cut_q = functools.partial(blocks_lib.cut, at=q_at, size=blocks.queries)
        cut_k = functools.partial(blocks_lib.cut, at=k_at, size=blocks.keys)
        row = functools.partial(lax.dynamic_slice_in_dim, start_index=q_at, slice_size=blocks.queries, axis=2)

        def logits_of(queries, keys, score, bias):
            return masked_logits(queries, keys, score=score, mask=context.mask, bias=bias, starts=(q_at, k_at))

        logits, pull = jax.vjp(logits_of, cut_q(queries), cut_k(keys), score, bias)
        weights = jnp.where(fresh, jnp.exp(logits - row(normaliser)[..., None]), 0.0)
        drop = functools.partial(dropout_lib.drop, dropout=context.dropout, starts=(0, q_at, k_at))
        dv = _weigh(drop(weights), cut_q(dout), "bhqs,bqhv->bshv")
        dweights = drop(jnp.einsum("bqhv,bshv->bhqs", cut_q(dout), cut_k(v_BSHV), preferred_element_type=inner_BHQ.dtype))
        dq, dk, dscore, dbias = pull(weights * (dweights - row(inner_BHQ)[..., None]))
        at_queries, at_keys, at_values, whole = grads
        grads = (
            blocks_lib.add_at(at_queries, dq, q_at),
            blocks_lib.add_at(at_keys, dk, k_at),
            blocks_lib.add_at(at_values, dv, k_at),
            jax.tree.map(jnp.add, whole, (dscore, dbias)),
        )
        return grads, None

    primals = (queries, keys, v_BSHV, (score, bias))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, float32(x).dtype), primals)
    grads, _ = lax.scan(visit, zeros, blocks_lib.pairs(context.mask, blocks, q_length, k_length))
    dq, dk, dv, (dscore, dbias) = jax.tree.map(lambda x, g: g.astype(x.dtype), primals, grads)
    return dq, dk, dv, dscore, dbias, None


_attend.defvjp(_forward, _backward)


def _weigh(weights, x, formula: str):
    """The einsum of float32 weights, rounded to the type of `x`, accumulated in float32 at least."""
    return jnp.einsum(formula, weights.astype(x.dtype), x, preferred_element_type=float32(x).dtype)
