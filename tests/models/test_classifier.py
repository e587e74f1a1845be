"""Laws of the classifier: padding is not seen, sentences are pooled as the config says, and every variant learns in it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants import variants
from attention_variants.data.tokens import BEGIN, PAD
from attention_variants.models import classifier
from attention_variants.models.classifier import Config
from attention_variants.models.heads import Noise, sown_losses
from attention_variants.ops.losses import cross_entropy

B, S, H, K, F, VOCABULARY, CLASSES = 3, 5, 2, 11, 13, 17, 7
both_poolings = pytest.mark.parametrize("pooling", ["mean", "cls"])


@functools.cache
def case(pooling, variant="standard", route="auto"):
    """The model, its parameters moved off zeros and ones, tokens with padding, and the compiled forward pass."""
    config = Config(layers=1, width=H * K, heads=H, feed_forward=F, norm="pre", pooling=pooling, route=route)
    model = classifier.build(config, variants.load(variant).Config(), VOCABULARY, CLASSES)
    random = np.random.default_rng(0)
    token_BS = random.integers(4, VOCABULARY, (B, S))
    token_BS[1, 3:], token_BS[2, 1:] = PAD, PAD
    leaves, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), token_BS))
    params = jax.tree.unflatten(tree, [jnp.asarray(random.normal(size=x.shape, scale=0.3), x.dtype) for x in leaves])
    return model, params, token_BS, jax.jit(model.apply)


@both_poolings
def test_padding_and_other_sentences_change_nothing(pooling):
    """A longer batch, another order, a row of padding; a token that is not padding is felt by its own sentence alone."""
    _, params, token_BS, run = case(pooling)
    whole = run(params, token_BS)
    assert whole.shape == (B, CLASSES)
    longer = np.pad(token_BS, ((0, 0), (0, 3)), constant_values=PAD)
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(run(params, longer[order]), whole[order], rtol=1e-4, atol=1e-5)
    other = token_BS.copy()
    other[0], other[1, 2] = PAD, 4 + (other[1, 2] + 1) % 13
    found = run(params, other)
    assert jnp.isfinite(found).all()
    assert (np.abs(found - whole).max(1) > 1e-4).tolist() == [True, True, False]


@both_poolings
def test_logits_are_of_the_mean_of_the_tokens_or_of_the_first_one(pooling):
    """In numpy, from what the encoder makes of the tokens, or of BEGIN and the tokens."""
    model, params, token_BS, run = case(pooling)
    read = np.pad(token_BS, ((0, 0), (1, 0)), constant_values=BEGIN) if pooling == "cls" else token_BS
    encode = jax.jit(functools.partial(model.apply, method="encode"))
    x_BSD = np.asarray(encode(params, read)[0], np.float64)
    lengths = (token_BS != PAD).sum(1)
    pooled = x_BSD[:, 0] if pooling == "cls" else np.stack([x[:n].mean(0) for x, n in zip(x_BSD, lengths, strict=True)])
    out = params["params"]["out"]
    np.testing.assert_allclose(run(params, token_BS), pooled @ out["kernel"] + out["bias"], rtol=1e-4, atol=1e-5)


def test_dropout_belongs_to_the_example():
    """Permuting a batch with its ids permutes the logits, ids decide; and the pooled sentence is dropped from, too."""
    model, params, token_BS, plain = case("mean")

    @jax.jit
    def run(token_BS, ids, rate):
        kept = dict(rngs={"dropout": jax.random.key(5)}, capture_intermediates=lambda module, _: module.name == "pooled_dropout")
        return model.apply(params, token_BS, Noise(rate, rate, ids), **kept)

    ids, order = jnp.array([40, 2, 9]), np.array([2, 0, 1])
    whole, pooled = run(token_BS, ids, 0.3)
    assert 0.1 < (jax.tree.leaves(pooled)[0] == 0).mean() < 0.5
    np.testing.assert_allclose(run(token_BS[order], ids[order], 0.3)[0], whole[order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(token_BS, ids, 0.0)[0], plain(params, token_BS), rtol=1e-4, atol=1e-4)
    assert (np.abs(run(token_BS, ids[order], 0.3)[0] - whole).max(1) > 1e-3).all()


@pytest.mark.parametrize("variant", variants.names())
def test_every_variant_learns(variant):
    """Gradients of one step: finite, and felt by embeddings, layer and classes."""
    model, params, token_BS, _ = case("mean", variant)

    def loss(params):
        noise = Noise(0.1, 0.1, jnp.arange(B))
        logits, sown = model.apply(params, token_BS, noise, rngs={"dropout": jax.random.key(1)}, mutable=["losses"])
        return cross_entropy(logits[:, None], np.array([[1], [0], [6]]), jnp.ones((B, 1)))[0] + sown_losses(sown, jnp.ones(B, bool))

    gradients = jax.jit(jax.grad(loss))(params)["params"]
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(gradients))
    for name in ("embedding", "encoder_0", "out"):
        assert any(x.any() for x in jax.tree.leaves(gradients[name]))


def test_the_linear_route_is_the_dense_one():
    """Under padding."""
    dense, linear = (
        run(params, tokens) for _, params, tokens, run in (case("mean", "implicit_kernel", r) for r in ("dense", "linear"))
    )
    assert np.abs(dense).max() > 0.1
    np.testing.assert_allclose(linear, dense, rtol=1e-4, atol=1e-5)
