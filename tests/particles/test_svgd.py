"""SVGD and SPOS of one group: the formula, published numbers, and the laws that hold whatever the particles are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import particles as slow

from attention_variants.particles import rbf
from attention_variants.particles.svgd import _median, median_of_absolute, svgd

SHAPES = [(2, 5), (3, 2), (4, 7), (7, 11), (30, 13), (40, 5)]  # the last are more than FEW


def draw(heads: int, size: int, seed: int = 0):
    """(particles, their gradients)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(heads, size)) + 3.0, rng.normal(size=(heads, size))


@pytest.mark.parametrize("drive", ["kernel", "gradient"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_formula(shape, drive):
    x, g = draw(*shape)
    with jax.enable_x64(True):
        found, _ = svgd(jnp.asarray(x), jnp.asarray(g), 0.7, drive)
    np.testing.assert_allclose(found, slow.svgd(x, g, 0.7, drive=drive), rtol=1e-9, atol=1e-12)


def test_the_numbers_of_the_notes():
    """Section 5 of the notes, computed from the published formula with the median of pairs; three and four particles in a plane."""
    x, g = [[1.0, 0], [0, 1], [2, 2], [3, -1]], [[0.3, -0.1], [0.2, 0.4], [-0.5, 0.1], [0.1, 0.1]]
    three = [[0.066647, 0.150871], [0.181726, 0.092545], [-0.194315, -0.010981]]
    four = [[0.087276, 0.095897], [0.142916, 0.063619], [-0.144064, -0.016940], [-0.003323, 0.050725]]
    np.testing.assert_allclose(svgd(jnp.array(x[:3]), jnp.array(g[:3]), 0.5)[0], three, atol=2e-6)
    np.testing.assert_allclose(svgd(jnp.array(x), jnp.array(g), 0.5)[0], four, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_repulsion_is_the_derivative_of_the_kernel(shape):
    """By automatic differentiation of the kernel's sum, at a fixed bandwidth."""
    x, _ = draw(*shape)
    with jax.enable_x64(True):
        x = jnp.asarray(x)
        kernel = rbf.rbf(x)
        pushed = jax.grad(lambda moved: rbf.rbf(moved, h2=kernel.h2).k_HH.sum())(x)
        np.testing.assert_allclose(rbf.repulsion(x, kernel), -pushed / 2, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_repulsions_sum_to_zero(shape, dtype):
    x = jnp.asarray(draw(*shape)[0], dtype)
    pushed = rbf.repulsion(x, rbf.rbf(x))
    assert abs(pushed.sum(0)).max() < 1e-5 * abs(pushed).max() * len(x)


@pytest.mark.parametrize("shape", SHAPES)
def test_order_does_not_matter(shape):
    x, g = map(jnp.asarray, draw(*shape))
    order = np.random.default_rng(1).permutation(len(x))
    found, _ = svgd(x, g, 0.7)
    again, _ = svgd(x[order], g[order], 0.7)
    np.testing.assert_allclose(again, found[order], rtol=2e-4, atol=2e-6)


def test_only_differences_matter():
    """What all particles share is neither seen nor changed, however large it is."""
    x, g = draw(5, 11)
    near, far = (svgd(jnp.asarray(x + shift, jnp.float32), jnp.asarray(g, jnp.float32), 0.7)[0] for shift in (0.0, 64.0))
    np.testing.assert_allclose(near, far, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("heads", [2, 3, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equal_particles_share_their_gradients_and_do_not_repel(heads, dtype):
    x, g = draw(heads, 37)
    x = jnp.asarray(np.broadcast_to(x[:1], x.shape), dtype)
    found, seen = svgd(x, jnp.asarray(g, dtype), 0.7)
    np.testing.assert_allclose(found, np.broadcast_to(jnp.asarray(g, dtype).astype(float).mean(0), g.shape), atol=1e-6)
    assert seen.repulsion == 0
    assert abs(seen.cosine - 1) < 1e-6


def test_particles_of_which_most_are_equal_are_finite():
    """Their median distance is 0."""
    x, g = draw(5, 37)
    x[1:] = x[1]
    found, seen = svgd(jnp.asarray(x), jnp.asarray(g), 0.7)
    assert np.isfinite(found).all()
    assert np.isfinite(np.array(seen)).all()
    zeros, _ = svgd(jnp.zeros((4, 37)), jnp.asarray(g[:4]), 0.7)
    assert np.isfinite(zeros).all()


def test_nearly_equal_particles_move_apart():
    """A thousandth of their size apart, in float32: repulsion is along their differences."""
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=37) + 1e-3 * rng.normal(size=(4, 37)))
    pushed = np.asarray(rbf.repulsion(jnp.asarray(x), rbf.rbf(jnp.asarray(x))), np.float64)
    expected = slow.repulsion(x.astype(np.float64), slow.bandwidth(x.astype(np.float64)))
    np.testing.assert_allclose(pushed, expected, rtol=1e-3, atol=1e-3 * abs(expected).max())


def test_steps_against_repulsion_alone_spread_particles():
    x = jnp.asarray(draw(5, 3)[0])
    first = rbf.pairs(rbf.squared_distances(x))
    for _ in range(5):
        x = x - 0.1 * svgd(x, jnp.zeros_like(x), 1.0)[0]
    assert (rbf.pairs(rbf.squared_distances(x)) > first).all()


def test_what_is_seen_is_what_it_says():
    x, g = draw(4, 7)
    with jax.enable_x64(True):
        _, seen = svgd(jnp.asarray(x), jnp.asarray(g), 0.7)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    h2 = slow.bandwidth(x)
    driven = 4 * slow.svgd(x, g, 0.0)
    assert seen.distance == pytest.approx(np.mean([np.linalg.norm(x[i] - x[j]) for i, j in pairs]))
    assert seen.bandwidth == pytest.approx(np.sqrt(h2))
    cosines = [x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]) for i, j in pairs]
    assert seen.cosine == pytest.approx(np.mean(cosines))
    repelled = 0.7 * np.linalg.norm(slow.repulsion(x, h2))
    assert seen.repulsion == pytest.approx(repelled / (repelled + np.linalg.norm(driven)))


def test_particles_may_lie_in_any_axes():
    """(…, H, D) is (H, all the rest), in what is done and in what is seen."""
    with jax.enable_x64(True):
        x, g = (jnp.asarray(of) for of in draw(4, 2 * 3 * 7))
        move = lambda of: jnp.moveaxis(of.reshape(4, 2, 3, 7), 0, 2)
        (flat, of_flat), (found, seen) = svgd(x, g, 0.7), svgd(move(x), move(g), 0.7)
        np.testing.assert_allclose(found, move(flat), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(seen, of_flat, rtol=1e-12)


def test_without_a_gradient_repulsion_is_all_there_is():
    x, _ = draw(4, 64)
    assert svgd(jnp.asarray(x), jnp.zeros((4, 64)), 30.0)[1].repulsion == 1


@pytest.mark.parametrize("outlier", [0, 4])
@pytest.mark.parametrize("apart", [1e-2, 1e-3])
def test_particles_near_each_other_are_told_apart_beside_one_that_is_far(outlier, apart):
    """Wherever it stands: their distances are not differences of what is large."""
    rng = np.random.default_rng(0)
    x = np.float32(0.1 * rng.normal(size=4096) + 0.1 * apart * rng.normal(size=(5, 4096)))
    x[outlier] = 0.1 * rng.normal(size=4096)
    pushed = np.asarray(rbf.repulsion(jnp.asarray(x), rbf.rbf(jnp.asarray(x), jnp.square(x).sum(1))), np.float64)
    expected = slow.repulsion(x.astype(np.float64), slow.bandwidth(x.astype(np.float64)))
    assert np.linalg.norm(pushed - expected) < 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("times", [[1, 7], [7, 1]])
def test_equal_particles_beside_another_are_left_where_they_are(times):
    """But for what the one that is far does to them, wherever it stands in their order."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(np.repeat(np.float32(0.1 * rng.normal(size=(2, 4096))), times, 0))
    pushed = rbf.repulsion(x, rbf.rbf(x, rbf.squares(x)))
    assert abs(pushed).max() < 1e-6


def test_distances_are_sums_over_all_numbers():
    for size in (1, 2, 5000):
        x, _ = draw(3, size)
        expected = [[slow.squared_distance(a, b) for b in x] for a in x]
        np.testing.assert_allclose(rbf.squared_distances(jnp.asarray(x, jnp.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1001, 70001])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e20])
def test_the_median_of_absolute_values(size, scale):
    g = np.float32(np.random.default_rng(size).normal(size=(1, size)) * scale)
    expected = np.sort(abs(g).ravel())[(size - 1) // 2]
    found = median_of_absolute(jnp.asarray(g))
    assert found == pytest.approx(expected, rel=2**-8)
    assert found == jax.vmap(functools.partial(_median, width=4))(jnp.asarray(g)), "as other devices find it"


@pytest.mark.parametrize("width", [1, 4])
def test_the_median_of_so_many_that_columns_must_be_wider(width):
    g = np.abs(np.random.default_rng(0).normal(size=9_000_001).astype(np.float32))
    assert _median(jnp.asarray(g), width) == pytest.approx(np.median(g), rel=2**-8)


def test_the_median_of_zeros_is_zero():
    assert float(median_of_absolute(jnp.zeros((2, 3)))) < 1e-38
