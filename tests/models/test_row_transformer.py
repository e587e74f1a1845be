"""The row Transformer of the authors' code is what that code computes, written out in numpy from their description."""

import jax
import numpy as np
import pytest

from attention_variants.models import row_transformer, row_transformer_authors
from attention_variants.variants import standard

N, F, H, D = 11, 3, 2, 10


def inputs():
    x = np.random.default_rng(0).standard_normal((1, N, F)).astype(np.float32)
    return x, np.zeros((1, N, 1), np.float32), np.ones((1, N), bool), np.ones((1, N), bool)


def build(module):
    return module.build(module.Config(width=D, heads=H, feed_forward=7), standard.Config(), outputs=1)


def slow(params, x_NF, last_relu: bool):
    """x = LN(x + MHA(x)); x = LN(x + FFN(x)); one layer, in float64 loops over heads."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    layer, dense = params["encoder_0"], lambda x, p: x @ p["kernel"] + p["bias"]

    def norm(x, p):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    x = dense(x_NF, params["embed"])
    heads = layer["self_attention"]
    q, k, v = (np.einsum("nd,dhk->hnk", x, heads[n]["kernel"]) + heads[n]["bias"][:, None] for n in ("query", "key", "value"))
    logits = np.einsum("hnk,hmk->hnm", q, k) / np.sqrt(D / H)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    attended = np.einsum("hnm,hmv,hvd->nd", weights, v, heads["out"]["kernel"]) + heads["out"]["bias"]
    x = norm(x + attended, layer["self_attention_residual"]["norm"])
    forward = dense(np.maximum(dense(x, layer["feed_forward"]["inner"]), 0), layer["feed_forward"]["out"])
    x = norm(x + (np.maximum(forward, 0) if last_relu else forward), layer["feed_forward_residual"]["norm"])
    return dense(x, params["out"])


@pytest.mark.parametrize(("module", "last_relu"), [(row_transformer, False), (row_transformer_authors, True)])
def test_it_is_the_layer_of_the_formula(module, last_relu):
    """A net of the authors' ends in a ReLU, ours does not; else they are one."""
    model = build(module)
    params = model.init(jax.random.key(0), *inputs())["params"]
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    found = model.apply({"params": params}, *inputs())[0]
    np.testing.assert_allclose(found, slow(params, inputs()[0][0], last_relu), rtol=1e-4, atol=1e-5)
    assert abs(found - slow(params, inputs()[0][0], not last_relu)).max() > 0.01


def test_the_authors_begin_as_pytorch_does():
    """Kernels and biases uniform within ± 1 / √inputs, every one of its own draw; norms at 1 and 0."""
    params = build(row_transformer_authors).init(jax.random.key(0), *inputs())["params"]
    layer = params["encoder_0"]
    linear = {F: [params["embed"]], D: [layer["self_attention"][n] for n in ("query", "key", "value", "out")], 7: []}
    linear[D] += [layer["feed_forward"]["inner"], params["out"]]
    linear[7] += [layer["feed_forward"]["out"]]
    for size, layers in linear.items():
        for dense in layers:
            for leaf in dense.values():
                assert abs(leaf).max() <= size**-0.5
                assert leaf.size == 1 or len(np.unique(leaf)) > 0.9 * leaf.size
            assert abs(dense["kernel"]).max() > 0.7 * size**-0.5
            assert dense["kernel"].std() == pytest.approx((size * 3) ** -0.5, rel=0.35)
    for residual in ("self_attention_residual", "feed_forward_residual"):
        assert (layer[residual]["norm"]["scale"] == 1).all()
        assert not layer[residual]["norm"]["bias"].any()
