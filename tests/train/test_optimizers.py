"""The schedules are their formulas, in numpy; the optimiser is Adam after clipping, with rates that may be traced."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attention_variants.errors import InputError
from attention_variants.train import optimizers
from attention_variants.train.settings import Optimizer

STEPS, WARMUP, WIDTH = 97, 13, 48


def curve(name: str, warmup: str = f"{WARMUP} steps", total: int = STEPS) -> np.ndarray:
    shape = optimizers.schedule(Optimizer(schedule=name, warmup=warmup), total=total, per_epoch=10, width=WIDTH)
    return np.asarray(jax.vmap(shape)(jnp.arange(total)))


def test_the_transformer_schedule_is_the_paper_s():
    """lrate = d^−½ · min(step^−½, step · warmup^−3/2), steps from 1 (Vaswani et al. 2017, equation 3)."""
    n = np.arange(1, STEPS + 1)
    np.testing.assert_allclose(curve("transformer"), WIDTH**-0.5 * np.minimum(n**-0.5, n * WARMUP**-1.5), rtol=1e-6)


def test_inverse_sqrt_at_the_paper_s_peak_is_the_transformer_schedule():
    np.testing.assert_allclose((WIDTH * WARMUP) ** -0.5 * curve("inverse_sqrt"), curve("transformer"), rtol=1e-6)


@pytest.mark.parametrize("name", ["inverse_sqrt", "cosine", "constant"])
def test_the_warm_up_rises_linearly_to_one_at_its_last_step(name):
    np.testing.assert_allclose(curve(name)[:WARMUP], np.arange(1, WARMUP + 1) / WARMUP, rtol=1e-6)
    assert curve(name).max() == pytest.approx(1)


def test_cosine_falls_to_zero_at_the_last_step():
    x = curve("cosine")
    assert x[-1] == pytest.approx(0, abs=1e-6)
    n = np.arange(WARMUP, STEPS + 1)
    np.testing.assert_allclose(x[WARMUP - 1 :], (1 + np.cos(np.pi * (n - WARMUP) / (STEPS - WARMUP))) / 2, atol=1e-6)
    assert (np.diff(x[WARMUP:]) < 0).all()


def test_constant_stays():
    np.testing.assert_allclose(curve("constant")[WARMUP - 1 :], 1)


@pytest.mark.parametrize("name", ["transformer", "inverse_sqrt", "cosine", "constant"])
@pytest.mark.parametrize("warmup", ["0", "100 percent", "1000 steps"])
def test_no_warm_up_or_nothing_else_is_finite_and_positive(name, warmup):
    x = curve(name, warmup)
    assert np.isfinite(x).all()
    assert (x[:-1] > 0).all()


def test_a_warm_up_in_percent_is_of_the_run():
    np.testing.assert_array_equal(curve("constant", "10 percent", 100), curve("constant", "10 steps", 100))
    np.testing.assert_array_equal(curve("constant", "2 epochs", 100), curve("constant", "20 steps", 100))


def test_a_warm_up_that_is_no_duration_is_refused():
    with pytest.raises(InputError, match=r"optimizer\.warmup is 'soon'"):
        curve("constant", "soon")


def run(settings: Optimizer, gradients, rate=0.1):
    params = {"w": jnp.asarray([1.0, -2.0])}
    optimizer = optimizers.make(settings, rate, lambda step: 1.0)
    state = optimizer.init(params)
    for g in gradients:
        updates, state = optimizer.update({"w": jnp.asarray(g)}, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params["w"])


def by_hand(settings: Optimizer, gradients, rate=0.1):
    w, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t, g in enumerate(np.asarray(gradients, float), start=1):
        norm = np.sqrt((g**2).sum())
        g = g * min(1.0, settings.clip / norm) if settings.clip else g
        m = settings.b1 * m + (1 - settings.b1) * g
        v = settings.b2 * v + (1 - settings.b2) * g**2
        step = m / (1 - settings.b1**t) / (np.sqrt(v / (1 - settings.b2**t)) + settings.eps)
        w = w - rate * (step + settings.weight_decay * w)
    return w


GRADIENTS = [[3.0, 4.0], [0.1, -0.2], [-6.0, 8.0], [0.3, 0.0]]


@pytest.mark.parametrize("changes", [{}, {"clip": 0.0}, {"clip": 2.0, "b1": 0.5, "b2": 0.7, "eps": 0.1}, {"weight_decay": 0.3}])
def test_adam_by_hand_with_clipping_before_it_and_decoupled_decay_after(changes):
    settings = Optimizer(**changes)
    np.testing.assert_allclose(run(settings, GRADIENTS), by_hand(settings, GRADIENTS), rtol=1e-5)


def test_clipping_changes_what_it_should():
    assert not np.allclose(run(Optimizer(clip=0.5), GRADIENTS), run(Optimizer(clip=0.0), GRADIENTS), rtol=1e-3)


def test_the_rate_may_be_traced():
    traced = jax.jit(
        lambda rate: optimizers.make(Optimizer(), rate, lambda step: 1.0).update({"w": jnp.ones(2)}, state, {"w": jnp.ones(2)})[0]
    )
    state = optimizers.make(Optimizer(), 0.0, lambda step: 1.0).init({"w": jnp.ones(2)})
    np.testing.assert_allclose(traced(jnp.float32(0.2))["w"], -0.2, rtol=1e-5)
    np.testing.assert_allclose(traced(jnp.float32(0.4))["w"], -0.4, rtol=1e-5)
