"""Dropout: the rate is honoured, and bits depend on key, example and place only."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.ops.dropout import Dropout, drop, kept, mix

SHAPE = B, H, Q, S = 11, 5, 37, 41
ROWS = jnp.array([5, 900, 3, 0, 77, 4, 2**20, 1, 12, 31, 2])
KEY = jax.random.key(7)

keep = jax.jit(kept, static_argnums=(1,))


def five_sigma(p, count):
    return 5 * np.sqrt(p * (1 - p) / count)


def unrelated(a, b):
    """Two masks of rate one half agree in about half of their places."""
    a, b = np.asarray(a), np.asarray(b)
    return abs((a == b).mean() - 0.5) < five_sigma(0.5, a.size)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25, 0.5, 0.9, 0.99])
def test_the_rate_is_honoured(rate):
    """The share of dropped elements is binomial: over the array, and over every row, head, query and key."""
    dropped = ~np.asarray(keep(Dropout(rate, KEY, ROWS), SHAPE))
    assert abs(dropped.mean() - rate) < five_sigma(rate, dropped.size)
    for axis, length in enumerate(SHAPE):
        share = np.moveaxis(dropped, axis, 0).reshape(length, -1).mean(1)
        assert abs(share - rate).max() < five_sigma(rate, dropped.size // length)


def test_no_rate_drops_nothing():
    """Rate 0 is the identity, bit by bit; so is no dropout at all."""
    x = jax.random.normal(KEY, SHAPE)
    np.testing.assert_array_equal(drop(x, Dropout(0.0, KEY, ROWS)), x)
    assert drop(x, None) is x


def test_the_kept_are_scaled_and_the_mean_preserved():
    """Zeros where dropped, x / (1 − rate) elsewhere, in the type of x; the gradient is the same factor."""
    rate = 0.3
    x = 1 + jax.random.uniform(KEY, SHAPE)
    dropout = Dropout(rate, KEY, ROWS)
    factor = np.asarray(keep(dropout, SHAPE)) / np.float32(1 - rate)
    np.testing.assert_allclose(drop(x, dropout), x * factor, rtol=1e-6)
    ones = np.asarray(drop(jnp.ones(SHAPE), dropout))
    assert abs(ones.mean() - 1) < five_sigma(rate, ones.size) / (1 - rate)
    np.testing.assert_allclose(jax.grad(lambda x: drop(x, dropout).sum())(x), factor, rtol=1e-6)
    assert drop(x.astype(jnp.bfloat16), dropout).dtype == jnp.bfloat16


def test_bits_belong_to_the_example():
    """They move with the example's id, whatever the batch it stands in, and its size."""
    whole = keep(Dropout(0.5, KEY, ROWS), SHAPE)
    order = np.random.default_rng(0).permutation(B)
    np.testing.assert_array_equal(keep(Dropout(0.5, KEY, ROWS[order]), SHAPE), whole[order])
    np.testing.assert_array_equal(keep(Dropout(0.5, KEY, ROWS[3:4]), (1, H, Q, S)), whole[3:4])


def test_a_block_is_a_slice_of_the_whole():
    """`starts` are the offsets of the axes after the first; they may be traced."""
    dropout = Dropout(0.5, KEY, ROWS)
    whole = keep(dropout, SHAPE)
    block = jax.jit(lambda *starts: kept(dropout, (B, 2, 3, 4), starts))
    x = jax.random.normal(KEY, SHAPE)
    for h, q, s in [(0, 0, 0), (2, 0, 0), (0, 7, 0), (0, 0, 9), (3, 30, 37)]:
        at = np.s_[:, h : h + 2, q : q + 3, s : s + 4]
        np.testing.assert_array_equal(block(h, q, s), whole[at])
        np.testing.assert_array_equal(drop(x[at], dropout, (h, q, s)), drop(x, dropout)[at])


def test_a_longer_array_has_the_bits_of_a_shorter_one():
    """Padding the sequence does not move a bit."""
    whole = keep(Dropout(0.5, KEY, ROWS), SHAPE)
    np.testing.assert_array_equal(keep(Dropout(0.5, KEY, ROWS), (B, H, 23, 29)), whole[:, :, :23, :29])


def test_keys_draw_unrelated_bits():
    """Neighbouring seeds, folded and split keys (fold_in(key, n) is split(key)[n], so they come from two keys)."""
    keys = [
        KEY,
        *map(jax.random.key, range(3)),
        *(jax.random.fold_in(KEY, n) for n in range(3)),
        *jax.random.split(jax.random.key(8)),
    ]
    masks = [keep(Dropout(0.5, key, ROWS), SHAPE) for key in keys]
    assert all(unrelated(a, b) for a, b in itertools.combinations(masks, 2))


def test_examples_and_coordinates_draw_unrelated_bits():
    """Neighbours along every axis, transposed places, and examples whose id equals another's coordinate."""
    length = 53
    cube = np.asarray(keep(Dropout(0.5, KEY, jnp.arange(length)), (length,) * 3))
    for axis in range(3):
        for lag in (1, 2, 7, 16, 32):
            assert unrelated(np.delete(cube, range(lag), axis), np.delete(cube, range(length - lag, length), axis))
    upper = np.triu_indices(length, 1)
    for turned in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        other = cube.transpose(turned)
        pair = [axis for axis in range(3) if turned[axis] != axis]
        one, two = (np.moveaxis(x, pair, (0, 1))[upper] for x in (cube, other))
        assert unrelated(one, two)


def test_a_rate_can_be_traced_and_mapped():
    """One program serves all rates; an element dropped at a rate is dropped at every higher one."""
    x = jax.random.normal(KEY, SHAPE)
    rates = jnp.array([0.0, 0.1, 0.5, 0.9])
    compiled = jax.jit(lambda rate: drop(x, Dropout(rate, KEY, ROWS)))
    lanes = jax.vmap(compiled)(rates)
    for rate, lane in zip(rates, lanes, strict=True):
        np.testing.assert_allclose(lane, drop(x, Dropout(float(rate), KEY, ROWS)), rtol=1e-6)
        np.testing.assert_allclose(lane, compiled(rate), rtol=1e-6)
    assert compiled._cache_size() == 1
    for low, high in itertools.pairwise(lanes):
        assert not ((low == 0) & (high != 0)).any()


def test_keys_and_examples_can_be_mapped():
    """Lanes with keys of their own equal the single runs."""
    keys = jax.random.split(KEY, 3)
    lanes = jax.vmap(lambda key: kept(Dropout(0.5, key, ROWS), SHAPE))(keys)
    for key, lane in zip(keys, lanes, strict=True):
        np.testing.assert_array_equal(lane, keep(Dropout(0.5, key, ROWS), SHAPE))


def test_the_hash_is_a_bijection_that_spreads_every_bit():
    """No two of a million words collide; flipping any bit flips each other bit in about half of the words."""
    words = jnp.arange(2**20, dtype=jnp.uint32)
    assert len(np.unique(mix(words))) == len(words)
    some = jax.random.bits(KEY, (4096,), jnp.uint32)
    for bit in range(32):
        changed = np.asarray(mix(some) ^ mix(some ^ jnp.uint32(1 << bit)))
        share = [((changed >> n) & 1).mean() for n in range(32)]
        assert 0.4 < min(share) < max(share) < 0.6
