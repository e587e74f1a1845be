"""The encoder of BERT (Devlin et al. 2019), which RoBERTa and DistilBERT share, on the layers of our Transformer.

Post-norm; embeddings of tokens, positions and token types are learned, added and normalised. What stands on top of the last layer
(poolers, heads of language models and classifiers) is left out.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from attention_variants.models import transformer
from attention_variants.models.heads import Noise
from attention_variants.models.layers import layer_norm
from attention_variants.ops.masks import Mask

EMBEDDINGS = {
    "embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "type_embedding": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}
LAYER = {
    "self_attention/query": "attention.self.query",
    "self_attention/key": "attention.self.key",
    "self_attention/value": "attention.self.value",
    "self_attention/out": "attention.output.dense",
    "self_attention_residual/norm": "attention.output.LayerNorm",
    "feed_forward/inner": "intermediate.dense",
    "feed_forward/out": "output.dense",
    "feed_forward_residual/norm": "output.LayerNorm",
}


@dataclasses.dataclass(frozen=True)
class Config(transformer.Config):
    """As the Transformer's encoder; `rows` has the table of positions, `types` that of token types, 0 where there is none.

    `positions`: places in the row from 0 on ("places"), or tokens that are not padding are counted from pad + 1 on, and padding has
    the position `pad` ("counted", as RoBERTa has them from fairseq).
    """

    layers: int = 12
    width: int = 768
    heads: int = 12
    feed_forward: int = 3072
    positions: Literal["places", "counted"] = "places"
    activation: str = "gelu"
    epsilon: float = 1e-12
    pad: int = 0
    rows: int = 512
    types: int = 2

    @property
    def longest(self) -> int:
        """The most tokens that there are positions for."""
        return self.rows - (self.pad + 1 if self.positions == "counted" else 0)


class Bert(transformer.Encoder):
    """Token ids in, the last layer's output out."""

    inputs = 1  # arrays of token ids

    def setup(self):
        super().setup()
        table = lambda rows: nn.Embed(rows, self.config.width, dtype=self.config.dtype, param_dtype=self.config.param_dtype)
        self.position_embedding = table(self.config.rows)
        if self.config.types:
            self.type_embedding = table(self.config.types)
        self.embedding_norm = layer_norm(self.config)

    def __call__(self, token_BS, noise: Noise | None = None, type_BS=None):
        """(B, S, D). `type_BS`: which sentence of a pair a token is of; 0 by default."""
        return self.encode(token_BS, noise, type_BS)[0]

    def encode(self, token_BS, noise: Noise | None = None, type_BS=None):
        """The encoder's output (B, S, D) and the mask that hides padding. Raises ValueError for rows without positions."""
        if token_BS.shape[1] > self.config.longest:
            raise ValueError(
                f"rows have {token_BS.shape[1]} tokens; expected at most {self.config.longest}, as there are positions"
            )
        mask = Mask(k_valid=token_BS != self.config.pad)
        x_BSD = self.embedding(token_BS) + self.position_embedding(self._at(mask.k_valid))
        if self.config.types:
            x_BSD += self.type_embedding(jnp.zeros_like(token_BS) if type_BS is None else type_BS)
        x_BSD = self.source_dropout(self.embedding_norm(x_BSD), noise)
        for layer in self.encoder:
            x_BSD = layer(x_BSD, mask, None, noise)
        return x_BSD, mask

    def _at(self, real_BS):
        if self.config.positions == "places":
            return jnp.arange(real_BS.shape[1])[None]
        return self.config.pad + jnp.cumsum(real_BS, 1) * real_BS


def pretrained(found) -> tuple[Bert, dict[str, str]]:
    """The model that a `pretrained.Found` describes, and what its file of tensors calls our modules."""
    found.expect(position_embedding_type="absolute", is_decoder=False)
    config = Config(
        layers=found["num_hidden_layers"],
        width=found["hidden_size"],
        heads=found["num_attention_heads"],
        feed_forward=found["intermediate_size"],
        activation=found["hidden_act"],
        epsilon=found.get("layer_norm_eps", Config.epsilon),
        pad=found.get("pad_token_id", Config.pad),
        rows=found["max_position_embeddings"],
        types=found["type_vocab_size"],
    )
    return Bert(config, "standard", found["vocab_size"]), EMBEDDINGS | numbered("encoder", "encoder.layer", LAYER, config.layers)


def numbered(ours: str, theirs: str, names: dict[str, str], layers: int) -> dict[str, str]:
    """The names of every layer's modules: "encoder_0/…" is "encoder.layer.0.…" there."""
    return {f"{ours}_{n}/{path}": f"{theirs}.{n}.{name}" for n in range(layers) for path, name in names.items()}
