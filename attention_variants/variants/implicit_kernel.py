"""Implicit-kernel attention: a kernel whose spectral density is learned, times a magnitude (Song et al. 2021).

    weight_ij ∝ (κ(q_i, k_j)² + ε) · exp( ‖k_j‖_p² / (2√d) )

κ is a spectral kernel of M frequencies (`ops.spectral`), which are parameters ("direct", IKAN-direct), or samples of a density that
is learned implicitly, by a network that turns noise into frequencies ("sampled", IKAN; `variants.spectral_sampler`), and whose
noise the heads may share through a Gaussian copula ("copula", MIKAN). Where this is not what the authors' code does, it is what
their formulas say.
"""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_variants.errors import InputError
from attention_variants.ops.spectral import Spectral
from attention_variants.variants.spectral_sampler import Sampler
from attention_variants.variants.weighted import Weighted, magnitude


@dataclasses.dataclass(frozen=True)
class Config(Weighted):
    """The magnitude, see `Weighted`, and a spectral kernel.

    `mode`: where frequencies come from, see above. `points`: M, how many for each head. `stationary`: κ is a function of q − k.
    `positive`: how κ is made a similarity, κ² or (1 + κ)/2. `prior_scale`: standard deviation of the noise's prior, and
    `kl_weight` and `copula_weight` what leaving it, and coupling the heads, cost in the loss of an example, in nats.
    """

    magnitude: Literal["none", "squared", "p"] = "squared"
    mode: Literal["direct", "sampled", "copula"] = "direct"
    points: int = 64
    stationary: bool = False
    positive: Literal["squared", "shifted"] = "squared"
    prior_scale: float = 0.1
    kl_weight: float = 0.1
    copula_weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.points < 1:
            raise InputError(f"variant.points is {self.points}; expected at least 1")
        if self.mode != "direct" and self.points % 2:
            raise InputError(f"variant.points is {self.points}, which two halves cannot share; expected {self.points + 1}, say")
        if not 0 < self.prior_scale < math.inf:
            raise InputError(f"variant.prior_scale is {self.prior_scale}; expected a number above 0")
        for name in ("kl_weight", "copula_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"variant.{name} is {getattr(self, name)}; expected a number from 0 on")


class Layer(nn.Module):
    """Builds the score; its parameters are the frequencies or their sampler, and p where it is learned."""

    config: Config
    heads: int
    size: int

    @nn.compact
    def __call__(self, q_BQHK, k_BSHK, mask, row_B=None) -> Spectral:
        found = frequencies(self, Sampler, q_BQHK, k_BSHK, mask, row_B)
        return Spectral(*found, positive=self.config.positive, magnitude=magnitude(self, k_BSHK, row_B))


def frequencies(layer: nn.Module, sampler: type[Sampler], q_BQHK, k_BSHK, mask, row_B) -> list[jax.Array]:
    """w₁, and w₂ where the kernel is not stationary, of a layer whose config is a `Config`."""
    config, number = layer.config, 1 if layer.config.stationary else 2
    if config.mode != "direct":
        return sampler(config, layer.heads, layer.size, number, name="sampler")(q_BQHK, k_BSHK, mask, row_B)
    reach = (layer.heads * config.points) ** -0.5
    draw = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -reach, reach)
    shape = (layer.size, layer.heads, config.points)
    return [layer.param(f"frequencies_{n + 1}", draw, shape) for n in range(number)]
