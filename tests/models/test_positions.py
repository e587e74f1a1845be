"""Every way of knowing positions: decoding is the whole, packed pairs are pairs alone, routes and remat change nothing."""

import functools
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants import variants
from attention_variants.data.tokens import END, PAD, UNKNOWN
from attention_variants.models import transformer
from attention_variants.models.decoding import beam, greedy
from attention_variants.models.transformer import Config, Packed

B, S, T, VOCABULARY = 3, 5, 7, 17
POSITIONS = typing.get_args(typing.get_type_hints(Config)["positions"])
every_way = pytest.mark.parametrize("positions", POSITIONS)


@functools.cache
def case(positions: str, **changes):
    config = Config(layers=2, width=22, heads=2, feed_forward=13, norm="pre", positions=positions, **changes)
    model = transformer.build(config, variants.load("standard").Config(), VOCABULARY)
    random = np.random.default_rng(0)
    source, target = random.integers(4, VOCABULARY, (B, S)), random.integers(4, VOCABULARY, (B, T))
    source[1, 3:], target[1, 5:], target[2, 2:] = PAD, PAD, PAD
    shapes, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), source, target))
    params = jax.tree.unflatten(tree, [jnp.asarray(random.normal(size=x.shape, scale=0.4), x.dtype) for x in shapes])
    run = jax.jit(lambda params, source, target, packed=None: model.apply(params, source, target, None, packed))
    return types.SimpleNamespace(model=model, params=params, source=source, target=target, run=run)


@functools.cache
def value_and_gradients(positions: str, **changes):
    """Of a curved function of all logits."""
    c = case(positions, **changes)
    loss = lambda params: (c.run(params, c.source, c.target) ** 2).mean()
    return jax.jit(jax.value_and_grad(loss))(c.params)


@every_way
def test_one_beam_is_greedy_and_a_beam_of_all_pairs_finds_the_best_of_them(positions):
    """What a beam believes of its ancestors is what the whole model says of them, for every way of knowing positions."""
    c = case(positions)
    search = functools.partial(beam, c.model, c.params["params"], c.source)
    np.testing.assert_array_equal(search(length=6, beams=1), greedy(c.model, c.params["params"], c.source, length=6))

    tokens = [token for token in range(UNKNOWN, VOCABULARY) if token != END]
    all_there_are = np.array([[END, PAD], *([token, END] for token in tokens)])
    score_NB = []
    for out in all_there_are:
        found = jax.nn.log_softmax(c.run(c.params, c.source, np.broadcast_to(out, (B, 2))))
        log_p_BT = jnp.take_along_axis(found, jnp.broadcast_to(out, (B, 2))[..., None], -1)[..., 0]
        score_NB.append(jnp.where(out != PAD, log_p_BT, 0).sum(1) / ((5 + (out != PAD).sum()) / 6) ** 8)
    best_B = np.argmax(np.stack(score_NB), 0)
    assert len({0, *best_B}) > 1
    np.testing.assert_array_equal(search(length=2, beams=VOCABULARY**2, length_penalty=8.0), all_there_are[best_B])


@every_way
def test_packed_pairs_are_pairs_alone(positions):
    """Two pairs in one row, with positions of their own, have the logits and give the gradients that they do alone."""
    c = case(positions)
    lengths = [(3, 4), (2, 3), (5, 2)]
    pairs = [(c.source[i % 2, :s] if s <= 3 else c.source[0, :s], c.target[0, :t]) for i, (s, t) in enumerate(lengths)]
    rows = [[0, 1], [2]]
    source, target = np.full((2, 8), PAD), np.full((2, 9), PAD)
    places = [[np.zeros((2, n), np.int32) for _ in range(2)] for n in (8, 9)]
    where = {}
    for r, members in enumerate(rows):
        begins = [0, 0]
        for number, i in enumerate(members, start=1):
            for side, (array, tokens) in enumerate(zip((source, target), pairs[i], strict=True)):
                span = np.s_[r, begins[side] : begins[side] + len(tokens)]
                array[span], places[side][0][span], places[side][1][span] = tokens, number, np.arange(len(tokens))
                where[i] = span
                begins[side] += len(tokens)
    packed = tuple(Packed(*(jnp.asarray(x) for x in side)) for side in places)

    def together(params):
        logits = c.run(params, source, target, packed)
        return sum(jnp.sin(logits[where[i]]).sum() for i in range(len(pairs))), logits

    def alone(params):
        logits = [c.run(params, one[None], other[None])[0] for one, other in pairs]
        return sum(jnp.sin(x).sum() for x in logits), logits

    (found, logits), (wanted, logits_alone) = (jax.jit(jax.grad(f, has_aux=True))(c.params) for f in (together, alone))
    for i in range(len(pairs)):
        np.testing.assert_allclose(logits[where[i]], logits_alone[i], rtol=1e-4, atol=1e-4)
    assert jnp.isfinite(logits).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), found, wanted)


@every_way
@pytest.mark.parametrize("changes", [dict(route="blockwise"), dict(remat=True)], ids=str)
def test_neither_route_nor_rematerialisation_changes_logits_or_gradients(positions, changes):
    ours, others = case(positions), case(positions, **changes)
    assert jax.tree.structure(ours.params) == jax.tree.structure(others.params)
    (a, da), (b, db) = value_and_gradients(positions), value_and_gradients(positions, **changes)
    assert float(a) == pytest.approx(float(b), rel=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), da, db)


def test_each_way_is_a_model_of_its_own():
    """All but "none" tell an encoder which order its tokens have; logits of all five differ."""
    found = {}
    for positions in POSITIONS:
        c = case(positions)
        encode = lambda source, c=c: np.asarray(c.model.apply(c.params, source, method="encode")[0])
        order = np.array([4, 2, 0, 1, 3])
        moved = abs(encode(c.source[:1, order]) - encode(c.source[:1])[:, order]).max()
        assert (moved < 1e-4) == (positions == "none")
        found[positions] = np.asarray(c.run(c.params, c.source, c.target))
    for a in POSITIONS:
        assert all(a == b or abs(found[a] - found[b]).max() > 1e-3 for b in POSITIONS)
