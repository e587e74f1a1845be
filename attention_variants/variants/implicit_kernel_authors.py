"""Implicit-kernel attention as in its authors' released code, faults included, to compare with (Song et al. 2021).

    weight_ij ∝ (κ(q_i, k_j)² + ε) · exp( m_ij ),   m_ij = (‖q_i‖_p² + ‖k_j‖_p²) / (2 d^¼)

| | here, as in their code | `implicit_kernel` |
|---|---|---|
| magnitude | over 2 d^¼: a root is taken twice | over 2 √d, so that RBF × 2-norm is the dot product |
| its dropout | of each m_ij, so that norms of queries count too | of each key |
| "sampled" | z = μ + √σ ε / 10, while the KL term takes σ for the deviation | z = μ + σ ε |
| "copula", noise | Σ_k L_hk · ε_h: each head's own, longer; cut at ± 2 | L ε, rows of L of length 1: as correlated as asked for |
| "copula", cost | −Σ u log(u + 1e-5), u = Φ(noise), which is no entropy of a copula | the divergence from independent heads |
| pooling | of all tokens, padding too | of those that there are |

Unlike their code: noise is each example's own (theirs takes one sequence at a time), it is the same at every evaluation, and the
costs of all layers count (theirs returns the last one's). Rotary positions, which it has not, turn what norms are taken of.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_variants.errors import InputError
from attention_variants.ops.dropout import bits, mix
from attention_variants.ops.magnitudes import squared_norm
from attention_variants.ops.scores import float32
from attention_variants.ops.spectral import Spectral
from attention_variants.variants import implicit_kernel, spectral_sampler

CUT = 2.0  # where the noise of coupled heads ends


@dataclasses.dataclass(frozen=True)
class Config(implicit_kernel.Config):
    """As of `implicit_kernel`, but for the rate of their dropout; `prior_scale` is σ₀."""

    magnitude_dropout: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.learn_p or self.magnitude == "p" or self.stationary or self.positive != "squared":
            raise InputError(
                "variant.learn_p, stationary, magnitude='p' and positive='shifted' are not in the authors' code, so not in "
                "implicit_kernel_authors; expected variant=implicit_kernel"
            )


class Weighed(NamedTuple):
    """Prepared queries or keys: features φ, ‖·‖_p² / 2d^¼, and what dropout draws from, whole numbers below 2²⁴: (B, S, H) each."""

    phi_BSHF: jax.Array
    log_magnitude_BSH: jax.Array
    seed_BSH: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Authors(Spectral):
    """log(κ² + ε) + m.

    Attributes:
      p: of the norms, None is no magnitude. rate: of the dropout of m, 0 outside of training. seed_B: of each example.
    """

    magnitude_of_norm = True  # so that rotary positions take nothing from it

    p: float | None = dataclasses.field(default=2.0, metadata={"static": True})
    rate: float = dataclasses.field(default=0.0, metadata={"static": True})
    seed_B: jax.Array | None = None

    def _prepared(self, x_BSHK, seed_BSH) -> Weighed:
        phi_BSHF = super().prepare_queries(x_BSHK)
        norm_BSH = jnp.zeros(phi_BSHF.shape[:3], phi_BSHF.dtype) if self.p is None else squared_norm(x_BSHK, self.p)
        return Weighed(phi_BSHF, norm_BSH / (2 * x_BSHK.shape[-1] ** 0.25), jnp.broadcast_to(seed_BSH, norm_BSH.shape) * 1.0)

    def prepare_queries(self, q_BQHK, at_BQ=None):
        seed_BQH = jnp.zeros((1, 1, 1))
        if self.seed_B is not None:
            place_QH = jnp.arange(q_BQHK.shape[1] * q_BQHK.shape[2], dtype=jnp.uint32).reshape(q_BQHK.shape[1:3])
            seed_BQH = _small(mix(mix(self.seed_B.astype(jnp.uint32))[:, None, None] + place_QH))
        return self._prepared(q_BQHK, seed_BQH)

    def prepare_keys(self, k_BSHK, at_BS=None):
        places_S = jnp.arange(k_BSHK.shape[1]) if self.rate else jnp.zeros(1)
        return self._prepared(k_BSHK, places_S[:, None])

    def log_similarity(self, queries, keys):
        return super().log_similarity(queries.phi_BSHF, keys)

    def magnitudes(self, queries, keys):
        """m, (B, H, Q, S)."""
        of = lambda x_BQH, y_BSH: (x_BQH.swapaxes(1, 2)[..., None], y_BSH.swapaxes(1, 2)[..., None, :])
        query_BHQ1, key_BH1S = of(queries.log_magnitude_BSH, keys.log_magnitude_BSH)
        if not self.rate:
            return query_BHQ1 + key_BH1S
        seed_BHQ1, place_BH1S = (x.astype(jnp.uint32) for x in of(queries.seed_BSH, keys.seed_BSH))
        kept = mix(seed_BHQ1 * jnp.uint32(0x9E3779B9) + place_BH1S) >= jnp.uint32(self.rate * 2**32)
        return jnp.where(kept, (query_BHQ1 + key_BH1S) / (1 - self.rate), 0.0)

    def logits(self, queries, keys):
        return self.log_similarity(queries, keys) + self.magnitudes(queries, keys)

    def as_kernel(self, queries, keys):
        """None: norms of queries are in the logits."""


class Sampler(spectral_sampler.Sampler):
    """As of `implicit_kernel`, with other noise and costs."""

    def scale(self, log_scale_BKH):
        scale_BKH = super().scale(log_scale_BKH)
        return scale_BKH if self.config.mode == "copula" else jnp.sqrt(scale_BKH) / 10

    def couple(self, t_BKH, noise_BKHM):
        noise_BKHM = jnp.clip(spectral_sampler.lower(t_BKH).sum(-1)[..., None] * noise_BKHM, -CUT, CUT)
        uniform_BKHM = jax.scipy.stats.norm.cdf(noise_BKHM)
        correlation_BKHH = jnp.broadcast_to(jnp.eye(self.heads), (*t_BKH.shape, self.heads))
        return noise_BKHM, -(uniform_BKHM * jnp.log(uniform_BKHM + 1e-5)).sum(-1), correlation_BKHH

    def _mean(self, name, x_BSHK, mask):
        if x_BSHK is None or not (mask is None or (mask.same_for_all and mask.q_segments is None)):
            raise InputError(
                f"variant.mode is {self.config.mode!r}, which in implicit_kernel_authors is for whole sequences that look at "
                "themselves (no decoder, no window, nothing packed); expected 'direct', or variant=implicit_kernel"
            )
        return jnp.moveaxis(float32(x_BSHK).mean(1), -1, 1)


class Layer(nn.Module):
    """Builds the score; its parameters are those of `implicit_kernel`."""

    config: Config
    heads: int
    size: int

    @nn.compact
    def __call__(self, q_BQHK, k_BSHK, mask, row_B=None) -> Authors:
        config, rate, seed_B = self.config, 0.0, None
        if row_B is not None and config.magnitude_dropout and config.magnitude != "none":
            rate, seed_B = config.magnitude_dropout, _small(bits(self.make_rng("dropout"), row_B))
        found = implicit_kernel.frequencies(self, Sampler, q_BQHK, k_BSHK, mask, row_B)
        p = None if config.magnitude == "none" else config.p
        return Authors(*found, p=p, rate=rate, seed_B=seed_B)


def _small(words: jax.Array) -> jax.Array:
    """Whole numbers below 2²⁴, in float32: what routes hand on has gradients, and so no integers."""
    return (words >> 8).astype(jnp.float32)
