"""Inside `jax.shard_map`, with rows on their devices and what is learned on all of them, gradients are those of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.routes import BIASES, DROPOUT, MASKS, SCORES, arrays, assert_close
from jax.sharding import AxisType, PartitionSpec

from attention_variants.ops.affine import affine
from attention_variants.ops.attend import attend
from attention_variants.ops.layer_norm import layer_norm
from attention_variants.ops.losses import projected_cross_entropy
from attention_variants.ops.products import inner

ROWS, WHOLE = PartitionSpec("data"), PartitionSpec()


def random(seed: int, *shape: int):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def attention(route: str):
    def loss(qkv, row_B, learned):
        score, bias = learned
        dropout = DROPOUT._replace(row_B=row_B)
        return jnp.sin(attend(*qkv, score=score, bias=bias, mask=MASKS["causal"], dropout=dropout, route=route)).sum()

    q, k, v = (jnp.concatenate([x, -x]) for x in arrays())
    return loss, (q, k, v), jnp.arange(len(q)), (SCORES["curved"], BIASES["relative"])


def rows_against_one():
    loss = lambda q, labels, k: jnp.tanh(inner(q, jnp.broadcast_to(k, (len(q), *k.shape[1:])))).sum()
    return loss, random(0, 8, 5, 3, 7), jnp.zeros(8), random(1, 1, 11, 3, 7)


def linear():
    loss = lambda x, labels, learned: jnp.sin(affine(x, *learned)).sum()
    return loss, random(0, 8, 5), jnp.zeros(8), (random(1, 5, 3), random(2, 3))


def normalised():
    loss = lambda x, labels, learned: jnp.sin(layer_norm(x, *learned, 1e-3)).sum()
    return loss, random(0, 8, 5), jnp.zeros(8), (random(1, 5), random(2, 5))


def cross_entropy():
    labels = jnp.asarray(np.random.default_rng(2).integers(0, 11, (8, 7)))
    loss = lambda x, labels, table: projected_cross_entropy(x, table, labels, labels > 2, 0.1, chunk=3)[0]
    return loss, random(0, 8, 7, 5), labels, random(1, 11, 5)


CASES = {
    "inner": rows_against_one,
    "affine": linear,
    "layer norm": normalised,
    "loss": cross_entropy,
    "dense": lambda: attention("dense"),
    "blockwise": lambda: attention("blockwise"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rows_on_their_devices_are_rows_together(case):
    loss, x, labels, learned = case()
    grad = jax.grad(loss, argnums=(0, 2))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    over_devices = jax.shard_map(grad, mesh=mesh, in_specs=(ROWS, ROWS, WHOLE), out_specs=(ROWS, WHOLE))
    assert_close(jax.jit(over_devices)(x, labels, learned), grad(x, labels, learned))
