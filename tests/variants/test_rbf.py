"""What is learned of a kernel and a magnitude is what made the data, and what is dropped of a magnitude belongs to the example."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases.variants import B, H, K, arrays, assert_close, draw

from attention_variants import variants
from attention_variants.errors import InputError
from attention_variants.ops.attend import attend
from attention_variants.ops.masks import Mask
from attention_variants.variants import kernel_pooling, rbf, standard


@pytest.mark.parametrize("route", ["dense", "blockwise"])
def test_with_the_magnitude_it_is_the_standard_variant(route):
    """As configured: a width of 1 is the dot product's, and it is the magnitude that makes it so."""
    q, k, v = arrays()
    of = lambda config: variants.layer(config, heads=H, size=K).apply({}, q, k, None)
    wanted = attend(q, k, v, score=of(standard.Config()), route=route)
    assert_close(attend(q, k, v, score=of(rbf.Config(magnitude="squared")), route=route), wanted, 1e-6)
    assert abs(attend(q, k, v, score=of(rbf.Config()), route=route) - wanted).max() > 0.01


@pytest.mark.parametrize("power", ["squared", "p"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_learned_p_and_width_are_those_that_made_the_data(power, noise):
    """Within 5 %, from values and queries alone, each head its own; started elsewhere."""
    config = rbf.Config(learn_width=True, per_head=True, magnitude=power, p=2.0, learn_p=True)
    layer = variants.layer(config, heads=H, size=K)
    q, k, v = 1.3 * draw(1, B, 211, H, K), 1.3 * draw(2, B, 101, H, K), draw(3, B, 101, H, 1)
    # Powers grow faster than norms: p = 3 would have all weight on one key, and nothing would tell the width.
    width, p = np.array([0.8, 1.1, 1.4]), np.array([1.4, 2.7, 3.3] if power == "squared" else [1.2, 1.6, 2.3])
    raw = lambda p: jnp.log(jnp.expm1(jnp.asarray(p) - 1))
    truth = {"log_width": jnp.log(width), "p": raw(p)}
    run = lambda params: attend(q, k, v, score=layer.apply({"params": params}, q, k, None), route="dense")
    wanted = run(truth) + noise * draw(4, B, 211, H, 1)
    params, optimizer = layer.init(jax.random.key(0), q, k, None)["params"], optax.adam(optax.cosine_decay_schedule(0.05, 600))

    @jax.jit
    def fit(params):
        def step(carry, _):
            gradient = jax.grad(lambda params: jnp.square(run(params) - wanted).mean())(carry[0])
            updates, state = optimizer.update(gradient, carry[1])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, 600)[0][0]

    found = fit(params)
    np.testing.assert_allclose(jnp.exp(found["log_width"]), width, rtol=0.05)
    np.testing.assert_allclose(1 + jax.nn.softplus(found["p"]), p, rtol=0.05)


def test_dropped_magnitudes_belong_to_the_example():
    """In training alone; bits move with the id, and a dropped key has magnitude 1."""
    config = rbf.Config(magnitude="squared", magnitude_dropout=0.4)
    layer, (q, k, v), rows = variants.layer(config, heads=H, size=K), arrays(), jnp.array([17, 4])

    def run(turn=slice(None), row_B=rows):
        score = layer.apply({}, q[turn], k[turn], None, row_B, rngs={"dropout": jax.random.key(8)})
        return score, attend(q[turn], k[turn], v[turn], score=score)

    whole = run()[1]
    turn = np.array([1, 0])
    assert_close(run(turn, rows[turn])[1], whole[turn])
    quiet = run(row_B=None)[1]
    assert_close(
        quiet, attend(q, k, v, score=variants.layer(rbf.Config(magnitude="squared"), heads=H, size=K).apply({}, q, k, None))
    )
    assert abs(whole - quiet).max() > 0.01
    many = draw(2, 1, 2003, H, K)
    dropped = layer.apply({}, many, many, None, rows[:1], rngs={"dropout": jax.random.key(8)}).prepare_keys(many).log_magnitude_BSH
    still = layer.apply({}, many, many, None).prepare_keys(many).log_magnitude_BSH
    assert np.mean(dropped == 0) == pytest.approx(0.4, abs=0.03)
    assert_close(dropped[dropped != 0], (still / 0.6)[dropped != 0])


@pytest.mark.parametrize(
    "mask",
    [
        Mask(causal=True),
        Mask(window=3),
        Mask(q_segments=jnp.ones((1, 1)), k_segments=jnp.ones((1, 1))),
        Mask(dense=jnp.ones((1, 1, 1, 1), bool)),
        None,
    ],
)
@pytest.mark.parametrize("rule", ["silverman", "abramson", "nearest"])
def test_a_rule_is_refused_where_keys_are_hidden(rule, mask):
    """A causal mask, a window, packed sequences, a dense mask, which may be any of them, and keys that come from a cache."""
    q, k, _ = arrays() if mask else (None, None, None)
    for module in (rbf, kernel_pooling):
        with pytest.raises(InputError, match=f"variant.rule is '{rule}', which reads all keys"):
            variants.layer(module.Config(rule=rule), heads=H, size=K).init(jax.random.key(0), q, k, mask)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 0.0}, "variant.width is 0.0; expected a number above 0"),
        ({"width": float("nan")}, "variant.width is nan"),
        ({"p": 0.99, "magnitude": "p"}, "variant.p is 0.99; expected a number from 1 on"),
        ({"p": float("inf"), "magnitude": "p"}, "variant.p is inf"),
        ({"learn_p": True}, "variant.learn_p wants a magnitude"),
        ({"learn_p": True, "magnitude": "p", "p": 1.0}, "a variant.p above 1 to start from"),
        ({"per_head": True}, "variant.per_head without variant.learn_width"),
        ({"kernel": "constant", "learn_width": True}, "whose width has no gradient"),
        ({"magnitude_dropout": 1.0}, "variant.magnitude_dropout is 1.0"),
        ({"neighbours": 0}, "variant.neighbours is 0"),
    ],
)
def test_what_cannot_be_is_refused(changes, sentence):
    with pytest.raises(InputError) as caught:
        rbf.Config(**changes)
    assert sentence in str(caught.value)


def test_pooling_has_the_inputs_as_queries_and_keys():
    """Whole in every head and with no parameters of theirs; projected ones where it is asked for."""
    from attention_variants.models.heads import MultiHeadAttention, trace_weights

    x = draw(1, B, 5, 6)
    module = MultiHeadAttention(H, variant=kernel_pooling.Config(width=1.7), qkv_features=H * 4)
    variables = module.init(jax.random.key(0), x)
    assert variables["params"].keys() == {"value", "out"}
    _, traced = module.apply(variables, x, mutable=["trace"])
    distance = np.linalg.norm(np.asarray(x)[:, :, None] - np.asarray(x)[:, None], axis=-1)
    wanted = jax.nn.softmax(-((distance / 1.7) ** 2) / 2)
    np.testing.assert_allclose(trace_weights(traced["trace"]), np.broadcast_to(wanted[:, None], (B, H, 5, 5)), rtol=1e-4)
    projected = MultiHeadAttention(H, variant=kernel_pooling.Config(project=True), qkv_features=H * 4)
    names = flax.traverse_util.flatten_dict(projected.init(jax.random.key(0), x)["params"], sep="/").keys()
    assert {"query/kernel", "key/kernel"} <= names
