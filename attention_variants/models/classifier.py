"""A Transformer encoder that reads a sentence and tells its class.

Sentences are pooled to the mean of their tokens, or to what comes out at a token of its own in front, [CLS] (Devlin et al. 2019,
"BERT"), whose learned embedding is that of the id `BEGIN`.
"""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp

from attention_variants.data.tokens import BEGIN, PAD
from attention_variants.models import transformer
from attention_variants.models.affine import Affine
from attention_variants.models.heads import Noise
from attention_variants.models.layers import ResidualDropout


@dataclasses.dataclass(frozen=True)
class Config(transformer.Config):
    """As the Transformer's encoder. `pooling`: see above."""

    pooling: Literal["mean", "cls"] = "mean"


class Classifier(transformer.Encoder):
    """Token ids in, logits of classes out."""

    outputs: int

    def setup(self):
        super().setup()
        self.pooled_dropout = ResidualDropout()
        self.out = Affine(self.outputs, param_dtype=self.config.param_dtype)

    def __call__(self, token_BS, noise: Noise | None = None):
        """(B, outputs), in at least float32."""
        if self.config.pooling == "cls":
            token_BS = jnp.pad(token_BS, ((0, 0), (1, 0)), constant_values=BEGIN)
        x_BSD, _ = self.encode(token_BS, noise)
        x_BSD = x_BSD.astype(self.config.param_dtype)
        if self.config.pooling == "cls":
            x_BD = x_BSD[:, 0]
        else:
            real_BS1 = (token_BS != PAD)[..., None]
            x_BD = (x_BSD * real_BS1).sum(1) / jnp.maximum(real_BS1.sum(1), 1)
        return self.out(self.pooled_dropout(x_BD, noise))


def build(config: Config, variant: Any, vocabulary: int, outputs: int) -> Classifier:
    """The model of a config, for a variant's Config, a vocabulary of tokens and as many classes."""
    return Classifier(config, variant, vocabulary, outputs)
