"""Masks cell by cell: every field, combinations, and blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.attention import sees

from attention_variants.ops.masks import Mask

B, H, Q, S = 2, 3, 5, 7
RANDOM = np.random.default_rng(0)

FIELDS = {
    "causal": dict(causal=True),
    "window of one": dict(window=1),
    "window of three": dict(window=3),
    "causal window": dict(causal=True, window=2),
    "queries": dict(q_valid=RANDOM.random((B, Q)) < 0.6),
    "keys": dict(k_valid=RANDOM.random((B, S)) < 0.6),
    "one row of keys for all": dict(k_valid=RANDOM.random((1, S)) < 0.6),
    "segments": dict(
        q_segments=np.array([[0, 0, 1, 1, 2], [0, 1, 1, 1, 3]]), k_segments=np.array([[0, 0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 1]])
    ),
    "causal, one query later": dict(causal=True, q_at=np.array([[4]])),
    "causal, shifted rows": dict(causal=True, q_at=np.arange(Q) + np.array([[2], [1]]), k_at=np.arange(S)[None]),
    "window, keys elsewhere": dict(window=2, k_at=np.arange(S) - np.array([[3], [0]])),
    "dense": dict(dense=RANDOM.random((B, H, Q, S)) < 0.5),
    "dense keys": dict(dense=RANDOM.random((B, 1, 1, S)) < 0.5),
    "dense queries": dict(dense=RANDOM.random((H, Q, 1)) < 0.5),
    "dense, two axes": dict(dense=RANDOM.random((Q, S)) < 0.5),
    "dense of floats": dict(dense=np.tril(np.ones((1, 1, Q, S), np.float32))),
}
FIELDS |= {
    "everything": functools.reduce(
        dict.__or__, (FIELDS[n] for n in ("causal, shifted rows", "window of three", "queries", "keys", "segments", "dense"))
    ),
    "padding and causal": FIELDS["queries"] | FIELDS["keys"] | FIELDS["causal"],
    "packed": FIELDS["segments"] | FIELDS["causal"],
}


def cells(fields):
    expected = np.zeros((B, H, Q, S), bool)
    for place in np.ndindex(*expected.shape):
        expected[place] = sees(*place, **fields)
    return expected


def whole(x, shape=(B, H, Q, S)):
    return np.broadcast_to(x, shape)


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_mask_shows_what_its_fields_say(fields):
    """Every cell as in the loop; and no case is empty or full, so that each can fail."""
    visible = Mask(**fields).visible(Q, S)
    expected = cells(fields)
    assert visible.dtype == bool
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(whole(visible), expected)


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_block_is_a_slice_of_the_whole(fields):
    """From any start, also a traced one."""
    mask = Mask(**jax.tree.map(jnp.asarray, {n: x for n, x in fields.items() if n not in ("causal", "window")}))
    mask = Mask(**{n: getattr(mask, n) for n in vars(mask)} | {n: x for n, x in fields.items() if n in ("causal", "window")})
    expected = cells(fields)
    block = jax.jit(lambda mask, q_start, k_start: mask.visible(2, 3, q_start, k_start))
    for q_start in range(Q - 1):
        for k_start in range(S - 2):
            piece = expected[:, :, q_start : q_start + 2, k_start : k_start + 3]
            np.testing.assert_array_equal(whole(block(mask, q_start, k_start), piece.shape), piece)


def test_an_empty_mask_hides_nothing():
    assert Mask().visible(Q, S) is None
    assert Mask(causal=False, window=None).visible(Q, S, 3, 4) is None


def test_adding_a_field_only_hides():
    """What two masks show together is what both show."""
    for one in ("causal", "keys", "segments"):
        for other in ("queries", "dense", "window of three"):
            both = Mask(**FIELDS[one], **FIELDS[other]).visible(Q, S)
            np.testing.assert_array_equal(whole(both), cells(FIELDS[one]) & cells(FIELDS[other]))


def test_segments_come_in_pairs():
    for name in ("q_segments", "k_segments"):
        with pytest.raises(ValueError, match="only one of them"):
            Mask(**{name: jnp.zeros((B, Q), int)})


def test_a_mask_is_a_pytree_with_static_rules():
    """Arrays are leaves; `causal` and `window` belong to the structure, so that a compiled function knows them."""
    mask = Mask(causal=True, window=3, k_valid=jnp.ones((B, S), bool))
    assert len(jax.tree.leaves(mask)) == 1
    assert jax.tree.structure(mask) != jax.tree.structure(Mask(window=3, k_valid=mask.k_valid))
    assert jax.jit(lambda mask: mask)(mask).causal is True
    lanes = jax.vmap(lambda mask: mask.visible(Q, S))(Mask(k_valid=jnp.asarray(FIELDS["keys"]["k_valid"])[:, None]))
    np.testing.assert_array_equal(np.broadcast_to(lanes, (B, 1, 1, 1, S))[:, 0, 0, 0], FIELDS["keys"]["k_valid"])
