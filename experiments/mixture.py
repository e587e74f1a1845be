"""Particles on a posterior that is known: SVGD and SPOS on a mixture of two normal distributions in the plane, as a picture.

    python -m experiments.mixture       # docs/mixture.png, and how far mean and covariance are from the truth

Plain descent along what `repulsive_heads` makes of gradients is SVGD of Liu and Wang 2016 with alpha = 1 and stepsize 1; with
drift, and `head_noise` after it, it is SPOS of Zhang, Zhang, Carin and Chen 2020, whose particles move on for ever and are averaged
over steps.
"""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from attention_variants.figures import particles as figures
from attention_variants.particles import head_noise, repulsive_heads
from attention_variants.train.cli import prepare
from attention_variants.train.program import start

WEIGHTS = np.array([0.4, 0.6])
MEANS = np.array([[-1.0, -0.5], [1.0, 0.5]])
DEVIATIONS = np.array([[0.7, 0.6], [0.6, 0.8]])  # of each part along each axis
PICTURE = pathlib.Path(__file__).parents[1] / "docs" / "mixture.png"


def log_density(x_2: jax.Array) -> jax.Array:
    """Of the mixture, at a point."""
    parts = jnp.log(WEIGHTS) - jnp.square((x_2 - MEANS) / DEVIATIONS).sum(1) / 2 - jnp.log(DEVIATIONS).sum(1)
    return jax.nn.logsumexp(parts) - math.log(2 * math.pi)


def moments() -> tuple[np.ndarray, np.ndarray]:
    """(mean, covariance) of the mixture."""
    mean = WEIGHTS @ MEANS
    second = sum(w * (np.diag(d**2) + np.outer(m, m)) for w, m, d in zip(WEIGHTS, MEANS, DEVIATIONS, strict=True))
    return mean, second - np.outer(mean, mean)


def chain(rate: float, heat: float, key: jax.Array) -> optax.GradientTransformation:
    """SVGD, or SPOS of a temperature, with plain descent; particles are heads of a query of (2, particles, 1)."""
    if not heat:
        return optax.chain(repulsive_heads("svgd", alpha=1.0), optax.sgd(rate))
    return optax.chain(repulsive_heads("spos", 1.0, 1.0, heat, noise=False), optax.sgd(rate), head_noise(heat, rate, key=key))


@functools.partial(jax.jit, static_argnames=("particles", "steps", "averaged", "rate", "heat"))
def run(key, *, particles: int = 200, steps: int = 1500, rate: float = 0.3, heat: float = 0.0, averaged: int = 1) -> jax.Array:
    """(averaged, particles, 2): where particles are after each of the last so many of `steps`.

    Args:
      rate: ε of the descent. heat: τ of drift and noise; 0 is SVGD.
    """
    first, noise = jax.random.split(key)
    optimizer = chain(rate, heat, noise)
    params = {"query": {"kernel": jax.random.normal(first, (2, particles, 1))}}
    score = jax.vmap(jax.grad(log_density), in_axes=1, out_axes=1)

    def step(carry, _):
        params, state = carry
        grads = {"query": {"kernel": -score(params["query"]["kernel"][:, :, 0])[:, :, None]}}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["query"]["kernel"][:, :, 0].T

    carry = params, optimizer.init(params)
    carry, _ = jax.lax.scan(lambda carry, n: (step(carry, n)[0], None), carry, None, steps - averaged)
    return jax.lax.scan(step, carry, None, averaged)[1]


def errors(x_TN2) -> tuple[float, float]:
    """How far the mean is from the truth, over the mixture's deviation, and the covariance, over its norm."""
    mean, covariance = moments()
    x = np.asarray(x_TN2, np.float64).reshape(-1, 2)
    of_mean = np.linalg.norm(x.mean(0) - mean) / math.sqrt(np.trace(covariance))
    return of_mean, np.linalg.norm(np.cov(x.T) - covariance) / np.linalg.norm(covariance)


def main() -> None:
    prepare()
    found = {"SVGD": run(jax.random.key(0)), "SPOS, over 500 steps": run(jax.random.key(0), heat=1.0, rate=0.1, averaged=500)}
    axis = np.linspace(-3.5, 3.5, 120)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1)
    density = np.exp(jax.vmap(jax.vmap(log_density))(grid))
    figures.over_density(
        PICTURE, axis, density, {name: np.asarray(x[-1]) for name, x in found.items()}, title="two hundred particles on a mixture"
    )
    for name, x in found.items():
        print("{}: mean {:.1%}, covariance {:.1%} from the truth".format(name, *errors(x)))
    print(PICTURE)


if __name__ == "__main__":
    start(main)
