"""Marian's translation models (Junczys-Dowmunt et al. 2018) as Hugging Face has them: our Transformer, but for what stands here.

Of the positions sines are the first half of the features and cosines the second; each token has a bias of its logit; padding and
what begins a target are the same token.
"""

import dataclasses
import math

import jax.numpy as jnp
from flax.linen import initializers

from attention_variants.models import transformer
from attention_variants.models.bert import numbered
from attention_variants.models.heads import Noise
from attention_variants.models.layers import DecoderLayer, ResidualDropout
from attention_variants.ops.masks import Mask
from attention_variants.ops.positions import sinusoidal

ENCODER = {
    "self_attention/query": "self_attn.q_proj",
    "self_attention/key": "self_attn.k_proj",
    "self_attention/value": "self_attn.v_proj",
    "self_attention/out": "self_attn.out_proj",
    "self_attention_residual/norm": "self_attn_layer_norm",
    "feed_forward/inner": "fc1",
    "feed_forward/out": "fc2",
    "feed_forward_residual/norm": "final_layer_norm",
}
CROSS = {
    "cross_attention/query": "encoder_attn.q_proj",
    "cross_attention/key": "encoder_attn.k_proj",
    "cross_attention/value": "encoder_attn.v_proj",
    "cross_attention/out": "encoder_attn.out_proj",
    "cross_attention_residual/norm": "encoder_attn_layer_norm",
}


@dataclasses.dataclass(frozen=True)
class Config(transformer.Config):
    """As the Transformer's; `layers`, `heads` and `feed_forward` are the encoder's. `scaled`: embeddings are, by √width."""

    decoder_layers: int = 6
    decoder_heads: int = 8
    decoder_feed_forward: int = 2048
    activation: str = "swish"
    scaled: bool = True
    pad: int = 58100
    begin: int = 58100
    end: int = 0
    longest: int = 512

    def of_decoder(self) -> "Config":
        """What the layers of the decoder have as their config."""
        return dataclasses.replace(self, heads=self.decoder_heads, feed_forward=self.decoder_feed_forward)


class Marian(transformer.Transformer):
    """Token ids in, logits out. It reads what Hugging Face's does: in place of a target, the decoder's input, `begin` first."""

    inputs = 2  # arrays of token ids

    def setup(self):
        transformer.Encoder.setup(self)
        config = self.config
        self.decoder = [DecoderLayer(config.of_decoder(), self.variant) for _ in range(config.decoder_layers)]
        self.target_dropout = ResidualDropout()
        self.final_logits_bias = self.param("final_logits_bias", initializers.zeros, (1, self.vocabulary), config.param_dtype)

    def __call__(self, source_BS, before_BT, noise: Noise | None = None):
        """Logits (B, T, vocabulary) of what follows each token of the decoder's input, given the source and those before it."""
        return self.logits(self.hidden(source_BS, before_BT, noise))

    def hidden(self, source_BS, before_BT, noise: Noise | None = None):
        """What `logits` are computed from, (B, T, D)."""
        encoded_BSD, source_mask = self.encode(source_BS, noise)
        x_BTD = self.target_dropout(self._embed(before_BT), noise)
        for layer in self.decoder:
            x_BTD = layer(x_BTD, encoded_BSD, Mask(causal=True), source_mask, None, noise)
        return x_BTD

    def logits(self, x_BTD):
        """As the Transformer's, with their biases."""
        return super().logits(x_BTD) + self.final_logits_bias

    def _embed(self, token_BQ, at_BQ=None):
        x_BQD = self.embedding(token_BQ) * (math.sqrt(self.config.width) if self.config.scaled else 1.0)
        at_BQ = jnp.arange(token_BQ.shape[1])[None] if at_BQ is None else at_BQ
        pairs_BQD2 = sinusoidal(at_BQ, self.config.width).reshape(*at_BQ.shape, -1, 2)
        return x_BQD + jnp.concatenate([pairs_BQD2[..., 0], pairs_BQD2[..., 1]], -1).astype(x_BQD.dtype)


def pretrained(found) -> tuple[Marian, dict[str, str | tuple[str, ...]]]:
    """The model that a `pretrained.Found` describes, and what its file of tensors calls our modules."""
    found.expect(share_encoder_decoder_embeddings=True, tie_word_embeddings=True)
    config = Config(
        layers=found["encoder_layers"],
        width=found["d_model"],
        heads=found["encoder_attention_heads"],
        feed_forward=found["encoder_ffn_dim"],
        decoder_layers=found["decoder_layers"],
        decoder_heads=found["decoder_attention_heads"],
        decoder_feed_forward=found["decoder_ffn_dim"],
        activation=found["activation_function"],
        scaled=found["scale_embedding"],
        pad=found["pad_token_id"],
        begin=found["decoder_start_token_id"],
        end=found["eos_token_id"],
        longest=found["max_position_embeddings"],
    )
    # One matrix has four names, of which whoever saved it kept one.
    embedding = {"embedding": ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")}
    encoder = numbered("encoder", "encoder.layers", ENCODER, config.layers)
    decoder = numbered("decoder", "decoder.layers", ENCODER | CROSS, config.decoder_layers)
    return Marian(config, "standard", found["vocab_size"]), embedding | encoder | decoder
