"""Biases: terms added to the logits that depend on positions and head only, as small pytrees evaluated per block.

A bias is a callable `bias(q_at_BQ, k_at_BS) -> (B or 1, H, Q, S)` in float32, whose leaves are what is learned.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RelativeBuckets:
    """A learned number per head and bucket of distance (Raffel et al. 2020, section 2.1, and their released code).

    Half of the buckets hold one distance each, the other half ranges that grow logarithmically up to `reach`; beyond, the last.

    Attributes:
      table_NH: the numbers, (buckets, H).
      both_ways: keys before and after the query have buckets of their own, half of them each; else those after share distance 0.
      reach: distance from which on all share the last bucket.

    Raises:
      ValueError: when called, with a table too small for its directions, or a reach within the exact distances.
    """

    table_NH: jax.Array
    both_ways: bool = dataclasses.field(default=True, metadata={"static": True})
    reach: int = dataclasses.field(default=128, metadata={"static": True})

    def __call__(self, q_at_BQ, k_at_BS):
        ahead_BQS = k_at_BS[:, None, :] - q_at_BQ[:, :, None]
        by_distance = self.table_NH[np.array([self.bucket(d) for d in range(-self.reach, self.reach + 1)])]
        bias_BQSH = by_distance[jnp.clip(ahead_BQS, -self.reach, self.reach) + self.reach]
        return jnp.moveaxis(bias_BQSH, -1, 1).astype(jnp.promote_types(self.table_NH.dtype, jnp.float32))

    def bucket(self, ahead: int) -> int:
        """The bucket of a key that is `ahead` positions after its query."""
        buckets, start = self.table_NH.shape[0], 0
        if self.both_ways:
            buckets //= 2
            start, distance = (buckets if ahead > 0 else 0), abs(ahead)
        else:
            distance = max(-ahead, 0)
        exact = buckets // 2
        ranges = buckets - exact
        if not 0 < exact < self.reach:
            least = 4 if self.both_ways else 2
            raise ValueError(
                f"a table of {self.table_NH.shape[0]} buckets, reach {self.reach}; expected at least {least}, and a farther reach"
            )
        if distance < exact:
            return start + distance
        # The range m starts at exact · (reach / exact)^(m / ranges), in whole numbers, which no rounding moves.
        m = sum(distance**ranges >= exact ** (ranges - m) * self.reach**m for m in range(1, ranges))
        return start + exact + m


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Alibi:
    """−m_h |i − j|, with a slope per head that is not learned (Press et al. 2022, "Train short, test long", section 3)."""

    heads: int = dataclasses.field(metadata={"static": True})

    def __call__(self, q_at_BQ, k_at_BS):
        distance_BQS = abs(k_at_BS[:, None, :] - q_at_BQ[:, :, None]).astype(jnp.float32)
        return -jnp.array(self.slopes(), jnp.float32)[:, None, None] * distance_BQS[:, None]

    def slopes(self) -> list[float]:
        """m_h: 2^(−8 h / H) for h = 1 … H; where H is no power of two, every other slope of twice the next lower power follows."""
        whole = 2 ** int(math.log2(self.heads))
        slopes = [2 ** (-8 * h / whole) for h in range(1, whole + 1)]
        return slopes + [2 ** (-4 * h / whole) for h in range(1, 2 * (self.heads - whole), 2)]
