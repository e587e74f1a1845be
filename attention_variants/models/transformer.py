"""The Transformer, encoder and decoder (Vaswani et al. 2017, "Attention is all you need"), with any attention variant.

One embedding matrix, scaled by √D, serves source, target and output (section 3.4).
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_variants.data.tokens import BEGIN, END, PAD
from attention_variants.errors import InputError, unknown
from attention_variants.models.heads import Noise
from attention_variants.models.layers import DecoderLayer, EncoderLayer, LayerCache, RelativeBias, ResidualDropout, layer_norm
from attention_variants.ops.attend import ROUTES
from attention_variants.ops.biases import Alibi
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
    """`layers` in the encoder and as many in the decoder; `width` is D, `feed_forward` the inner width of the feed-forward nets.

    `key_size`: d_k, of a head's queries and keys; 0 is width / heads, which values always have.

    `positions`: added to the embeddings ("sinusoidal"), or known to self-attention alone: "rotary" (RoFormer), "relative" (T5's
    learned buckets, shared by the layers), "alibi". `remat`: each layer is computed again in the backward pass, to save memory.

    What is fixed here is a field of pre-trained models' configs: `activation` of the feed-forward nets, `epsilon` of the norms, and
    ids of the tokens that fill up rows, begin a target and end it. `plain_feed_forward`: these nets are two layers with the
    activation between them, and no more.
    """

    activation: ClassVar[str] = "relu"
    plain_feed_forward: ClassVar[bool] = True
    epsilon: ClassVar[float] = 1e-5
    pad: ClassVar[int] = PAD
    begin: ClassVar[int] = BEGIN
    end: ClassVar[int] = END

    layers: int = 6
    width: int = 512
    heads: int = 8
    feed_forward: int = 2048
    key_size: int = 0
    norm: Literal["post", "pre"] = "post"
    positions: Literal["sinusoidal", "rotary", "relative", "alibi", "none"] = "sinusoidal"
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    route: str = "auto"
    remat: bool = False

    def __post_init__(self):
        for name in ("layers", "width", "heads", "feed_forward"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} is {getattr(self, name)}; expected at least 1")
        if self.key_size < 0:
            raise InputError(f"model.key_size is {self.key_size}; expected 0 for width / heads, or at least 1")
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
        if self.width % 2 and self.positions == "sinusoidal":
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


class Packed(NamedTuple):
    """Where packed tokens belong: the sequence (B, length), counted from 1, 0 for padding; and the position in it, from 0."""

    segment_BQ: jax.Array
    at_BQ: jax.Array


def _within(packed: Packed, **also) -> Mask:
    """Tokens see those of their own sequence, from where they are in it."""
    segments = dict(q_segments=packed.segment_BQ, k_segments=packed.segment_BQ)
    return Mask(**segments, q_at=packed.at_BQ, k_at=packed.at_BQ, **also)


class Encoder(nn.Module):
    """Embeddings and encoder layers, which a model builds on; id `config.pad` is padding.

    A pure function of parameters, tokens and noise. Differentiated in reverse, or forward over reverse; forward alone (`jax.jvp`)
    is refused by its linear layers.
    """

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
        layer = nn.remat(EncoderLayer) if config.remat else EncoderLayer
        self.encoder = [layer(config, self.variant) for _ in range(config.layers)]
        if config.positions == "relative":
            self.encoder_bias = RelativeBias(config, True)
        self.source_dropout = ResidualDropout()
        if config.norm == "pre":
            self.encoder_norm = layer_norm(config)

    def encode(self, source_BS, noise: Noise | None = None, packed: Packed | None = None):
        """The encoder's output (B, S, D) and the mask that hides the source's padding."""
        mask = Mask(k_valid=source_BS != self.config.pad)
        if packed is not None:
            mask = _within(packed, k_valid=mask.k_valid)
        x_BSD = self.source_dropout(self._embed(source_BS, packed and packed.at_BQ), noise)
        for layer in self.encoder:
            x_BSD = layer(x_BSD, mask, self._bias("encoder"), noise)
        return (self.encoder_norm(x_BSD) if self.config.norm == "pre" else x_BSD), mask

    def _embed(self, token_BQ, at_BQ=None):
        x_BQD = self.embedding(token_BQ) * math.sqrt(self.config.width)
        if self.config.positions != "sinusoidal":
            return x_BQD
        at_BQ = jnp.arange(token_BQ.shape[1])[None] if at_BQ is None else at_BQ
        return x_BQD + sinusoidal(at_BQ, self.config.width).astype(x_BQD.dtype)

    def _bias(self, side: str):
        """What self-attention adds to its logits."""
        match self.config.positions:
            case "relative":
                return getattr(self, f"{side}_bias")()
            case "alibi":
                return Alibi(self.config.heads)
        return None


class Transformer(Encoder):
    """Token ids in, logits out."""

    def setup(self):
        super().setup()
        config = self.config
        layer = nn.remat(DecoderLayer) if config.remat else DecoderLayer
        self.decoder = [layer(config, self.variant) for _ in range(config.layers)]
        if config.positions == "relative":
            self.decoder_bias = RelativeBias(config, False)
        self.target_dropout = ResidualDropout()
        if config.norm == "pre":
            self.decoder_norm = layer_norm(config)

    def __call__(self, source_BS, target_BT, noise: Noise | None = None, packed: tuple[Packed, Packed] | None = None):
        """Logits (B, T, vocabulary) of every target token given the source and the target tokens before it.

        Args:
          packed: where the tokens of source and target belong, where a row holds several pairs.
        """
        return self.logits(self.hidden(source_BS, target_BT, noise, packed))

    def hidden(self, source_BS, target_BT, noise: Noise | None = None, packed: tuple[Packed, Packed] | None = None):
        """What `logits` are computed from, (B, T, D)."""
        source, target = packed or (None, None)
        encoded_BSD, source_mask = self.encode(source_BS, noise, source)
        before_BT = jnp.pad(target_BT, ((0, 0), (1, 0)), constant_values=BEGIN)[:, :-1]
        mask = Mask(causal=True)
        if packed is not None:
            before_BT = jnp.where(target.at_BQ == 0, BEGIN, before_BT)
            mask = _within(target, causal=True)
            source_mask = Mask(k_valid=source_BS != PAD, q_segments=target.segment_BQ, k_segments=source.segment_BQ)
        x_BTD = self.target_dropout(self._embed(before_BT, target and target.at_BQ), noise)
        for layer in self.decoder:
            x_BTD = layer(x_BTD, encoded_BSD, mask, source_mask, self._bias("decoder"), noise)
        return self.decoder_norm(x_BTD) if self.config.norm == "pre" else x_BTD

    def start(self, encoded_BSD, source_mask: Mask, length: int) -> list[LayerCache]:
        """The decoding caches of all layers, with room for `length` target tokens, from what `encode` returned."""
        return [layer.start(encoded_BSD, source_mask, length) for layer in self.decoder]

    def step(self, token_BN, at, source_mask: Mask, caches: list[LayerCache], sees_BNS=None):
        """Logits (B, N, vocabulary) of target token `at` after each of N tokens at − 1; and the caches with these in them.

        Args:
          token_BN: the tokens before: BEGIN at first. at: the position, from 0. source_mask: what `encode` returned.
          caches: of all layers, with room for S tokens; the N of position t lie in places t·N to t·N + N − 1.
          sees_BNS: bool, which of the cached tokens each of these has as ancestors, itself among them; by default all written.
        """
        places = caches[0].target.v_BHSV.shape[2]
        q_at, k_at = jnp.reshape(at, (1, 1)), (jnp.arange(places) // token_BN.shape[1])[None]
        mask = Mask(causal=True, q_at=q_at, k_at=k_at, dense=None if sees_BNS is None else sees_BNS[:, None])
        x_BND = self._embed(token_BN, q_at)
        updated = []
        for layer, cache in zip(self.decoder, caches, strict=True):
            x_BND, cache = layer.step(x_BND, at, mask, source_mask, self._bias("decoder"), cache)
            updated.append(cache)
        return self.logits(self.decoder_norm(x_BND) if self.config.norm == "pre" else x_BND), updated

    def logits(self, x_BTD):
        """Logits (B, T, vocabulary) in at least float32, whatever the type of the computation: bfloat16 would tie and round."""
        return jnp.einsum("btd,vd->btv", x_BTD, self.table(), preferred_element_type=self.config.param_dtype)

    def table(self):
        """The embeddings (V, D) that inner products with `hidden` make `logits` of, in the type of the computation."""
        return self.embedding.embedding.astype(self.config.dtype)


def build(config: Config, variant: Any, vocabulary: int) -> Transformer:
    """The model of a config, for a variant's Config and a vocabulary of tokens."""
    return Transformer(config, variant, vocabulary)
