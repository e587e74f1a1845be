"""Rotary positions: complex rotation by hand, distances only, and magnitudes that are those of the keys before they turn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.ops.masks import Mask
from attention_variants.ops.rotary import Rotary, rotate
from attention_variants.ops.scores import DotProduct, Score, inner

B, Q, S, H, K = 2, 5, 7, 3, 6
AT = np.array([[3, 0, 11, 200, 5, 6, 7], [1, 1, 2, 3, 4, 90, 6]])


def x_of(key: int, length: int, size: int = K):
    return jax.random.normal(jax.random.key(key), (B, length, H, size))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cubic(Score):
    """A dot product and ‖k‖₃, which a rotation changes."""

    def log_similarity(self, queries, keys):
        return inner(queries, keys)

    def log_magnitude(self, keys):
        return (abs(keys) ** 3).sum(-1).swapaxes(1, 2)[:, :, None] ** (1 / 3)


@pytest.mark.parametrize("size", [6, 7, 2, 1])
def test_pairs_of_features_turn_as_complex_numbers(size):
    """x_i + i·x_{i+K/2} is multiplied by exp(i · position · 10000^(−2i/K)); the last of an odd number stays."""
    x, half = np.float64(x_of(0, S, size)), size // 2
    turned = (x[..., :half] + 1j * x[..., half : 2 * half]) * np.exp(
        1j * AT[:, :, None, None] * 10000.0 ** (-np.arange(half) / max(half, 1))
    )
    wanted = np.concatenate([turned.real, turned.imag, x[..., 2 * half :]], -1)
    np.testing.assert_allclose(rotate(jnp.asarray(x, jnp.float32), jnp.asarray(AT)), wanted, atol=1e-4)
    np.testing.assert_allclose(rotate(x_of(0, S, size), None), rotate(x_of(0, S, size), jnp.arange(S)[None]))


def logits(score, q_at, k_at):
    return score.logits(score.prepare_queries(x_of(0, Q), q_at), score.prepare_keys(x_of(1, S), k_at))


@pytest.mark.parametrize("score", [DotProduct(), Cubic()])
def test_only_distances_matter(score):
    q_at, k_at = jnp.asarray(AT[:, :Q]), jnp.asarray(AT)
    near, far = (logits(Rotary(score), q_at + shift, k_at + shift) for shift in (0, 50))
    np.testing.assert_allclose(near, far, atol=2e-4)
    assert float(abs(near - logits(Rotary(score), q_at, k_at + 1)).max()) > 0.1


@pytest.mark.parametrize("score", [DotProduct(), Cubic()])
def test_where_nothing_turns_it_is_the_score_itself(score):
    at = jnp.zeros((1, 1), jnp.int32)
    np.testing.assert_allclose(
        logits(Rotary(score), at, at), score.logits(score.prepare_queries(x_of(0, Q)), score.prepare_keys(x_of(1, S))), atol=1e-6
    )


def test_the_magnitude_is_that_of_the_key_before_it_turns():
    rotary, at = Rotary(Cubic()), jnp.asarray(AT)
    keys = rotary.prepare_keys(x_of(1, S), at)
    np.testing.assert_allclose(rotary.log_magnitude(keys), Cubic().log_magnitude(x_of(1, S)), atol=1e-5)
    assert float(abs(rotary.log_magnitude(keys) - Cubic().log_magnitude(rotate(x_of(1, S), at))).max()) > 0.1
    similarity, whole = (f(rotary.prepare_queries(x_of(0, Q), at[:, :Q]), keys) for f in (rotary.log_similarity, rotary.logits))
    np.testing.assert_allclose(whole, similarity + rotary.log_magnitude(keys), atol=1e-5)


def test_features_give_the_logits():
    rotary, at = Rotary(DotProduct()), jnp.asarray(AT)
    queries, keys = rotary.prepare_queries(x_of(0, Q), at[:, :Q]), rotary.prepare_keys(x_of(1, S), at)
    np.testing.assert_allclose(inner(*rotary.as_dot(queries, keys)), rotary.logits(queries, keys), atol=1e-5)
    assert Rotary(Cubic()).as_dot(queries, keys) is None
    assert Mask().positions(Q, S)[0].shape == (1, Q)
