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
    """512 queries by 1,024 keys, or less where their logits over all heads would take more than 8 MiB on a CPU, 256 MiB elsewhere.

    Measured on a CPU alone (2 cores, 4 heads of size 64, length 4,096, forward and backward, freed memory kept): 0.34 s in 30 MiB;
    512 × 512 take 0.40 s in 16 MiB, 1,024 × 1,024 0.34 s in 55 MiB.
    """
    most = 2**21 if backend == "cpu" else 2**26
    queries, keys = 512, 1024
    while keys > 64 and queries * keys * batch_and_heads > most:
        queries, keys = (queries, keys // 2) if keys > queries else (queries // 2, keys)
    return Blocks(min(queries, q_length), min(keys, k_length))


def visited(mask: Mask, blocks: Blocks, q_length: int, k_length: int) -> np.ndarray:
    """Which blocks of keys (columns) a block of queries (row) visits: all that the mask does not hide whatever its arrays hold.

    The last block of queries is asked about from where it starts, see `place`: what it has of the one before is written again.
    """
    of_queries = [min(start, q_length - blocks.queries) for start in range(0, q_length, blocks.queries)]
    of_keys = range(0, k_length, blocks.keys)
    sees = lambda q_at, k_at: mask.may_see(q_at, q_at + blocks.queries, k_at, k_at + blocks.keys)
    return np.array([[sees(q_at, k_at) for k_at in of_keys] for q_at in of_queries])


def each(visit, carry, seen_N, *, skip: bool):
    """`carry = visit(carry, n)` for every block n or, to `skip` the others, for those that are seen."""

    def step(carry, block):
        n, seen = block
        return (lax.cond(seen, visit, lambda carry, n: carry, carry, n) if skip else visit(carry, n)), None

    return lax.scan(step, carry, (jnp.arange(len(seen_N)), seen_N))[0]


def place(n, size: int, whole: int):
    """Where block n of an axis starts, and which of its elements no earlier block has held: the last one ends at the end."""
    start = jnp.minimum(n * size, whole - size)
    return start, start + jnp.arange(size) >= n * size if whole % size else jnp.ones(size, bool)


def cut(tree, at, size: int):
    """`size` elements of the second axis of every array, from `at` on."""
    return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, at, size, axis=1), tree)


def add_at(tree, pieces, at):
    """`tree` with the pieces of a block added, in its own type."""

    def one(x, piece):
        old = lax.dynamic_slice_in_dim(x, at, piece.shape[1], axis=1)
        return lax.dynamic_update_slice_in_dim(x, old + piece.astype(x.dtype), at, axis=1)

    return jax.tree.map(one, tree, pieces)
