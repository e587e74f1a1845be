"""Every route is the dense one: values and all gradients, for every mask, bias, block, empty rows and odd lengths."""

import collections
import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.routes import BIASES, DROPOUT, MASKS, SCORES, Q, S, arrays, assert_close, outcome
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from attention_variants.ops import blocks
from attention_variants.ops.attend import attend, choose
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import DotProduct


def in_blocks(monkeypatch, queries: int, keys: int):
    monkeypatch.setattr(blocks, "choose", lambda *args: blocks.Blocks(queries, keys))


@functools.cache
def with_everything(mask: str, route: str, blocks=None):
    """The outcome for a score with parameters, a bias and dropout."""
    return outcome(route, SCORES["curved"], *arrays(), mask=MASKS[mask], bias=BIASES["relative"], dropout=DROPOUT)


@pytest.mark.parametrize("mask", MASKS)
def test_blockwise_is_dense_for_every_mask(monkeypatch, mask):
    in_blocks(monkeypatch, 5, 7)
    assert_close(with_everything(mask, "blockwise"), with_everything(mask, "dense"))


@pytest.mark.parametrize("blocks", [(Q, S), (4, S), (Q, 6), (1, 1)], ids=str)
@pytest.mark.parametrize("mask", ["causal window", "padding and empty rows"])
def test_blockwise_is_dense_for_every_block(monkeypatch, mask, blocks):
    """The whole at once, one element at a time, and blocks that do not divide the lengths."""
    in_blocks(monkeypatch, *blocks)
    assert_close(with_everything(mask, "blockwise", blocks), with_everything(mask, "dense"))


@pytest.mark.parametrize("blocks", [(4, 4), (5, 4), (4, 7), (20, 3)], ids=str)
@pytest.mark.parametrize("mask", [Mask(window=1), Mask(causal=True, window=1), Mask(window=2)], ids=["itself", "causal", "next"])
def test_blockwise_is_dense_where_the_last_block_of_queries_begins_before_its_turn(monkeypatch, mask, blocks):
    """23 queries: what is written again must have visited again what narrow windows show it."""
    in_blocks(monkeypatch, *blocks)
    assert_close(*(outcome(route, SCORES["curved"], *arrays(), mask=mask) for route in ("blockwise", "dense")))


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_blockwise_is_dense_for_every_score_and_bias(monkeypatch, score, bias):
    in_blocks(monkeypatch, 5, 7)
    given = dict(mask=MASKS["causal window"], bias=bias)
    assert_close(outcome("blockwise", score, *arrays(), **given), outcome("dense", score, *arrays(), **given))


@pytest.mark.parametrize("route", ["blockwise", "fused"])
@pytest.mark.parametrize("name", ["dot product", "gaussian", "rotary"])
def test_in_bfloat16_a_route_is_as_close_to_float32_as_dense_is(monkeypatch, name, route):
    """Within its own rounding: no further from the float32 result on the same rounded inputs than twice the dense route is."""
    in_blocks(monkeypatch, 5, 7)
    score, inputs = SCORES[name], arrays(jnp.bfloat16)
    mask = MASKS["causal"]
    of = lambda route, *inputs: jax.tree.leaves(outcome(route, score, *inputs, mask=mask))
    exact, dense, found = of("dense", *(x.astype(jnp.float32) for x in inputs)), of("dense", *inputs), of(route, *inputs)
    for right, theirs, ours in zip(exact, dense, found, strict=True):  # output, normaliser, and all gradients
        right, scale = np.float64(right), float(abs(right).max())
        error, allowed = abs(np.float64(ours) - right), abs(np.float64(theirs) - right)
        assert error.max() < 2 * allowed.max() + 2**-8 * scale
        assert error.mean() < 1.5 * allowed.mean() + 2**-12 * scale


def test_blockwise_in_float64_is_dense_to_1e_12(monkeypatch):
    in_blocks(monkeypatch, 5, 7)
    with jax.enable_x64(True):
        score = jax.tree.map(lambda x: x.astype(jnp.float64), SCORES["curved"])
        given = dict(mask=MASKS["padding and empty rows"], dropout=DROPOUT)
        found, wanted = (outcome(route, score, *arrays(jnp.float64), **given) for route in ("blockwise", "dense"))
        assert found[0][0].dtype == jnp.float64
        assert_close(found, wanted, 1e-12)


def test_blocks_that_are_hidden_are_never_visited():
    def visited(mask):
        return {(int(i), int(j)) for i, j in np.argwhere(blocks.visited(mask, blocks.Blocks(4, 4), 16, 16))}

    every = {(i, j) for i in range(4) for j in range(4)}
    assert visited(Mask()) == every
    assert visited(Mask(causal=True)) == {(i, j) for i, j in every if j <= i}
    assert visited(Mask(window=1)) == {(i, i) for i in range(4)}
    assert visited(Mask(window=2)) == {(i, j) for i, j in every if abs(i - j) <= 1}
    assert visited(Mask(causal=True, window=6)) == {(i, j) for i, j in every if 0 <= i - j <= 2}
    assert visited(Mask(causal=True, q_at=jnp.arange(16)[None])) == every  # where positions are arrays, nothing is known before


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counted(DotProduct):
    """Calls back whenever logits are computed."""

    def logits(self, queries, keys):
        jax.debug.callback(COUNT.update, ["block"])
        return super().logits(queries, keys)


COUNT = collections.Counter()


@pytest.mark.parametrize(("mask", "visits"), [(Mask(), 12), (Mask(causal=True), 6), (Mask(window=1), 3)], ids=str)
def test_logits_are_computed_once_forward_and_once_backward_where_anything_is_seen(monkeypatch, mask, visits):
    """12 queries by 4 and 15 keys by 4."""
    in_blocks(monkeypatch, 4, 4)
    q, kv = jnp.ones((1, 12, 2, 3)), jnp.ones((1, 15, 2, 3))
    run = jax.jit(lambda q, kv: attend(q, kv, kv, score=Counted(), mask=mask, route="blockwise"))
    COUNT.clear()
    out, pull = jax.vjp(run, q, kv)
    jax.effects_barrier()
    assert COUNT["block"] == visits
    pull(out)
    jax.effects_barrier()
    assert COUNT["block"] == 2 * visits


def test_blocks_fit_the_lengths_and_shrink_as_heads_grow():
    assert blocks.choose(4, 8192, 8192, "cpu") == (512, 1024)
    assert blocks.choose(4, 100, 8192, "cpu") == (100, 1024)
    assert blocks.choose(8, 8192, 8192, "cpu") == (512, 512)
    assert blocks.choose(4000, 8192, 8192, "cpu") == (64, 64)
    assert blocks.choose(1, 8192, 8192, "gpu").queries >= 512


def test_vmap_over_lanes_is_each_lane_alone(monkeypatch):
    """Different inputs, scores and dropout rates in each lane, gradients too."""
    in_blocks(monkeypatch, 5, 7)
    q, k, v = (jnp.stack([x, 1.5 * x, x - 0.5]) for x in arrays())
    scores = jax.tree.map(lambda x: jnp.stack([x, 1.5 * x, 0.5 * x]), SCORES["curved"])
    rates = jnp.array([0.0, 0.2, 0.6])

    def grads(route, q, k, v, score, rate):
        def run(q, k, v, score):
            dropout = DROPOUT._replace(rate=rate)
            return jnp.sin(attend(q, k, v, score=score, mask=MASKS["causal"], dropout=dropout, route=route)).sum()

        return jax.grad(run, argnums=(0, 1, 2, 3))(q, k, v, score)

    lanes = jax.jit(jax.vmap(functools.partial(grads, "blockwise")))(q, k, v, scores, rates)
    alone = jax.jit(functools.partial(grads, "dense"))
    for lane in range(3):
        take = functools.partial(jax.tree.map, operator.itemgetter(lane))
        assert_close(take(lanes), alone(*take((q, k, v, scores, rates))))


def test_vmap_over_lanes_of_the_fused_route_is_each_lane_alone():
    q, k, v = (jnp.stack([x, 1.5 * x, x - 0.5]) for x in arrays())

    def grads(route, *qkv):
        loss = lambda *qkv: jnp.sin(attend(*qkv, score=DotProduct(), mask=MASKS["causal"], route=route)).sum()
        return jax.grad(loss, argnums=(0, 1, 2))(*qkv)

    lanes = jax.jit(jax.vmap(functools.partial(grads, "fused")))(q, k, v)
    for lane in range(3):
        take = functools.partial(jax.tree.map, operator.itemgetter(lane))
        assert_close(take(lanes), grads("dense", *take((q, k, v))))


@pytest.mark.parametrize("outer", ["forward over reverse", "reverse over reverse"])
def test_second_derivatives_are_those_of_dense(monkeypatch, outer):
    """A product with the Hessian, with blocks that are skipped."""
    in_blocks(monkeypatch, 5, 7)
    tangents = tuple(jnp.cos(x) for x in arrays())

    def product(route):
        def loss(q, k, v):
            return jnp.sin(attend(q, k, v, score=SCORES["curved"], mask=MASKS["causal window"], route=route)).sum()

        grad = jax.grad(loss, argnums=(0, 1, 2))
        if outer == "forward over reverse":
            return jax.jvp(grad, tuple(arrays()), tangents)[1]
        along = lambda *x: sum((g * t).sum() for g, t in zip(grad(*x), tangents, strict=True))
        return jax.grad(along, argnums=(0, 1, 2))(*arrays())

    assert_close(*(jax.jit(product, static_argnums=0)(route) for route in ("blockwise", "dense")))


def test_rematerialised_and_over_a_mesh_it_is_the_same(monkeypatch):
    in_blocks(monkeypatch, 5, 7)
    q, k, v = (jnp.concatenate([x, -x]) for x in arrays())

    def loss(route, q, k, v):
        return jnp.sin(attend(q, k, v, score=DotProduct(), mask=MASKS["causal"], route=route)).sum()

    wanted = jax.jit(jax.grad(functools.partial(loss, "dense"), argnums=(0, 1, 2)))(q, k, v)
    assert_close(jax.jit(jax.grad(jax.checkpoint(functools.partial(loss, "blockwise")), argnums=(0, 1, 2)))(q, k, v), wanted)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    run = jax.jit(jax.grad(functools.partial(loss, "blockwise"), argnums=(0, 1, 2)), in_shardings=rows, out_shardings=rows)
    assert_close(run(*(jax.device_put(x, rows) for x in (q, k, v))), wanted)


def memory(route: str, length: int) -> int:
    """Bytes of temporary memory, forward and backward, 4 heads of 64, by the compiler's own analysis."""
    x = jax.ShapeDtypeStruct((1, length, 4, 64), jnp.float32)
    loss = lambda q, k, v: attend(q, k, v, score=DotProduct(), mask=Mask(causal=True), route=route).sum()
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_length_and_not_with_its_square(as_users_compile):
    """Length 8,192: at most 100 MiB, where dense takes 3 GiB; twice the length, twice the memory."""
    assert memory("blockwise", 8192) < 100 * 2**20
    assert memory("blockwise", 16384) < 2.1 * memory("blockwise", 8192)
    assert memory("dense", 8192) > 3 * 2**30


def test_auto_takes_the_dense_route_where_it_is_small_and_says_why():
    q, k, v = arrays()
    out, why = attend(q, k, v, score=DotProduct(), explain=True)
    assert_close(out, attend(q, k, v, score=DotProduct(), route="dense"), 0)
    assert why.startswith("dense: 4,002 logits are fewer than the ")
    long = [jax.ShapeDtypeStruct((1, 8192, 4, 64), jnp.float32)] * 3
    assert choose(*long, score=DotProduct())[0] == "blockwise"
    assert choose(*long, score=DotProduct(), route="dense") == ("dense", "as asked for")
    assert choose(*long, score=SCORES["curved"])[1].endswith("not fused: Curved has no as_dot")


@pytest.mark.parametrize("route", ["dense", "blockwise", "fused"])
def test_what_is_no_pytree_is_refused_by_every_route(route):
    with pytest.raises(ValueError, match="the bias is a function, which is no pytree"):
        attend(*arrays(), score=DotProduct(), bias=lambda q_at, k_at: 0.0, route=route)
    with pytest.raises(ValueError, match="the score is a Unregistered, which is no pytree"):
        attend(*arrays(), score=Unregistered(), route=route)


class Unregistered(DotProduct):
    """A subclass that nobody told jax of."""
