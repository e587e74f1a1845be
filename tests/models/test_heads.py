"""MultiHeadAttention in the place of `flax.linen.MultiHeadDotProductAttention`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.attention import attention, gaussian, growth, sees

from attention_variants.models.affine import Affine
from attention_variants.models.heads import Memory, MultiHeadAttention, Noise, trace_weights
from attention_variants.ops.dropout import Dropout, kept
from attention_variants.ops.masks import Mask

B, Q, S, H, D = 2, 5, 7, 3, 33
KEY = jax.random.key(0)

DENSE = jnp.asarray(np.random.default_rng(0).random((B, 1, Q, S)) < 0.6).at[..., 0].set(True)
PARITY = {
    "self-attention": (1, {}, None),
    "over keys": (2, {}, None),
    "over keys and values": (3, {}, None),
    "widths": (3, dict(qkv_features=39, out_features=13), None),
    "no bias": (2, dict(use_bias=False), None),
    "normalised queries and keys": (2, dict(normalize_qk=True), None),
    "normalised, widths": (2, dict(normalize_qk=True, qkv_features=39), None),
    "biases not zero": (2, dict(bias_init=nn.initializers.normal(1.0), out_bias_init=nn.initializers.ones), None),
    "initial values": (1, dict(kernel_init=nn.initializers.xavier_uniform(), out_kernel_init=nn.initializers.normal(0.3)), None),
    "dense mask": (2, {}, DENSE),
    "mask of every head": (2, {}, jnp.broadcast_to(DENSE, (B, H, Q, S)).at[:, 1, :, 2].set(True)),
    "mask of floats": (2, {}, DENSE.astype(jnp.float32)),
    "causal mask": (1, {}, nn.make_causal_mask(jnp.ones((B, Q)))),
    "padding mask": (2, {}, nn.make_attention_mask(jnp.ones((B, Q)), jnp.arange(S)[None] < jnp.array([[4], [7]]))),
    "deterministic in the call": (2, dict(dropout_rate=0.5), None),
    "no dropout": (2, dict(dropout_rate=0.0), None),
    "bfloat16": (2, dict(dtype=jnp.bfloat16), None),
    "bfloat16 parameters": (2, dict(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16), None),
    "highest precision": (2, dict(precision="highest"), None),
}


def inputs(count=1):
    """(B, Q, D), (B, S, D + 2), (B, S, D + 4): the first `count` of them."""
    shapes = [(B, Q, D), (B, S, D + 2), (B, S, D + 4)]
    return [jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(shapes[:count])]


def make(count=2, mask=None, **fields):
    """(module, parameters, inputs)."""
    module, given = MultiHeadAttention(H, **fields), inputs(count)
    return module, module.init(KEY, *given, mask=mask, deterministic=True), given


@pytest.mark.parametrize("linear", [nn.DenseGeneral, Affine])
@pytest.mark.parametrize(("count", "fields", "mask"), PARITY.values(), ids=PARITY)
def test_it_is_linens(count, fields, mask, linear):
    """The same parameter names, shapes, types and initial values from the same key, and the same output."""
    theirs, given = nn.MultiHeadDotProductAttention(H, **fields), inputs(count)
    _, params, _ = make(count, mask, linear=linear, **fields)
    wanted = theirs.init(KEY, *given, mask=mask, deterministic=True)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), wanted)
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    out = MultiHeadAttention(H, linear=linear, **fields).apply(wanted, *given, mask=mask, deterministic=True)
    expected = theirs.apply(wanted, *given, mask=mask, deterministic=True)
    assert out.dtype == expected.dtype
    tolerance = 1e-6 if out.dtype == jnp.float32 else 0.03
    np.testing.assert_allclose(*(x.astype(jnp.float32) for x in (out, expected)), rtol=tolerance, atol=tolerance)


def test_forward_mode_is_linens():
    """With linen's projections and the dense route, as the docstrings of `MultiHeadAttention` and `attend` promise."""
    module, params, (x,) = make(1, route="dense")
    theirs = nn.MultiHeadDotProductAttention(H)
    found, wanted = (jax.jvp(lambda x, of=of: of.apply(params, x), (x,), (jnp.cos(x),)) for of in (module, theirs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)


def test_attributes_are_linens():
    """Whatever the two share has the same default; what only linen has is a list that is looked at here."""
    ours, theirs = MultiHeadAttention(H), nn.MultiHeadDotProductAttention(H)
    missing = {name for name in theirs.__dataclass_fields__ if name not in ours.__dataclass_fields__}
    assert missing == {
        "broadcast_dropout", "attention_fn", "decode", "force_fp32_for_softmax", "qkv_dot_general", "qkv_dot_general_cls",
        "out_dot_general", "out_dot_general_cls", "qk_attn_weights_einsum_cls", "attn_weights_value_einsum_cls",
    }  # fmt: skip
    for name in set(theirs.__dataclass_fields__) - missing - {"parent", "kernel_init", "bias_init"}:
        assert getattr(ours, name) == getattr(theirs, name), name


def test_deterministic_can_be_an_attribute():
    """In the call, it overrides; with dropout it must be said somewhere."""
    module, params, given = make()
    quiet = module.apply(params, *given)
    np.testing.assert_array_equal(MultiHeadAttention(H, dropout_rate=0.5, deterministic=True).apply(params, *given), quiet)
    with pytest.raises(ValueError, match="deterministic"):
        MultiHeadAttention(H, dropout_rate=0.5).apply(params, *given)


def test_a_query_that_sees_nothing_gets_zeros_before_the_output_projection():
    """The one difference: linen gives the mean of all values there. What is left is the output's bias; other rows agree."""
    mask = DENSE.at[1, :, 3].set(False)
    theirs = nn.MultiHeadDotProductAttention(H, out_bias_init=nn.initializers.normal(1.0))
    params = theirs.init(KEY, *inputs(2))
    out = MultiHeadAttention(H).apply(params, *inputs(2), mask=mask)
    expected = theirs.apply(params, *inputs(2), mask=mask)
    np.testing.assert_array_equal(out[1, 3], params["params"]["out"]["bias"])
    assert np.abs(out - expected)[1, 3].max() > 0.1
    np.testing.assert_allclose(*(x.at[1, 3].set(0) for x in (out, expected)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", ["causal", "dense", "keys", "queries", "window", "segments"])
def test_a_mask_is_never_lost(mask):
    """Every kind of mask changes the output, to what a loop over its cells says."""
    fields = {
        "causal": dict(causal=True),
        "dense": dict(dense=np.asarray(DENSE)),
        "keys": dict(k_valid=np.arange(S)[None] != np.array([[2], [5]])),
        "queries": dict(q_valid=np.arange(Q)[None] != np.array([[2], [4]])),
        "window": dict(window=2),
        "segments": dict(q_segments=np.array([[0, 0, 1, 1, 1]]), k_segments=np.array([[0, 0, 0, 1, 1, 2, 2]])),
    }[mask]
    module, params, given = make(bias_init=nn.initializers.normal(0.5))
    out = module.apply(params, *given, mask=Mask(**fields))
    assert np.abs(out - module.apply(params, *given)).max() > 0.01
    p = jax.tree.map(np.float64, params["params"])
    project = lambda name, x: np.einsum("bld,dhk->blhk", np.float64(x), p[name]["kernel"]) + p[name]["bias"]
    q, k, v = (project(name, x) for name, x in zip(("query", "key", "value"), (*given, given[1]), strict=True))
    expected, _ = attention(q, k, v, gaussian, growth, lambda *place: sees(*place, **fields))
    expected = np.einsum("bqhv,hvd->bqd", expected, p["out"]["kernel"]) + p["out"]["bias"]
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="5 heads do not divide the 33 features"):
        MultiHeadAttention(5).init(KEY, *inputs())
    with pytest.raises(ValueError, match="3 heads do not divide the 32 features"):
        MultiHeadAttention(H, qkv_features=32).init(KEY, *inputs())


@pytest.mark.parametrize("shape", [(Q, D), (B, 2, Q, D)])
def test_inputs_without_a_batch_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected .batch, length, features"):
        MultiHeadAttention(H).init(KEY, jnp.ones(shape))


def test_values_without_keys_are_refused():
    """As linen does."""
    x = inputs()[0]
    with pytest.raises(ValueError, match="inputs_k"):
        nn.MultiHeadDotProductAttention(H).init(KEY, x, inputs_v=2 * x)
    with pytest.raises(ValueError, match="inputs_k"):
        MultiHeadAttention(H).init(KEY, x, inputs_v=2 * x)


def test_an_unknown_route_is_refused():
    with pytest.raises(ValueError, match="unknown route"):
        MultiHeadAttention(H, route="flash").init(KEY, *inputs())


def test_the_trace_tells_the_weights():
    """Weights recomputed from the collection "trace" are those of the formula; without asking there is no trace."""
    fields = dict(causal=True, dense=np.asarray(DENSE.at[1, :, 3].set(False)))
    module, params, given = make()
    assert list(params) == ["params"]
    assert isinstance(module.apply(params, *given), jax.Array)
    out, state = module.apply(params, *given, mask=Mask(**fields), mutable=["trace"])
    np.testing.assert_array_equal(out, module.apply(params, *given, mask=Mask(**fields)))
    p = jax.tree.map(np.float64, params["params"])
    q, k = (np.einsum("bld,dhk->blhk", np.float64(x), p[name]["kernel"]) for name, x in zip(("query", "key"), given, strict=True))
    _, expected = attention(q, k, k, gaussian, growth, lambda *place: sees(*place, **fields))
    np.testing.assert_allclose(trace_weights(state["trace"]), expected, rtol=1e-4, atol=1e-6)
    _, state = module.apply(params, *given, mutable=["trace"])
    np.testing.assert_allclose(trace_weights(state["trace"]), attention(q, k, k, gaussian, growth)[1], rtol=1e-4, atol=1e-6)


def test_the_trace_is_the_same_with_dropout():
    """Weights are traced before dropout."""
    module, params, given = make()
    noise = Noise(0.0, 0.5, jnp.arange(B))
    run = lambda noise: module.apply(params, *given, noise=noise, mutable=["trace"], rngs={"dropout": KEY})
    (quiet, one), (loud, other) = run(None), run(noise)
    np.testing.assert_array_equal(trace_weights(one["trace"]), trace_weights(other["trace"]))
    assert np.abs(quiet - loud).max() > 0.1


def test_dropout_needs_a_key_and_draws_by_it():
    """Without an rng an error; the same rng the same output, another rng another."""
    module, params, given = make(dropout_rate=0.5)
    run = lambda seed: module.apply(params, *given, deterministic=False, rngs={"dropout": jax.random.key(seed)})
    with pytest.raises(Exception, match="dropout"):
        module.apply(params, *given, deterministic=False)
    with pytest.raises(Exception, match="dropout"):
        module.apply(params, *given, noise=Noise(0.0, 0.1, jnp.arange(B)))
    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 0.1
    assert np.abs(run(1) - module.apply(params, *given, deterministic=True)).max() > 0.1


def test_dropout_is_of_the_weights_at_the_rate():
    """With values of one and an output projection that sums, what is left are the kept weights, divided by 1 − rate."""
    module, params, given = make(use_bias=False)
    params = jax.tree.map(jnp.asarray, params)
    params["params"]["out"]["kernel"] = jnp.zeros((H, D // H, D)).at[0, 0, 0].set(1).at[1, 0, 1].set(1).at[2, 0, 2].set(1)
    values = jnp.ones((B, S, D + 2))
    params["params"]["value"]["kernel"] = jnp.full((D + 2, H, D // H), 1 / (D + 2))
    noise, rate = Noise(0.9, 0.25, jnp.array([8, 3])), 0.25
    run = lambda noise: module.apply(params, *given, values, noise=noise, rngs={"dropout": KEY}, mutable=["trace"])
    out, state = run(noise)
    key = module.apply(params, method=lambda m: m.make_rng("dropout"), rngs={"dropout": KEY})
    left = trace_weights(state["trace"]) * kept(Dropout(rate, key, noise.row_B), (B, H, Q, S)) / (1 - rate)
    np.testing.assert_allclose(out[..., :H], left.sum(-1).transpose(0, 2, 1), rtol=1e-5)


def test_example_ids_drive_dropout():
    """Permuting examples together with their ids permutes the output; other ids give other bits; the batch does not matter."""
    module, params, (x, y) = make()
    ids, turn = jnp.array([31, 8]), np.array([1, 0])
    run = jax.jit(lambda x, y, ids, rate: module.apply(params, x, y, noise=Noise(0.0, rate, ids), rngs={"dropout": KEY}))
    whole = run(x, y, ids, 0.5)
    np.testing.assert_allclose(run(x[turn], y[turn], ids[turn], 0.5), whole[turn], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(x[:1], y[:1], ids[:1], 0.5), whole[:1], rtol=1e-5, atol=1e-5)
    assert np.abs(run(x, y, ids[turn], 0.5) - whole).max() > 0.1
    np.testing.assert_allclose(run(x, y, ids, 0.0), module.apply(params, x, y), rtol=1e-5, atol=1e-5)


def test_a_memory_holds_what_is_read():
    """`remember` returns keys and values; attention over them is attention over the inputs."""
    module, params, (x, y) = make(bias_init=nn.initializers.normal(0.5))
    mask = Mask(k_valid=jnp.arange(S)[None] < jnp.array([[4], [7]]))
    memory = module.apply(params, x, y, remember=True)
    assert isinstance(memory, Memory)
    assert memory.v_BSHV.shape == (B, S, H, D // H)
    out = module.apply(params, x, memory=memory, mask=mask)
    np.testing.assert_allclose(out, module.apply(params, x, y, mask=mask), rtol=1e-6, atol=1e-6)


def test_writing_a_memory_touches_only_its_places():
    """Positions from `at` on are overwritten, in the old type; the others, the score and the length stay."""
    module, params, (x, y) = make()
    old, new = (module.apply(params, x, z, remember=True) for z in (y, 2 * y[:, :2]))
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), old)
    for at in (0, 3, S - 2):
        written = old.write(new, at)
        assert jax.tree.structure(written) == jax.tree.structure(old)
        leaves = lambda memory: jax.tree.leaves((memory.keys, memory.v_BSHV))
        for before, piece, after in zip(*map(leaves, (old, new, written)), strict=True):
            np.testing.assert_array_equal(after[:, at : at + 2], piece)
            np.testing.assert_array_equal(np.delete(after, [at, at + 1], 1), np.delete(before, [at, at + 1], 1))
        assert {x.dtype for x in jax.tree.leaves(narrow.write(new, at))} == {jnp.dtype(jnp.bfloat16)}


def test_a_module_is_a_static_argument():
    """It can be hashed, with a name as with a Config."""
    module, params, given = make(variant="standard")
    jitted = jax.jit(lambda module, params: module.apply(params, *given), static_argnums=0)
    np.testing.assert_allclose(jitted(module, params), module.apply(params, *given), rtol=1e-5, atol=1e-5)
