"""What must hold for every attention variant there is; a new file in `variants/` is covered without a line here.

Every axis has its own prime length, so that a swapped axis cannot pass.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.variants import (
    CONFIGS,
    B,
    H,
    K,
    Q,
    S,
    V,
    arrays,
    assert_close,
    draw,
    finite,
    out,
    outcome,
    padded,
    prepared,
    rounds,
    score_of,
    takes,
)
from references import attention as reference

from attention_variants.models.heads import Memory, MultiHeadAttention
from attention_variants.ops.attend import ROUTES, attend_prepared, weights
from attention_variants.ops.dropout import Dropout
from attention_variants.ops.masks import Mask

pytestmark = pytest.mark.parametrize("name", CONFIGS)


def seen_by(route) -> int:
    """As many keys as there are, or as the linear route takes with a causal mask: as many as queries."""
    return Q if route == "linear" else S


def test_attention_is_the_sum_of_values_weighted_by_similarity_times_magnitude(name):
    """out_i = Σ_j weight_ij v_j with weights as in the formula, in float64 loops, over the keys that the mask shows."""
    q, k, v = arrays()
    fields = dict(causal=True, k_valid=np.arange(S) != np.array([[1], [3]]), q_valid=np.arange(Q) != np.array([[4], [0]]))
    score, queries, keys = prepared(name, q, k, Mask(**fields))
    log_similarity = np.asarray(score.log_similarity(queries, keys), np.float64)
    log_magnitude = np.broadcast_to(np.asarray(score.log_magnitude(keys), np.float64), (B, H, 1, S))
    v, expected = np.asarray(v), np.zeros((B, Q, H, V))
    for b, h in np.ndindex(B, H):
        number = lambda n: np.arange(n)[None, :, None, None]  # the loops get places instead of vectors
        similarity = lambda i, j, b=b, h=h: np.exp(log_similarity[b, h, int(i[0]), int(j[0])])
        magnitude = lambda j, b=b, h=h: np.exp(log_magnitude[b, h, 0, int(j[0])])
        sees = lambda _b, _h, i, j, b=b, h=h: reference.sees(b, h, i, j, **fields)
        one, _ = reference.attention(number(Q), number(S), v[b : b + 1, :, h : h + 1], similarity, magnitude, sees)
        expected[b, :, h] = one[0, :, 0]
    assert_close(out(name, q, k, v, Mask(**fields)), expected)


def test_the_future_has_no_influence_and_the_present_has(name):
    """With a causal mask, d out_t / d input_s is zero for s > t; for queries also for s < t, for values only there."""
    weight = draw(5, B, Q, H, V)
    per_place = lambda q, k, v: (weight * out(name, q, k, v, Mask(causal=True))).sum((0, 2, 3))
    jacobians = jax.jit(jax.jacrev(per_place, argnums=(0, 1, 2)))(*arrays(keys=Q))
    of_q, of_k, of_v = (jnp.abs(x).sum((-2, -1)) for x in jacobians)
    for t in range(Q):
        assert not any(x[t, :, t + 1 :].any() for x in (of_q, of_k, of_v))
        assert not of_q[t, :, :t].any()
        assert (of_v[t, :, : t + 1] > 0).all()


def test_masked_keys_change_nothing(name):
    """Keys and values added behind a mask change neither the output nor any gradient, and get none themselves."""
    q, k, v = arrays()
    weight, more = draw(5, B, Q, H, V), 4
    far_k, far_v = (jnp.concatenate([x, 9 * draw(6, B, more, *x.shape[2:])], axis=1) for x in (k, v))
    mask = Mask(k_valid=jnp.broadcast_to(jnp.arange(S + more) < S, (B, S + more)))
    (near, short), (far, long) = outcome(name, q, k, v, Mask(), weight), outcome(name, q, far_k, far_v, mask, weight)
    assert_close(far, near)
    assert not long[2][:, S:].any()
    assert not long[3][:, S:].any()
    assert_close((*long[:2], long[2][:, :S], long[3][:, :S]), short, relative=rounds(name))


def test_the_order_of_keys_does_not_matter(name):
    """Permuting keys, values and mask together leaves the output; permuting queries permutes it."""
    q, k, v = arrays()
    valid = jnp.arange(S)[None] != jnp.array([[2], [5]])
    order, turn = np.array([3, 6, 0, 2, 5, 1, 4]), np.array([4, 2, 0, 1, 3])
    whole = out(name, q, k, v, Mask(k_valid=valid))
    assert_close(out(name, q, k[:, order], v[:, order], Mask(k_valid=valid[:, order])), whole)
    assert_close(out(name, q[:, turn], k, v, Mask(k_valid=valid)), whole[:, turn])


def test_heads_and_examples_do_not_see_each_other(name):
    """Changing one head of one example changes the output of that head of that example only."""
    q, k, v = arrays()
    at = (1, slice(None), 2)
    moved = out(name, q.at[at].add(0.3), k.at[at].add(0.5), v.at[at].add(1.0)) != out(name, q, k, v)
    assert moved[at].all()
    assert not moved.at[at].set(False).any()


@pytest.mark.parametrize("route", sorted(ROUTES))
def test_a_query_that_sees_no_key_gets_zeros_and_no_gradient(name, route):
    """Exactly zero output, also where others of the same batch see keys, and zero gradient from and into that query."""
    keys = seen_by(route)
    q, k, v = arrays(keys=keys)
    mask = padded(np.arange(keys) >= np.array([[1], [0]]), np.arange(Q) != 3, keys)
    takes(name, route, mask, keys=keys)
    empty = np.zeros((B, Q), bool)
    empty[0, 0] = empty[:, 3] = True
    found, into = outcome(name, q, k, v, mask, jnp.ones((B, Q, H, V)), route)
    assert not np.asarray(found)[empty].any()
    assert np.asarray(found)[~empty].all()
    assert finite(into)
    assert not np.asarray(into[1])[empty].any()
    only_empty = jnp.asarray(empty)[..., None, None] * draw(5, B, Q, H, V)
    assert not any(x.any() for x in jax.tree.leaves(outcome(name, q, k, v, mask, only_empty, route)[1]))


@pytest.mark.parametrize("route", sorted(ROUTES))
@pytest.mark.parametrize(
    "mask", [Mask(k_valid=jnp.zeros((B, S), bool)), Mask(q_valid=jnp.zeros((B, Q), bool)), Mask(dense=jnp.zeros((1, 1, Q, S)))]
)
def test_a_batch_of_padding_gives_zeros_and_no_gradient(name, route, mask):
    takes(name, route, mask)
    assert not any(x.any() for x in jax.tree.leaves(outcome(name, *arrays(), mask, jnp.ones((B, Q, H, V)), route)))


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_output_and_gradients_are_finite(name, scale):
    """From queries and keys that all agree to logits of tens of thousands, under masks, also where query and key coincide."""
    q, k, v = arrays(scale=scale)
    k = k.at[:, 0].set(q[:, 1])
    for mask in (Mask(), padded(np.arange(S) >= np.array([[2], [0]]))):
        assert finite(outcome(name, q, k, v, mask, draw(5, B, Q, H, V)))


def test_the_logits_are_log_similarity_plus_log_magnitude(name):
    """… up to one number per query; float32, of the shapes that the contract names."""
    score, queries, keys = prepared(name, *arrays()[:2])
    logits, similarity, magnitude = score.logits(queries, keys), score.log_similarity(queries, keys), score.log_magnitude(keys)
    assert logits.shape == similarity.shape == (B, H, Q, S)
    assert logits.dtype == similarity.dtype == jnp.asarray(magnitude).dtype == jnp.float32
    assert np.broadcast_shapes(jnp.shape(magnitude), (B, H, 1, S)) == (B, H, 1, S)
    apart = logits - (similarity + magnitude)
    assert_close(apart, jnp.broadcast_to(apart[..., :1], apart.shape))


def test_logits_of_a_block_are_a_block_of_the_logits(name):
    """Prepared queries and keys can be cut anywhere along their second axis."""
    score, *both = prepared(name, *arrays()[:2])
    whole = score.logits(*both)
    cut = lambda tree, start, stop: jax.tree.map(lambda x: x[:, start:stop], tree)
    assert_close(score.logits(cut(both[0], 1, 4), cut(both[1], 2, 7)), whole[:, :, 1:4, 2:7])


def test_pairs_are_the_diagonal_of_the_logits(name):
    """`pair` on E edges is what `logits` says of query e and key e."""
    q, k = draw(1, 5, H, K), draw(2, 5, H, K)
    score = score_of(name, q[None], k[None])
    logits_HEE = score.logits(score.prepare_queries(q[None]), score.prepare_keys(k[None]))[0]
    pairs = score.pair(q, k)
    assert pairs.shape == (5, H)
    assert_close(pairs, jnp.diagonal(logits_HEE, axis1=1, axis2=2).T)


def test_prepared_keys_can_be_written_one_by_one(name):
    """What `prepare_keys` returns has the key axis second: a cache filled key by key, in any order, equals all keys at once."""
    q, k, v = arrays()
    score, queries, keys = prepared(name, q, k)
    assert all(x.shape[:2] == (B, S) for x in jax.tree.leaves(keys))
    write = jax.jit(Memory.write)
    memory = Memory.of(score, jax.tree.map(jnp.zeros_like, keys), jnp.zeros_like(v))
    for at in (2, 0, 1, 6, 5, 3, 4):
        one = Memory.of(score, score.prepare_keys(k[:, at : at + 1], jnp.array([[at]])), v[:, at : at + 1])
        memory = write(memory, one, at)
    assert_close((memory.keys, memory.v_BSHV), (keys, v))
    written = attend_prepared(queries, memory.keys, memory.v_BSHV, score=memory.score, mask=None)[0]
    assert_close(written, attend_prepared(queries, keys, v, score=score, mask=None)[0])


def test_a_decoder_reads_its_cache_like_the_whole(name):
    """MultiHeadAttention fed one position at a time, over a Memory written as it goes, equals causal attention at once."""
    x = draw(1, B, Q, 2 * H)
    module = MultiHeadAttention(H, variant=CONFIGS[name], qkv_features=H * K)
    params = module.init(jax.random.key(0), x, mask=Mask(causal=True))
    whole = module.apply(params, x, mask=Mask(causal=True))
    memory = module.apply(params, jnp.zeros_like(x), remember=True)
    for at in range(Q):
        here = x[:, at : at + 1]
        memory = memory.write(module.apply(params, here, remember=True), at)
        one = module.apply(params, here, mask=Mask(causal=True, q_at=jnp.array([[at]])), memory=memory)
        assert_close(one[:, 0], whole[:, at])


@pytest.mark.parametrize("route", ["auto", *sorted(ROUTES)])
def test_every_route_agrees_with_dense(name, route):
    """Output, log-normaliser, recomputed weights and all gradients, under a mask with empty rows and padding."""
    keys = seen_by(route)
    q, k, v = arrays(keys=keys)
    mask = padded(np.arange(keys) >= np.array([[2], [0]]), keys=keys)
    takes(name, route, mask, keys=keys)
    weight = draw(5, B, Q, H, V)
    score, queries, keys = prepared(name, q, k)
    one, other = (attend_prepared(queries, keys, v, score=score, mask=mask, route=r) for r in ("dense", route))
    assert_close(one, other)
    w_BHQS = weights(queries, keys, other[1], score=score, mask=mask)
    assert_close(jnp.einsum("bhqs,bshv->bqhv", w_BHQS, v), one[0])
    one, other = (outcome(name, q, k, v, mask, weight, r)[1] for r in ("dense", route))
    assert_close(one, other, relative=rounds(name))


def test_bfloat16_inputs_give_float32_logits(name):
    """Logits are float32, and near those of the same numbers in float32; the output has the type of the values."""
    q, k, v = (x.astype(jnp.bfloat16) for x in arrays())
    wide = [x.astype(jnp.float32) for x in (q, k)]
    score = score_of(name, q, k)
    logits = score.logits(score.prepare_queries(q), score.prepare_keys(k))
    assert logits.dtype == jnp.float32
    exact = score_of(name, *wide)
    assert_close(logits, exact.logits(exact.prepare_queries(wide[0]), exact.prepare_keys(wide[1])), 0.05)
    assert out(name, q, k, v).dtype == jnp.bfloat16
    assert_close(out(name, q, k, v).astype(jnp.float32), out(name, *wide, v.astype(jnp.float32)), 0.05)


def test_parameters_are_float32_where_float64_is_allowed(name):
    """So that every route takes them with float32 inputs."""
    with jax.enable_x64(True):
        x = draw(1, B, Q, 2 * H).astype(jnp.float32)
        module = MultiHeadAttention(H, variant=CONFIGS[name], qkv_features=H * K, route="blockwise")
        params = module.init(jax.random.key(0), x)
        assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
        assert module.apply(params, x).dtype == jnp.float32


def test_batch_jit_and_vmap_agree(name):
    """A batch is its rows; compiling changes nothing; a leading axis may be mapped over."""
    q, k, v = arrays()
    valid = jnp.arange(S)[None] != jnp.array([[2], [5]])
    whole = out(name, q, k, v, Mask(k_valid=valid))
    compiled = jax.jit(lambda q, k, v, mask: out(name, q, k, v, mask))
    assert_close(compiled(q, k, v, Mask(k_valid=valid)), whole)
    for b in range(B):
        row = slice(b, b + 1)
        assert_close(out(name, q[row], k[row], v[row], Mask(k_valid=valid[row])), whole[row])
    lanes = jax.vmap(lambda q, k, v, valid: out(name, q[None], k[None], v[None], Mask(k_valid=valid[None]))[0])
    assert_close(lanes(q, k, v, valid), whole)


def test_dropout_belongs_to_the_example(name):
    """Bits of attention dropout move with the example's id when the batch is permuted; another key gives others."""
    (q, k, v), turn, rows = arrays(), np.array([1, 0]), jnp.array([17, 4])
    dropped = lambda q, k, v, rows, seed=8: out(name, q, k, v, dropout=Dropout(0.4, jax.random.key(seed), rows))
    whole = dropped(q, k, v, rows)
    assert_close(dropped(q[turn], k[turn], v[turn], rows[turn]), whole[turn])
    assert np.abs(whole - dropped(q, k, v, rows, seed=9)).max() > 0.01
    assert np.abs(whole - out(name, q, k, v)).max() > 0.01


def test_it_trains(name):
    """A small step of gradient descent in MultiHeadAttention lowers the loss; gradients are finite, and there."""
    x, y = draw(1, B, Q, 2 * H), draw(2, B, Q, 2 * H)
    mask = Mask(causal=True, k_valid=jnp.arange(Q)[None] >= jnp.array([[2], [0]]))
    module = MultiHeadAttention(H, variant=CONFIGS[name], qkv_features=H * K)
    params = module.init(jax.random.key(0), x, mask=mask)
    loss = jax.jit(jax.value_and_grad(lambda params: ((module.apply(params, x, mask=mask) - y) ** 2).mean()))
    before, gradient = loss(params)
    assert finite(gradient)
    for part in ("value", "out"):
        assert gradient["params"][part]["kernel"].all()
    after, gradient = loss(jax.tree.map(lambda p, g: p - 1e-2 * g, params, gradient))
    assert after < before
    assert finite(gradient)
