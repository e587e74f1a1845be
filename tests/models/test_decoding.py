"""Decoding against the whole model fed its own output: greedy, sampled, and by beams against every translation there is."""

import functools
import itertools
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants import variants
from attention_variants.data.tokens import BEGIN, END, PAD
from attention_variants.models.decoding import beam, greedy, sample, search_all, top_k
from attention_variants.models.transformer import Config, Transformer

B, S, LENGTH, VOCABULARY = 11, 5, 13, 7


class Counting(Transformer):
    """Counts its steps."""

    def step(self, *args):
        jax.debug.callback(steps.append, 1)
        return super().step(*args)


steps = []


RANDOM = {"post": (10, 0.7, 0.1), "pre": (119, 1.5, 0.15)}  # seed, scales of weights and embedding: rows end at many places


@functools.cache
def case(norm="pre"):
    """A model with random parameters that ends some rows early and some not at all; the third source is padding only."""
    config = Config(layers=1, width=22, heads=2, feed_forward=17, norm=norm)
    model = Counting(config, variants.load("standard").Config(), VOCABULARY)
    seed, weights, embedding = RANDOM[norm]
    random = np.random.default_rng(seed)
    source = random.integers(3, VOCABULARY, (B, S))
    source[1, 2:], source[2] = PAD, PAD
    shapes, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), source, source)["params"])
    params = jax.tree.unflatten(tree, [jnp.asarray(random.normal(size=x.shape, scale=weights), x.dtype) for x in shapes])
    params["embedding"] = jax.tree.map(lambda x: embedding * x, params["embedding"])
    out = np.asarray(greedy(model, params, source, length=LENGTH))
    return types.SimpleNamespace(model=model, params=params, source=source, out=out)


def ends(out):
    """How many tokens each row has with its END; LENGTH + 1 where it did not end."""
    return np.where((out == END).any(1), (out == END).argmax(1) + 1, LENGTH + 1)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_each_token_is_the_most_probable_after_those_before(norm):
    """The whole model, fed with its own output, would write the same; up to END, or to the length."""
    c = case(norm)
    logits = jax.jit(c.model.apply)({"params": c.params}, c.source, c.out)
    inside = np.arange(LENGTH) < ends(c.out)[:, None]
    inside[2] = False
    assert len(np.unique(c.out[inside])) > (2 if norm == "pre" else 1)
    np.testing.assert_array_equal(c.out[inside], np.asarray(logits.argmax(-1))[inside])


def test_rows_end_by_themselves():
    """Rows end at different places; padding follows END, and other rows go on."""
    c = case()
    found = ends(c.out)[np.arange(B) != 2]
    assert len(set(found)) > 4
    assert (found > LENGTH).any()
    after = np.arange(LENGTH) >= ends(c.out)[:, None]
    assert (c.out[after] == PAD).all()
    assert c.out.dtype == np.int32


def test_a_source_of_padding_yields_padding():
    c = case()
    assert (c.out[2] == PAD).all()
    np.testing.assert_array_equal(greedy(c.model, c.params, np.full((B, S), PAD), length=LENGTH), np.full((B, LENGTH), PAD))


def test_a_row_is_decoded_as_if_alone():
    """A batch of one equals the row of a batch; permuting the batch permutes the output; padding the source changes nothing."""
    c = case()
    for row in range(B):
        np.testing.assert_array_equal(greedy(c.model, c.params, c.source[row : row + 1], length=LENGTH), c.out[row : row + 1])
    order = np.random.default_rng(0).permutation(B)
    np.testing.assert_array_equal(greedy(c.model, c.params, c.source[order], length=LENGTH), c.out[order])
    longer = np.pad(c.source, ((0, 0), (0, 2)), constant_values=PAD)
    np.testing.assert_array_equal(greedy(c.model, c.params, longer, length=LENGTH), c.out)


def test_a_shorter_length_is_a_prefix():
    c = case()
    np.testing.assert_array_equal(greedy(c.model, c.params, c.source, length=4), c.out[:, :4])


def count(source, length=LENGTH):
    c = case()
    jax.effects_barrier()
    steps.clear()
    out = greedy(c.model, c.params, source, length=length)
    out.block_until_ready()
    jax.effects_barrier()
    return len(steps)


def test_it_stops_when_every_row_has_ended():
    """As many steps as the longest row has tokens, none for padding only, and never more than the length."""
    c = case()
    found = ends(c.out)
    short = [row for row in range(B) if row != 2 and found[row] < LENGTH]
    assert count(c.source) == LENGTH
    assert count(np.full((B, S), PAD)) == 0
    row = max(short, key=lambda row: found[row])
    assert count(np.where(np.isin(np.arange(B), short)[:, None], c.source, PAD)) == found[row] < LENGTH
    assert count(c.source[row : row + 1]) == found[row]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_one_beam_is_greedy(penalty):
    c = case()
    np.testing.assert_array_equal(beam(c.model, c.params, c.source, length=LENGTH, beams=1, length_penalty=penalty), c.out)


@functools.cache
def every_translation(length: int):
    """(translations (M, length), log p of each for each row (B, M), numbers of tokens): all that end within the length."""
    words = [token for token in range(VOCABULARY) if token not in (PAD, BEGIN, END)]
    texts = [(*text, END) for n in range(length) for text in itertools.product(words, repeat=n)]
    padded = np.array([text + (PAD,) * (length - len(text)) for text in texts], np.int32)
    c = case()

    def log_p(row):
        source = jnp.broadcast_to(row, (len(texts), S))
        found = jax.nn.log_softmax(c.model.apply({"params": c.params}, source, padded))
        return jnp.where(padded != PAD, jnp.take_along_axis(found, padded[..., None], -1)[..., 0], 0).sum(1)

    return padded, np.asarray(jax.lax.map(log_p, jnp.asarray(c.source))), np.array([len(text) for text in texts])


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_with_beams_for_all_it_finds_the_best_translation_there_is(penalty):
    """Of the 85 with at most four tokens, by log p / ((5 + length) / 6)^α, for every row."""
    texts, log_p, lengths = every_translation(4)
    assert len(texts) == 85
    wanted = texts[(log_p / ((5 + lengths) / 6) ** penalty).argmax(1)]
    wanted[2] = PAD
    c = case()
    found = np.asarray(beam(c.model, c.params, c.source, length=4, beams=85, length_penalty=penalty))
    np.testing.assert_array_equal(found, wanted)
    assert len({tuple(row) for row in wanted}) > 2


def test_more_beams_find_more_probable_translations_and_a_penalty_longer_ones():
    c = case()
    short, none, long = (
        np.asarray(beam(c.model, c.params, c.source, length=LENGTH, beams=4, length_penalty=a)) for a in (-2.0, 0.0, 3.0)
    )
    logits = jax.jit(c.model.apply)

    def log_p(out):
        found = jax.nn.log_softmax(logits({"params": c.params}, c.source, out))
        return np.asarray(jnp.where(out != PAD, jnp.take_along_axis(found, out[..., None], -1)[..., 0], 0).sum(1))

    both = (ends(c.out) <= LENGTH) & (ends(none) <= LENGTH)
    assert both.sum() > 4
    assert log_p(none)[both].sum() > log_p(c.out)[both].sum()
    assert ends(short).sum() < ends(none).sum() < ends(long).sum()


def test_beams_of_a_row_are_as_if_alone():
    c = case()
    run = lambda source, length=LENGTH, limit_B=None: beam(c.model, c.params, source, length=length, beams=3, limit_B=limit_B)
    out = np.asarray(run(c.source))
    for row in range(B):
        np.testing.assert_array_equal(run(c.source[row : row + 1]), out[row : row + 1])
    np.testing.assert_array_equal(run(np.pad(c.source, ((0, 0), (0, 2)), constant_values=PAD)), out)
    np.testing.assert_array_equal(run(c.source, length=LENGTH + 4, limit_B=jnp.full(B, LENGTH))[:, :LENGTH], out)
    assert (out[2] == PAD).all()
    assert (out != c.out).any()


def drawn(rows: int, length: int = 1, **settings):
    """Tokens of the first source, sampled once for each of as many ids."""
    c = case()
    source = np.repeat(c.source[:1], rows, axis=0)
    return np.asarray(sample(c.model, c.params, source, jax.random.key(3), jnp.arange(rows), length=length, **settings))


def first_probabilities(temperature: float = 1.0):
    c = case()
    logits = np.array(c.model.apply({"params": c.params}, c.source[:1], np.full((1, 1), END))[0, 0], np.float64)
    logits[[PAD, BEGIN]] = -np.inf
    p = np.exp((logits - logits.max()) / temperature)
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_samples_have_the_frequencies_of_the_probabilities(temperature):
    """Within four standard errors of 4,000 draws."""
    p, n = first_probabilities(temperature), 4000
    found = np.bincount(drawn(n, temperature=temperature)[:, 0], minlength=VOCABULARY) / n
    assert (abs(found - p) <= 4 * np.sqrt(p * (1 - p) / n) + 1e-9).all()
    assert (p > 0.02).sum() > 2


@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.99])
def test_only_the_nucleus_is_drawn(top_p):
    p = first_probabilities()
    order = np.argsort(-p)
    nucleus = set(order[: 1 + np.searchsorted(np.cumsum(p[order]), top_p)])
    assert set(drawn(2000, top_p=top_p)[:, 0]) == nucleus


def test_samples_belong_to_key_and_example():
    c, key = case(), jax.random.key(3)
    ids, order = jnp.arange(B) + 7, np.random.default_rng(0).permutation(B)
    run = lambda source, ids, key=key: np.asarray(sample(c.model, c.params, source, key, ids, length=LENGTH))
    out = run(c.source, ids)
    np.testing.assert_array_equal(run(c.source[order], ids[order]), out[order])
    np.testing.assert_array_equal(run(c.source[3:4], ids[3:4]), out[3:4])
    assert (run(c.source, ids + 1) != out).any()
    assert (run(c.source, ids, jax.random.key(4)) != out).any()
    assert (out[np.arange(LENGTH) >= ends(out)[:, None]] == PAD).all()


def test_near_zero_temperature_samples_are_greedy():
    c = case()
    found = sample(c.model, c.params, c.source, jax.random.key(0), jnp.arange(B), length=LENGTH, temperature=1e-6)
    np.testing.assert_array_equal(found, c.out)


@pytest.mark.parametrize(("length", "k"), [(997, 3), (64 * 5, 5), (64 * 5 + 1, 5), (7, 7)])
def test_the_greatest_are_found_group_by_group(length, k):
    """As by sorting everything: numbers all different, all the greatest in one group, nothing but −∞, nothing but zeros."""
    random = np.random.default_rng(0)
    x = np.stack([random.permutation(length).astype(np.float32), -np.arange(length, dtype=np.float32), np.full(length, -np.inf)])
    x = np.concatenate([x, np.zeros((1, length), np.float32)])
    found, places = top_k(jnp.asarray(x), k)
    wanted, wanted_places = jax.lax.top_k(x, k)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(places[:2], wanted_places[:2])
    assert len(set(np.asarray(places[3]).tolist())) == k
    assert ((places >= 0) & (places < length)).all()


def test_what_is_not_finite_has_a_place_in_the_row():
    """Three finite numbers in the last, partly filled group, five looked for; NaN counts as −∞."""
    x = np.full((2, 64 * 5 + 3), -np.inf, np.float32)
    x[1], x[:, -3:] = np.nan, [3.0, 1.0, 2.0]
    found, places = top_k(jnp.asarray(x), 5)
    np.testing.assert_array_equal(found, [[3.0, 2.0, 1.0, -np.inf, -np.inf]] * 2)
    np.testing.assert_array_equal(places[:, :3], [[320, 322, 321]] * 2)
    assert ((places >= 0) & (places < x.shape[1])).all()


@pytest.mark.parametrize(("devices", "at_a_time"), [(1, 2), (4, 1)])
def test_on_one_device_two_batches_are_searched_at_a_time(monkeypatch, devices, at_a_time):
    """In their order, although the second of two is ready first."""
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    running, most, ready = [], [], [threading.Event() for _ in range(6)]

    def search(batch):
        running.append(batch)
        if at_a_time == 2 and batch % 2 == 0:
            assert ready[batch + 1].wait(timeout=60)
        most.append(len(running))
        ready[batch].set()
        running.remove(batch)
        return jnp.array(batch)

    assert [int(out) for out in search_all(search, range(6))] == list(range(6))
    assert max(most) == at_a_time


@pytest.mark.parametrize("search", [greedy, functools.partial(beam, beams=2)], ids=["greedy", "beam"])
def test_two_searches_at_a_time_are_one_after_the_other(monkeypatch, search):
    """The compiled programs of two shapes."""
    c = case()
    one = lambda rows: search(c.model, c.params, c.source[:rows], length=LENGTH)
    alone = [one(rows) for rows in (5, 11, 5, 11)]
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for found, wanted in zip(search_all(one, [5, 11, 5, 11]), alone, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("devices", [1, 4])
def test_what_goes_wrong_in_a_search_is_raised(monkeypatch, devices):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    with pytest.raises(ZeroDivisionError):
        search_all(lambda batch: jnp.array(1 // batch), [1, 0, 1])
