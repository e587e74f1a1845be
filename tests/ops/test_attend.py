"""attend: softmax, mask, bias, dropout and routes around a score, against loops from the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import attention as reference

from attention_variants.ops import dense
from attention_variants.ops.attend import ROUTES, attend, attend_prepared, weights
from attention_variants.ops.dropout import Dropout, kept
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import DotProduct

B, Q, S, H, K, V = 2, 5, 7, 3, 11, 13
FIELDS = dict(causal=True, k_valid=np.arange(S) >= np.array([[2], [0]]), dense=np.random.default_rng(0).random((B, H, Q, S)) < 0.8)
SHAPES = {"q": (B, Q, H, K), "k": (B, S, H, K), "v": (B, S, H, V)}


def arrays():
    return [jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(SHAPES.values())]


def expected(fields):
    sees = lambda *place: reference.sees(*place, **fields)
    return reference.attention(*arrays(), reference.gaussian, reference.growth, sees)


def run(mask=None, **kwargs):
    q, k, v = arrays()
    return attend_prepared(q, k, v, score=DotProduct(), mask=mask, **kwargs)


@pytest.mark.parametrize("fields", [{}, FIELDS], ids=["all", "masked"])
@pytest.mark.parametrize("route", ["auto", *sorted(ROUTES.keys() - {"linear"})])
def test_attention_is_its_formula(fields, route):
    """Output and weights as in the loops; rows of weights sum to one, or are zeros where no key is seen."""
    out, w = expected(fields)
    mask = Mask(**fields)
    np.testing.assert_allclose(attend(*arrays(), score=DotProduct(), mask=mask, route=route), out, rtol=1e-5, atol=1e-5)
    q, k, _ = arrays()
    again = weights(q, k, run(mask, route=route)[1], score=DotProduct(), mask=mask)
    np.testing.assert_allclose(again, w, rtol=1e-5, atol=1e-6)
    empty = ~(w > 0).any(-1)
    assert empty.any() == bool(fields)
    np.testing.assert_allclose(again.sum(-1), np.where(empty, 0, 1), atol=1e-5)


def test_the_log_normaliser_is_that_of_the_logits():
    """log Σ exp(logits) over the keys seen, float32 (B, H, Q); −inf for empty rows."""
    q, k, _ = arrays()
    sees = np.array([reference.sees(*place, **FIELDS) for place in np.ndindex(B, H, Q, S)]).reshape(B, H, Q, S)
    terms = np.exp(np.einsum("bqhk,bshk->bhqs", np.float64(q), np.float64(k)) / np.sqrt(K)) * sees
    with np.errstate(divide="ignore"):
        wanted = np.log(terms.sum(-1))
    found = run(Mask(**FIELDS))[1]
    assert found.dtype == jnp.float32
    assert np.isneginf(wanted).any()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_softmax_holds_at_any_height():
    """Adding a number to the logits of a query leaves its weights; gradients are those of softmax, zero for an empty row."""
    logits = jax.random.normal(jax.random.key(0), (B, H, Q, S)).at[0, 1, 2].set(-jnp.inf).at[1, :, :, 3].set(-jnp.inf)
    w, _ = dense.normalise(logits)
    shift = jnp.array([-1e4, 0, 3, 80, 1e4])[:, None]
    np.testing.assert_allclose(dense.normalise(logits + shift)[0], w, atol=2e-3)
    np.testing.assert_allclose(w, np.nan_to_num(jax.nn.softmax(logits)), rtol=1e-5, atol=1e-7)
    assert not w[0, 1, 2].any()
    normalisers = lambda x: jnp.where(jnp.isfinite(y := dense.normalise(x)[1]), y, 0).sum()
    np.testing.assert_allclose(jax.grad(normalisers)(logits), w, atol=1e-6)
    weight = jax.random.normal(jax.random.key(1), w.shape)
    gradient = jax.grad(lambda x: (weight * dense.normalise(x)[0]).sum())(logits)
    np.testing.assert_allclose(gradient, w * (weight - (weight * w).sum(-1, keepdims=True)), atol=1e-6)


def test_a_bias_is_added_to_the_logits():
    """A function of the positions of queries and keys; weights are multiplied by exp(bias) before normalisation."""
    slopes_H11 = jnp.array([0.3, 0.9, 2.0])[:, None, None]
    bias = jax.tree_util.Partial(lambda q_at, k_at: jnp.sin(q_at[:, None, :, None] * 1.7 + k_at[:, None, None, :] * slopes_H11))
    i, j = np.arange(Q) + 20, np.arange(S) + 30
    table = np.sin(i[:, None] * 1.7 + j[None] * np.array([0.3, 0.9, 2.0])[:, None, None])
    fields = FIELDS | dict(causal=False, q_at=i[None], k_at=j[None])
    _, w = expected(fields)
    w = w * np.exp(table)
    w = w / np.where((total := w.sum(-1, keepdims=True)) > 0, total, 1)
    mask = Mask(**fields)
    out, log_normaliser = run(mask, bias=bias)
    np.testing.assert_allclose(out, np.einsum("bhqs,bshv->bqhv", w, np.float64(arrays()[2])), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(attend(*arrays(), score=DotProduct(), mask=mask, bias=bias), out, rtol=1e-6)
    q, k, _ = arrays()
    again = weights(q, k, log_normaliser, score=DotProduct(), mask=mask, bias=bias)
    np.testing.assert_allclose(again, w, rtol=1e-4, atol=1e-6)
    some = weights(q, k, log_normaliser, score=DotProduct(), mask=mask, bias=bias, heads=slice(1, 3), rows=(2, 3))
    np.testing.assert_allclose(some, w[:, 1:3, 2:5], rtol=1e-4, atol=1e-6)


def test_dropout_comes_after_normalisation():
    """What is left of a row is scaled by 1 / (1 − rate), not normalised again; the log-normaliser does not feel it."""
    rate, dropout = 0.4, Dropout(0.4, jax.random.key(3), jnp.array([9, 4]))
    _, w = expected(FIELDS)
    left = w * np.asarray(kept(dropout, (B, H, Q, S))) / (1 - rate)
    out, log_normaliser = run(Mask(**FIELDS), dropout=dropout)
    np.testing.assert_allclose(out, np.einsum("bhqs,bshv->bqhv", left, np.float64(arrays()[2])), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(log_normaliser, run(Mask(**FIELDS))[1])
    np.testing.assert_allclose(attend(*arrays(), score=DotProduct(), mask=Mask(**FIELDS), dropout=dropout), out, rtol=1e-6)


def test_the_output_has_the_type_of_the_values():
    """Values in bfloat16 are summed in float32: close to the sum in float32, and rounded once."""
    q, k, v = arrays()
    narrow = v.astype(jnp.bfloat16)
    out = attend(q, k, narrow, score=DotProduct())
    assert out.dtype == jnp.bfloat16
    exact = attend(q, k, narrow.astype(jnp.float32), score=DotProduct())
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=0.02, atol=0.02)


def test_an_unknown_route_is_named():
    with pytest.raises(ValueError, match=r"unknown route 'flash'; choose from auto, .*dense"):
        attend(*arrays(), score=DotProduct(), route="flash")


WRONG = {
    "queries without heads": dict(q=(B, Q, K)),
    "keys without heads": dict(k=(B, S, K)),
    "values with one axis more": dict(v=(B, S, H, V, 1)),
    "queries of another batch": dict(q=(B + 1, Q, H, K)),
    "queries of a batch of one": dict(q=(1, Q, H, K)),
    "keys of another batch": dict(k=(B + 1, S, H, K)),
    "values of another batch": dict(v=(1, S, H, V)),
    "fewer values than keys": dict(v=(B, S - 1, H, V)),
    "one value for all keys": dict(v=(B, 1, H, V)),
    "queries of another head size": dict(q=(B, Q, H, K + 1)),
    "queries of other heads": dict(q=(B, Q, H + 1, K)),
    "queries of one head": dict(q=(B, Q, 1, K)),
    "values of other heads": dict(v=(B, S, H + 1, V)),
    "heads and length swapped": dict(q=(B, H, Q, K), k=(B, H, S, K), v=(B, H, S, V)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_shapes_that_do_not_fit_are_refused(wrong):
    """Nothing is broadcast silently; the message shows the shape that was given."""
    given = [jnp.ones(shape) for shape in (SHAPES | wrong).values()]
    with pytest.raises(ValueError, match="expected") as caught:
        attend(*given, score=DotProduct())
    assert any(str(shape) in str(caught.value) for shape in wrong.values())


MASKS = {
    "more keys": dict(k_valid=(B, S + 2)),
    "fewer keys": dict(k_valid=(B, S - 1)),
    "more queries": dict(q_valid=(B, Q + 1)),
    "the keys of the queries": dict(dense=(1, 1, Q, S + 2)),
    "another batch": dict(k_valid=(B + 1, S)),
}


@pytest.mark.parametrize(
    ("wrong", "batch"), [*((m, B) for m in MASKS.values()), (dict(k_valid=(B, S)), 1)], ids=[*MASKS, "a batch of one"]
)
def test_a_mask_that_does_not_fit_is_refused(wrong, batch):
    """A mask of other lengths, or of another batch, is a mistake of the caller: never cut, never broadcast outwards."""
    mask = Mask(**{name: jnp.ones(shape, bool) for name, shape in wrong.items()})
    with pytest.raises(ValueError, match="mask"):
        attend(*(x[:batch] for x in arrays()), score=DotProduct(), mask=mask)
