"""Samples of a learned spectral density: noise, conditioned on queries and keys, through an odd network (Song et al. 2021).

    x = [mean of queries ; mean of keys]            of each head, padding left out
    μ, log σ/σ₀ = linear functions of LeakyReLU(W₁ᵀx + b₁)
    z⁺ = μ + σ ε⁺,  z⁻ = −μ + σ ε⁻                  M/2 each, ε ~ N(0, I)
    w = sign(z) ⊙ net(|z|)                          one net for each of w₁, w₂; odd, so that the density is symmetric
    loss += kl_weight Σ KL(N(μ, σ²) ‖ N(0, σ₀²))

With a copula the noise of the heads h = 1 … H of a feature is L ε instead, rows of L of length 1, from L ∝ I + the strictly lower
triangle of t tᵀ, t = tanh(linear function): marginals stay what they are, and its cost is the divergence from independent heads,

    loss += copula_weight Σ ½ Σ_h log(1 + Σ_{k<h} (t_h t_k)²)       = −½ log det L Lᵀ of each feature

All weights but constants are shared by the heads. Queries of another sequence than the keys', and what not all queries may see
(causal masks, so caches; windows; dense masks, whatever they hide), are not looked at: a learned constant is in the place of their
mean.
"""

import functools
import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attention_variants.errors import InputError
from attention_variants.ops.scores import float32

SLOPE = 0.2  # of LeakyReLU below 0
QUIET = 0  # the seed of the noise of evaluation: of each layer its own, the same for all examples and runs


class Sampler(nn.Module):
    """`sampler(q_BQHK, k_BSHK, mask, row_B)`: a list of `number` frequencies (B, K, H, M); costs are sown into `losses`.

    Attributes:
      config: of the variant. heads, size: H and K.
    """

    config: Any
    heads: int
    size: int
    number: int

    @nn.compact
    def __call__(self, q_BQHK, k_BSHK, mask, row_B=None) -> list[jax.Array]:
        means = self._mean("query", q_BQHK, mask), self._mean("key", k_BSHK, mask)
        batch = max(map(len, means))
        x_B2KH = jnp.concatenate([jnp.broadcast_to(x, (batch, self.size, self.heads)) for x in means], 1)
        hidden_BKH = nn.leaky_relu(self._linear("hidden", x_B2KH), SLOPE)
        mean_BKH, log_scale_BKH = self._linear("mean", hidden_BKH), self._linear("log_scale", hidden_BKH)
        noise_BKHM = self._noise(len(mean_BKH), row_B)
        if self.config.mode == "copula":
            noise_BKHM, cost_BKH, correlation_BKHH = self.couple(jnp.tanh(self._linear("coupling", hidden_BKH)), noise_BKHM)
            if not self.is_initializing():
                self.sow("trace", "correlation", correlation_BKHH, reduce_fn=lambda _, new: new, init_fn=lambda: None)
            self._cost("copula", self.config.copula_weight * cost_BKH, row_B)
        divergence_BKH = (jnp.exp(2 * log_scale_BKH) + jnp.square(mean_BKH / self.config.prior_scale) - 1) / 2 - log_scale_BKH
        self._cost("kl", self.config.kl_weight * divergence_BKH, row_B)
        sign_M = jnp.where(jnp.arange(self.config.points) < self.config.points // 2, 1.0, -1.0)
        z_BKHM = mean_BKH[..., None] * sign_M + self.scale(log_scale_BKH)[..., None] * noise_BKHM
        return [self._odd(f"net_{n + 1}", z_BKHM) for n in range(self.number)]

    def scale(self, log_scale_BKH):
        """σ, from log σ/σ₀."""
        return self.config.prior_scale * jnp.exp(log_scale_BKH)

    def couple(self, t_BKH, noise_BKHM):
        """(noise of the same marginals that hangs together, what that costs (B, K, H), its correlations (B, K, H, H))."""
        coupling_BKHH = coupling(t_BKH)
        cost_BKH = -jnp.log(jnp.einsum("bkhh->bkh", coupling_BKHH))
        return coupled(coupling_BKHH, noise_BKHM), cost_BKH, jnp.einsum("bkhj,bkij->bkhi", coupling_BKHH, coupling_BKHH)

    def _mean(self, name: str, x_BSHK, mask):
        """(B, K, H): the mean over the tokens that there are; a learned constant, (1, K, H), where they may not be looked at."""
        constant_1KH = self.param(f"{name}_constant", nn.initializers.zeros, (1, self.size, self.heads), jnp.float32)
        if x_BSHK is None or not (mask is None or mask.same_for_all):
            return constant_1KH if x_BSHK is None else jnp.repeat(constant_1KH, len(x_BSHK), 0)
        if mask is not None and mask.q_segments is not None:
            raise InputError(
                f"variant.mode is {self.config.mode!r}, which reads a whole sequence, where rows hold several (task.packed); "
                "expected 'direct', or task.packed=False"
            )
        valid = None if mask is None else mask.k_valid
        if name == "query" and mask is not None and mask.q_valid is not None:  # else they are those of the same sequence
            valid = mask.q_valid
        x_BSHK, number = float32(x_BSHK), x_BSHK.shape[1]
        if valid is not None:
            x_BSHK, number = jnp.where(valid[..., None, None], x_BSHK, 0.0), jnp.maximum(valid.sum(1), 1)[:, None, None]
        return jnp.moveaxis(x_BSHK.sum(1), -1, 1) / number

    def _linear(self, name: str, x_BIH):
        """(B, K, H), uniform initial weights within ± 1/√K; no bias at first."""
        draw = lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -(self.size**-0.5), self.size**-0.5)
        weight = self.param(f"{name}_weight", draw, (x_BIH.shape[1], self.size))
        bias = self.param(f"{name}_bias", nn.initializers.zeros, (self.size,), jnp.float32)
        return jnp.einsum("bi...,ik->bk...", x_BIH, weight) + jnp.expand_dims(bias, range(1, x_BIH.ndim - 1))

    def _odd(self, name: str, z_BKHM):
        hidden = nn.leaky_relu(self._linear(f"{name}_in", abs(z_BKHM)), SLOPE)
        hidden = nn.leaky_relu(self._linear(f"{name}_hidden", hidden), SLOPE)
        return jnp.sign(z_BKHM) * self._linear(f"{name}_out", hidden)

    def _noise(self, batch: int, row_B):
        """(B, K, H, M): of each example in training; else the same for all."""
        shape = (self.size, self.heads, self.config.points)
        if row_B is None:
            key = jax.random.fold_in(jax.random.key(QUIET), zlib.crc32("/".join(self.path).encode()))
            return jnp.broadcast_to(jax.random.normal(key, shape, jnp.float32), (batch, *shape))
        of_row = functools.partial(jax.random.fold_in, self.make_rng("dropout"))
        return jax.vmap(lambda row: jax.random.normal(of_row(row), shape, jnp.float32))(row_B)

    def _cost(self, name: str, cost_BKH, row_B):
        """Sown for each example, in training alone."""
        if row_B is not None and not self.is_initializing():
            self.sow("losses", name, jnp.broadcast_to(cost_BKH.sum((1, 2)), row_B.shape))


def lower(t_BKH: jax.Array) -> jax.Array:
    """(B, K, H, H): I + the strictly lower triangle of t tᵀ."""
    return jnp.tril(t_BKH[..., :, None] * t_BKH[..., None, :], -1) + jnp.eye(t_BKH.shape[-1], dtype=t_BKH.dtype)


def coupling(t_BKH: jax.Array) -> jax.Array:
    """L (B, K, H, H): `lower` with rows of length 1."""
    lower_BKHH = lower(t_BKH)
    return lower_BKHH / jnp.linalg.norm(lower_BKHH, axis=-1, keepdims=True)


def coupled(coupling_BKHH: jax.Array, noise_BKHM: jax.Array) -> jax.Array:
    """L ε: noise of the heads with the correlations L Lᵀ."""
    return jnp.einsum("bkhj,bkjm->bkhm", coupling_BKHH, noise_BKHM)
