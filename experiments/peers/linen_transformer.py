"""The Transformer as it is written with stock flax.linen; its parameters have our names, so that both start from the same."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from attention_variants.data.tokens import BEGIN, PAD
from attention_variants.ops.positions import sinusoidal


class Residual(nn.Module):
    """x + dropout(sublayer(norm(x)))."""

    rate: float
    dropout: Any

    @nn.compact
    def __call__(self, x, sublayer, deterministic):
        y = sublayer(nn.LayerNorm(epsilon=1e-5, dtype=x.dtype, name="norm")(x))
        return x + self.dropout(self.rate, deterministic=deterministic)(y)


class FeedForward(nn.Module):
    config: Any

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.config.feed_forward, dtype=self.config.dtype, name="inner")(x))
        return nn.Dense(self.config.width, dtype=self.config.dtype, name="out")(x)


class Layer(nn.Module):
    """A layer of the encoder; of the decoder, where there is something to look across to."""

    config: Any
    rate: float
    dropout: Any

    @nn.compact
    def __call__(self, x, mask, across=None, across_mask=None, deterministic=True):
        attention = functools.partial(nn.MultiHeadDotProductAttention, self.config.heads, dtype=self.config.dtype)
        look_back = attention(name="self_attention")
        residual = lambda name: Residual(self.rate, self.dropout, name=f"{name}_residual")
        x = residual("self_attention")(x, lambda x: look_back(x, mask=mask), deterministic)
        if across is not None:
            look_across = attention(name="cross_attention")
            x = residual("cross_attention")(x, lambda x: look_across(x, across, mask=across_mask), deterministic)
        return residual("feed_forward")(x, FeedForward(self.config, name="feed_forward"), deterministic)


class Transformer(nn.Module):
    """Pre-norm, sinusoidal positions, one embedding for source, target and output."""

    config: Any
    vocabulary: int
    rate: float
    dropout: Any = nn.Dropout

    @nn.compact
    def __call__(self, source_BS, target_BT, deterministic: bool):
        config = self.config
        embedding = nn.Embed(self.vocabulary, config.width, dtype=config.dtype, name="embedding")
        drop = self.dropout(self.rate, deterministic=deterministic)

        def embed(tokens):
            x = embedding(tokens) * config.width**0.5
            return drop(x + sinusoidal(jnp.arange(tokens.shape[1])[None], config.width).astype(x.dtype))

        source_mask = nn.make_attention_mask(jnp.ones_like(source_BS, bool), source_BS != PAD)
        across_mask = nn.make_attention_mask(jnp.ones_like(target_BT, bool), source_BS != PAD)
        x = embed(source_BS)
        for i in range(config.layers):
            x = Layer(config, self.rate, self.dropout, name=f"encoder_{i}")(x, source_mask, deterministic=deterministic)
        encoded = nn.LayerNorm(epsilon=1e-5, name="encoder_norm")(x)
        x = embed(jnp.pad(target_BT, ((0, 0), (1, 0)), constant_values=BEGIN)[:, :-1])
        mask = nn.make_causal_mask(target_BT)
        for i in range(config.layers):
            x = Layer(config, self.rate, self.dropout, name=f"decoder_{i}")(x, mask, encoded, across_mask, deterministic)
        return embedding.attend(nn.LayerNorm(epsilon=1e-5, name="decoder_norm")(x))


def loss(model, params, batch, key, smoothing):
    """Label-smoothed cross-entropy per target token, as optax writes it; without a key, no dropout."""
    rngs = {} if key is None else {"dropout": key}
    logits = model.apply({"params": params}, batch["source"], batch["target"], key is None, rngs=rngs)
    labels = optax.smooth_labels(jax.nn.one_hot(batch["target"], model.vocabulary), smoothing)
    weights = batch["target"] != PAD
    return (optax.softmax_cross_entropy(logits, labels) * weights).sum() / weights.sum()


def make_step(model, optimizer, smoothing):
    """A compiled training step (params, opt_state, batch, key) → (params, opt_state, loss), its arguments donated."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, opt_state, batch, key, at):
        value, grads = jax.value_and_grad(lambda p: loss(model, p, batch, jax.random.fold_in(key, at), smoothing))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return step
