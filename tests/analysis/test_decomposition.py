"""The weights of a trained run are similarity times magnitude, to 1e-6, and pictures of them are drawn."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from attention_variants.analysis.decomposition import decompose
from attention_variants.errors import InputError
from attention_variants.models.heads import trace_weights
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
        product = parts.similarity_BHQS * parts.magnitude_BHS[:, :, None]
        seen = product.sum(-1, keepdims=True)
        np.testing.assert_allclose(product / np.where(seen > 0, seen, 1), trace_weights(trace), atol=1e-6)
        np.testing.assert_allclose(parts.weights_BHQS, trace_weights(trace), atol=1e-6)
        q, k = (np.asarray(trace[name], np.float64) for name in ("queries", "keys"))
        for h in range(q.shape[2]):
            distance = ((q[0, :, None, h] - k[0, None, :, h]) ** 2).sum(-1)
            kernel = np.where(parts.similarity_BHQS[0, h] > 0, np.exp(-distance / (2 * np.sqrt(q.shape[-1]))), 0)
            np.testing.assert_allclose(parts.similarity_BHQS[0, h], kernel / kernel.max(), rtol=1e-6)
            growth = np.exp((k[0, :, h] ** 2).sum(-1) / (2 * np.sqrt(q.shape[-1])))
            found = parts.magnitude_BHS[0, h]
            np.testing.assert_allclose(found[found > 0], (growth / growth[found > 0].max())[found > 0], rtol=1e-6)


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
    for flags, sentence in (([], "--workdir is missing"), ([f"--workdir={tmp_path}"], "is not a workdir")):
        done = run(*flags)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
