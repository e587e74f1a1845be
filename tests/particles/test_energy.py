"""The kernel's energy as a loss: its gradient is the repulsion of SVGD, and nothing else."""

import functools

import jax
import numpy as np
import pytest
from cases.heads import tree, updated

from attention_variants.particles import repulsive_heads
from attention_variants.particles.energy import energy


@pytest.mark.parametrize("options", [{}, {"joint": True}, {"select": "(query|out)/kernel"}])
def test_its_gradient_is_the_update_of_repulsion_alone(options):
    params, grads = tree(0), tree(1)
    with jax.enable_x64(True):
        params, grads = (jax.tree.map(lambda x: np.asarray(x, np.float64), of) for of in (params, grads))
        pushed = jax.grad(lambda params: energy(params, 0.7, **options))(params)
        expected = updated(repulsive_heads(alpha=0.7, drive="gradient", rescale=True, **options), grads, params)[0]
        # Scaled back, SVGD's repulsion is H times that of the energy.
        found = jax.tree.map(lambda g, e: g + 4 * e, grads, pushed)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), found, expected)


def test_nearer_heads_have_more_of_it():
    params = tree(0)
    pulled = jax.tree.map(lambda x: x.at[..., :1, :].set(x[..., 1:2, :]) if x.ndim == 3 else x, params)
    assert energy(pulled, 1.0) > energy(params, 1.0) > 0


def test_a_head_alone_has_none():
    assert energy(tree(0, heads=1), 1.0) == 0
