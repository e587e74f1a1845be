"""What the four released code bases of repulsive attention compute, faults included (github bangann/Repulsive-Attention, f480b5c).

| code | median of squared distances | kernel | repulsion over | particles | c of the noise |
|---|---|---|---|---|---|
| fairseq (translation) | all H², lower of two | exp(−‖·‖²/2h²) | h² | heads | median of the absolute gradients |
| electra (pre-training) | all H², mean of two | the same | h² | column c of all heads is of particle c mod H | 1 (it has no SPOS) |
| sentence (classification) | all H², lower of two | the same | **h** | heads | median of the absolute gradients |
| graphwriter | all H², lower of two | the same | **h** | **input** features: D/H rows of all heads | 1 |

h² = median / (2 ln(H + 1)) in all of them. The median has the zeros of the diagonal in it, so two particles, or equal ones, come
to 0/0; sentence and graphwriter divide by h where the kernel's derivative has h². `particles.heads` does none of this.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from attention_variants.errors import InputError
from attention_variants.particles import groups, rbf
from attention_variants.particles.heads import refuse_below_zero


class Code(NamedTuple):
    """A code base, in what it does differently.

    Attributes:
      median: of all squared distances. over: what repulsion is divided by, as a function of h².
      particles: (H, D) of a kernel (D, H, K). kernel: such a kernel, from its particles and its shape.
      scale: c, from the gradients of the particles.
    """

    median: Callable
    over: Callable
    particles: Callable
    kernel: Callable
    scale: Callable


def _lower(values: jax.Array) -> jax.Array:
    """The lower of the two in the middle, as torch.median."""
    return jnp.sort(values.ravel())[(values.size - 1) // 2]


def _heads(kernel_DHK: jax.Array) -> jax.Array:
    return kernel_DHK.swapaxes(0, 1).reshape(kernel_DHK.shape[1], -1)


def _of_heads(x_HD: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    return x_HD.reshape(shape[1], shape[0], shape[2]).swapaxes(0, 1)


def _interleaved(kernel_DHK: jax.Array) -> jax.Array:
    return kernel_DHK.reshape(-1, kernel_DHK.shape[1]).T


def _of_interleaved(x_HD: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    return x_HD.T.reshape(shape)


def _inputs(kernel_DHK: jax.Array) -> jax.Array:
    return kernel_DHK.reshape(kernel_DHK.shape[1], -1)


def _of_inputs(x_HD: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    return x_HD.reshape(shape)


def _size(g_HD: jax.Array) -> jax.Array:
    return _lower(jnp.abs(g_HD))


def _one(g_HD: jax.Array) -> float:
    return 1.0


def _itself(h2: jax.Array) -> jax.Array:
    return h2


CODES = {
    "fairseq": Code(_lower, _itself, _heads, _of_heads, _size),
    "electra": Code(jnp.median, _itself, _interleaved, _of_interleaved, _one),
    "sentence": Code(_lower, jnp.sqrt, _heads, _of_heads, _size),
    "graphwriter": Code(_lower, jnp.sqrt, _inputs, _of_inputs, _one),
}


def direction(
    code: Code, x_HD: jax.Array, g_HD: jax.Array, alpha: float, stepsize: float, temperature: float, xi_HD: jax.Array | None = None
) -> jax.Array:
    """What particles descend along, (H, D): SVGD, and SPOS where there is noise `xi_HD`, standard normal."""
    heads, distance_HH = len(x_HD), rbf.squared_distances(x_HD)
    h2 = code.median(distance_HH) / (2 * jnp.log(heads + 1.0))
    kernel = rbf.Rbf(jnp.exp(-distance_HH / (2 * h2)), distance_HH, code.over(h2))
    found = (rbf.mixed(kernel.k_HH, g_HD) - alpha * rbf.repulsion(x_HD, kernel)) / heads
    if xi_HD is not None:
        found += temperature * g_HD - jnp.sqrt(2 * temperature / stepsize) * code.scale(g_HD) * xi_HD
    return stepsize * found


def repulsive_weights(
    code: str,
    alpha: float,
    stepsize: float = 1.0,
    temperature: float | None = None,
    *,
    select: str = groups.PROJECTIONS,
    noise=None,
    seed: int = 0,
) -> optax.GradientTransformation:
    """The update of a code base, as `particles.heads.repulsive_heads`; SPOS where there is a temperature.

    Args:
      code: a name in `CODES`. noise: a tree of standard normal noise that is used at every step instead of the seed's.

    Raises:
      InputError: an unknown code base, a number below 0, noise without a temperature; from `init`, as `particles.groups.find`, and
        for what is no kernel (D, heads, size).
    """
    if code not in CODES:
        raise InputError(f"code is {code!r}; expected one of {', '.join(CODES)}")
    if noise is not None and temperature is None:
        raise InputError("noise is given and no temperature, without which there is none; expected both, or neither")
    refuse_below_zero(alpha=alpha, stepsize=stepsize, temperature=temperature or 0.0)
    form = CODES[code]

    def init(params):
        for group in groups.find(params, select):
            if (leaf := group.leaves[0]).axis != -2 or len(leaf.shape) != 3:
                raise InputError(
                    f"{leaf.path} has shape {leaf.shape}; expected a kernel of queries, keys or values, (D, heads, size)"
                )
        return jnp.zeros((), jnp.int32)

    def update(grads, step, params=None):
        x, g = groups.by_path(params), groups.by_path(grads)
        xi = None if noise is None else groups.by_path(noise)
        key, found = jax.random.fold_in(jax.random.key(seed), step), {}
        for n, group in enumerate(groups.find(params, select)):
            path = group.name
            own = None
            if temperature is not None:
                drawn = jax.random.normal(jax.random.fold_in(key, n), x[path].shape) if xi is None else xi[path]
                own = form.particles(drawn)
            particles = form.particles(x[path]), form.particles(g[path])
            found[path] = form.kernel(direction(form, *particles, alpha, stepsize, temperature, own), x[path].shape)
        return groups.replaced(grads, found), step + 1

    return optax.GradientTransformation(init, update)
