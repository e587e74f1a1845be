"""Implicit-kernel attention as its authors' code computes it, against recorded values; and what the clean variant does instead.

`tests/golden` has what their code (gtshs2/Implicit_Kernel_Attention, commit 1a9bf83, `MHA.py`) gave for a layer of width 24 with 3
heads and 10 points, in float64 and evaluation mode, with all of its random draws.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.variants import B, H, K, Q, S, arrays, assert_close, draw
from scipy import stats

from attention_variants import variants
from attention_variants.errors import InputError
from attention_variants.models.heads import MultiHeadAttention, Noise, trace_weights
from attention_variants.ops.attend import attend
from attention_variants.ops.masks import Mask
from attention_variants.ops.rotary import Rotary
from attention_variants.variants import implicit_kernel, spectral_sampler
from attention_variants.variants.implicit_kernel_authors import Config, Sampler

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
HEADS, SIZE = 3, 8
SAMPLER = {  # ours: theirs
    "hidden_weight": "copulanet.w1", "hidden_bias": "copulanet.b1", "mean_weight": "copulanet.w2", "mean_bias": "copulanet.b2",
    "log_scale_weight": "copulanet.w3", "log_scale_bias": "copulanet.b3",
    "coupling_weight": "copulanet.copula_w1", "coupling_bias": "copulanet.copula_b1",
} | {
    f"net_{n}_{ours}_{kind}": f"wnet{n}.{kind[0]}{theirs}"
    for n in (1, 2) for kind in ("weight", "bias") for ours, theirs in (("in", 1), ("hidden", 2), ("out", 3))
}  # fmt: skip
ROWS = jnp.array([17, 4])


def parameters(z) -> dict:
    """Their parameters as those of our layer."""
    found = {}
    for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v")):
        kernel, bias = z[f"param/fc_{theirs}.weight"].T, z[f"param/fc_{theirs}.bias"]
        found[ours] = {"kernel": kernel.reshape(-1, HEADS, SIZE), "bias": bias.reshape(HEADS, SIZE)}
    found["out"] = {"kernel": z["param/fc_o.weight"].T.reshape(HEADS, SIZE, -1), "bias": z["param/fc_o.bias"]}
    if "mu_BKH" not in z:
        found["variant"] = {f"frequencies_{n}": z[f"param/attsharedw.w{n}"] for n in (1, 2)}
    else:
        sampler = {ours: z[f"param/attsharedw.{theirs}"] for ours, theirs in SAMPLER.items()}
        sampler = {name: value.reshape(SIZE) if name.endswith("bias") else value for name, value in sampler.items()}
        constants = {f"{name}_constant": np.zeros((1, SIZE, HEADS)) for name in ("query", "key")}
        found["variant"] = {"sampler": sampler | constants}  # the clean variant has constants, too
    return found


@pytest.mark.parametrize("route", ["dense", "blockwise"])
@pytest.mark.parametrize("name", ["ika_direct_p1.8", "ika_direct_p3", "mikan_p2"])
def test_it_is_what_the_authors_code_computes(name, route, monkeypatch):
    """κ², magnitude, weights, output and extra loss, with their noise; and it is not what the clean variant computes."""
    z = dict(np.load(GOLDEN / f"{name}.npz"))
    mode = "copula" if "mu_BKH" in z else "direct"
    with jax.enable_x64(True):
        if mode == "copula":
            drawn = jnp.concatenate([z["noise_positive"], z["noise_negative"]], -1)[None]
            monkeypatch.setattr(spectral_sampler.Sampler, "_noise", lambda self, batch, row_B: drawn)
        settings = dict(mode=mode, p=float(z["p"]), points=int(z["M"]), magnitude_dropout=0.0)
        types = dict(qkv_features=HEADS * SIZE, dtype=jnp.float64, param_dtype=jnp.float64, route=route)
        module = MultiHeadAttention(HEADS, variant=Config(**settings), **types)
        params, x = jax.tree.map(jnp.asarray, parameters(z)), jnp.asarray(z["x_BTD"])
        rngs, noise = {"dropout": jax.random.key(0)}, Noise(None, None, jnp.zeros(1, jnp.uint32))
        out, variables = module.apply({"params": params}, x, noise=noise, rngs=rngs, mutable=["trace", "losses"])
        trace = variables["trace"]
        score, queries, keys = trace["score"], trace["queries"], trace["keys"]
        found = {
            "kappa_squared_BHTS": jnp.exp(score.log_similarity(queries, keys)) - score.epsilon,
            "magnitude_BHTS": score.magnitudes(queries, keys),
            "weights_BHTS": trace_weights(trace),
            "out_BTD": out,
            "w1": score.w1,
            "w2": score.w2,
            "extra_loss": sum(x.sum() for x in jax.tree.leaves(variables.get("losses", {}))),
        }
        for key, value in found.items():
            np.testing.assert_allclose(value, z[key], rtol=1e-5, atol=1e-5 * abs(z[key]).max(), err_msg=key)
        clean = MultiHeadAttention(HEADS, variant=implicit_kernel.Config(**settings), **types)
        assert abs(clean.apply({"params": params}, x) - z["out_BTD"]).max() > 1e-3 * abs(z["out_BTD"]).max()


def made(config, rows=None, mask=None, seed=8, given=None):
    """(score, losses) of a layer, its parameters those of the clean variant, moved off their initial values."""
    clean = implicit_kernel.Config(mode=config.mode, points=config.points)
    params = variants.layer(clean, heads=H, size=K).init(jax.random.key(0), *arrays()[:2], None)["params"]
    params = jax.tree.map(lambda p: p + 0.3 * draw(p.size, *p.shape), params)
    layer, rngs = variants.layer(config, heads=H, size=K), {"dropout": jax.random.key(seed)}
    score, sown = layer.apply({"params": params}, *(given or arrays()[:2]), mask, rows, rngs=rngs, mutable=["losses"])
    return score, sown.get("losses", {}).get("sampler", {})


def test_the_magnitude_is_divided_by_a_root_of_a_root():
    """Theirs by 2 d^¼; the clean one by 2 √d, which is what makes an RBF the dot product."""
    _, k, _ = arrays()
    norm_BHS = np.square(np.linalg.norm(k, axis=-1)).swapaxes(1, 2)
    theirs, ours = (made(kind(points=4))[0] for kind in (Config, implicit_kernel.Config))
    zero = theirs.prepare_queries(jnp.zeros((B, 1, H, K)))
    np.testing.assert_allclose(theirs.magnitudes(zero, theirs.prepare_keys(k))[:, :, 0], norm_BHS / (2 * K**0.25), rtol=1e-5)
    np.testing.assert_allclose(ours.log_magnitude(ours.prepare_keys(k))[:, :, 0], norm_BHS / (2 * K**0.5), rtol=1e-5)


@pytest.mark.parametrize("route", ["dense", "blockwise"])
def test_their_dropout_falls_on_pairs_and_lets_norms_of_queries_count(route):
    """A dropped pair has magnitude 1; bits are the example's, whatever the route. The clean variant drops keys."""
    q, k, v = arrays()
    config = Config(points=4, magnitude_dropout=0.4)
    of = lambda score, q=q: score.magnitudes(score.prepare_queries(q), score.prepare_keys(k))
    (score, _), (quiet, _) = made(config, rows=ROWS), made(config)
    whole, dropped = of(quiet), of(score)
    gone = np.asarray(dropped == 0)
    assert 0.3 < gone.mean() < 0.5
    np.testing.assert_allclose(dropped[~gone], whole[~gone] / 0.6, rtol=1e-5)
    assert (gone.any(2) == gone.all(2)).mean() < 0.3  # pairs, where the clean variant drops whole keys
    assert_close(attend(q, k, v, score=score, route=route), attend(q, k, v, score=score, route="dense"))
    turn = np.array([1, 0])
    other, _ = made(config, rows=ROWS[turn], given=(q[turn], k[turn]))
    turned = attend(q[turn], k[turn], v[turn], score=other, route=route)
    assert_close(turned, attend(q, k, v, score=score, route="dense")[turn])
    assert abs(of(made(config, rows=ROWS, seed=9)[0]) - dropped).max() > 0.1
    turned = Rotary(made(Config(points=4, p=3.0, magnitude_dropout=0.4), rows=ROWS)[0])
    at = turned.prepare_queries(q), turned.prepare_keys(k)
    left = abs(turned.logits(*at) - turned.log_similarity(*at))
    np.testing.assert_array_equal(left < 1e-6, gone)  # rotary positions, which they have not, take nothing from what is dropped
    grown = lambda score: np.ptp(of(score, 2 * q) - of(score), axis=-1).max()
    assert grown(score) > 0.1  # the norm of a query does not cancel …
    assert grown(quiet) < 1e-4  # … but where nothing is dropped


def test_their_sampled_noise_is_another_deviation_than_its_cost_takes():
    """√σ/10 beside the clean variant's σ, and the same divergence for both, which is that of σ."""
    settings = dict(mode="sampled", points=4, kl_weight=1.0)
    theirs, ours = (kind(**settings) for kind in (Config, implicit_kernel.Config))
    log_scale = jnp.log(jnp.array([[3.0]]))  # σ is 3 σ₀
    of = lambda sampler, config: sampler(config, 1, 1, 2).scale(log_scale)
    np.testing.assert_allclose(of(spectral_sampler.Sampler, ours), 0.3, rtol=1e-6)
    np.testing.assert_allclose(of(Sampler, theirs), np.sqrt(0.1 * 3) / 10, rtol=1e-6)
    assert_close(made(theirs, rows=ROWS)[1]["kl"][0], made(ours, rows=ROWS)[1]["kl"][0])


def test_their_copula_couples_nothing():
    """Noise of two heads: uncorrelated, of another deviation than 1, and cut; the clean one is as L Lᵀ says."""
    t = jnp.tanh(2 * draw(1, 1, K, H))
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((1, K, H, 40_000)), jnp.float32)
    theirs, cost, correlation = Sampler(Config(mode="copula"), H, K, 2).couple(t, noise)
    wanted = np.einsum("khj,kij->khi", *(np.float64(spectral_sampler.coupling(t)[0]),) * 2)
    assert abs(wanted - np.eye(H)).max() > 0.5
    for k in range(K):
        np.testing.assert_allclose(np.corrcoef(theirs[0, k]), np.eye(H), atol=0.02)
    np.testing.assert_array_equal(correlation[0], np.broadcast_to(np.eye(H), (K, H, H)))
    longer = abs(np.asarray(spectral_sampler.lower(t).sum(-1)[0]))
    assert abs(longer - 1).max() > 0.2
    assert abs(theirs).max() <= 2
    ours, *_ = spectral_sampler.Sampler(implicit_kernel.Config(mode="copula"), H, K, 2).couple(t, noise)
    for k in range(K):
        np.testing.assert_allclose(np.corrcoef(ours[0, k]), wanted[k], atol=0.02)
    uniform = stats.norm.cdf(np.float64(theirs))
    np.testing.assert_allclose(cost, -(uniform * np.log(uniform + 1e-5)).sum(-1), rtol=1e-4)


def test_their_copula_cost_is_no_divergence():
    """Of independent heads (t = 0) it is far above 0, where the divergence from independent heads is 0."""
    t, noise = jnp.zeros((1, K, H)), draw(3, 1, K, H, 10)
    assert (Sampler(Config(mode="copula"), H, K, 2).couple(t, noise)[1] > 1).all()
    assert_close(spectral_sampler.Sampler(implicit_kernel.Config(mode="copula"), H, K, 2).couple(t, noise)[1], 0.0)


@pytest.mark.parametrize("mode", ["sampled", "copula"])
def test_they_pool_padding_too(mode):
    """What stands in padding changes their frequencies, and not the clean variant's."""
    q, k, _ = arrays(keys=Q)
    valid = jnp.arange(Q)[None] < jnp.array([[4], [3]])
    changed = q, jnp.where(valid[..., None, None], k, 99.0)
    for kind, moved in ((Config, True), (implicit_kernel.Config, False)):
        before, after = (made(kind(mode=mode, points=4), mask=Mask(k_valid=valid), given=g)[0].w1 for g in ((q, k), changed))
        assert (abs(before - after).max() > 1e-3) == moved


@pytest.mark.parametrize("mask", [Mask(causal=True), Mask(dense=jnp.ones((1, 1, Q, S), bool))])
def test_what_would_leak_the_future_is_refused(mask):
    with pytest.raises(InputError, match="for whole sequences that look at themselves"):
        made(Config(mode="copula", points=4), mask=mask)
    made(Config(points=4), mask=mask)


@pytest.mark.parametrize("changes", [{"learn_p": True}, {"magnitude": "p"}, {"stationary": True}, {"positive": "shifted"}])
def test_what_their_code_has_not_is_refused(changes):
    with pytest.raises(InputError, match="are not in the authors' code"):
        Config(**changes)
