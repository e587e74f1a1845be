"""A score is the logarithm of similarity times magnitude; it is the only thing an attention variant has to define.

    weight_ij = similarity(q_i, k_j) · magnitude(k_j) / Σ_l similarity(q_i, k_l) · magnitude(k_l)

A score is a pytree whose leaves are what is learned. What `prepare_queries` and `prepare_keys` return is any pytree of
arrays whose second axis is the query or key axis: it is computed once per query or key, and the prepared keys are what a
decoding cache stores. All of these are numbers with a fraction (float32, bfloat16, …), so that every route can differentiate them.

A product a_i b_j of one number per query and one per key is best written `inner(a[..., None], b[..., None])`: its gradients are
products, where those of a broadcast multiplication are sums for which XLA takes seven times as long on a CPU.
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from attention_variants.ops.products import inner

Prepared = Any  # a pytree of arrays (B, length, ...)


def float32(x: jax.Array) -> jax.Array:
    """`x` in at least float32: softmax, norms, Grams and losses are never computed in less."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def length(prepared: Prepared) -> int:
    """How many queries or keys there are."""
    return jax.tree.leaves(prepared)[0].shape[1]


class Score:
    """The contract. A subclass is a pytree and defines `log_similarity`, and whatever else differs from the defaults.

    `magnitude_of_norm`: whether `log_magnitude` depends on a key's 2-norm alone, which rotations leave as it is.
    """

    magnitude_of_norm: ClassVar[bool] = False

    def prepare_queries(self, q_BQHK: jax.Array, at_BQ: jax.Array | None = None) -> Prepared:
        """What is computed once per query; `at_BQ` holds positions, for scores that use them."""
        del at_BQ
        return q_BQHK

    def prepare_keys(self, k_BSHK: jax.Array, at_BS: jax.Array | None = None) -> Prepared:
        """What is computed once per key; the decoding cache stores it."""
        del at_BS
        return k_BSHK

    def log_similarity(self, queries: Prepared, keys: Prepared) -> jax.Array:
        """log similarity(q_i, k_j) of every prepared query and key: (B, H, Q, S), float32."""
        raise TypeError(f"{type(self).__name__} must define log_similarity")

    def log_magnitude(self, keys: Prepared) -> jax.Array | float:
        """log magnitude(k_j), broadcast over queries: (B, H, 1, S) or 0, float32."""
        del keys
        return 0.0

    def logits(self, queries: Prepared, keys: Prepared) -> jax.Array:
        """log similarity + log magnitude, up to a term that is constant over the keys: (B, H, Q, S), float32."""
        return self.log_similarity(queries, keys) + self.log_magnitude(keys)

    def as_dot(self, queries: Prepared, keys: Prepared) -> tuple[jax.Array, jax.Array] | None:
        """Features (B, Q, H, F) and (B, S, H, F) whose inner products are `logits`, so that fused kernels can run; None if none.

        What is constant over the keys counts too: the weights are recomputed from the log-normaliser and `logits`.
        """
        del queries, keys
        return None

    def as_kernel(self, queries: Prepared, keys: Prepared) -> tuple[jax.Array, jax.Array, jax.Array | None] | None:
        """Features ψ (B, Q, H, F) and (B, S, H, F) and log-scales m (B, S, H), with exp(logits_ij) = ψ(q_i)·ψ(k_j) e^{m_j}.

        So that attention runs in linear time (`ops.linear`); None where there are none, m None for zeros.
        """
        del queries, keys
        return None

    def pair(self, queries_EHK: jax.Array, keys_EHK: jax.Array) -> jax.Array:
        """The logits on the E edges of a graph, (E, H): each edge is a sequence of one query and one key."""
        queries = self.prepare_queries(queries_EHK[:, None])
        keys = self.prepare_keys(keys_EHK[:, None])
        return self.logits(queries, keys)[:, :, 0, 0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DotProduct(Score):
    """Scaled dot product: logits = q·k / √d (Vaswani et al. 2017, equation 1).

    In the reading of similarity times magnitude: similarity = exp(−‖q−k‖² / 2√d), magnitude = exp(‖k‖² / 2√d);
    the query's own magnitude is constant over the keys and cancels in the softmax.
    """

    magnitude_of_norm = True

    def divisor(self, size: int) -> float:
        """√d."""
        return math.sqrt(size)

    def log_similarity(self, queries, keys):
        queries, keys = float32(queries), float32(keys)
        qq_BHQ1 = jnp.einsum("bqhk,bqhk->bhq", queries, queries)[..., :, None]
        kk_BH1S = jnp.einsum("bshk,bshk->bhs", keys, keys)[..., None, :]
        return -(qq_BHQ1 + kk_BH1S - 2 * inner(queries, keys)) / (2 * self.divisor(keys.shape[-1]))

    def log_magnitude(self, keys):
        keys = float32(keys)
        kk_BH1S = jnp.einsum("bshk,bshk->bhs", keys, keys)[..., None, :]
        return kk_BH1S / (2 * self.divisor(keys.shape[-1]))

    def logits(self, queries, keys):
        return inner(queries / self.divisor(queries.shape[-1]), keys)

    def as_dot(self, queries, keys):
        return queries / self.divisor(queries.shape[-1]), keys


def with_key_term(fq_BQHF: jax.Array, fk_BSHF: jax.Array, term_BSH: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Features, in the type of `fk_BSHF`, whose inner products are those of the given ones plus a term per key (a log-magnitude).

    The term is split into what the features' type holds of it and the rest, two features: in bfloat16 alone it would be off by
    up to 0.4 %, which is a factor in the weights of 1.08 where it is 20.
    """
    term_BSH = float32(term_BSH)
    high = term_BSH.astype(fk_BSHF.dtype)
    low = (term_BSH - high.astype(term_BSH.dtype)).astype(fk_BSHF.dtype)
    ones = jnp.ones((*fq_BQHF.shape[:-1], 2), fk_BSHF.dtype)
    return jnp.concatenate([fq_BQHF.astype(fk_BSHF.dtype), ones], -1), jnp.concatenate([fk_BSHF, jnp.stack([high, low], -1)], -1)
