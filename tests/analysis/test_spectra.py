"""What is drawn of a learned kernel is what the run attends with, in every layer and mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants.analysis import spectra
from attention_variants.errors import InputError
from attention_variants.figures import smoothing
from attention_variants.figures import spectra as pictures
from attention_variants.models.heads import MultiHeadAttention, trace_weights
from attention_variants.ops.spectral import Spectral
from attention_variants.variants import implicit_kernel, implicit_kernel_authors

HEADS, SIZE, LENGTH = 3, 5, 11


def traced(config, rotary=False):
    x = jax.random.normal(jax.random.key(0), (2, LENGTH, HEADS * SIZE))
    module = MultiHeadAttention(HEADS, variant=config, rotary=rotary)
    variables = module.init(jax.random.key(1), x)
    return module.apply({"params": variables["params"]}, x, mutable=["trace"])[1]["trace"]


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(
    ("kind", "mode", "stationary"),
    [(kind, mode, False) for kind in (implicit_kernel, implicit_kernel_authors) for mode in ("direct", "sampled", "copula")]
    + [(implicit_kernel, "direct", True)],
)
def test_the_kernel_is_that_of_the_weights(kind, mode, stationary, rotary):
    """(κ² + ε) over its sum are the weights without a magnitude; κ is the mean of cosines, in loops; distances are of q and k."""
    trace = traced(kind.Config(mode=mode, points=4, stationary=stationary, magnitude="none"), rotary)
    found, score = spectra.kernels(trace), spectra.spectral(trace)
    similarity = np.square(found["kappa"]) + score.epsilon
    np.testing.assert_allclose(found["similarity"], similarity, rtol=1e-4)
    np.testing.assert_allclose(similarity / similarity.sum(-1, keepdims=True), trace_weights(trace)[0], rtol=1e-4)
    q, k = (np.asarray(trace[name])[0] for name in ("q_BQHK", "k_BSHK"))
    np.testing.assert_allclose(found["distance"][1, 2, 7], np.linalg.norm(q[2, 1] - k[7, 1]), rtol=1e-5)
    np.testing.assert_allclose(
        found["rbf"][1, 2, 7], np.exp(-(np.linalg.norm(q[2, 1] - k[7, 1]) ** 2) / (2 * SIZE**0.5)), rtol=1e-4
    )
    first = np.asarray(score.w1).reshape(-1, SIZE, HEADS, 4)[0]
    ws = [first, first if stationary else np.asarray(score.w2).reshape(-1, SIZE, HEADS, 4)[0]]
    angle = lambda w, x: 2 * np.pi * w[:, 1].T @ x
    cosines = [np.cos(angle(a, q[2, 1]) - angle(b, k[7, 1])).mean() for a in ws for b in ws]
    np.testing.assert_allclose(found["kappa"][1, 2, 7], np.mean(cosines), atol=1e-5)
    assert found["frequencies"].shape == (HEADS, SIZE * 4 * (1 if stationary else 2))
    np.testing.assert_allclose(np.sort(found["frequencies"][1])[-1], max(w[:, 1].max() for w in ws), rtol=1e-6)
    assert (spectra.correlation(trace) is None) == (mode != "copula")


@pytest.mark.parametrize("positive", ["squared", "shifted"])
def test_frequencies_of_the_rbfs_deviation_make_the_rbf(positive):
    """Of 200,000 from that normal distribution, κ², or κ where it is shifted, is exp(−r² / 2√d) at every distance."""
    size, points = 3, 200_000
    score = Spectral(jnp.zeros(()), positive=positive)
    w = spectra.deviation(score, size) * np.random.default_rng(0).normal(size=(size, points))
    for r in (0.3, 1.0, 2.0):
        kappa = np.cos(2 * np.pi * r * w[1]).mean()
        assert (kappa**2 if positive == "squared" else kappa) == pytest.approx(np.exp(-(r**2) / (2 * size**0.5)), abs=0.01)


def test_pictures_are_drawn_of_a_run(make_config, tmp_path):
    """In every layer, four pictures where heads are coupled; of a run without spectral kernels, one sentence."""
    from attention_variants.train import loop

    changes = {"variant.points": 4, "variant.mode": "copula", "run.duration": "2 steps", "run.evaluate": "2 steps"}
    loop.train(make_config("tiny,variant=implicit_kernel", **changes), tmp_path / "run", quiet=True)
    paths = spectra.draw(tmp_path / "run", tell=lambda text: None)
    assert len(paths) == len(set(paths)) == 3 * 4
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)


def test_a_run_without_spectral_kernels_is_one_sentence(trained):
    with pytest.raises(InputError, match="has no layer with a spectral kernel"):
        spectra.draw(trained[0], tell=lambda text: None)


def test_pictures_show_what_they_are_given(tmp_path):
    from matplotlib.image import imread

    draw = np.random.default_rng(0)
    distance, kernel, x = draw.random((3, 5, 7)), draw.random((3, 5, 7)), np.linspace(0, 1, 20)

    def differs(picture, *arguments, other):
        pixels = []
        for name, given in (("one.png", arguments), ("other.png", other)):
            picture(tmp_path / name, *given, title="t$")
            pixels.append(imread(tmp_path / name))
        return pixels[0].shape != pixels[1].shape or not np.array_equal(*pixels)

    lined = lambda path, y, title: smoothing.over_distance(path, distance, kernel, "abc", title=title, line=(x, y))
    assert differs(lined, x, other=(1 - x,))
    assert differs(pictures.densities, kernel.reshape(3, -1), 0.1, other=(kernel.reshape(3, -1) / 2, 0.1))
    assert differs(pictures.histograms, {"a": kernel}, other=({"a": kernel - 0.5},))
    assert differs(pictures.correlations, np.eye(3), other=(np.eye(3) / 2,))
