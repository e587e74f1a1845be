"""The layers of the Transformer; `config` is the model's own `Config`.

Each sublayer f is wrapped as x ← norm(x + dropout(f(x))) (post-norm, Vaswani et al. 2017, section 3.1) or
x ← x + dropout(f(norm(x))) (pre-norm, Xiong et al. 2020).
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from attention_variants.errors import unknown
from attention_variants.models.affine import Affine
from attention_variants.models.heads import Memory, MultiHeadAttention, Noise, trace
from attention_variants.models.layer_norm import LayerNorm
from attention_variants.ops.biases import RelativeBuckets
from attention_variants.ops.dropout import Dropout, drop
from attention_variants.ops.masks import Mask

GELU, NEARLY_GELU = (functools.partial(nn.gelu, approximate=nearly) for nearly in (False, True))  # by erf, and by tanh
ACTIVATIONS = {  # as configs of Hugging Face name them
    "gelu": GELU,
    "gelu_fast": NEARLY_GELU,
    "gelu_new": NEARLY_GELU,
    "gelu_pytorch_tanh": NEARLY_GELU,
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
    "tanh": nn.tanh,
}


class Residual(nn.Module):
    """Norm, dropout and residual connection around a sublayer."""

    config: Any

    def setup(self):
        self.norm = layer_norm(self.config)
        self.dropout = ResidualDropout()

    def __call__(self, x, noise: Noise | None, sublayer: Callable):
        if self.config.norm == "pre":
            after = x + self.dropout(sublayer(self.norm(x)), noise)
        else:
            after = self.norm(x + self.dropout(sublayer(x), noise))
        trace(self, before_BQD=x, after_BQD=after)
        return after


class ResidualDropout(nn.Module):
    """Dropout of a sublayer's output or of embeddings (section 5.4), keyed by this module's place in the model."""

    def __call__(self, x, noise: Noise | None):
        if noise is None or noise.dropout is None:
            return x
        return drop(x, Dropout(noise.dropout, self.make_rng("dropout"), noise.row_B))


class FeedForward(nn.Module):
    """f(x W₁ + b₁) W₂ + b₂, where f is the config's activation: max(0, ·) in section 3.3."""

    config: Any

    def setup(self):
        types = dict(dtype=self.config.dtype, param_dtype=self.config.param_dtype)
        self.inner = Affine(self.config.feed_forward, **types)
        self.out = Affine(self.config.width, **types)

    def __call__(self, x):
        return self.out(activation(self.config.activation)(self.inner(x)))


def activation(name: str) -> Callable:
    """The function of a name; InputError (with the nearest name) where there is none."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def layer_norm(config) -> LayerNorm:
    return LayerNorm(epsilon=config.epsilon, dtype=config.dtype, param_dtype=config.param_dtype)


def attention(config, variant: Any, rotary: bool = False) -> MultiHeadAttention:
    return MultiHeadAttention(
        rotary=rotary,
        num_heads=config.heads,
        key_features=config.heads * config.key_size or None,
        variant=variant,
        route=config.route,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        kernel_init=nn.initializers.xavier_uniform(),
        linear=Affine,
    )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each inside a residual."""

    config: Any
    variant: Any

    def setup(self):
        self.self_attention = attention(self.config, self.variant, rotary=self.config.positions == "rotary")
        self.feed_forward = FeedForward(self.config)
        self.self_attention_residual = Residual(self.config)
        self.feed_forward_residual = Residual(self.config)

    def __call__(self, x_BSD, mask: Mask, bias, noise: Noise | None):
        attend = lambda x: self.self_attention(x, mask=mask, bias=bias, noise=noise)
        x_BSD = self.self_attention_residual(x_BSD, noise, attend)
        return self.feed_forward_residual(x_BSD, noise, self.feed_forward)


def traces(traced: dict) -> dict[str, dict]:
    """By attention layer, "decoder_0_cross_attention" say, its entry in the collection "trace", of a model of these layers.

    Beside what attention has sown there are `before_BQD` and `after_BQD`, what goes into the block around it and what comes out.
    """
    found = {}
    for layer, sown in traced.items():
        attentions = {name: of for name, of in sown.items() if name.endswith("attention")}
        found |= {f"{layer}_{name}": of | sown.get(f"{name}_residual", {}) for name, of in attentions.items()}
    return found


def in_order(layers: Iterable[str]) -> list[str]:
    """Names of attention layers in the order of a model: the encoder first, by number, self-attention before cross-attention."""
    parts = lambda name: name.split("_")
    return sorted(layers, key=lambda name: (parts(name)[0] != "encoder", int(parts(name)[1]), parts(name)[2] != "self"))


class LayerCache(NamedTuple):
    """What one decoder layer keeps while decoding: prepared keys and values of the target so far, and of the source."""

    target: Memory
    source: Memory


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward, each inside a residual."""

    config: Any
    variant: Any

    def setup(self):
        self.self_attention = attention(self.config, self.variant, rotary=self.config.positions == "rotary")
        self.cross_attention = attention(self.config, self.variant)
        self.feed_forward = FeedForward(self.config)
        self.self_attention_residual = Residual(self.config)
        self.cross_attention_residual = Residual(self.config)
        self.feed_forward_residual = Residual(self.config)

    def __call__(self, x_BTD, source_BSD, mask: Mask, source_mask: Mask, bias, noise: Noise | None):
        """All target positions at once: (B, T, D) to (B, T, D)."""
        look_back = lambda x: self.self_attention(x, mask=mask, bias=bias, noise=noise)
        look_across = lambda x: self.cross_attention(x, source_BSD, mask=source_mask, noise=noise)
        return self._sublayers(x_BTD, noise, look_back, look_across)

    def start(self, source_BSD, source_mask: Mask, length: int) -> LayerCache:
        """A cache with room for `length` target tokens; what stands in it is hidden until written."""
        empty = jnp.zeros((source_BSD.shape[0], length, self.config.width), source_BSD.dtype)
        source = self.cross_attention(empty[:, :1], source_BSD, mask=source_mask, remember=True)
        return LayerCache(self.self_attention(empty, remember=True), source)

    def step(self, x_BND, at, mask: Mask, source_mask: Mask, bias, cache: LayerCache):
        """N tokens of target position `at`, given the cache of the earlier ones: (B, N, D) and the cache with these in it."""

        def look_back(x):
            nonlocal cache
            new = self.self_attention(x, mask=Mask(k_at=mask.q_at), memory=cache.target, remember=True)
            cache = cache._replace(target=cache.target.write(new, at * x.shape[1]))
            return self.self_attention(x, mask=mask, bias=bias, memory=cache.target)

        look_across = lambda x: self.cross_attention(x, mask=source_mask, memory=cache.source)
        return self._sublayers(x_BND, None, look_back, look_across), cache

    def _sublayers(self, x, noise, look_back, look_across):
        x = self.self_attention_residual(x, noise, look_back)
        x = self.cross_attention_residual(x, noise, look_across)
        return self.feed_forward_residual(x, noise, self.feed_forward)


class RelativeBias(nn.Module):
    """The table of T5's relative buckets."""

    config: Any
    both_ways: bool

    @nn.compact
    def __call__(self) -> RelativeBuckets:
        shape, dtype = (32, self.config.heads), self.config.param_dtype
        return RelativeBuckets(self.param("table", nn.initializers.normal(0.02), shape, dtype), self.both_ways)
