"""Dot-product attention without the scale 1/√d (Luong et al. 2015, section 3.1, "dot"; Vaswani et al. 2017, section 3.2.1).

    weight_ij = softmax_j( q_i·k_j )

which is exp(−‖q−k‖² / 2), a similarity, times exp(‖k‖² / 2), a magnitude. For large d its softmax saturates, the reason that the
Transformer paper gives for the scale.
"""

import dataclasses

import flax.linen as nn
import jax

from attention_variants.ops.scores import DotProduct


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dot(DotProduct):
    """Dot product: logits = q·k."""

    def divisor(self, size: int) -> float:
        del size
        return 1.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Nothing to set."""


class Layer(nn.Module):
    """Builds the score; it has no parameters of its own."""

    config: Config
    heads: int
    size: int

    def __call__(self, q_BQHK, k_BSHK, mask, row_B=None) -> Dot:
        del q_BQHK, k_BSHK, mask, row_B
        return Dot()
