"""Work is counted where it is done, as often as it is done."""

import jax
import jax.numpy as jnp
import pytest

from attention_variants.ops.attend import attend
from attention_variants.ops.losses import projected_cross_entropy
from attention_variants.ops.masks import Mask
from attention_variants.ops.scores import DotProduct
from attention_variants.train import flops

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
ONE = 2 * 3 * 5 * 7


def thrice(a, b):
    return jax.lax.scan(lambda total, _: (total + a @ b, None), jnp.zeros((3, 7)), None, length=3)[0]


def branches(a, b):
    return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a @ b + a @ b)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (jnp.matmul, 1),
        (jax.jit(jnp.matmul), 1),
        (thrice, 3),
        (branches, 2),
        (jax.grad(lambda a, b: jnp.sin(a @ b).sum(), argnums=(0, 1)), 3),
        (jax.grad(jax.checkpoint(lambda a, b: jnp.sin(a @ b).sum()), argnums=(0, 1)), 4),  # the product once more
    ],
)
def test_products_are_counted_in_loops_branches_and_gradients(function, products):
    assert flops.count(jax.make_jaxpr(function)(A, B)) == products * ONE


@pytest.mark.parametrize("chunk", [8, 64])
def test_a_loss_in_pieces_costs_what_its_logits_cost_three_times(chunk):
    x, table, labels = jnp.ones((4, 16, 8)), jnp.ones((11, 8)), jnp.zeros((4, 16), jnp.int32)
    loss = lambda x, table: projected_cross_entropy(x, table, labels, labels == 0, chunk=chunk)[0]
    assert flops.count(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, table)) == 3 * 2 * 64 * 8 * 11


@pytest.mark.parametrize("mask", [Mask(), Mask(causal=True)], ids=["all", "causal"])
@pytest.mark.parametrize(("route", "products"), [("dense", 6), ("blockwise", 7)])
def test_attention_costs_its_products_and_blockwise_the_logits_once_more(route, products, mask):
    q = jnp.ones((2, 1024, 3, 4))
    loss = lambda q, k, v: attend(q, k, v, score=DotProduct(), mask=mask, route=route).sum()
    found = flops.count(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(q, q, q))
    assert found == pytest.approx(products * 2 * 2 * 3 * 1024 * 1024 * 4, rel=1e-2)
