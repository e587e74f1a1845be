"""How long do norms of contributions take, beside forming the vectors, and beside the forward pass of the model itself?

First the head-summed norms of one layer, 512 tokens, 12 heads, width 768: of every pair the triangle of heads times its weights,
against summing heads first and taking the norm of the tensor of 512 × 512 × 768, in two programs, so that it is there, and in
one, where XLA never forms it as a whole. Then BERT's base size, random, 128 tokens: all norms and mixing ratios of all twelve
attention blocks, forward pass included, against that pass alone; and the maps of one layer through its feed-forward net, against
the two matrix products that they cannot do without. Results of the first are checked equal.
"""

import functools
import math

import jax
import jax.numpy as jnp

from attention_variants.analysis import blocks
from attention_variants.models import bert
from attention_variants.models.layers import traces
from attention_variants.ops import norms
from experiments.timing import Contender, Table, alternate, assert_same, compiled

EPSILON = bert.Config.epsilon


def measure(quick: bool) -> list[Table]:
    return [one_layer(quick), *whole_model(quick)]


def one_layer(quick: bool) -> Table:
    tokens, heads, width = (64, 4, 32) if quick else (512, 12, 768)
    keys = jax.random.split(jax.random.key(0), 3)
    weights_HQS = jax.nn.softmax(jax.random.normal(keys[0], (heads, tokens, tokens)))
    v_SHV = jax.random.normal(keys[1], (tokens, heads, width // heads))
    given = weights_HQS, v_SHV, jax.random.normal(keys[2], (heads, width // heads, width)) / math.sqrt(width)
    tensor = lambda weights, v, out: jnp.einsum("hqs,shd->qsd", weights, jnp.einsum("shv,hvd->shd", v, out))
    length = lambda x_QSD: jnp.linalg.norm(x_QSD, axis=-1)
    contenders = [
        compiled("triangle of heads", lambda weights, v, out: norms.summed(weights, norms.transformed(v, out)), *given),
        in_two("heads summed, then norms", tensor, length, *given),
        compiled("the same in one program", lambda *of: length(tensor(*of)), *given),
    ]
    same = functools.partial(assert_same, tolerance=1e-5)
    caption = f"head-summed norms, {tokens} tokens, {heads} heads, width {width}"
    return Table(caption, alternate(contenders, rounds=3 if quick else 11, same=same))


def in_two(name: str, first, second, *given) -> Contender:
    """Two programs one after the other: what the first makes lies in memory."""
    one, between = compiled(name, first, *given), jax.eval_shape(first, *given)
    other = jax.jit(second).lower(between).compile()
    memory = one.memory + math.prod(between.shape) * between.dtype.itemsize
    return Contender(name, lambda: jax.block_until_ready(other(one.run())), memory)


def whole_model(quick: bool) -> list[Table]:
    """All blocks of a model, and one layer's maps through its feed-forward net."""
    small = dict(layers=2, width=32, heads=4, feed_forward=64) if quick else {}
    model = bert.Bert(bert.Config(**small), "standard", 30522)
    token_BS = jax.random.randint(jax.random.key(0), (1, 32 if quick else 128), 1000, 30000)
    params = jax.jit(model.init)(jax.random.key(1), token_BS)["params"]
    measured = functools.partial(blocks.measure, own=True, epsilon=EPSILON)

    def read(params, token_BS):
        out_BSD, traced = model.apply({"params": params}, token_BS, mutable=["trace"])
        return out_BSD, blocks.blocks(params, traces(traced["trace"]), model.config)

    def everything(params, token_BS):
        out_BSD, found = read(params, token_BS)
        return out_BSD, {name: (of := measured(block), of.weighted_BHQS) for name, block in found.items()}

    forward = lambda params, token_BS: model.apply({"params": params}, token_BS)
    contenders = [compiled("forward pass", forward, params, token_BS), compiled("and all norms", everything, params, token_BS)]
    rounds = 3 if quick else 11
    size = f"BERT {'small' if quick else 'base'}, {token_BS.shape[1]} tokens"
    tables = [Table(f"{size}: all attention blocks", alternate(contenders, rounds=rounds, same=None))]

    block = jax.jit(read)(params, token_BS)[1]["encoder_0_self_attention"]
    net = blocks.feed_forwards(params, {"encoder_0_self_attention": block})["encoder_0_self_attention"]
    x_NSD = jnp.broadcast_to(block.after_BQD, (token_BS.shape[1], *block.after_BQD.shape[1:]))
    products = lambda x_NSD, inner, out: jnp.matmul(jnp.matmul(x_NSD, inner), out)
    through = lambda block, net: blocks.through(block, 0, net, activation=jax.nn.gelu, own=True, epsilon=EPSILON)
    contenders = [
        compiled("its two matrix products", products, x_NSD, net.inner["kernel"], net.out["kernel"]),
        compiled("maps through the net", through, block, net),
    ]
    return [*tables, Table(f"{size}: one feed-forward net", alternate(contenders, rounds=rounds, same=None))]
