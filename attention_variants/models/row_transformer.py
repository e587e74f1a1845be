"""A Transformer encoder that reads a table: every row is a token, made of its features (Song et al. 2021, regression).

Rows see the features of others and never a target, so what is learned of them is where in the data a row lies. There are no
positions: the order of rows means nothing.
"""

import dataclasses
from typing import Any, Literal

import flax.linen as nn

from attention_variants.models import transformer
from attention_variants.models.heads import Noise
from attention_variants.models.layers import EncoderLayer, layer_norm
from attention_variants.ops.masks import Mask


@dataclasses.dataclass(frozen=True)
class Config(transformer.Config):
    """As the Transformer's, with one layer of the size that the paper's code has."""

    layers: int = 1
    width: int = 64
    heads: int = 4
    feed_forward: int = 64
    positions: Literal["none"] = "none"


class RowTransformer(nn.Module):
    """Rows in, predictions out."""

    config: Config
    variant: Any
    outputs: int

    def setup(self):
        config = self.config
        types = dict(dtype=config.dtype, param_dtype=config.param_dtype)
        self.embed = nn.Dense(config.width, **types)
        layer = nn.remat(self.layer) if config.remat else self.layer
        self.encoder = [layer(config, self.variant) for _ in range(config.layers)]
        if config.norm == "pre":
            self.norm = layer_norm(config)
        self.out = nn.Dense(self.outputs, **types)

    layer = EncoderLayer

    def __call__(self, x_BNF, y_BNO, known_BN, read_BN, noise: Noise | None = None):
        """(B, N, O): predictions of all rows.

        Args:
          read_BN: bool, rows that others see. y_BNO, known_BN: for models that read targets.
        """
        del y_BNO, known_BN
        x_BND, mask = self.embed(x_BNF), Mask(k_valid=read_BN)
        for layer in self.encoder:
            x_BND = layer(x_BND, mask, None, noise)
        return self.out(self.norm(x_BND) if self.config.norm == "pre" else x_BND)


def build(config: Config, variant: Any, outputs: int) -> RowTransformer:
    """The model of a config, for a variant's Config and as many outputs."""
    return RowTransformer(config, variant, outputs)
