"""Scores against loops written from the formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.attention import gaussian, growth

from attention_variants.ops.scores import DotProduct, Score, float32, inner

B, Q, S, H, K = 2, 5, 7, 3, 11


def arrays(dtype=jnp.float32):
    draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape).astype(dtype)
    return draw(1, B, Q, H, K), draw(2, B, S, H, K)


def loop(f, q, k):
    """f(query, key) of every pair, in float64."""
    q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
    expected = np.zeros((B, H, Q, S))
    for b, h, i, j in np.ndindex(*expected.shape):
        expected[b, h, i, j] = f(q[b, i, h], k[b, j, h])
    return expected


def test_dot_product_is_scaled_by_the_root_of_the_head_size():
    """logits = q·k / √K."""
    q, k = arrays()
    np.testing.assert_allclose(DotProduct().logits(q, k), loop(lambda q, k: q @ k / np.sqrt(K), q, k), rtol=1e-5, atol=1e-6)


def test_dot_product_is_a_gaussian_similarity_times_a_magnitude():
    """log similarity = −‖q−k‖² / 2√K, log magnitude = ‖k‖² / 2√K."""
    q, k = arrays()
    score = DotProduct()
    np.testing.assert_allclose(score.log_similarity(q, k), np.log(loop(gaussian, q, k)), rtol=1e-5, atol=1e-5)
    expected = np.log(loop(lambda q, k: growth(k), q, k))
    np.testing.assert_allclose(jnp.broadcast_to(score.log_magnitude(k), expected.shape), expected, rtol=1e-5)


def test_similarity_is_at_most_one_and_one_where_query_and_key_agree():
    q, k = arrays()
    k = k.at[:, 4].set(q[:, 3])
    similarity = DotProduct().log_similarity(q, k)
    np.testing.assert_allclose(similarity[:, :, 3, 4], 0, atol=1e-5)
    assert (similarity < 1e-5).all()


def test_products_of_bfloat16_are_accumulated_in_float32():
    """The inner product of bfloat16 numbers is that of the same numbers in float32; so are similarity and magnitude."""
    q, k = arrays(jnp.bfloat16)
    wide = float32(q), float32(k)
    assert inner(q, k).dtype == jnp.float32
    np.testing.assert_allclose(inner(q, k), inner(*wide), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(DotProduct().log_similarity(q, k), DotProduct().log_similarity(*wide), rtol=1e-5)
    np.testing.assert_allclose(DotProduct().log_magnitude(k), DotProduct().log_magnitude(wide[1]), rtol=1e-6)


def test_float32_keeps_what_is_wider():
    with jax.enable_x64(True):
        assert float32(jnp.ones(3, jnp.float64)).dtype == jnp.float64
        assert inner(*(x.astype(jnp.float64) for x in arrays())).dtype == jnp.float64
    for narrow in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert float32(jnp.ones(3, narrow)).dtype == jnp.float32


def test_a_pair_is_a_sequence_of_one_query_and_one_key():
    """logits_EH of edges, as loops over edges and heads."""
    edges = 13
    q, k = (jax.random.normal(jax.random.key(n), (edges, H, K)) for n in (3, 4))
    expected = [[np.dot(q[e, h], k[e, h]) / np.sqrt(K) for h in range(H)] for e in range(edges)]
    np.testing.assert_allclose(DotProduct().pair(q, k), expected, rtol=1e-4, atol=1e-5)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Wide(Score):
    """A score that defines only a similarity, and learns its width."""

    width: jax.Array

    def log_similarity(self, queries, keys):
        return -jnp.square(queries[:, :, None] - keys[:, None]).sum(-1).transpose(0, 3, 1, 2) / self.width


def test_a_score_needs_only_a_similarity():
    """The defaults: nothing prepared, magnitude one, logits their sum, pairs from logits; leaves are what is learned."""
    q, k = arrays()
    score = Wide(jnp.float32(2.0))
    assert jax.tree.leaves(score) == [2.0]
    assert score.prepare_queries(q, None) is q
    assert score.prepare_keys(k, None) is k
    assert score.log_magnitude(k) == 0
    expected = loop(lambda q, k: -((q - k) ** 2).sum() / 2, q, k)
    np.testing.assert_allclose(score.logits(q, k), expected, rtol=1e-5)
    np.testing.assert_allclose(score.pair(q[:, 0], k[:, 0]), expected[:, :, 0, 0], rtol=1e-5)


def test_a_score_without_similarity_is_named():
    class Empty(Score):
        pass

    with pytest.raises(TypeError, match="Empty must define log_similarity"):
        Empty().logits(*arrays())
