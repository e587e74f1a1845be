"""Particles on a posterior that is known have its mean and covariance."""

import jax
import numpy as np
import pytest

from experiments import mixture


def test_the_moments_are_those_of_draws():
    rng = np.random.default_rng(0)
    part = rng.choice(2, 200_000, p=mixture.WEIGHTS)
    x = mixture.MEANS[part] + mixture.DEVIATIONS[part] * rng.normal(size=(200_000, 2))
    mean, covariance = mixture.moments()
    np.testing.assert_allclose(x.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.03)


@pytest.mark.usefixtures("as_users_compile")
@pytest.mark.parametrize(
    ("settings", "most"), [({}, 0.10), ({"heat": 1.0, "rate": 0.1, "averaged": 500}, 0.05)], ids=["SVGD", "SPOS, averaged"]
)
def test_two_hundred_particles_find_a_mixture(settings, most):
    for seed in range(2):
        of_mean, of_covariance = mixture.errors(mixture.run(jax.random.key(seed), **settings))
        assert of_mean < most
        assert of_covariance < most
