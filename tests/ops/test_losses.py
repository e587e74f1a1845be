"""Cross-entropy against its definition in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.ops.losses import cross_entropy, projected_cross_entropy

B, T, V = 3, 5, 7


def batch(scale=2.0):
    random = np.random.default_rng(0)
    logits = random.normal(size=(B, T, V)) * scale
    return np.float32(logits), random.integers(0, V, (B, T)), np.float32(random.integers(0, 3, (B, T)))


def definition(logits, labels, weights, smoothing):
    """(Σ weight · −Σ_v p_v log softmax_v, Σ weight, gradient) with p written out, in float64."""
    total, gradient = 0.0, np.zeros(logits.shape)
    for b, t in np.ndindex(*labels.shape):
        row = np.float64(logits[b, t]) - logits[b, t].max()
        log_softmax = row - np.log(np.exp(row).sum())
        p = np.full(V, smoothing / V)
        p[labels[b, t]] += 1 - smoothing
        total -= weights[b, t] * (p * log_softmax).sum()
        gradient[b, t] = weights[b, t] * (np.exp(log_softmax) - p)
    return total, weights.sum(), gradient


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_is_its_definition(smoothing):
    """Sum, weight and the gradient weight · (softmax − p)."""
    logits, labels, weights = batch()
    total, weight, gradient = definition(logits, labels, weights, smoothing)
    np.testing.assert_allclose(cross_entropy(logits, labels, weights, smoothing), (total, weight), rtol=1e-5)
    found = jax.grad(lambda logits: cross_entropy(logits, labels, weights, smoothing)[0])(logits)
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)


def test_sums_and_weights_add_up():
    """A batch is its rows, however it is cut."""
    whole = cross_entropy(*batch(), 0.1)
    rows = [cross_entropy(*(x[b : b + 1] for x in batch()), 0.1) for b in range(B)]
    np.testing.assert_allclose(np.sum(rows, 0), whole, rtol=1e-6)


def test_tokens_of_no_weight_do_not_count():
    """Whatever stands there: other labels, other logits; a batch of them is zero over zero, without NaN."""
    logits, labels, weights = batch()
    whole = cross_entropy(logits, labels, weights, 0.1)
    absent = weights == 0
    assert 0 < absent.sum() < absent.size
    other = cross_entropy(np.where(absent[..., None], 50 - logits, logits), np.where(absent, V - 1 - labels, labels), weights, 0.1)
    np.testing.assert_allclose(other, whole, rtol=1e-6)
    assert cross_entropy(logits, labels, np.zeros_like(weights)) == (0, 0)
    present = weights > 0
    np.testing.assert_allclose(cross_entropy(logits, labels, present), cross_entropy(logits, labels, np.float32(present)))


def test_only_differences_of_logits_count():
    """Adding a number to all logits of a token changes nothing, up to thousands."""
    logits, labels, weights = batch()
    shifted = logits + np.float32(4096) * np.arange(-2, B * T - 2).reshape(B, T, 1).astype(np.float32) / B
    np.testing.assert_allclose(cross_entropy(shifted, labels, weights, 0.1), cross_entropy(logits, labels, weights, 0.1), rtol=1e-3)


def test_a_certain_model_has_no_loss_and_an_even_one_log_v():
    logits, labels, weights = batch()
    certain = 100 * jax.nn.one_hot(labels, V)
    np.testing.assert_allclose(cross_entropy(certain, labels, weights)[0], 0, atol=1e-5)
    for smoothing in (0.0, 0.3):
        np.testing.assert_allclose(cross_entropy(0 * logits, labels, weights, smoothing)[0], weights.sum() * np.log(V), rtol=1e-6)


def test_smoothing_can_be_traced_and_mapped():
    logits, labels, weights = batch()
    rates = jnp.array([0.0, 0.1, 0.9])
    lanes = jax.jit(jax.vmap(lambda rate: cross_entropy(logits, labels, weights, rate)[0]))(rates)
    np.testing.assert_allclose(lanes, [definition(logits, labels, weights, float(rate))[0] for rate in rates], rtol=1e-5)


def test_it_is_computed_in_float32_at_least():
    logits, labels, weights = batch()
    narrow = jnp.asarray(logits, jnp.bfloat16)
    total, weight = cross_entropy(narrow, labels, weights.astype(jnp.bfloat16), 0.1)
    assert total.dtype == weight.dtype == jnp.float32
    np.testing.assert_allclose(total, definition(np.float64(narrow.astype(jnp.float32)), labels, weights, 0.1)[0], rtol=1e-5)
    with jax.enable_x64(True):
        total, _ = cross_entropy(jnp.asarray(np.float64(logits)), labels, weights, 0.1)
        np.testing.assert_allclose(total, definition(logits, labels, weights, 0.1)[0], rtol=1e-12)


D = 11


def projected_case(dtype=jnp.float32):
    random = np.random.default_rng(1)
    x, table = (jnp.asarray(random.normal(size=size), dtype) for size in ((B, T, D), (V, D)))
    return x, table, *batch()[1:]


@pytest.mark.parametrize("chunk", [1, 6, 9, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_projected_cross_entropy_is_that_of_the_logits(smoothing, chunk):
    """Sum, weight, and gradients into features and table, whatever the number of positions at a time; traced smoothing too."""
    x, table, labels, weights = projected_case()

    def sums(loss, x, table, smoothing):
        total, weight = loss(x, table, smoothing)
        return total * 1.7, weight

    ours = lambda x, table, smoothing: projected_cross_entropy(x, table, labels, weights, smoothing, chunk=chunk)
    theirs = lambda x, table, smoothing: cross_entropy(x @ table.T, labels, weights, smoothing)
    found, wanted = (
        jax.jit(jax.value_and_grad(functools.partial(sums, loss), argnums=(0, 1), has_aux=True))(x, table, jnp.float32(smoothing))
        for loss in (ours, theirs)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)
    np.testing.assert_allclose(ours(x, table, smoothing), theirs(x, table, smoothing), rtol=1e-5)  # without a gradient


def test_projected_cross_entropy_in_bfloat16_sums_in_float32():
    x, table, labels, weights = projected_case(jnp.bfloat16)
    loss = lambda x, table: projected_cross_entropy(x, table, labels, weights, 0.1, chunk=6)[0]
    total, (dx, dtable) = jax.value_and_grad(loss, argnums=(0, 1))(x, table)
    exact, (wide_dx, wide_dtable) = jax.value_and_grad(loss, argnums=(0, 1))(*(v.astype(jnp.float32) for v in (x, table)))
    assert total.dtype == jnp.float32
    assert (dx.dtype, dtable.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert float(total) == pytest.approx(float(exact), rel=1e-5)
    np.testing.assert_allclose(dx.astype(jnp.float32), wide_dx, atol=0.05)
    np.testing.assert_allclose(dtable.astype(jnp.float32), wide_dtable, atol=0.05)


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_projected_cross_entropy_of_large_logits(size):
    """Of thousands, as of a diverging model: the definition in value and gradient; never negative where it is certain."""
    x, table, labels, weights = projected_case()
    x = x * size
    loss = lambda x, smoothing: projected_cross_entropy(x, table, labels, weights, smoothing, chunk=6)[0]
    logits = np.float64(x) @ np.float64(table).T
    total, _, dlogits = definition(logits, labels, weights, 0.1)
    found, dx = jax.value_and_grad(loss)(x, 0.1)
    assert float(found) == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(dx, dlogits @ np.float64(table), atol=2e-3)
    assert float(loss(size * table[labels] * 5, 0.0)) >= 0


def test_tokens_of_no_weight_get_no_gradient():
    """Whatever stands there, thousands too."""
    x, table, labels, weights = projected_case()
    x = jnp.where((weights == 0)[..., None], 1e4, x)
    dx = jax.grad(lambda x: projected_cross_entropy(x, table, labels, weights, 0.1)[0])(x)
    assert np.isfinite(dx).all()
    assert not np.asarray(dx)[weights == 0].any()


def test_the_logits_are_never_written(as_users_compile):
    """Temporary memory of loss and gradients stays far under one array of logits."""
    x, table = jax.ShapeDtypeStruct((64, 64, 32), jnp.float32), jax.ShapeDtypeStruct((8000, 32), jnp.float32)
    labels = jax.ShapeDtypeStruct((64, 64), jnp.int32)
    loss = lambda x, table, labels: projected_cross_entropy(x, table, labels, labels > 0, 0.1, chunk=256)[0]
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(x, table, labels).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.3 * 64 * 64 * 8000 * 4


def test_over_a_mesh_rows_stay_where_they_are():
    x, table, labels, weights = (jnp.concatenate([v] * 4) if n != 1 else v for n, v in enumerate(projected_case()))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows, everywhere = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    loss = lambda x, table, labels, weights: projected_cross_entropy(x, table, labels, weights, 0.1, chunk=24)[0]
    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), in_shardings=(rows, everywhere, rows, rows))
    compiled = run.lower(x, table, labels, weights).compile()
    assert "all-gather" not in compiled.as_text()
    found = run(x, table, labels, weights)
    wanted = jax.value_and_grad(loss, argnums=(0, 1))(x, table, labels, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)
