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
from attention_variants.ops.products import inner, to_keys, to_queries
from attention_variants.ops.scores import float32, length
from attention_variants.ops.varying import alike


class _Context(NamedTuple):
    """What is not differentiated, besides the static blocks."""

    mask: Mask
    dropout: Dropout | None


def route(queries, keys, v_BSHV, *, score, mask, bias, dropout):
    """(out_BQHV in v's type, log_normaliser_BHQ in float32) of prepared queries and keys."""
    batch, k_length, heads, _ = v_BSHV.shape
    blocks = blocks_lib.choose(batch * heads, length(queries), k_length, jax.default_backend())
    return _attend(blocks, *alike(queries, keys, v_BSHV, score, bias, _Context(mask, dropout)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(blocks, queries, keys, v_BSHV, score, bias, context):
    return _value(blocks, queries, keys, v_BSHV, score, bias, context)


def _value(blocks, queries, keys, v_BSHV, score, bias, context):
    dtype = float32(v_BSHV).dtype
    batch, k_length, heads, v_size = v_BSHV.shape
    q_length = length(queries)
    visited = blocks_lib.visited(context.mask, blocks, q_length, k_length)

    def of_queries(carry, block):
        i, seen = block
        q_at, _ = blocks_lib.place(i, blocks.queries, q_length)
        cut_q = functools.partial(blocks_lib.cut, at=q_at, size=blocks.queries)

        def visit(carry, j):
            top, total, out = carry
            k_at, fresh = blocks_lib.place(j, blocks.keys, k_length)
            cut_k = functools.partial(blocks_lib.cut, at=k_at, size=blocks.keys)
            logits = masked_logits(cut_q(queries), cut_k(keys), score=score, mask=context.mask, bias=bias, starts=(q_at, k_at))
            logits = jnp.where(fresh, logits, -jnp.inf)
            new_top = jnp.maximum(top, logits.max(-1))
            finite = jnp.where(jnp.isfinite(new_top), new_top, 0.0)
            shrink = jnp.exp(top - finite)
            weights = jnp.exp(logits - finite[..., None])
            total = total * shrink + weights.sum(-1)
            weights = dropout_lib.drop(weights, context.dropout, (0, q_at, k_at))
            out = out * shrink.swapaxes(1, 2)[..., None] + to_queries(weights.astype(v_BSHV.dtype), cut_k(v_BSHV))
            return new_top, total, out

        total = jnp.zeros((batch, heads, blocks.queries), dtype)
        out = jnp.zeros((batch, blocks.queries, heads, v_size), dtype)
        start, _ = alike((jnp.full_like(total, -jnp.inf), total, out), v_BSHV)
        top, total, out = blocks_lib.each(visit, start, seen, skip=not visited.all())
        empty = total == 0
        total = jnp.where(empty, 1.0, total)
        out = (out / total.swapaxes(1, 2)[..., None]).astype(v_BSHV.dtype)
        put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=q_at)
        return (put(carry[0], out, axis=1), put(carry[1], jnp.where(empty, -jnp.inf, top + jnp.log(total)), axis=2)), None

    whole = jnp.zeros((batch, q_length, heads, v_size), v_BSHV.dtype), jnp.zeros((batch, heads, q_length), dtype)
    return lax.scan(of_queries, alike(whole, v_BSHV)[0], (jnp.arange(len(visited)), visited))[0]


def _forward(blocks, queries, keys, v_BSHV, score, bias, context):
    out, log_normaliser = _value(blocks, queries, keys, v_BSHV, score, bias, context)
    return (out, log_normaliser), (queries, keys, v_BSHV, score, bias, context, out, log_normaliser)


def _backward(blocks, saved, cotangents):
    queries, keys, v_BSHV, score, bias, context, out, log_normaliser = saved
    dout, dlog_normaliser = cotangents
    q_length, k_length = length(queries), v_BSHV.shape[1]
    visited = blocks_lib.visited(context.mask, blocks, q_length, k_length)
    normaliser = jnp.where(jnp.isfinite(log_normaliser), log_normaliser, 0.0)
    inner_BHQ = jnp.einsum("bqhv,bqhv->bhq", float32(dout), float32(out)) - dlog_normaliser
    zeros = functools.partial(jax.tree.map, lambda x: alike(jnp.zeros(x.shape, float32(x).dtype), v_BSHV)[0])

    def of_keys(carry, block):
        j, seen = block
        dqueries, dkeys, dv, dterms = carry
        k_at, k_fresh = blocks_lib.place(j, blocks.keys, k_length)
        block_keys, v = blocks_lib.cut((keys, v_BSHV), k_at, blocks.keys)

        def visit(carry, i):
            dqueries, dkeys, dv, dterms = carry
            q_at, q_fresh = blocks_lib.place(i, blocks.queries, q_length)
            block_queries, dout_i = blocks_lib.cut((queries, dout), q_at, blocks.queries)
            row = functools.partial(lax.dynamic_slice_in_dim, start_index=q_at, slice_size=blocks.queries, axis=2)
            drop = functools.partial(dropout_lib.drop, dropout=context.dropout, starts=(0, q_at, k_at))

            def logits_of(queries, keys, terms):
                score, bias = terms
                return masked_logits(queries, keys, score=score, mask=context.mask, bias=bias, starts=(q_at, k_at))

            logits, pull = jax.vjp(logits_of, block_queries, block_keys, (score, bias))
            fresh = q_fresh[:, None] & k_fresh
            weights = jnp.where(fresh, jnp.exp(logits - row(normaliser)[..., None]), 0.0)
            dv = dv + to_keys(drop(weights).astype(dout.dtype), dout_i)
            dweights = drop(inner(dout_i, v))
            dq, dk, more = pull(weights * (dweights - row(inner_BHQ)[..., None]))
            return blocks_lib.add_at(dqueries, dq, q_at), jax.tree.map(jnp.add, dkeys, dk), dv, jax.tree.map(jnp.add, dterms, more)

        start = (dqueries, *zeros((block_keys, v)), dterms)
        dqueries, dkeys_j, dv_j, dterms = blocks_lib.each(visit, start, seen, skip=not visited.all())
        return (dqueries, blocks_lib.add_at(dkeys, dkeys_j, k_at), blocks_lib.add_at(dv, dv_j, k_at), dterms), None

    primals = (queries, keys, v_BSHV, (score, bias))
    grads, _ = lax.scan(of_keys, zeros(primals), (jnp.arange(visited.shape[1]), visited.T))
    dqueries, dkeys, dv, (dscore, dbias) = jax.tree.map(lambda x, g: g.astype(x.dtype), primals, grads)
    return dqueries, dkeys, dv, dscore, dbias, None


_attend.defvjp(_forward, _backward)
