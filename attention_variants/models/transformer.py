"""The Transformer, encoder and decoder (Vaswani et al. 2017, "Attention is all you need"), with any attention variant.

Each sublayer f is wrapped as x ← norm(x + dropout(f(x))) (post-norm, section 3.1) or x ← x + dropout(f(norm(x))) (pre-norm,
Xiong et al. 2020). One embedding matrix, scaled by √D, serves source, target and output (section 3.4).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_variants.data.tokens import BEGIN, PAD
from attention_variants.errors import InputError, unknown
from attention_variants.models.heads import Memory, MultiHeadAttention, Noise
from attention_variants.ops.attend import ROUTES
from attention_variants.ops.dropout import Dropout, drop
from attention_variants.ops.masks import Mask
from attention_variants.ops.positions import sinusoidal

SIZES = {
    "tiny": dict(layers=2, width=64, heads=4, feed_forward=256),
    "small": dict(layers=4, width=192, heads=3, feed_forward=512),
    "base": dict(layers=6, width=512, heads=8, feed_forward=2048),
    "big": dict(layers=6, width=1024, heads=16, feed_forward=4096),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """`layers` in the encoder and as many in the decoder; `width` is D, `feed_forward` the inner width of the feed-forward nets."""

    layers: int = 6
    width: int = 512
    heads: int = 8
    feed_forward: int = 2048
    norm: Literal["post", "pre"] = "post"
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    route: str = "auto"

    def __post_init__(self):
        for name in ("layers", "width", "heads", "feed_forward"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} is {getattr(self, name)}; expected at least 1")
        if self.width % self.heads:
            fits = [h for h in range(1, self.width + 1) if self.width % h == 0]
            near = min(fits, key=lambda h: abs(h - self.heads))
            raise InputError(
                f"model.heads is {self.heads}, which does not divide model.width {self.width}; the nearest that does is {near}"
            )
        if self.route not in ("auto", *ROUTES):
            raise unknown("value of config.model.route", self.route, ("auto", *ROUTES))
        if self.dtype == "float64" and not jax.config.jax_enable_x64:
            raise InputError("model.dtype is float64, which jax computes only where the environment says JAX_ENABLE_X64=1")
        if self.width % 2:
            raise InputError(f"model.width is {self.width}; expected an even number, such as {self.width + 1}")

    @property
    def param_dtype(self):
        """Parameters are float32, or float64 where the computation is."""
        return jnp.promote_types(self.dtype, jnp.float32)


def size(name: str) -> dict:
    """The numbers of a size: "tiny", "small", "base" or "big" (the last two: table 3 of the paper)."""
    if name not in SIZES:
        raise unknown("size", name, SIZES)
    return SIZES[name]


class Residual(nn.Module):
    """Norm, dropout and residual connection around a sublayer."""

    config: Config

    def setup(self):
        self.norm = layer_norm(self.config)
        self.dropout = ResidualDropout()

    def __call__(self, x, noise: Noise | None, sublayer: Callable):
        if self.config.norm == "pre":
            return x + self.dropout(sublayer(self.norm(x)), noise)
        return self.norm(x + self.dropout(sublayer(x), noise))


class ResidualDropout(nn.Module):
    """Dropout of a sublayer's output or of embeddings (section 5.4), keyed by this module's place in the model."""

    def __call__(self, x, noise: Noise | None):
        return x if noise is None else drop(x, Dropout(noise.dropout, self.make_rng("dropout"), noise.row_B))


class FeedForward(nn.Module):
    """max(0, x W₁ + b₁) W₂ + b₂ (section 3.3)."""

    config: Config

    def setup(self):
        types = dict(dtype=self.config.dtype, param_dtype=self.config.param_dtype)
        self.inner = nn.Dense(self.config.feed_forward, **types)
        self.out = nn.Dense(self.config.width, **types)

    def __call__(self, x):
        return self.out(nn.relu(self.inner(x)))


def layer_norm(config: Config) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, dtype=config.dtype, param_dtype=config.param_dtype)


def attention(config: Config, variant: Any) -> MultiHeadAttention:
    return MultiHeadAttention(
        num_heads=config.heads,
        variant=variant,
        route=config.route,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        kernel_init=nn.initializers.xavier_uniform(),
    )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each inside a residual."""

    config: Config
    variant: Any

    def setup(self):
        self.self_attention = attention(self.config, self.variant)
        self.feed_forward = FeedForward(self.config)
        self.self_attention_residual = Residual(self.config)
        self.feed_forward_residual = Residual(self.config)

    def __call__(self, x_BSD, mask: Mask, noise: Noise | None):
        attend = lambda x: self.self_attention(x, mask=mask, noise=noise)
        x_BSD = self.self_attention_residual(x_BSD, noise, attend)
        return self.feed_forward_residual(x_BSD, noise, self.feed_forward)


class LayerCache(NamedTuple):
    """What one decoder layer keeps while decoding: prepared keys and values of the target so far, and of the source."""

    target: Memory
    source: Memory


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward, each inside a residual."""

    config: Config
    variant: Any

    def setup(self):
        self.self_attention = attention(self.config, self.variant)
        self.cross_attention = attention(self.config, self.variant)
        self.feed_forward = FeedForward(self.config)
        self.self_attention_residual = Residual(self.config)
        self.cross_attention_residual = Residual(self.config)
        self.feed_forward_residual = Residual(self.config)

    def __call__(self, x_BTD, source_BSD, source_mask: Mask, noise: Noise | None):
        """All target positions at once: (B, T, D) to (B, T, D)."""
        look_back = lambda x: self.self_attention(x, mask=Mask(causal=True), noise=noise)
        look_across = lambda x: self.cross_attention(x, source_BSD, mask=source_mask, noise=noise)
        return self._sublayers(x_BTD, noise, look_back, look_across)

    def start(self, source_BSD, length: int) -> LayerCache:
        """A cache with room for `length` target positions; what stands in them is hidden by causality until written."""
        empty = jnp.zeros((source_BSD.shape[0], length, self.config.width), source_BSD.dtype)
        return LayerCache(self.self_attention(empty, remember=True), self.cross_attention(source_BSD, remember=True))

    def step(self, x_B1D, at, source_mask: Mask, cache: LayerCache):
        """One target position `at`, given the cache of the earlier ones: (B, 1, D) and the cache with this one in it."""

        def look_back(x):
            nonlocal cache
            cache = cache._replace(target=cache.target.write(self.self_attention(x, remember=True), at))
            return self.self_attention(x, mask=Mask(causal=True, q_at=jnp.reshape(at, (1, 1))), memory=cache.target)

        look_across = lambda x: self.cross_attention(x, mask=source_mask, memory=cache.source)
        return self._sublayers(x_B1D, None, look_back, look_across), cache

    def _sublayers(self, x, noise, look_back, look_across):
        x = self.self_attention_residual(x, noise, look_back)
        x = self.cross_attention_residual(x, noise, look_across)
        return self.feed_forward_residual(x, noise, self.feed_forward)


class Transformer(nn.Module):
    """Token ids in, logits out; id `PAD` is padding. A pure function of parameters, tokens and noise."""

    config: Config
    variant: Any
    vocabulary: int

    def setup(self):
        config = self.config
        self.embedding = nn.Embed(
            self.vocabulary,
            config.width,
            dtype=config.dtype,
            param_dtype=config.param_dtype,
            embedding_init=nn.initializers.normal(config.width**-0.5),
        )
        self.encoder = [EncoderLayer(config, self.variant) for _ in range(config.layers)]
        self.decoder = [DecoderLayer(config, self.variant) for _ in range(config.layers)]
        self.source_dropout, self.target_dropout = ResidualDropout(), ResidualDropout()
        if config.norm == "pre":
            self.encoder_norm, self.decoder_norm = layer_norm(config), layer_norm(config)

    def __call__(self, source_BS, target_BT, noise: Noise | None = None):
        """Logits (B, T, vocabulary) of every target token given the source and the target tokens before it."""
        encoded_BSD, mask = self.encode(source_BS, noise)
        before_BT = jnp.pad(target_BT, ((0, 0), (1, 0)), constant_values=BEGIN)[:, :-1]
        x_BTD = self.target_dropout(self._embed(before_BT), noise)
        for layer in self.decoder:
            x_BTD = layer(x_BTD, encoded_BSD, mask, noise)
        return self._logits(x_BTD)

    def encode(self, source_BS, noise: Noise | None = None):
        """The encoder's output (B, S, D) and the mask that hides the source's padding."""
        mask = Mask(k_valid=source_BS != PAD)
        x_BSD = self.source_dropout(self._embed(source_BS), noise)
        for layer in self.encoder:
            x_BSD = layer(x_BSD, mask, noise)
        return (self.encoder_norm(x_BSD) if self.config.norm == "pre" else x_BSD), mask

    def start(self, encoded_BSD, length: int) -> list[LayerCache]:
        """The decoding caches of all layers, with room for `length` target tokens."""
        return [layer.start(encoded_BSD, length) for layer in self.decoder]

    def step(self, token_B, at, source_mask: Mask, caches: list[LayerCache]):
        """Logits (B, vocabulary) of target token `at`, given token at − 1 and the caches; and the caches updated."""
        x_B1D = self._embed(token_B[:, None], jnp.reshape(at, (1, 1)))
        updated = []
        for layer, cache in zip(self.decoder, caches, strict=True):
            x_B1D, cache = layer.step(x_B1D, at, source_mask, cache)
            updated.append(cache)
        return self._logits(x_B1D)[:, 0], updated

    def _embed(self, token_BQ, at_BQ=None):
        at_BQ = jnp.arange(token_BQ.shape[1])[None] if at_BQ is None else at_BQ
        x_BQD = self.embedding(token_BQ) * math.sqrt(self.config.width)
        return x_BQD + sinusoidal(at_BQ, self.config.width).astype(x_BQD.dtype)

    def _logits(self, x_BTD):
        """In float32 at least, whatever the type of the computation: bfloat16 would tie and round them."""
        x_BTD = self.decoder_norm(x_BTD) if self.config.norm == "pre" else x_BTD
        table_VD = self.embedding.embedding.astype(x_BTD.dtype)
        return jnp.einsum("btd,vd->btv", x_BTD, table_VD, preferred_element_type=self.config.param_dtype)


def build(config: Config, variant: Any, vocabulary: int) -> Transformer:
    """The model of a config, for a variant's Config and a vocabulary of tokens."""
    return Transformer(config, variant, vocabulary)
