"""What routes are held against each other on: masks, scores, biases, and an outcome with every gradient there is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from attention_variants.ops import blocks
from attention_variants.ops.attend import attend_prepared
from attention_variants.ops.biases import Alibi, RelativeBuckets
from attention_variants.ops.dropout import Dropout
from attention_variants.ops.masks import Mask
from attention_variants.ops.rotary import Rotary
from attention_variants.ops.scores import DotProduct, Score, float32, inner, with_key_term

B, Q, S, H, K, V = 2, 23, 29, 3, 7, 11
SEGMENTS = np.sort(np.random.default_rng(1).integers(0, 4, (B, S)), axis=1)
MASKS = {
    "all": Mask(),
    "causal": Mask(causal=True),
    "window": Mask(window=3),
    "causal window": Mask(causal=True, window=4),
    "padding and empty rows": Mask(k_valid=np.arange(S) < np.array([[S], [0]]), q_valid=np.arange(Q) < np.array([[20], [3]])),
    "segments": Mask(
        causal=True, q_segments=SEGMENTS[:, :Q], k_segments=SEGMENTS, q_at=np.arange(Q)[None] % 7, k_at=np.arange(S)[None] % 7
    ),
    "dense": Mask(dense=np.random.default_rng(0).random((B, H, Q, S)) < 0.7),
    "nothing at all": Mask(k_valid=np.zeros((B, S), bool)),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Curved(Score):
    """A score with learned parameters, of the dot product and both norms: tanh(a q·k) + b‖k‖^c + exp(−‖q‖²‖k‖²)."""

    a: jax.Array
    b: jax.Array
    c: jax.Array

    def log_similarity(self, queries, keys):
        qq, kk = ((float32(x) ** 2).sum(-1).swapaxes(1, 2) for x in (queries, keys))
        return jnp.tanh(self.a[:, None, None] * inner(queries, keys)) + jnp.exp(-qq[..., None] * kk[:, :, None, :])

    def log_magnitude(self, keys):
        kk = (float32(keys) ** 2).sum(-1).swapaxes(1, 2)[:, :, None, :]
        return self.b * kk ** (self.c / 2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gaussian(Score):
    """−w‖q − k‖² + m‖k‖₄², an inner product of features."""

    width: jax.Array
    magnitude: jax.Array

    def log_similarity(self, queries, keys):
        return -self.width * ((float32(queries)[:, :, None] - float32(keys)[:, None]) ** 2).sum(-1).transpose(0, 3, 1, 2)

    def log_magnitude(self, keys):
        return self._magnitude(keys).swapaxes(1, 2)[:, :, None]

    def logits(self, queries, keys):
        return inner(*self.as_dot(queries, keys))

    def as_dot(self, queries, keys):
        return with_key_term(2 * self.width * queries, keys, self._magnitude(keys) - self.width * (float32(keys) ** 2).sum(-1))

    def _magnitude(self, keys):
        return self.magnitude * (float32(keys) ** 4).sum(-1) ** 0.5


SCORES = {
    "dot product": DotProduct(),
    "curved": Curved(jnp.array([0.3, 0.5, 0.9]), jnp.float32(0.2), jnp.float32(1.3)),
    "gaussian": Gaussian(jnp.float32(0.11), jnp.float32(0.07)),
    "rotary": Rotary(DotProduct()),
    "rotary gaussian": Rotary(Gaussian(jnp.float32(0.11), jnp.float32(0.07))),
}
BIASES = {"none": None, "relative": RelativeBuckets(jax.random.normal(jax.random.key(9), (32, H))), "alibi": Alibi(H)}
DROPOUT = Dropout(0.3, jax.random.key(1), jnp.array([4, 5]))


def arrays(dtype=jnp.float32):
    return [jax.random.normal(jax.random.key(n), s, dtype) / 2 for n, s in enumerate([(B, Q, H, K), (B, S, H, K), (B, S, H, V)])]


def outcome(route, score, q, k, v, *, mask=MASKS["all"], bias=None, dropout=None):
    """((out, log-normaliser, zeros where rows are empty), gradients into (q, k, v, score, bias) of a curved function of both)."""
    return _outcome(q, k, v, score, bias, mask, dropout, route, blocks.choose if route == "blockwise" else None)


@functools.partial(jax.jit, static_argnums=(7, 8))  # once for all laws that give it the same shapes, route and choice of blocks
def _outcome(q, k, v, score, bias, mask, dropout, route, _):
    def run(q, k, v, score, bias):
        at = mask.positions(Q, S)
        queries, keys = score.prepare_queries(q, at[0]), score.prepare_keys(k, at[1])
        out, top = attend_prepared(queries, keys, v, score=score, mask=mask, bias=bias, dropout=dropout, route=route)
        top = jnp.where(jnp.isfinite(top), top, 0.0)
        return jnp.sin(3 * float32(out)).sum() + jnp.cos(top).sum(), (out, top)

    (_, values), grads = jax.value_and_grad(run, argnums=(0, 1, 2, 3, 4), has_aux=True)(q, k, v, score, bias)
    return values, grads


def assert_close(found, wanted, tolerance=1e-5):
    """To the tolerance of the largest number, for each of a sequence's members by itself; and finite."""
    if isinstance(found, tuple):
        for ours, theirs in zip(found, wanted, strict=True):
            assert_close(ours, theirs, tolerance)
        return
    ours, theirs = ([np.float64(x) for x in jax.tree.leaves(tree)] for tree in (found, wanted))
    largest = max((abs(x).max() for x in theirs), default=0)
    for a, b in zip(ours, theirs, strict=True):
        assert np.isfinite(a).all()
        assert np.isfinite(b).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-6, largest))
