"""The three products of attention, between queries, keys and what stands at every pair of them.

    inner_ij = q_i · k_j,   to_queries_i = Σ_j w_ij x_j,   to_keys_j = Σ_i w_ij x_i

The gradients of each are the other two:

    inner:       dq = to_queries(d, k),   dk = to_keys(d, q)
    to_queries:  dw = inner(d, x),        dx = to_keys(w, d)
    to_keys:     dw = inner(x, d),        dx = to_queries(w, d)

They are primitives for the sake of `to_keys`, in which the summed axis is the first of both factors. XLA has no fast product for
that on a CPU and copies a factor; which one, and when, is said here and not left to the rules of JAX. Otherwise they are used as
`jnp.einsum` is: any order of differentiation, `vmap`, `jit`, `jax.default_matmul_precision`; only a policy of `jax.checkpoint`
that looks for `dot_general` does not find them. All are accumulated and returned in at least float32.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from attention_variants.ops.varying import alike

# The axis of the first factor that is summed over, by the primitive's name.
SUMMED = {"inner": 3, "to_queries": 3, "to_keys": 2}


def inner(q_BQHK: jax.Array, k_BSHK: jax.Array) -> jax.Array:
    """Inner products of queries and keys: (B, H, Q, S)."""
    return _bind(_inner, q_BQHK, k_BSHK)


def to_queries(w_BHQS: jax.Array, x_BSHV: jax.Array) -> jax.Array:
    """Σ_j w_ij x_j: (B, Q, H, V)."""
    return _bind(_to_queries, w_BHQS, x_BSHV)


def to_keys(w_BHQS: jax.Array, x_BQHV: jax.Array) -> jax.Array:
    """Σ_i w_ij x_i: (B, S, H, V)."""
    return _bind(_to_keys, w_BHQS, x_BQHV)


def _bind(primitive: Primitive, first, second, precision: str | None = None):
    """The precision is asked for now: where a primitive is lowered, the caller's context is gone."""
    return primitive.bind(*alike(first, second), precision=precision or jax.config.jax_default_matmul_precision)


def _per_head(a, b, contracted, batch, precision):
    """`jnp.einsum` would not keep the factors in this order."""
    wide = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return lax.dot_general(a, b, (contracted, batch), precision=precision, preferred_element_type=wide)


def _inner_as_dot(q_BQHK, k_BSHK, *, precision=None):
    return _per_head(q_BQHK, k_BSHK, ((3,), (3,)), ((0, 2), (0, 2)), precision)


def _to_queries_as_dot(w_BHQS, x_BSHV, *, precision=None):
    return _per_head(w_BHQS, x_BSHV, ((3,), (1,)), ((0, 1), (0, 2)), precision).transpose(0, 2, 1, 3)


def _to_keys_as_dot(w_BHQS, x_BQHV, *, precision=None):
    return _per_head(w_BHQS, x_BQHV, ((2,), (1,)), ((0, 1), (0, 2)), precision).transpose(0, 2, 1, 3)


def _to_keys_on_cpu(w_BHQS, x_BQHV, *, precision=None):
    """Copies the narrower factor: x where it comes first; w where the barrier keeps XLA from undoing it."""
    if w_BHQS.shape[-1] > x_BQHV.shape[-1]:
        return _per_head(x_BQHV, w_BHQS, ((1,), (2,)), ((0, 2), (0, 1)), precision).transpose(0, 3, 1, 2)
    w_BHSQ = lax.optimization_barrier(w_BHQS.swapaxes(2, 3))
    return _per_head(w_BHSQ, x_BQHV, ((3,), (1,)), ((0, 1), (0, 2)), precision).transpose(0, 2, 1, 3)


def _primitive(name: str, product, d_first, d_second, on_cpu=None) -> Primitive:
    """A bilinear one: `product` in operations of JAX; `_bind` makes its gradients of d_first(d, second) and d_second(d, first).

    A batching axis is merged into B, the first of every array, as its minor part: a B over devices stays where it is.
    """
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames="precision"))
    primitive.def_abstract_eval(lambda *operands, precision: jax.make_jaxpr(product)(*operands).out_avals[0])
    mlir.register_lowering(primitive, mlir.lower_fun(product, multiple_results=False))
    if on_cpu:
        mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    ad.defbilinear(
        primitive,
        lambda d, first, second, *, precision: _bind(*d_first(d, second), precision).astype(first.aval.dtype),
        lambda d, first, second, *, precision: _bind(*d_second(d, first), precision).astype(second.aval.dtype),
    )

    def batched(operands, axes, *, precision):
        size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)

        def merged(x, axis):
            x = jnp.repeat(x[:, None], size, 1) if axis is None else jnp.moveaxis(x, axis, 1)
            return x.reshape(x.shape[0] * size, *x.shape[2:])

        out = _bind(primitive, *map(merged, operands, axes), precision)
        return out.reshape(out.shape[0] // size, size, *out.shape[1:]), 1

    batching.primitive_batchers[primitive] = batched
    return primitive


_inner = _primitive("inner", _inner_as_dot, lambda d, k: (_to_queries, d, k), lambda d, q: (_to_keys, d, q))
_to_queries = _primitive("to_queries", _to_queries_as_dot, lambda d, x: (_inner, d, x), lambda d, w: (_to_keys, w, d))
_to_keys = _primitive("to_keys", _to_keys_as_dot, lambda d, x: (_inner, x, d), lambda d, w: (_to_queries, w, d), _to_keys_on_cpu)
