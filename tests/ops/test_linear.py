"""The linear route is the dense one, in values and gradients, whatever the mask, the blocks and the magnitudes."""

import re

import jax
import jax.numpy as jnp
import pytest
from cases.variants import B, H, K, V, assert_close, draw

from attention_variants.errors import InputError
from attention_variants.ops import linear
from attention_variants.ops.attend import attend, attend_prepared
from attention_variants.ops.biases import Alibi
from attention_variants.ops.dropout import Dropout
from attention_variants.ops.magnitudes import Magnitude
from attention_variants.ops.masks import Mask
from attention_variants.ops.rotary import Rotary
from attention_variants.ops.scores import DotProduct
from attention_variants.ops.spectral import MAPS, Spectral

N = 23
VALID = jnp.arange(N)[None] >= jnp.array([[12], [0]])
MASKS = {
    "none": Mask(),
    "causal": Mask(causal=True),
    "padding": Mask(k_valid=VALID, q_valid=jnp.arange(N)[None] != 4),
    "causal, padding, empty rows": Mask(causal=True, k_valid=VALID, q_valid=jnp.arange(N)[None] != 4),
    "all of it padding": Mask(causal=True, k_valid=jnp.zeros((1, N), bool)),
}


def given(dtype=jnp.float32):
    q, k, v = draw(1, B, N, H, K), draw(2, B, N, H, K), draw(3, B, N, H, V)
    w1, w2 = 0.1 * draw(4, K, H, 4), 0.1 * draw(5, K, H, 4)
    return jax.tree.map(lambda x: x.astype(dtype), (q, k, v, w1, w2))


def outcome(route, mask, positive="squared", magnitude=None, dtype=jnp.float32):
    def total(q, k, v, w1, w2):
        score = Spectral(w1, w2, positive, magnitude=magnitude)
        prepared = score.prepare_queries(q), score.prepare_keys(k)
        out, log_normaliser = attend_prepared(*prepared, v, score=score, mask=mask, route=route)
        finite = jnp.where(jnp.isfinite(log_normaliser), log_normaliser, 0.0)
        return (out * draw(7, *out.shape)).sum() + finite.sum(), (out, log_normaliser)

    (_, found), grads = jax.jit(jax.value_and_grad(total, argnums=range(5), has_aux=True))(*given(dtype))
    return found, grads


@pytest.mark.parametrize("block", [1, 8, 23, 100])
@pytest.mark.parametrize("mask", MASKS)
def test_linear_is_dense_for_every_mask_and_block(mask, block, monkeypatch):
    """Blocks that do not divide the length; one element at a time; the whole at once."""
    monkeypatch.setattr(linear, "BLOCK", block)
    assert_close(
        outcome("linear", MASKS[mask], magnitude=Magnitude(p=3.0)), outcome("dense", MASKS[mask], magnitude=Magnitude(p=3.0)), 1e-4
    )


@pytest.mark.parametrize("magnitude", [None, Magnitude(p=3.0)])
def test_it_takes_rotary_positions(magnitude):
    """Features of what is rotated; and the magnitude of what is not."""
    q, k, v, w1, w2 = given()
    score = Rotary(Spectral(w1, w2, magnitude=magnitude))
    run = lambda route: attend(q, k, v, score=score, mask=MASKS["padding"], route=route)
    assert_close(run("linear"), run("dense"), 1e-4)


@pytest.mark.parametrize("positive", MAPS)
@pytest.mark.parametrize("magnitude", [None, Magnitude(p=1.5, power="p")])
def test_linear_in_float64_is_dense_to_1e_10(positive, magnitude, monkeypatch):
    monkeypatch.setattr(linear, "BLOCK", 8)
    with jax.enable_x64(True):
        one, other = (outcome(route, MASKS["causal"], positive, magnitude, jnp.float64) for route in ("linear", "dense"))
        assert_close(one, other, 1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "largest", "slower", "tolerance"), [("float32", 200, 30, 1e-4), ("float64", 2000, 1, 1e-9)])
def test_a_later_key_of_any_magnitude_hides_nothing_from_earlier_queries(causal, dtype, largest, slower, tolerance, monkeypatch):
    """Log-magnitudes from 0 to more than exponentials can be of, in the same block and in others.

    The frequencies of float32 are so low that no κ is near 0: there, a sum of products has not the digits of the square of a sum.
    """
    monkeypatch.setattr(linear, "BLOCK", 8)
    with jax.enable_x64(dtype == "float64"):
        q, k, v, w1, w2 = given(dtype)
        k = k * jnp.linspace(0.1, largest**0.5, N, dtype=dtype)[None, :, None, None]
        score, mask = Spectral(w1 / slower, w2 / slower, magnitude=Magnitude()), Mask(causal=causal)
        assert score.prepare_keys(k).log_magnitude_BSH.max() > largest
        one, other = (attend(q, k, v, score=score, mask=mask, route=route) for route in ("linear", "dense"))
        assert_close(one, other, tolerance, relative=True)


@pytest.mark.parametrize(
    ("score", "terms", "why"),
    [
        (DotProduct(), {}, "DotProduct has no as_kernel"),
        (None, {"dropout": Dropout(0.1, jax.random.key(0), jnp.arange(B))}, "cannot be dropped"),
        (None, {"bias": Alibi(H)}, "a bias is no inner product"),
        (None, {"mask": Mask(window=2)}, "no other mask"),
        (None, {"mask": Mask(dense=jnp.ones((1, 1, N, N), bool))}, "no other mask"),
        (None, {"mask": Mask(causal=True, q_at=jnp.arange(N)[None])}, "without positions"),
    ],
)
def test_what_it_cannot_take_is_refused_in_words(score, terms, why):
    q, k, v, w1, w2 = given()
    with pytest.raises(InputError, match=re.escape(why)):
        attend(q, k, v, score=score or Spectral(w1, w2), route="linear", **terms)


def test_memory_does_not_grow_with_the_square_of_the_length():
    """Four times the length takes at most five times the memory; forward and backward."""

    def bytes_of(length):
        shape = lambda *s: jax.ShapeDtypeStruct((1, length, 2, *s), jnp.float32)
        w = jax.ShapeDtypeStruct((8, 2, 4), jnp.float32)
        run = lambda q, k, v, w: attend(q, k, v, score=Spectral(w), mask=Mask(causal=True), route="linear").sum()
        program = jax.jit(jax.grad(run, argnums=(0, 1, 2, 3))).lower(shape(8), shape(8), shape(8), w).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert 0 < bytes_of(8192) < 5 * bytes_of(2048)
