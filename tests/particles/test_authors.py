"""The four released code bases: recorded values of their own, the numbers of the notes, and what the clean one does instead."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attention_variants.errors import InputError
from attention_variants.particles import repulsive_heads
from attention_variants.particles.authors import CODES, direction, repulsive_weights

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
X = [[1.0, 0], [0, 1], [2, 2], [3, -1]]
G = [[0.3, -0.1], [0.2, 0.4], [-0.5, 0.1], [0.1, 0.1]]
OF_THREE = {
    "h2": [[0.060916, 0.073244], [0.158661, 0.075500], [-0.183119, 0.014797]],
    "h": [[0.068532, 0.062365], [0.147782, 0.083115], [-0.179855, 0.018061]],
}
OF_FOUR = {
    "h2": [[0.087276, 0.095897], [0.142916, 0.063619], [-0.144064, -0.016940], [-0.003323, 0.050725]],
    "h": [[0.088757, 0.110275], [0.162164, 0.056567], [-0.155165, -0.031212], [-0.012950, 0.057672]],
}
OVER = {"fairseq": "h2", "electra": "h2", "sentence": "h", "graphwriter": "h"}


@pytest.mark.parametrize("method", ["svgd", "spos"])
def test_what_fairseq_gave_its_optimiser(method):
    """Recorded by running it (`weight_bayesian`): a block of width 12 with 4 heads; the noise of SPOS is injected."""
    with np.load(GOLDEN / f"{method}_fairseq.npz") as kept, jax.enable_x64(True):
        of = lambda kind: {
            name.split("/")[1].removesuffix("_DHK"): {"kernel": jnp.asarray(kept[name])}
            for name in kept.files
            if name.startswith(kind)
        }
        noise = of("noise") or None
        settings = dict(alpha=float(kept["alpha"]), stepsize=float(kept["stepsize"]))
        if noise:
            settings |= dict(temperature=float(kept["temperature"]), noise=noise)
        transformation = repulsive_weights("fairseq", **settings)
        found, _ = transformation.update(of("grads"), transformation.init(of("params")), of("params"))
        for name, expected in of("updates").items():
            np.testing.assert_allclose(found[name]["kernel"], expected["kernel"], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(("heads", "expected"), [(3, OF_THREE), (4, OF_FOUR)])
def test_the_numbers_of_the_notes(code, heads, expected):
    found = direction(CODES[code], jnp.array(X[:heads]), jnp.array(G[:heads]), 0.5, 1.0, 1.0)
    np.testing.assert_allclose(found, expected[OVER[code]], atol=2e-6)


@pytest.mark.parametrize("code", CODES)
def test_kernels_to_particles_and_back(code):
    kernel = jnp.arange(12 * 4 * 5).reshape(12, 4, 5)
    x = CODES[code].particles(kernel)
    assert x.shape == (4, 60)
    np.testing.assert_array_equal(CODES[code].kernel(x, kernel.shape), kernel)


def test_which_numbers_belong_to_a_particle():
    """Heads in two of them; in electra every fourth column of all heads; in graphwriter a quarter of the inputs, for all heads."""
    kernel = jnp.arange(12 * 4 * 5).reshape(12, 4, 5)
    of = lambda code: np.asarray(CODES[code].particles(kernel))
    for code in ("fairseq", "sentence"):
        np.testing.assert_array_equal(of(code), np.asarray(kernel).swapaxes(0, 1).reshape(4, 60))
    columns = np.asarray(kernel).reshape(12, 20)
    np.testing.assert_array_equal(of("electra")[1], columns[:, 1::4].ravel())
    np.testing.assert_array_equal(of("graphwriter")[1], kernel[3:6].ravel())


@pytest.mark.parametrize("code", CODES)
def test_two_heads_are_no_number_there_and_numbers_here(code):
    """The median of four distances, two of them of a particle to itself, is 0 in all but electra, whose takes the mean of two."""
    kernel = lambda seed: {"query": {"kernel": jnp.asarray(np.random.default_rng(seed).normal(size=(4, 2, 3)))}}
    apply = lambda of: of.update(kernel(1), of.init(kernel(0)), kernel(0))[0]["query"]["kernel"]
    assert np.isnan(apply(repulsive_weights(code, 0.5))).any() == (code != "electra")
    assert np.isfinite(apply(repulsive_heads(alpha=0.5))).all()


def test_over_h_repulsion_depends_on_the_unit_of_weights():
    """Twice the particles, half the repulsion over h²; over h, the same, so that alpha means another thing at every scale."""
    x, zero = jnp.array(X), jnp.zeros((4, 2))
    for code, ratio in (("fairseq", 0.5), ("sentence", 1.0)):
        one, two = (direction(CODES[code], scale * x, zero, 0.5, 1.0, 1.0) for scale in (1, 2))
        np.testing.assert_allclose(two, ratio * one, rtol=1e-5)


@pytest.mark.parametrize("code", CODES)
def test_it_trains(code):
    params = {"key": {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(8, 4, 3)), jnp.float32)}}
    chain = optax.chain(repulsive_weights(code, 0.01, temperature=1e-4), optax.sgd(0.1))
    state, before = chain.init(params), params
    for _ in range(3):
        updates, state = chain.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert np.isfinite(params["key"]["kernel"]).all()
    assert (params["key"]["kernel"] != before["key"]["kernel"]).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="'elektra'; expected one of fairseq, electra"):
        repulsive_weights("elektra", 0.1)
    with pytest.raises(InputError, match="alpha is -1"):
        repulsive_weights("fairseq", -1.0)
    with pytest.raises(InputError, match="noise is given and no temperature"):
        repulsive_weights("fairseq", 0.1, noise={})
    for path, shape in (("query", (2, 8, 4, 3)), ("out", (4, 3, 8))):
        with pytest.raises(InputError, match=f"{path}/kernel has shape"):
            repulsive_weights("fairseq", 0.1, select=f"{path}/kernel").init({path: {"kernel": jnp.zeros(shape)}})
