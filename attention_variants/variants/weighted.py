"""What keys weigh, for variants that leave it to a person: no variant itself."""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_variants.errors import InputError
from attention_variants.ops.dropout import Dropout, kept
from attention_variants.ops.magnitudes import Magnitude


@dataclasses.dataclass(frozen=True)
class Weighted:
    """What keys weigh (`ops.magnitudes`).

    `magnitude`: of keys, ‖k‖_p² ("squared") or ‖k‖_p^p ("p") over 2√d, or none. `p`: at least 1; `learn_p` starts from there.
    `magnitude_dropout`: in training, that share of the keys of a head has magnitude 1.
    """

    magnitude: Literal["none", "squared", "p"] = "none"
    p: float = 2.0
    learn_p: bool = False
    magnitude_dropout: float = 0.0

    def __post_init__(self):
        if not 1 <= self.p < math.inf:
            raise InputError(f"variant.p is {self.p}; expected a number from 1 on")
        if self.learn_p and (self.p == 1 or self.magnitude == "none"):
            raise InputError("variant.learn_p wants a magnitude, and a variant.p above 1 to start from")
        if not 0 <= self.magnitude_dropout < 1:
            raise InputError(f"variant.magnitude_dropout is {self.magnitude_dropout}; expected a rate of at least 0 and below 1")


def magnitude(layer: nn.Module, k_BSHK, row_B) -> Magnitude | None:
    """The magnitude of a layer whose config is a `Weighted`."""
    config, p_H, kept_BSH = layer.config, None, None
    if config.magnitude == "none":
        return None
    if config.learn_p:
        start = nn.initializers.constant(math.log(math.expm1(config.p - 1)))
        p_H = 1 + jax.nn.softplus(layer.param("p", start, (layer.heads,), jnp.float32))
    if config.magnitude_dropout and row_B is not None:
        dropout = Dropout(config.magnitude_dropout, layer.make_rng("dropout"), row_B)
        kept_BSH = kept(dropout, k_BSHK.shape[:3]).astype(jnp.float32) / (1 - config.magnitude_dropout)
    return Magnitude(p_H, config.p, config.magnitude, kept_BSH)
