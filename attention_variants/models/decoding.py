"""Turning a model into output tokens: compiled, batched, no Python loop over tokens."""

import functools

import jax
import jax.numpy as jnp

from attention_variants.data.tokens import BEGIN, END, PAD
from attention_variants.models.transformer import Transformer


@functools.partial(jax.jit, static_argnames=("model", "length"))
def greedy(model: Transformer, params, source_BS: jax.Array, *, length: int) -> jax.Array:
    """The most probable token at each step, with a cache of prepared keys; stops when every row has ended.

    Args:
      model: the Transformer; params: its parameters.
      source_BS: source tokens (B, S); rows of padding only yield padding.
      length: the most tokens written, END included. Static: one program per length.

    Returns:
      (B, length) tokens, END and then padding where a row ended.
    """
    bound = functools.partial(model.apply, {"params": params})
    encoded, mask = bound(source_BS, method="encode")
    start = dict(
        at=0,
        token_B=jnp.full(source_BS.shape[:1], BEGIN, jnp.int32),
        ended_B=(source_BS == PAD).all(1),
        out_BT=jnp.full((source_BS.shape[0], length), PAD, jnp.int32),
        caches=bound(encoded, length, method="start"),
    )

    def running(s):
        return (s["at"] < length) & ~s["ended_B"].all()

    def step(s):
        logits_BV, caches = bound(s["token_B"], s["at"], mask, s["caches"], method="step")
        logits_BV = logits_BV.at[:, jnp.array([PAD, BEGIN])].set(-jnp.inf)  # these are never written
        token_B = jnp.where(s["ended_B"], PAD, logits_BV.argmax(-1).astype(jnp.int32))
        return dict(
            at=s["at"] + 1,
            token_B=token_B,
            ended_B=s["ended_B"] | (token_B == END),
            out_BT=s["out_BT"].at[:, s["at"]].set(token_B),
            caches=caches,
        )

    return jax.lax.while_loop(running, step, start)["out_BT"]
