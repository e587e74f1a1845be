"""Magnitudes are exponentials of Lp norms, with finite gradients everywhere, into p too."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.variants import B, H, K, S, draw, finite

from attention_variants.ops.magnitudes import POWERS, Magnitude

PS = (1.0, 1.5, 2.0, 3.0, 4.0)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("p", PS)
def test_a_magnitude_is_the_norm_to_its_power(p, power, learned):
    """‖k‖_p² / 2√d or ‖k‖_p^p / 2√d, in float64; fixed and learned p are the same."""
    k = draw(2, B, S, H, K)
    found = Magnitude(jnp.full((H,), p) if learned else None, p, power)(k)
    norm = np.linalg.norm(np.float64(k), ord=p, axis=-1)
    np.testing.assert_allclose(found, norm ** (2 if power == "squared" else p) / (2 * math.sqrt(K)), rtol=2e-6)


def test_each_head_has_its_own_p():
    k, p_H = draw(2, B, S, H, K), jnp.array([1.2, 2.0, 3.7])
    found = Magnitude(p_H)(k)
    for h in range(H):
        np.testing.assert_allclose(found[..., h], Magnitude(p=float(p_H[h]))(k)[..., h], rtol=1e-5)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("p", PS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e4])
def test_gradients_are_finite(p, power, learned, scale):
    """At zero vectors, at single zeros, and at numbers whose powers would vanish."""
    k = scale * draw(2, B, S, H, K).at[:, 1].set(0.0).at[..., 3].set(0.0)

    def total(k, p_H):
        return Magnitude(p_H if learned else None, p, power)(k).sum()

    value, grads = jax.value_and_grad(total, argnums=(0, 1))(k, jnp.full((H,), p))
    assert finite((value, grads))
    assert not grads[0][:, 1].any()


@pytest.mark.parametrize("power", POWERS)
def test_gradients_are_those_of_the_formula(power):
    """By central differences in float64, into the keys and into p."""
    with jax.enable_x64(True):
        k, p_H = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, H, 3))), jnp.array([1.3, 2.0, 3.1])
        total = lambda k, p: jnp.sin(Magnitude(p, power=power)(k)).sum()
        found = jax.grad(total, argnums=(0, 1))(k, p_H)
        for n, x in enumerate((k, p_H)):
            for at in np.ndindex(x.shape):
                ends = [total(*[y.at[at].add(step) if m == n else y for m, y in enumerate((k, p_H))]) for step in (1e-5, -1e-5)]
                assert found[n][at] == pytest.approx(float(ends[0] - ends[1]) / 2e-5, abs=1e-7)


def test_dropped_keys_have_magnitude_one():
    k, kept = draw(2, B, S, H, K), (draw(3, B, S, H) > 0).astype(jnp.float32) * 2
    np.testing.assert_allclose(Magnitude(kept_BSH=kept)(k), Magnitude()(k) * kept)
