"""The Transformer against plain numpy, and what may and may not influence a logit."""

import functools
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import transformer as reference

from attention_variants import variants
from attention_variants.data.tokens import PAD
from attention_variants.models import transformer
from attention_variants.models.heads import MultiHeadAttention, Noise, trace_weights
from attention_variants.models.transformer import Config, ResidualDropout

B, S, T, H, K, F, VOCABULARY = 3, 5, 7, 2, 11, 13, 17
KEY = jax.random.key(0)
both_norms = pytest.mark.parametrize("norm", ["post", "pre"])


@functools.cache
def case(norm, positions="sinusoidal"):
    """The model, its parameters moved off zeros and ones, source and target with padding, and a compiled forward pass."""
    model = transformer.build(
        Config(layers=2, width=H * K, heads=H, feed_forward=F, norm=norm, positions=positions),
        variants.load("standard").Config(),
        VOCABULARY,
    )
    random = np.random.default_rng(0)
    source, target = random.integers(4, VOCABULARY, (B, S)), random.integers(4, VOCABULARY, (B, T))
    source[1, 3:], target[1, 5:], target[2, 2:] = PAD, PAD, PAD
    forward = lambda params, *tokens, noise=None, key=KEY: model.apply(params, *tokens, noise, rngs={"dropout": key})
    shapes = jax.eval_shape(model.init, KEY, source, target)
    leaves, tree = jax.tree.flatten(shapes)
    params = jax.tree.unflatten(tree, [jnp.asarray(random.normal(size=x.shape, scale=0.3), x.dtype) for x in leaves])
    return types.SimpleNamespace(model=model, params=params, source=source, target=target, run=jax.jit(forward))


@both_norms
def test_it_is_the_paper_in_numpy(norm):
    """Encoder, decoder, norms, residuals, positions, scaled and shared embedding: all logits, from the same parameters."""
    c = case(norm)
    expected = reference.logits(c.params["params"], c.source, c.target, norm=norm)
    assert expected.std() > 0.3
    np.testing.assert_allclose(c.run(c.params, c.source, c.target), expected, rtol=1e-4, atol=1e-4)


@both_norms
def test_no_logit_sees_its_own_or_a_later_target(norm):
    """Changing targets from t on leaves logits up to and with t; logit t + 1 feels target t."""
    c = case(norm)
    whole = c.run(c.params, c.source, c.target)
    for t in range(T):
        other = c.run(c.params, c.source, np.where(np.arange(T) >= t, 4 + (c.target + 1) % 13, c.target))
        np.testing.assert_allclose(other[:, : t + 1], whole[:, : t + 1], atol=1e-6)
        if t + 1 < T:
            assert (np.abs(other - whole)[:, t + 1].max(-1) > 1e-3).all()


@both_norms
def test_padding_of_the_source_is_not_seen(norm):
    """More padding changes no logit, and no gradient; a source token that is not padding is felt by every logit."""
    c = case(norm)
    whole = c.run(c.params, c.source, c.target)
    longer = np.pad(c.source, ((0, 0), (0, 4)), constant_values=PAD)
    np.testing.assert_allclose(c.run(c.params, longer, c.target), whole, rtol=1e-4, atol=1e-5)
    if norm == "pre":
        gradient = jax.jit(jax.grad(lambda params, source: (c.run(params, source, c.target) ** 2).mean()))
        close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
        jax.tree.map(close, gradient(c.params, c.source), gradient(c.params, longer))
    last = c.source.copy()
    last[0, S - 1] = 4 + (last[0, S - 1] + 1) % 13
    moved = np.abs(c.run(c.params, last, c.target) - whole).max(-1)
    assert (moved[0] > 1e-4).all()
    assert not moved[1:].any()


def test_padding_of_the_target_is_not_seen():
    """A target padded further has the same logits before."""
    c = case("post")
    longer = np.pad(c.target, ((0, 0), (0, 4)), constant_values=PAD)
    np.testing.assert_allclose(c.run(c.params, c.source, longer)[:, :T], c.run(c.params, c.source, c.target), rtol=1e-4, atol=1e-5)


@both_norms
def test_rows_of_padding_are_finite_and_harm_nobody(norm):
    """A batch is filled up with empty rows: logits and gradients are finite, other rows unchanged."""
    c = case(norm)
    source, target = c.source.copy(), c.target.copy()
    source[0], target[0] = PAD, PAD
    logits = c.run(c.params, source, target)
    assert jnp.isfinite(logits).all()
    np.testing.assert_allclose(logits[1:], c.run(c.params, c.source, c.target)[1:], atol=1e-5)
    if norm == "post":
        gradient = jax.jit(jax.grad(lambda params: (c.run(params, source, target) ** 2).mean()))(c.params)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(gradient))


@both_norms
def test_a_row_does_not_depend_on_its_batch(norm):
    c = case(norm)
    whole = c.run(c.params, c.source, c.target)
    np.testing.assert_allclose(c.run(c.params, c.source[1:2], c.target[1:2]), whole[1:2], rtol=1e-4, atol=1e-5)
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(c.run(c.params, c.source[order], c.target[order]), whole[order], rtol=1e-4, atol=1e-5)


@both_norms
def test_one_matrix_embeds_and_predicts(norm):
    """There is one parameter with an axis of the vocabulary: (vocabulary, D). Final norms exist in pre-norm only."""
    params = case(norm).params["params"]
    with_vocabulary = [path for path, x in jax.tree_util.tree_leaves_with_path(params) if VOCABULARY in x.shape]
    assert len(with_vocabulary) == 1
    assert params["embedding"]["embedding"].shape == (VOCABULARY, H * K)
    assert ("encoder_norm" in params) == ("decoder_norm" in params) == (norm == "pre")


@pytest.mark.parametrize(
    ("norm", "positions"),
    [("post", "sinusoidal"), *(("pre", way) for way in typing.get_args(typing.get_type_hints(Config)["positions"]))],
)
def test_decoding_step_by_step_is_decoding_at_once(norm, positions):
    """Logits of every position from the cache equal those of the whole target, also with room to spare."""
    c = case(norm, positions)
    whole = c.run(c.params, c.source, c.target)
    encoded, mask = c.model.apply(c.params, c.source, method="encode")
    step = jax.jit(functools.partial(c.model.apply, method="step"))
    caches = c.model.apply(c.params, encoded, mask, T + 2, method="start")
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), caches)
    token = jnp.full(B, reference.BEGIN)
    for at in range(T):
        logits, caches = step(c.params, token[:, None], at, mask, caches)
        np.testing.assert_allclose(logits[:, 0], whole[:, at], rtol=1e-4, atol=1e-4)
        token = c.target[:, at]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), caches) == shapes


def test_keys_may_have_another_size_than_values():
    """d_k of table 3, rows (B): queries and keys alone; decoding from the cache is decoding at once."""
    config = Config(layers=1, width=H * K, heads=H, feed_forward=F, key_size=5)
    model = transformer.build(config, variants.load("standard").Config(), VOCABULARY)
    c = case("post")
    params = jax.jit(model.init)(jax.random.key(0), c.source, c.target)
    shapes = {name: x["kernel"].shape for name, x in params["params"]["decoder_0"]["cross_attention"].items()}
    assert shapes == {"query": (H * K, H, 5), "key": (H * K, H, 5), "value": (H * K, H, K), "out": (H, K, H * K)}
    whole = model.apply(params, c.source, c.target)
    encoded, mask = model.apply(params, c.source, method="encode")
    caches = model.apply(params, encoded, mask, T, method="start")
    token = jnp.full(B, reference.BEGIN)
    for at in range(T):
        logits, caches = model.apply(params, token[:, None], at, mask, caches, method="step")
        np.testing.assert_allclose(logits[:, 0], whole[:, at], rtol=1e-4, atol=1e-4)
        token = c.target[:, at]


def test_what_stands_in_a_cache_before_it_is_written_does_not_matter():
    c = case("post")
    encoded, mask = c.model.apply(c.params, c.source, method="encode")
    step = jax.jit(functools.partial(c.model.apply, method="step"))
    clean = c.model.apply(c.params, encoded, mask, T, method="start")
    dirty = [cache._replace(target=jax.tree.map(lambda x: x + 7.0, cache.target)) for cache in clean]
    for at, token in enumerate(c.target.T[:3]):
        (logits, clean), (other, dirty) = (step(c.params, token[:, None], at, mask, caches) for caches in (clean, dirty))
        np.testing.assert_array_equal(logits, other)


def test_dropout_belongs_to_the_example():
    """Permuting a batch with its ids permutes the logits; ids and key decide; rates of zero are no noise."""
    c, key = case("post"), jax.random.key(5)
    ids, order = jnp.array([40, 2, 9]), np.array([2, 0, 1])
    run = lambda order, ids, rate, rate2, key=key: c.run(
        c.params, c.source[order], c.target[order], noise=Noise(rate, rate2, ids), key=key
    )
    all_rows = np.arange(B)
    whole, quiet = run(all_rows, ids, 0.3, 0.2), c.run(c.params, c.source, c.target)
    np.testing.assert_allclose(run(order, ids[order], 0.3, 0.2), whole[order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(all_rows, ids, 0.0, 0.0), quiet, rtol=1e-4, atol=1e-4)
    for other in (
        run(all_rows, ids[order], 0.3, 0.2),
        run(all_rows, ids, 0.3, 0.2, jax.random.key(6)),
        run(all_rows, ids, 0.3, 0.0),
        run(all_rows, ids, 0.0, 0.2),
        quiet,
    ):
        assert (np.abs(other - whole).max((1, 2)) > 1e-3).all()


def dropouts(noise):
    """What every ResidualDropout of the model returns, by place."""
    c = case("post")
    target = c.source  # one length, so that every place has the same shape
    pick = lambda module, _: isinstance(module, ResidualDropout)
    return c.model.apply(c.params, c.source, target, noise, rngs={"dropout": jax.random.key(5)}, capture_intermediates=pick)[1]


def test_every_place_drops_other_elements():
    """Embeddings and sublayers, 2 + 2 · 2 + 2 · 3 places, each at the rate of `dropout`, with unrelated bits."""
    found = jax.tree.leaves(dropouts(Noise(0.5, 0.0, jnp.arange(B))))
    assert len(found) == 12
    zeros = [np.asarray(x == 0).ravel() for x in found]
    assert all(0.3 < x.mean() < 0.7 for x in zeros)
    for n, one in enumerate(zeros):
        assert all(0.3 < (one == other).mean() < 0.7 for other in zeros[n + 1 :])
    quiet = jax.tree.leaves(dropouts(Noise(0.0, 0.5, jnp.arange(B))))
    assert all((x != 0).mean() > 0.9 for x in quiet)


def test_the_trace_shows_where_attention_may_look():
    """Weights of every attention: the encoder's and the cross ones skip padding, the decoder's are causal; rows sum to one."""
    c = case("post")
    trace = c.model.apply(c.params, c.source, c.target, mutable=["trace"])[1]["trace"]
    padding = np.broadcast_to((c.source == PAD)[:, None, None], (B, H, T, S))
    for n in range(2):
        own = trace_weights(trace[f"encoder_{n}"]["self_attention"])
        back = trace_weights(trace[f"decoder_{n}"]["self_attention"])
        across = trace_weights(trace[f"decoder_{n}"]["cross_attention"])
        assert (own.shape, back.shape, across.shape) == ((B, H, S, S), (B, H, T, T), (B, H, T, S))
        np.testing.assert_array_equal(own == 0, padding[:, :, :S])
        np.testing.assert_array_equal(across == 0, padding)
        np.testing.assert_array_equal(back == 0, np.broadcast_to(np.triu(np.ones((T, T), bool), 1), back.shape))
        for w in (own, back, across):
            np.testing.assert_allclose(w.sum(-1), 1, rtol=1e-5)


def test_a_route_and_a_variant_arrive_in_every_attention():
    """The config's route and the variant given are those of each MultiHeadAttention."""
    marker = variants.load("standard").Config()
    model = transformer.build(Config(layers=2, width=H * K, heads=H, feed_forward=F, route="dense"), marker, VOCABULARY)
    seen = []

    def watch(run, args, kwargs, context):
        if isinstance(context.module, MultiHeadAttention):
            seen.append(context.module)
        return run(*args, **kwargs)

    with transformer.nn.intercept_methods(watch):
        jax.eval_shape(model.init, KEY, *(jnp.ones((1, n), int) for n in (S, T)))
    assert len({module.path for module in seen}) == 6
    assert {(module.route, module.num_heads, module.variant is marker) for module in seen} == {("dense", H, True)}


def test_bfloat16_computes_narrow_and_stores_wide():
    """Parameters and logits are float32, and the logits near those of a float32 model."""
    c = case("pre")
    config = Config(layers=2, width=H * K, heads=H, feed_forward=F, norm="pre", dtype="bfloat16")
    narrow = transformer.build(config, c.model.variant, VOCABULARY)
    shapes = jax.eval_shape(narrow.init, KEY, c.source, c.target)
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, c.params)
    logits = jax.jit(narrow.apply)(c.params, c.source, c.target)
    assert logits.dtype == jnp.float32
    whole = c.run(c.params, c.source, c.target)
    assert 0 < np.abs(logits - whole).mean() < 0.03 * np.abs(whole).mean()


def test_float64_computes_and_stores_wide():
    """Every parameter and logit is float64, and near the definition far beyond float32 (positions are float32)."""
    c = case("post")
    with jax.enable_x64(True):
        config = Config(layers=2, width=H * K, heads=H, feed_forward=F, dtype="float64")
        wide = transformer.build(config, c.model.variant, VOCABULARY)
        shapes = jax.eval_shape(wide.init, KEY, c.source, c.target)
        assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float64)}
        params = jax.tree.map(lambda x: x.astype(jnp.float64), c.params)
        logits = jax.jit(wide.apply)(params, c.source, c.target)
        assert logits.dtype == jnp.float64
    np.testing.assert_allclose(logits, reference.logits(params["params"], c.source, c.target, norm="post"), rtol=1e-5, atol=1e-5)


def test_embeddings_start_with_length_one():
    """Entries of variance 1 / D, so that scaled embeddings and logits of a normalised output are of order one."""
    model = transformer.build(Config(layers=1, width=62, heads=2, feed_forward=F), variants.load("standard").Config(), 1009)
    table = jax.jit(model.init)(jax.random.key(0), *[jnp.ones((1, 2), int)] * 2)["params"]["embedding"]["embedding"]
    np.testing.assert_allclose(table.std(), 62**-0.5, rtol=0.02)
