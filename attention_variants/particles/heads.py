"""Heads that repel each other: SVGD and SPOS as transformations of gradients, for any optax chain and any Flax parameters.

    optimizer = optax.chain(repulsive_heads(alpha=0.01), optax.clip_by_global_norm(1.0), optax.adam(1e-3))

Each projection of each attention layer is a group of its own, whose particles are its heads (`particles.svgd` has the formulas,
`particles.groups` what is selected). Biases are no part of them, as in the authors' code (An et al. 2020).
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from attention_variants.errors import InputError
from attention_variants.particles import groups as groups_lib
from attention_variants.particles.groups import PROJECTIONS, Group
from attention_variants.particles.svgd import Drive, Numbers, median_of_absolute, of_groups, together

IMPLEMENTATION = {2: "threefry2x32", 4: "rbg"}  # of PRNG keys, by their words
Method = Literal["svgd", "spos"]
Scalar = float | jax.Array | Callable[[jax.Array], Any]


class RepulsionState(NamedTuple):
    """How often gradients were replaced; the PRNG key, as its words; and what the last step saw, means over groups."""

    step: jax.Array
    key: jax.Array
    numbers: Numbers


class NoiseState(NamedTuple):
    """How often noise was added; the PRNG key, as its words."""

    step: jax.Array
    key: jax.Array


def repulsive_heads(
    method: Method = "svgd",
    alpha: Scalar = 0.01,
    stepsize: float = 1.0,
    temperature: Scalar = 1.0,
    *,
    drive: Drive = "kernel",
    rescale: bool = False,
    noise: bool = True,
    select: str = PROJECTIONS,
    joint: bool = False,
    key: jax.Array | int = 0,
) -> optax.GradientTransformation:
    """Replaces the gradients of attention heads by those of SVGD or SPOS; chain it before clipping and the optimiser.

    Under Adam, `stepsize` and 1/H hardly matter, as it divides by the size of gradients: the control for a comparison is
    alpha = 0 and drive = "gradient", which only scales.

    Args:
      method: "svgd", or "spos" with drift and noise.
      alpha: how strong heads repel each other; 0 is sharing of gradients alone. A number, an array, or a schedule of the step.
      stepsize: s. temperature: τ of SPOS; as alpha.
      drive: "kernel", gradients mixed by the kernel, as published; "gradient", as they are: repulsion alone.
      rescale: SVGD times H, so that alpha = 0 and drive = "gradient" leave gradients what they were.
      noise: SPOS has its noise here, before the optimiser, as published; without, add `head_noise` after it.
      select, joint: the particles, see `groups.find`.
      key: a PRNG key, or a seed, of the noise.

    Returns:
      A transformation whose `update` needs params; what it saw is in its state's `numbers`.

    Raises:
      InputError: an unknown method or drive, a number that is below 0, infinite or not a number; from `init`, as `groups.find`,
        and for particles that are divided over devices.
    """
    for name, value, known in (("method", method, ("svgd", "spos")), ("drive", drive, ("kernel", "gradient"))):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected {' or '.join(map(repr, known))}")
    refuse_below_zero(alpha=alpha, temperature=temperature, stepsize=stepsize)

    def init(params) -> RepulsionState:
        groups_lib.refuse_split(groups_lib.find(params, select, joint), params)
        nothing = Numbers(*(jnp.zeros((), jnp.float32) for _ in Numbers._fields))
        return RepulsionState(jnp.zeros((), jnp.int32), _words(key), nothing)

    def update(grads, state: RepulsionState, params=None):
        if params is None:
            raise InputError("repulsive_heads needs the parameters; expected update(grads, state, params)")
        strength, heat = (value(state.step) if callable(value) else value for value in (alpha, temperature))
        found = groups_lib.find(params, select, joint)
        if not found:  # one head each
            return grads, state._replace(step=state.step + 1)
        x, g = ([group.views(leaves) for group in found] for leaves in map(groups_lib.by_path, (params, grads)))
        directions, seen = of_groups(x, g, strength, drive)
        if rescale:
            directions = [[direction * group.heads for direction in own] for group, own in zip(found, directions, strict=True)]
        if method == "spos":
            directions = jax.tree.map(lambda direction, own: direction + heat * own.astype(direction.dtype), directions, g)
        if method == "spos" and noise:
            size = jnp.sqrt(2 * heat / stepsize)
            c = together(jax.vmap(median_of_absolute), [(_joined(own),) for own in g])
            xi = _normal(state, found, directions[0][0].dtype)
            directions = [
                [direction - size * c_L[:, None, None, None] * of for direction, of in zip(own, draws, strict=True)]
                for own, draws, c_L in zip(directions, xi, c, strict=True)
            ]
        pieces = {}
        for group, own in zip(found, directions, strict=True):
            pieces |= group.arrays(stepsize * direction for direction in own)
        replaced = groups_lib.replaced(grads, pieces)
        means = jax.tree.map(lambda *of: jnp.concatenate(of).mean().astype(jnp.float32), *seen)
        return replaced, RepulsionState(state.step + 1, state.key, means)

    return optax.GradientTransformation(init, update)


def head_noise(
    temperature: Scalar, stepsize: Scalar, *, select: str = PROJECTIONS, joint: bool = False, key: jax.Array | int = 0
) -> optax.GradientTransformation:
    """Adds SPOS's noise √(2 τ ε) ξ to the updates of heads; chain it after the optimiser.

    Args:
      temperature: τ; a number, an array or a schedule. stepsize: ε, as temperature: the learning rate of plain descent, times the
        stepsize of `repulsive_heads`.
      select, joint, key: as there.

    Raises:
      InputError: as there.
    """
    refuse_below_zero(temperature=temperature, stepsize=stepsize)

    def init(params) -> NoiseState:
        groups_lib.find(params, select, joint)
        return NoiseState(jnp.zeros((), jnp.int32), _words(key))

    def update(updates, state: NoiseState, params=None):
        del params
        found = groups_lib.find(updates, select, joint)
        heat, rate = (value(state.step) if callable(value) else value for value in (temperature, stepsize))
        if not found:
            return updates, state._replace(step=state.step + 1)
        leaves, noisy = groups_lib.by_path(updates), {}
        for group, xi in zip(found, _normal(state, found, jnp.float32), strict=True):
            noisy |= {path: leaves[path] + jnp.sqrt(2 * heat * rate) * of for path, of in group.arrays(xi).items()}
        return groups_lib.replaced(updates, noisy), state._replace(step=state.step + 1)

    return optax.GradientTransformation(init, update)


def refuse_below_zero(**numbers: Scalar) -> None:
    """Raises InputError for a number that is below 0, infinite or not a number; what is traced, or a schedule, is not looked at."""
    for name, value in numbers.items():
        if callable(value) or isinstance(value, jax.core.Tracer):
            continue
        if not 0 <= value < math.inf or (name == "stepsize" and value == 0):
            raise InputError(f"{name} is {value}; expected a number {'above' if name == 'stepsize' else 'from'} 0")


def _joined(views: list[jax.Array]) -> jax.Array:
    """(L, all numbers of a group)."""
    return jnp.concatenate([view.reshape(len(view), -1) for view in views], 1)


def _words(key: jax.Array | int) -> jax.Array:
    """The words of a PRNG key of any kind, or of that of a seed."""
    if not hasattr(key, "dtype"):
        key = jax.random.key(key)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(key)
    return key if key.ndim else jax.random.key_data(jax.random.key(key))


def _normal(state, found: list[Group], dtype) -> list[list[jax.Array]]:
    """ξ for every view of every group, from one draw: for arrays that are large enough, XLA uses all cores."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=IMPLEMENTATION[state.key.size]), state.step)
    *ends, size = itertools.accumulate(math.prod(leaf.shape) for group in found for leaf in group.leaves)
    pieces = iter(jnp.split(jax.random.normal(key, (size,), dtype), ends))
    return [[next(pieces).reshape(leaf.view) for leaf in group.leaves] for group in found]
