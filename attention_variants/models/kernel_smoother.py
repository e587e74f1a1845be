"""Nadaraya-Watson regression and classification: rows are queries and keys, and the targets of known rows are the values.

    ŷ_i = Σ_{j known, j ≠ i} weight_ij y_j

A row never reads its own target, so what a known row gets is its leave-one-out prediction. With any variant, which holds all that
is learned.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_variants import variants
from attention_variants.errors import unknown
from attention_variants.models.heads import Noise, trace
from attention_variants.ops import attend as attend_lib
from attention_variants.ops.masks import Mask


@dataclasses.dataclass(frozen=True)
class Config:
    """`route`: how attention is computed."""

    route: str = "auto"

    def __post_init__(self):
        if self.route not in ("auto", *attend_lib.ROUTES):
            raise unknown("value of config.model.route", self.route, ("auto", *attend_lib.ROUTES))


class KernelSmoother(nn.Module):
    """Rows in, predictions out; see above."""

    config: Config
    variant: Any
    outputs: int

    smooths = True  # targets, so that of classes its predictions are probabilities

    @nn.compact
    def __call__(self, x_BNF, y_BNO, known_BN, read_BN, noise: Noise | None = None):
        """(B, N, O): predictions; where no known row is in a kernel's support, zeros.

        Args:
          known_BN: bool, whose targets are values. read_BN: for models that read rows without targets.
        """
        del read_BN
        if getattr(self.variant, "project", False):
            x_BNF = nn.Dense(x_BNF.shape[-1], use_bias=False, kernel_init=_identity, name="project")(x_BNF)
        x_BNHF, mask = x_BNF[:, :, None], Mask(k_valid=known_BN, others=True)
        layer = variants.layer(self.variant, heads=1, size=x_BNF.shape[-1], name="variant")
        score = layer(x_BNHF, x_BNHF, mask, None if noise is None else noise.row_B)
        prepared = score.prepare_queries(x_BNHF), score.prepare_keys(x_BNHF)
        out_BNHO, log_normaliser_BHN = attend_lib.attend_prepared(
            *prepared, y_BNO[:, :, None], score=score, mask=mask, route=self.config.route
        )
        trace(self, score=score, mask=mask, bias=None, log_normaliser_BHQ=log_normaliser_BHN)
        trace(self, queries=prepared[0], keys=prepared[1], q_BQHK=x_BNHF, k_BSHK=x_BNHF)
        return out_BNHO[:, :, 0]


def _identity(key, shape, dtype=jnp.float32) -> jax.Array:
    del key
    return jnp.eye(*shape, dtype=dtype)


def build(config: Config, variant: Any, outputs: int) -> KernelSmoother:
    """The model of a config, for a variant's Config and as many outputs."""
    return KernelSmoother(config, variant, outputs)
