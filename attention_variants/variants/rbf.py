"""Attention by a kernel of the distance, times a magnitude (Song et al. 2021, "Implicit kernel attention", for the Gaussian one).

    weight_ij ∝ K(‖q_i − k_j‖ / (w d^¼)) · exp( ‖k_j‖_p² / (2√d) )

With the Gaussian kernel, w = 1 and p = 2 it is scaled dot-product attention: ‖q − k‖² = ‖q‖² + ‖k‖² − 2 q·k, and the norms cancel.
"""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from attention_variants.errors import InputError
from attention_variants.ops.kernels import FLAT, Kernel
from attention_variants.ops.magnitudes import Magnitude
from attention_variants.ops.widths import Adapt
from attention_variants.variants.weighted import Weighted, magnitude


@dataclasses.dataclass(frozen=True)
class Width:
    """A kernel (`ops.kernels`) and its width.

    `width`: h, or what a rule's widths are multiplied by; `learn_width` starts from there, by gradient, one for all heads or
    `per_head`. `rule`: widths by a rule from all keys (`ops.widths`); `neighbours` is the n of "nearest".
    """

    kernel: Literal["gaussian", "laplace", "epanechnikov", "triangular", "cosine", "boxcar", "constant"] = "gaussian"
    width: float = 1.0
    learn_width: bool = False
    per_head: bool = False
    rule: Literal["none", "silverman", "abramson", "nearest"] = "none"
    neighbours: int = 10

    def __post_init__(self):
        if not 0 < self.width < math.inf:
            raise InputError(f"variant.width is {self.width}; expected a number above 0")
        if self.learn_width and self.kernel in FLAT:
            raise InputError(f"variant.learn_width with the kernel {self.kernel!r}, whose width has no gradient; expected another")
        if self.per_head and not self.learn_width:
            raise InputError("variant.per_head without variant.learn_width, so that all heads would have one width; expected both")
        if self.neighbours < 1:
            raise InputError(f"variant.neighbours is {self.neighbours}; expected at least 1")


@dataclasses.dataclass(frozen=True)
class Config(Weighted, Width):
    """See `Width`, whose widths but those of a rule are in units of d^¼, in which the dot product's is 1; and `Weighted`."""

    def __post_init__(self):
        Width.__post_init__(self)
        Weighted.__post_init__(self)


class Layer(nn.Module):
    """Builds the score; its parameters are the width and p, where they are learned."""

    config: Config
    heads: int
    size: int

    @nn.compact
    def __call__(self, q_BQHK, k_BSHK, mask, row_B=None) -> Kernel:
        unit, weighed = math.sqrt(self.size), magnitude(self, k_BSHK, row_B)
        return score(self, mask, unit=unit, in_cache=k_BSHK is None, magnitude=weighed)


def score(layer: nn.Module, mask, *, unit: float, in_cache: bool, magnitude: Magnitude | None = None) -> Kernel:
    """The score of a layer whose config is a `Width`.

    Args:
      unit: what squared widths are measured in. in_cache: whether keys come one by one.

    Raises:
      InputError: a rule where not all keys can be seen.
    """
    config, width_H = layer.config, jnp.float32(layer.config.width)
    if config.learn_width:
        initial = nn.initializers.constant(math.log(config.width))
        width_H = jnp.exp(layer.param("log_width", initial, (layer.heads,) if config.per_head else (), jnp.float32))
    adapt = None
    if config.rule != "none":
        hides = mask is not None and (mask.causal or not (mask.window is mask.q_segments is mask.dense is None))
        if in_cache or hides:
            raise InputError(
                f"variant.rule is {config.rule!r}, which reads all keys, in attention that may not see them all (causal, packed, "
                "by a dense mask, or from a cache); expected 'none' there"
            )
        valid_BS = None if mask is None or mask.k_valid is None else mask.k_valid.astype(jnp.float32)
        adapt = Adapt(config.rule, config.neighbours, valid_BS)
    return Kernel(width_H, config.kernel, unit, magnitude, adapt)
