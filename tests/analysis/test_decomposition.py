"""The weights of a trained run are similarity times magnitude, to 1e-6, and pictures of them are drawn."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from cases.variants import CONFIGS

from attention_variants.analysis.decomposition import decompose, distances
from attention_variants.errors import InputError
from attention_variants.models.heads import MultiHeadAttention, trace_weights
from attention_variants.ops.masks import Mask
from attention_variants.train import runs


@pytest.fixture(scope="module")
def traces(trained):
    loaded = runs.Loaded(trained[0], tell=print)
    return loaded.task.traces(loaded.params, loaded.model_state, loaded.place)


def test_the_product_of_the_parts_is_the_weight(traces):
    """In every layer, causal ones too, for every head; with the similarity an RBF kernel of what was traced, in loops."""
    assert len(traces) == 3
    for trace, *_ in traces.values():
        parts = decompose(trace)
        np.testing.assert_allclose(product_of(parts), trace_weights(trace), atol=1e-6)
        np.testing.assert_allclose(parts.weights_BHQS, trace_weights(trace), atol=1e-6)
        few = decompose(trace, rows=2)
        np.testing.assert_allclose(few.weights_BHQS, parts.weights_BHQS[:, :, :2], rtol=1e-9)
        q, k = (np.asarray(trace[name], np.float64) for name in ("queries", "keys"))
        for h in range(q.shape[2]):
            distance = ((q[0, :, None, h] - k[0, None, :, h]) ** 2).sum(-1)
            found = np.exp(parts.log_similarity_BHQS[0, h])
            kernel = np.where(found > 0, np.exp(-distance / (2 * np.sqrt(q.shape[-1]))), 0)
            np.testing.assert_allclose(found, kernel / kernel.max(), rtol=1e-6)
            growth = np.exp((k[0, :, h] ** 2).sum(-1) / (2 * np.sqrt(q.shape[-1])))
            found = np.exp(parts.log_magnitude_BHS[0, h])
            np.testing.assert_allclose(found[found > 0], (growth / growth[found > 0].max())[found > 0], rtol=1e-6)


def product_of(parts):
    """exp(log similarity + log magnitude) over its sum."""
    logits = parts.log_similarity_BHQS + parts.log_magnitude_BHS[:, :, None]
    product = np.exp(logits - np.maximum(logits.max(-1, keepdims=True), -1e300))
    return product / np.maximum(product.sum(-1, keepdims=True), 1e-300)


@pytest.mark.parametrize("variant", ["standard", "rbf"])
@pytest.mark.parametrize("rotary", [False, True])
def test_large_logits_and_rotated_keys_have_parts_too(rotary, variant):
    """Of logits in the hundreds, where similarities alone are all but 0."""
    x = 30 * jax.random.normal(jax.random.key(0), (2, 11, 12))
    module = MultiHeadAttention(2, variant=variant, rotary=rotary)
    variables = module.init(jax.random.key(1), x)
    trace = module.apply(variables, x, mutable=["trace"])[1]["trace"]
    parts = decompose(trace)
    np.testing.assert_allclose(product_of(parts), parts.weights_BHQS, atol=1e-12)
    np.testing.assert_allclose(parts.weights_BHQS, trace_weights(trace), atol=1e-4)  # which are of float32 logits
    near = -np.square(np.float64(distances(trace))) / (2 * np.sqrt(6))
    np.testing.assert_allclose(near - near.max((2, 3), keepdims=True), parts.log_similarity_BHQS, rtol=1e-4, atol=1e-2)
    assert near.min() < -100


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rotary", [False, True])
def test_every_variant_has_parts(name, rotary):
    """Whose product over its sum is the weight, with padding and a causal mask, for every variant, turned by place or not."""
    x = jax.random.normal(jax.random.key(0), (2, 7, 12))
    mask = Mask(causal=True, k_valid=np.arange(7) != np.array([[1], [3]]))
    module = MultiHeadAttention(3, variant=CONFIGS[name], rotary=rotary)
    trace = module.apply(module.init(jax.random.key(1), x), x, mask=mask, mutable=["trace"])[1]["trace"]
    parts = decompose(trace)
    np.testing.assert_allclose(product_of(parts), parts.weights_BHQS, atol=1e-12)
    np.testing.assert_allclose(parts.weights_BHQS, trace_weights(trace), atol=1e-6)
    assert distances(trace).shape == parts.weights_BHQS.shape


def test_a_bias_is_refused(traces):
    trace = next(iter(traces.values()))[0]
    with pytest.raises(InputError, match="no similarity times magnitude"):
        decompose(trace | {"bias": lambda *at: 0.0})


def test_pictures_are_drawn_and_mistakes_are_one_sentence(trained, environment, tmp_path):
    module = [sys.executable, "-m", "attention_variants.analysis.decomposition"]
    run = lambda *flags: subprocess.run([*module, *flags], env=environment, capture_output=True, text=True, timeout=280)
    done = run(f"--workdir={trained[0]}")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert all(pathlib.Path(path).read_bytes()[:4] == b"\x89PNG" for path in done.stdout.splitlines())
    for flags, sentence in (
        ([], "--workdir is missing"),
        ([f"--workdir={tmp_path}"], "is not a workdir"),
        ([f"--wrkdir={tmp_path}"], "unknown flag 'wrkdir'; did you mean 'workdir'?"),
    ):
        done = run(*flags)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
