"""How wide a kernel is, where no number says it: by a rule, from all keys, or for each key from those around it.

| rule | width of key j, in d dimensions, of n keys | |
|---|---|---|
| silverman | σ (4 / (d + 2) n)^(1/(d + 4)), σ² the mean variance of the features | Silverman 1986, equation 4.14 |
| abramson | Silverman's times (f_j / g)^(−1/2): f the density by Silverman's width, g its geometric mean | Abramson 1982 |
| nearest | the distance of its n-th nearest other key | Breiman, Meisel and Purcell 1977 |

They are read off the data and not learned: no gradient goes through them. They look at all keys, so they are for attention that may
see all keys.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_variants.ops.scores import float32

RULES = ("silverman", "abramson", "nearest")
AT_ONCE = 256  # keys whose distances to all others are in memory


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapt:
    """`adapt(k_BSHK) -> width_BSH`, at least float32.

    Attributes:
      rule: a name in `RULES`. neighbours: the n of "nearest".
      valid_BS: 1 for keys that there are, 0 for padding; None is all.
    """

    rule: str = dataclasses.field(metadata={"static": True})
    neighbours: int = dataclasses.field(default=10, metadata={"static": True})
    valid_BS: jax.Array | None = None

    def __call__(self, k_BSHK: jax.Array) -> jax.Array:
        k_BSHK = float32(jax.lax.stop_gradient(k_BSHK))
        valid_BS = jnp.ones(k_BSHK.shape[:2], k_BSHK.dtype) if self.valid_BS is None else self.valid_BS.astype(k_BSHK.dtype)
        if self.rule == "nearest":
            width_BSH = _nearest(k_BSHK, valid_BS, self.neighbours)
        else:
            width_BSH = jnp.broadcast_to(_silverman(k_BSHK, valid_BS)[:, None], k_BSHK.shape[:3])
            if self.rule == "abramson":
                width_BSH = width_BSH * _abramson(k_BSHK, valid_BS, width_BSH)
        mean_B1H = _mean(width_BSH, valid_BS)[:, None]
        return jnp.maximum(width_BSH, jnp.where(mean_B1H > 0, 1e-6 * mean_B1H, 1.0))  # where all of them coincide


def _mean(x_BSH, valid_BS):
    """(B, H): over the keys that there are."""
    number_B = jnp.maximum(valid_BS.sum(1), 1)
    return jnp.einsum("bsh,bs->bh", x_BSH, valid_BS) / number_B[:, None]


def _silverman(k_BSHK, valid_BS):
    """(B, H)."""
    size, number_B = k_BSHK.shape[-1], jnp.maximum(valid_BS.sum(1), 2)
    mean_B1HK = jnp.einsum("bshk,bs->bhk", k_BSHK, valid_BS)[:, None] / number_B[:, None, None, None]
    squares_BSH = jnp.square(k_BSHK - mean_B1HK).mean(-1)
    variance_BH = jnp.einsum("bsh,bs->bh", squares_BSH, valid_BS) / (number_B[:, None] - 1)
    return jnp.sqrt(variance_BH) * (4 / ((size + 2) * number_B[:, None])) ** (1 / (size + 4))


def _each(k_BSHK, of_distances):
    """(B, S, H): `of_distances(squared_BSH, place) -> (B, H)`, of each key to all."""

    def of_key(key):
        k_BHK, place = key
        return of_distances(jnp.square(k_BSHK - k_BHK[:, None]).sum(-1), place)

    places = jnp.arange(k_BSHK.shape[1])
    return jax.lax.map(of_key, (k_BSHK.swapaxes(0, 1), places), batch_size=AT_ONCE).swapaxes(0, 1)


def _nearest(k_BSHK, valid_BS, neighbours: int):
    def of_distances(squared_BSH, place):
        others_BS = jnp.where(jnp.arange(valid_BS.shape[1]) == place, 0.0, valid_BS)
        away_BHS = jnp.where(others_BS[:, :, None] > 0, squared_BSH, jnp.inf).swapaxes(1, 2)
        most = min(neighbours, away_BHS.shape[-1])
        nearest_BHN = -jax.lax.top_k(-away_BHS, most)[0]
        # Where there are fewer others, the farthest of them.
        return jnp.sqrt(jnp.where(jnp.isfinite(nearest_BHN), nearest_BHN, 0.0).max(-1))

    return _each(k_BSHK, of_distances)


def _abramson(k_BSHK, valid_BS, width_BSH):
    scale_BSH = 1 / jnp.where(width_BSH > 0, width_BSH, 1.0)

    def of_distances(squared_BSH, place):
        del place
        kernel_BSH = jnp.exp(-squared_BSH * jnp.square(scale_BSH) / 2)
        return jnp.log(_mean(kernel_BSH, valid_BS))

    # Padding may be so far from every key that its density is 0.
    log_density_BSH = jnp.where(valid_BS[:, :, None] > 0, _each(k_BSHK, of_distances), 0.0)
    return jnp.exp(-(log_density_BSH - _mean(log_density_BSH, valid_BS)[:, None]) / 2)
