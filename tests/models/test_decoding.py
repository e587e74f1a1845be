"""Greedy decoding against the whole model fed its own output, token by token."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_variants import variants
from attention_variants.data.tokens import END, PAD
from attention_variants.models.decoding import greedy
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
