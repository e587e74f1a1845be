"""A learned spectral density: what it may look at, what it costs, and how its heads hang together."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.variants import B, H, K, Q, S, arrays, assert_close, draw
from scipy import stats

from attention_variants import variants
from attention_variants.data.tokens import BEGIN
from attention_variants.errors import InputError
from attention_variants.models.heads import MultiHeadAttention, Noise, sown_losses
from attention_variants.models.transformer import Config as TransformerConfig
from attention_variants.models.transformer import Transformer
from attention_variants.ops.masks import Mask
from attention_variants.variants.implicit_kernel import Config
from attention_variants.variants.spectral_sampler import coupled, coupling

MODES = ("direct", "sampled", "copula")
ROWS = jnp.array([17, 4])


def made(config, rows=None, mask=None, q=None, k=None, seed=8, params=None):
    """(score, losses, parameters) of a layer, its parameters moved off their initial values."""
    layer = variants.layer(config, heads=H, size=K)
    given = arrays() if k is None else (q, k)
    if params is None:
        params = layer.init(jax.random.key(0), *arrays()[:2], None).get("params", {})
        params = jax.tree.map(lambda p: p + 0.3 * draw(p.size, *p.shape), params)
    rngs = {"dropout": jax.random.key(seed)}
    score, sown = layer.apply({"params": params}, *given[:2], mask, rows, rngs=rngs, mutable=["losses"])
    return score, sown.get("losses", {}).get("sampler", {}), params


@pytest.mark.parametrize("points", [6, 10])
@pytest.mark.parametrize("mode", ["sampled", "copula"])
def test_the_density_is_symmetric(mode, points):
    """The nets are odd, but for the jump at 0: without noise the two halves, whose means differ in sign, are opposite."""
    config = Config(mode=mode, points=points, prior_scale=1e-30)
    score, _, _ = made(config, rows=ROWS)
    half = points // 2
    for w in (score.w1, score.w2):
        assert w.shape == (B, K, H, points)
        assert_close(w[..., :half], -w[..., half:])
        assert abs(w).max() > 0.01
    assert abs(score.w1 - score.w2).max() > 0.01


def test_the_heads_hang_together_as_the_copula_says():
    """Of 40,000 examples' noise, correlations of heads are those of L Lᵀ within 0.02; without a copula they are 0."""
    t = jnp.tanh(draw(1, 1, K, H) * 2)
    wanted = np.einsum("khj,kij->khi", *(np.float64(coupling(t)[0]),) * 2)
    assert abs(wanted - np.eye(H)).max() > 0.5
    noise = np.random.default_rng(0).standard_normal((K, H, 40_000))
    found = np.asarray(coupled(coupling(t), noise[None])[0])
    for k in range(K):
        np.testing.assert_allclose(np.corrcoef(found[k]), wanted[k], atol=0.02)
        np.testing.assert_allclose(found[k].std(1), 1, atol=0.02)


@pytest.mark.parametrize("mode", ["sampled", "copula"])
def test_costs_are_the_divergences_of_their_formulas(mode):
    """KL(N(μ, σ²) ‖ N(0, σ₀²)) by numerical integration; of a copula −½ log det of its correlations; by example, in training."""
    config = Config(mode=mode, points=4, prior_scale=0.3, kl_weight=0.7, copula_weight=0.9)
    _, costs, params = made(config, rows=ROWS)
    assert not made(config)[1]
    assert set(costs) == ({"kl"} if mode == "sampled" else {"kl", "copula"})
    p = jax.tree.map(np.float64, params["sampler"])
    q, k, _ = map(np.float64, arrays())
    linear = lambda name, x: np.einsum("ih,ik->kh", x, p[f"{name}_weight"]) + p[f"{name}_bias"][:, None]
    for b in range(B):
        x = np.concatenate([q[b].mean(0).T, k[b].mean(0).T])
        hidden = linear("hidden", x)
        hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
        mean, scale = linear("mean", hidden), 0.3 * np.exp(linear("log_scale", hidden))
        total = 0.0
        for m, s in zip(mean.ravel(), scale.ravel(), strict=True):
            at = np.linspace(m - 12 * s, m + 12 * s, 4001)
            density = stats.norm(m, s).pdf(at)
            total += np.trapezoid(density * (stats.norm(m, s).logpdf(at) - stats.norm(0, 0.3).logpdf(at)), at)
        assert costs["kl"][0][b] == pytest.approx(0.7 * total, rel=1e-3)
        if mode == "copula":
            t = np.tanh(linear("coupling", hidden))
            lower = np.tril(t[:, :, None] * t[:, None], -1) + np.eye(H)
            lower /= np.linalg.norm(lower, axis=-1, keepdims=True)
            wanted = -0.5 * np.linalg.slogdet(lower @ lower.swapaxes(1, 2))[1].sum()
            assert costs["copula"][0][b] == pytest.approx(0.9 * wanted, rel=1e-3)


@pytest.mark.parametrize("mode", ["sampled", "copula"])
def test_noise_belongs_to_the_example_and_evaluation_has_one_for_all(mode):
    config, turn = Config(mode=mode, points=4), np.array([1, 0])
    q, k, _ = arrays()
    whole, _, params = made(config, rows=ROWS)
    assert_close(made(config, rows=ROWS[turn], q=q[turn], k=k[turn], params=params)[0].w1, whole.w1[turn])
    assert_close(made(config, rows=ROWS[:1], q=q[:1], k=k[:1], params=params)[0].w1, whole.w1[:1])
    assert abs(made(config, rows=ROWS[turn], params=params)[0].w1 - whole.w1).max() > 0.01
    assert abs(made(config, rows=ROWS, params=params, seed=9)[0].w1 - whole.w1).max() > 0.01
    still = made(config, params=params)[0]
    assert_close(made(config, params=params, seed=9)[0].w1, still.w1)
    of_layer = lambda name: variants.layer(config, heads=H, size=K, name=name)
    both = nn.Sequential([lambda *given: [of_layer(name)(*given).w1 for name in ("one", "other")]])
    one, other = both.apply({"params": {"one": params, "other": params}}, q, k, None)
    assert abs(one - other).max() > 0.01  # each layer has its own


@pytest.mark.parametrize("mode", ["sampled", "copula"])
def test_what_the_sampler_looks_at(mode):
    """Tokens that there are; in cross-attention keys alone; nothing where the future is hidden or nothing is there yet."""
    config = Config(mode=mode, points=4)
    q, k, _ = arrays(keys=Q)
    valid = jnp.arange(Q)[None] < jnp.array([[4], [3]])
    mask, params = Mask(k_valid=valid), made(config)[2]
    of = lambda q, k, mask=None: made(config, q=q, k=k, mask=mask, params=params)[0].w1
    changed = jnp.where(valid[..., None, None], k, 99.0)
    assert_close(of(q, changed, mask), of(q, k, mask))
    assert abs(of(q, k, mask) - of(q, k)).max() > 1e-3
    assert abs(of(q + 1, k) - of(q, k)).max() > 1e-3
    assert_close(of(jnp.where(valid[..., None, None], q, 99.0), k, mask), of(q, k, mask))
    assert_close(of(q + 1, k, Mask(q_valid=0 * valid)), of(q, k, Mask(q_valid=0 * valid)))
    across = MultiHeadAttention(H, variant=config, qkv_features=H * K)
    x, source = draw(1, B, 5, 8), draw(2, B, S, 8)
    variables = across.init(jax.random.key(0), x, source)
    traced = lambda x, y, **given: across.apply(variables, x, y, mutable=["trace"], **given)[1]["trace"]["score"].w1
    assert_close(traced(x + 1, source), traced(x, source))
    assert abs(traced(x, source + 1) - traced(x, source)).max() > 1e-5
    for hidden in (Mask(causal=True), Mask(dense=jnp.ones((1, 1, Q, Q), bool)), Mask(window=2), Mask(others=True)):
        assert_close(of(q + 1, k - 1, hidden), of(q, k, hidden))
    with pytest.raises(InputError, match="which reads a whole sequence, where rows hold several"):
        of(q, k, Mask(q_segments=jnp.ones((1, 1)), k_segments=jnp.ones((1, 1))))


@pytest.mark.parametrize("mode", MODES)
def test_no_target_is_seen_before_its_turn(mode):
    """In a whole Transformer, training: what comes out at t is the same, bit for bit, whatever targets from t on are; and of a
    loss at t, gradients into the embeddings of targets from t on, which stand nowhere else, are exactly zero."""
    config = TransformerConfig(layers=1, width=12, heads=3, feed_forward=8)
    model = Transformer(config, Config(mode=mode, points=4), 20)
    source, target = jnp.array([[4, 5, 6, 2], [7, 8, 2, 0]]), 10 + jnp.arange(10).reshape(2, 5)
    params = model.init(jax.random.key(0), source, target)["params"]
    noise = Noise(None, None, ROWS)

    def hidden(target, params=params):
        return model.apply({"params": params}, source, target, noise, method="hidden", rngs={"dropout": jax.random.key(1)})

    def loss(params, t):
        return (hidden(target, params)[:, t] * draw(3, 2, 12)).sum()

    base = hidden(target)
    for t in range(5):
        moved = hidden(target.at[:, t].set(3))
        assert_close(moved[:, : t + 1], base[:, : t + 1], 0.0)
        assert t == 4 or (moved[:, t + 1 :] != base[:, t + 1 :]).any()
        into_VD = jax.grad(loss)(params, t)["embedding"]["embedding"]
        assert (into_VD[target[:, t:]] == 0).all()
        assert (into_VD[target[:, :t]] != 0).any(-1).all()


@pytest.mark.parametrize("mode", ["sampled", "copula"])
def test_costs_are_sown_once_for_each_example_and_not_by_init(mode):
    x = draw(1, B, S, H * 4)
    module = MultiHeadAttention(H, variant=Config(mode=mode, points=4))
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(keys, x, noise=Noise(None, None, ROWS))
    assert set(variables) == {"params"}
    run = lambda x, rows: module.apply(variables, x, noise=Noise(None, None, rows), rngs=keys, mutable=["losses"])[1]
    whole = sown_losses(run(x, ROWS), jnp.ones(B, bool))
    each = [float(sown_losses(run(x[b : b + 1], ROWS[b : b + 1]), jnp.ones(1, bool))) for b in range(B)]
    assert min(each) > 0
    assert whole == pytest.approx(sum(each), rel=1e-5)
    assert sown_losses(run(x, ROWS), jnp.array([False, True])) == pytest.approx(each[1], rel=1e-5)
    assert sown_losses({}, jnp.ones(B, bool)) == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_cache_is_read_with_the_kernels_of_the_whole(mode):
    """Logits of a Transformer that writes token by token are those of all at once, with padding in the source and rotary too."""
    config = TransformerConfig(layers=2, width=12, heads=3, feed_forward=8, positions="rotary")
    model = Transformer(config, Config(mode=mode, points=4), 11)
    source, target = jnp.array([[4, 5, 6, 2, 0], [7, 2, 0, 0, 0]]), jnp.array([[4, 6, 5], [9, 4, 2]])
    params = model.init(jax.random.key(0), source, target)["params"]
    params = jax.tree.map(lambda p: p + 0.2 * draw(p.size, *p.shape), params)
    bound = lambda *given, **how: model.apply({"params": params}, *given, **how)
    whole = bound(source, target)
    encoded, mask = bound(source, method="encode")
    caches = bound(encoded, mask, 3, method="start")
    token = jnp.full((2, 1), BEGIN)
    for at in range(3):
        logits, caches = bound(token, at, mask, caches, method="step")
        assert_close(logits[:, 0], whole[:, at], 1e-4)
        token = target[:, at : at + 1]
    assert_close(bound(jnp.pad(source, ((0, 0), (0, 3))), target), whole, 1e-4)  # however a batch is padded


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"points": 0}, "variant.points is 0; expected at least 1"),
        ({"points": 7, "mode": "sampled"}, "variant.points is 7, which two halves cannot share; expected 8, say"),
        ({"prior_scale": 0.0}, "variant.prior_scale is 0.0; expected a number above 0"),
        ({"kl_weight": -1.0}, "variant.kl_weight is -1.0; expected a number from 0 on"),
        ({"copula_weight": float("nan")}, "variant.copula_weight is nan"),
        ({"p": 0.5}, "variant.p is 0.5"),
    ],
)
def test_what_cannot_be_is_refused(changes, sentence):
    with pytest.raises(InputError) as caught:
        Config(**changes)
    assert sentence in str(caught.value)
