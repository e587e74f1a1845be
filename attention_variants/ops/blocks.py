"""Blocks of queries and keys: how large, which ones are visited, where they start."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attention_variants.ops.masks import Mask


class Blocks(NamedTuple):
    """How many queries and keys are worked on at a time."""

    queries: int
    keys: int


def choose(batch_and_heads: int, q_length: int, k_length: int, backend: str) -> Blocks:
    """Squares of 512, smaller where the logits of all heads would take over 16 MiB on a CPU, 256 MiB elsewhere (not measured)."""
    most = 2**22 if backend == "cpu" else 2**26
    side = 512
    while side > 64 and side * side * batch_and_heads > most:
        side //= 2
    return Blocks(min(side, q_length), min(side, k_length))


def pairs(mask: Mask, blocks: Blocks, q_length: int, k_length: int):
    """The (query block, key block) pairs to visit, (N, 2): all but those that the mask hides wherever its arrays point."""
    at = [
        (i, j)
        for j in range(-(-k_length // blocks.keys))
        for i in range(-(-q_length // blocks.queries))
        if mask.may_see(i * blocks.queries, (i + 1) * blocks.queries, j * blocks.keys, (j + 1) * blocks.keys)
    ]
    return np.array(at, np.int32).reshape(-1, 2)


def place(pair, blocks: Blocks, q_length: int, k_length: int):
    """Where a pair of blocks starts, and which of its (Q, S) elements no earlier block has held."""
    starts, fresh = [], jnp.ones((1, 1), bool)
    for axis, (size, whole) in enumerate(((blocks.queries, q_length), (blocks.keys, k_length))):
        start = jnp.minimum(pair[axis] * size, whole - size)
        if whole % size:
            new = start + jnp.arange(size) >= pair[axis] * size
            fresh = fresh & (new[:, None] if axis == 0 else new[None, :])
        starts.append(start)
    return *starts, fresh


def cut(tree, at, size: int):
    """`size` elements of the second axis of every array, from `at` on."""
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, at, size, axis=1), tree)


def add_at(tree, pieces, at):
    """`tree` with the pieces of a block added, in its own type."""

    def one(x, piece):
        old = lax.dynamic_slice_in_dim(x, at, piece.shape[1], axis=1)
        return lax.dynamic_update_slice_in_dim(x, old + piece.astype(x.dtype), at, axis=1)

    return jax.tree.map(one, tree, pieces)
