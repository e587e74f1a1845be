"""Biases against the papers' formulas, number by number, and that they see nothing but positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.ops.biases import Alibi, RelativeBuckets

AT = np.array([[0, 1, 2, 5, 9, 40, 41, 300], [7, 7, 8, 20, 100, 3, 150, 139]])


def bucket(ahead: int, buckets: int, both_ways: bool, reach: int) -> int:
    """Exact distances first, then ranges whose bounds grow as a power, the last one for all from `reach` on."""
    start = 0
    if both_ways:
        buckets //= 2
        start = buckets if ahead > 0 else 0
        distance = abs(ahead)
    else:
        distance = max(-ahead, 0)
    exact = buckets // 2
    if distance < exact:
        return start + distance
    share = math.log(distance / exact) / math.log(reach / exact)
    return start + min(buckets - 1, exact + int(share * (buckets - exact) + 1e-6))


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (12, 50)])
def test_relative_buckets_are_t5_s(both_ways, buckets, reach):
    table = np.random.default_rng(0).normal(size=(buckets, 3)).astype(np.float32)
    found = RelativeBuckets(jnp.asarray(table), both_ways, reach)(jnp.asarray(AT), jnp.asarray(AT[:, :5]))
    assert found.shape == (2, 3, 8, 5)
    assert found.dtype == jnp.float32
    for b, h, i, j in np.ndindex(found.shape):
        assert found[b, h, i, j] == table[bucket(int(AT[b, j]) - int(AT[b, i]), buckets, both_ways, reach), h], (b, i, j)


def test_t5_s_ranges_start_where_the_paper_has_them():
    """8 · 16^(m/8) for m = 0 … 7, rounded up: the bounds that a logarithm in float32 misses are among them."""
    bias = RelativeBuckets(jnp.zeros((32, 3)))
    found = [bias.bucket(-distance) for distance in range(200)]
    assert [found.index(bucket) for bucket in range(16)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    assert [bias.bucket(distance) for distance in range(1, 200)] == [16 + bucket for bucket in found[1:]]
    assert found[-1] == 15


@pytest.mark.parametrize(("buckets", "both_ways", "reach"), [(2, True, 128), (1, False, 128), (32, True, 8)])
def test_a_table_that_is_too_small_is_refused(buckets, both_ways, reach):
    with pytest.raises(ValueError, match=f"a table of {buckets} buckets, reach {reach}; expected"):
        RelativeBuckets(jnp.zeros((buckets, 3)), both_ways, reach)(jnp.asarray(AT), jnp.asarray(AT))


def test_every_bucket_is_used_and_trained():
    """Both directions have as many; the gradient into the table counts the pairs of each bucket."""
    at = jnp.arange(300)[None]
    grad = jax.grad(lambda table: RelativeBuckets(table)(at, at).sum())(jnp.zeros((32, 3)))
    assert (grad > 0).sum() == 31 * 3  # no key is both ahead and at distance zero
    assert float(grad.sum()) == 3 * 300 * 300


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (8, [2**-1, 2**-2, 2**-3, 2**-4, 2**-5, 2**-6, 2**-7, 2**-8]),
        (4, [2**-2, 2**-4, 2**-6, 2**-8]),
        (3, [2**-4, 2**-8, 2**-2]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
        (1, [2**-8]),
    ],
)
def test_alibi_is_minus_slope_times_distance(heads, slopes):
    assert Alibi(heads).slopes() == pytest.approx(slopes)
    found = Alibi(heads)(jnp.asarray(AT), jnp.asarray(AT))
    wanted = -np.array(slopes)[:, None, None] * abs(AT[:, None, None, :] - AT[:, None, :, None])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("bias", [RelativeBuckets(jax.random.normal(jax.random.key(0), (32, 5))), Alibi(5)])
def test_only_distances_matter(bias):
    at = jnp.asarray(AT[:1])
    np.testing.assert_array_equal(bias(at, at), bias(at + 1000, at + 1000))
