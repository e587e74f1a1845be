"""Sinusoidal positions against their formula."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.ops.positions import sinusoidal

WIDTH = 14


def test_sines_stand_at_even_and_cosines_at_odd_features():
    """PE(pos, 2i) = sin(pos / 10000^(2i / width)), PE(pos, 2i + 1) = cos(the same)."""
    at_BQ = np.array([[0, 1, 2, 3, 4], [7, 100, 5, 1, 511]])
    expected = np.zeros((2, 5, WIDTH))
    for b, q in np.ndindex(*at_BQ.shape):
        for i in range(WIDTH // 2):
            angle = at_BQ[b, q] / 10000 ** (2 * i / WIDTH)
            expected[b, q, 2 * i : 2 * i + 2] = math.sin(angle), math.cos(angle)
    found = sinusoidal(jnp.asarray(at_BQ), WIDTH)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_any_shape_of_positions_is_taken():
    """A scalar, a row or more; the same position always has the same encoding."""
    one = sinusoidal(jnp.array(3), WIDTH)
    assert one.shape == (WIDTH,)
    np.testing.assert_array_equal(sinusoidal(jnp.full((2, 5, 3), 3), WIDTH), np.broadcast_to(one, (2, 5, 3, WIDTH)))


def test_products_depend_on_distance_only():
    """PE(a)·PE(b) is a function of a − b, and the squared length is half the width."""
    x = np.asarray(sinusoidal(jnp.arange(31), WIDTH))
    gram = x @ x.T
    np.testing.assert_allclose(np.diag(gram), WIDTH / 2, rtol=1e-5)
    for distance in (1, 5, 13):
        along = np.diag(gram, distance)
        np.testing.assert_allclose(along, along[0], atol=1e-4)
        assert along[0] < WIDTH / 2 - 0.1


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="odd width 7, try 8"):
        sinusoidal(jnp.arange(5), 7)
