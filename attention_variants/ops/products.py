"""The three products of attention, between queries, keys and what stands at every pair of them.

    inner_ij = q_i · k_j,   to_queries_i = Σ_j w_ij x_j,   to_keys_j = Σ_i w_ij x_i

The gradients of each are products of the same kind:

    d inner:  dq = to_queries(d, k),  dk = to_keys(d, q)

`inner` is a primitive for the sake of the last one alone. The rule of JAX puts d first; XLA on a CPU then copies d, as wide as
keys are many, where `to_keys` has it copy q. Everything else is as for `jnp.einsum`: any order of differentiation, `vmap`, `jit`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from attention_variants.ops.varying import alike


def inner(q_BQHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
    """Inner products of queries and keys, accumulated and returned in at least float32: (B, H, Q, S)."""
    return _inner.bind(*alike(q_BQHK, k_BSHK))


def to_queries(w_BHQS: jax.Array, x_BSHV: jax.Array) -> jax.Array:
    """Σ_j w_ij x_j, accumulated and returned in at least float32: (B, Q, H, V)."""
    return _per_head(w_BHQS, x_BSHV, ((3,), (1,)), ((0, 1), (0, 2))).transpose(0, 2, 1, 3)


def to_keys(w_BHQS: jax.Array, x_BQHV: jax.Array) -> jax.Array:
    """Σ_i w_ij x_i, accumulated and returned in at least float32: (B, S, H, V)."""
    return _per_head(x_BQHV, w_BHQS, ((1,), (2,)), ((0, 2), (0, 1))).transpose(0, 3, 1, 2)


def _per_head(a, b, contracted, batch):
    """Factors in the order in which XLA on a CPU is fast, which `jnp.einsum` does not keep."""
    wide = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return lax.dot_general(a, b, (contracted, batch), preferred_element_type=wide)


def _products(q_BQHK, k_BSHK):
    return _per_head(q_BQHK, k_BSHK, ((3,), (3,)), ((0, 2), (0, 2)))


def _batched(operands, axes):
    """The new axis is merged into B."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    put = lambda x, axis: jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
    merged = inner(*(put(x, axis).reshape(-1, *put(x, axis).shape[2:]) for x, axis in zip(operands, axes, strict=True)))
    return merged.reshape(size, -1, *merged.shape[1:]), 0


_inner = Primitive("inner")
_inner.def_impl(jax.jit(_products))
_inner.def_abstract_eval(lambda q, k: jax.make_jaxpr(_products)(q, k).out_avals[0])
mlir.register_lowering(_inner, mlir.lower_fun(_products, multiple_results=False))
batching.primitive_batchers[_inner] = _batched
ad.defbilinear(
    _inner,
    lambda d_BHQS, q, k: to_queries(d_BHQS, k).astype(q.aval.dtype),
    lambda d_BHQS, q, k: to_keys(d_BHQS, q).astype(k.aval.dtype),
)
