"""Rotary positions around any score (Su et al. 2021, "RoFormer", equation 34)."""

import dataclasses

import jax
import jax.numpy as jnp

from attention_variants.ops.scores import Prepared, Score, float32, with_key_term


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rotary(Score):
    """Queries and keys rotated by angles in proportion to their positions, so that their inner products know the distance.

    The magnitude of a key is taken before the rotation, which leaves 2-norms as they are but no other.
    """

    score: Score
    base: float = dataclasses.field(default=10000.0, metadata={"static": True})

    def prepare_queries(self, q_BQHK, at_BQ=None):
        return self.score.prepare_queries(rotate(q_BQHK, at_BQ, self.base), at_BQ)

    def prepare_keys(self, k_BSHK, at_BS=None) -> Prepared:
        """The rotated keys, and what the rotation took from each key's log-magnitude, (B, S, H), where it takes anything."""
        turned = self.score.prepare_keys(rotate(k_BSHK, at_BS, self.base), at_BS)
        if self.score.magnitude_of_norm:
            return turned, None
        still = self.score.prepare_keys(k_BSHK, at_BS)
        lost_BH1S = self.score.log_magnitude(still) - self.score.log_magnitude(turned)
        shape = (k_BSHK.shape[0], k_BSHK.shape[2], 1, k_BSHK.shape[1])
        return turned, jnp.broadcast_to(lost_BH1S, shape)[:, :, 0].swapaxes(1, 2)

    def log_similarity(self, queries, keys):
        return self.score.log_similarity(queries, keys[0])

    def log_magnitude(self, keys):
        return self.score.log_magnitude(keys[0]) + _over_queries(keys[1])

    def logits(self, queries, keys):
        return self.score.logits(queries, keys[0]) + _over_queries(keys[1])

    def as_dot(self, queries, keys):
        features = self.score.as_dot(queries, keys[0])
        return features if features is None or keys[1] is None else with_key_term(*features, keys[1])

    def as_kernel(self, queries, keys):
        found = self.score.as_kernel(queries, keys[0])
        if found is None or keys[1] is None:
            return found
        return *found[:2], keys[1] if found[2] is None else found[2] + keys[1]


def rotate(x_BQHK: jax.Array, at_BQ: jax.Array | None, base: float = 10000.0) -> jax.Array:
    """Feature i and feature i + K/2 of a vector at position m turned by the angle m · base^(−2i/K).

    Args:
      x_BQHK: (B, Q, H, K); of an odd K the last feature stays. at_BQ: positions (B or 1, Q); by default 0, 1, 2, …
    """
    half = x_BQHK.shape[-1] // 2
    at_BQ = jnp.arange(x_BQHK.shape[1])[None] if at_BQ is None else at_BQ
    rate = base ** (-jnp.arange(half, dtype=jnp.float32) / max(half, 1))
    angle = (at_BQ[..., None].astype(jnp.float32) * rate)[:, :, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right, rest = jnp.split(float32(x_BQHK), (half, 2 * half), axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin, rest], -1).astype(x_BQHK.dtype)


def _over_queries(term_BSH):
    return 0.0 if term_BSH is None else term_BSH.swapaxes(1, 2)[:, :, None, :]
