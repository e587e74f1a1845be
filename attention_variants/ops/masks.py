"""Which keys a query may see, as a small pytree that is evaluated per block and never stored as a matrix."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """A query sees a key when everything that is set allows it; `Mask()` allows everything.

    Attributes:
      causal: keys at positions after the query's are hidden (position i of queries and of keys is the same place).
      others: a query does not see the key at its own position.
      window: only keys less than `window` positions away are seen.
      q_valid: (B, Q) bool; a query that is padding sees nothing.
      k_valid: (B, S) bool; a key that is padding is seen by nobody.
      q_segments, k_segments: (B, Q) and (B, S) integers from 0 on; a query sees the keys of its own segment (packed sequences).
      q_at, k_at: (B, Q) or (1, Q), and (B, S) or (1, S), integers, for `causal`, `window`, `others`; by default 0, 1, 2, …
      dense: bool, broadcastable to (B, H, Q, S): compatibility with flax.linen's masks.
    """

    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    window: int | None = dataclasses.field(default=None, metadata={"static": True})
    others: bool = dataclasses.field(default=False, metadata={"static": True})
    q_valid: jax.Array | None = None
    k_valid: jax.Array | None = None
    q_segments: jax.Array | None = None
    k_segments: jax.Array | None = None
    q_at: jax.Array | None = None
    k_at: jax.Array | None = None
    dense: jax.Array | None = None

    def __post_init__(self):
        if (self.q_segments is None) != (self.k_segments is None):
            raise ValueError("a mask takes q_segments and k_segments together, found only one of them")

    def check(self, batch: int, queries: int, keys: int) -> None:
        """Raises ValueError for an array that is not of a batch (or 1) and as many queries and keys (or 1) as there are."""
        per_query, per_key = (batch, queries), (batch, keys)
        expected = dict(q_valid=per_query, q_segments=per_query, q_at=per_query, k_valid=per_key, k_segments=per_key, k_at=per_key)
        for name, shape in expected.items():
            found = getattr(self, name)
            if found is not None and (found.ndim != 2 or any(n not in (1, m) for n, m in zip(found.shape, shape, strict=True))):
                raise ValueError(f"mask.{name} has shape {found.shape}; expected {shape}, or 1 in place of a number")
        if self.dense is not None:
            full = (batch, None, queries, keys)[4 - self.dense.ndim :]
            if self.dense.ndim > 4 or any(m is not None and n not in (1, m) for n, m in zip(self.dense.shape, full, strict=False)):
                raise ValueError(
                    f"mask.dense has shape {self.dense.shape}; expected one that broadcasts to ({batch}, H, {queries}, {keys})"
                )

    @property
    def same_for_all(self) -> bool:
        """Whether all queries of an example, or of a segment, see the same keys, as far as that is known before the arrays are."""
        return not (self.causal or self.others) and self.window is None and self.dense is None

    def may_see(self, q_start: int, q_end: int, k_start: int, k_end: int) -> bool:
        """Whether any query of a block may see any key of a block, as far as that is known before the arrays are."""
        if self.q_at is not None or self.k_at is not None:
            return True
        hidden = self.causal and k_start >= q_end
        if self.window is not None:
            hidden |= k_start - (q_end - 1) >= self.window or q_start - (k_end - 1) >= self.window
        return not hidden

    def positions(self, queries: int, keys: int, q_start=0, k_start=0) -> tuple[jax.Array, jax.Array]:
        """The positions (B or 1, queries) and (B or 1, keys) of a block's queries and keys."""
        q_at = (jnp.arange(queries) + q_start)[None] if self.q_at is None else _cut(self.q_at, q_start, queries)
        k_at = (jnp.arange(keys) + k_start)[None] if self.k_at is None else _cut(self.k_at, k_start, keys)
        return q_at, k_at

    def visible(self, queries: int, keys: int, q_start=0, k_start=0) -> jax.Array | None:
        """What a block of `queries` × `keys` from (q_start, k_start) on may see.

        Returns: bool, broadcastable to (B, H, queries, keys); None where everything is visible.
        """
        parts = []
        if self.causal or self.window is not None or self.others:
            q_at, k_at = self.positions(queries, keys, q_start, k_start)
            ahead_BQS = k_at[:, None, :] - q_at[:, :, None]
            if self.causal:
                parts.append((ahead_BQS <= 0)[:, None])
            if self.others:
                parts.append((ahead_BQS != 0)[:, None])
            if self.window is not None:
                parts.append((abs(ahead_BQS) < self.window)[:, None])
        if self.q_valid is not None:
            parts.append(_cut(self.q_valid, q_start, queries)[:, None, :, None])
        if self.k_valid is not None:
            parts.append(_cut(self.k_valid, k_start, keys)[:, None, None, :])
        if self.q_segments is not None:
            q_in, k_in = _cut(self.q_segments, q_start, queries), _cut(self.k_segments, k_start, keys)
            parts.append((q_in[:, :, None] == k_in[:, None, :])[:, None])
        if self.dense is not None:
            dense = self.dense.astype(bool).reshape((1,) * (4 - self.dense.ndim) + self.dense.shape)
            parts.append(_cut(_cut(dense, q_start, queries, 2), k_start, keys, 3))
        visible = None
        for part in parts:
            visible = part if visible is None else visible & part
        return visible


def _cut(x, start, length: int, axis: int = 1):
    """`length` elements of an axis from `start` on: of as many all, and of one that one, which stands for all."""
    return x if x.shape[axis] in (1, length) else lax.dynamic_slice_in_dim(x, start, length, axis)
