"""Heads that repel each other as the section `particles` of a run says: what is done around its optimiser, and in its model.

Each way of `particles.method` is a function in `WAYS`, which a new one joins; `particles/` has the mathematics.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from attention_variants.errors import InputError
from attention_variants.particles import groups, head_noise, repulsive_heads
from attention_variants.particles.energy import energy
from attention_variants.particles.outputs import Repel
from attention_variants.particles.svgd import Numbers
from attention_variants.train.settings import Particles, Settings, listed

COLLAPSED = 1e-3  # the deviation of noise that heads differ by, where a run begins with equal ones
BLOCKS = {
    "encoder": r"encoder_({layers})/self_attention",
    "decoder": r"decoder_({layers})/self_attention",
    "cross": r"decoder_({layers})/cross_attention",
}


class Way(NamedTuple):
    """What a method does to gradients before the optimiser, to updates after it, and to head outputs; None where nothing."""

    before: optax.GradientTransformation | None = None
    after: optax.GradientTransformation | None = None
    outputs: Any = None


def _none(settings: Particles, hypers: dict, rate, key) -> Way:
    del settings, hypers, rate, key
    return Way()


def _svgd(settings: Particles, hypers: dict, rate, key) -> Way:
    del rate, key
    return Way(before=repulsive_heads("svgd", hypers["alpha"], settings.stepsize, **_of_heads(settings)))


def _spos(settings: Particles, hypers: dict, rate, key) -> Way:
    exact, heat = settings.noise == "exact", hypers["temperature"]
    numbers = dict(alpha=hypers["alpha"], stepsize=settings.stepsize, temperature=heat)
    before = repulsive_heads("spos", **numbers, noise=not exact, key=key, **_of_heads(settings))
    return Way(before, head_noise(heat, rate * settings.stepsize, key=key, **_selected(settings)) if exact else None)


def _energy(settings: Particles, hypers: dict, rate, key) -> Way:
    del rate, key
    term = lambda params: energy(params, hypers["alpha"], **_selected(settings))

    def update(grads, params):
        return jax.tree.map(jnp.add, grads, jax.grad(term)(params))

    return Way(before=optax.stateless(update))


def _outputs(settings: Particles, hypers: dict, rate, key) -> Way:
    del rate, key
    return Way(outputs=Repel(hypers["alpha"], select=blocks(settings), drive=settings.drive, rescale=settings.rescale))


WAYS = {"none": _none, "svgd": _svgd, "spos": _spos, "energy": _energy, "outputs": _outputs}
KERNELS = ("attention", "layers", "projections", "joint", "collapsed")  # which heads, and as what they begin
READS = {  # the settings and hypers that each looks at
    "none": KERNELS,
    "svgd": (*KERNELS, "begin", "drive", "stepsize", "rescale", "alpha"),
    "spos": (*KERNELS, "begin", "drive", "stepsize", "rescale", "noise", "alpha", "temperature"),
    "energy": (*KERNELS, "begin", "alpha"),
    "outputs": ("attention", "layers", "collapsed", "begin", "drive", "rescale", "alpha"),
}


def way(settings: Particles, hypers: dict, rate=1.0, key: jax.Array | int = 0, on=True) -> Way:
    """What is done; `rate` is the step's learning rate, `on` whether. All but settings may be traced.

    `key` is that of noise, which only the first state depends on.
    """
    before, after, outputs = WAYS[settings.method](settings, hypers, rate, key)
    return Way(_switched(before, on), _switched(after, on), outputs and dataclasses.replace(outputs, on=on))


def around(found: Way, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser with what is done before and after it; itself, with its own state, where nothing is."""
    there = [part for part in (found.before, optimizer, found.after) if part is not None]
    return optax.chain(*there) if len(there) > 1 else optimizer


def _switched(part: optax.GradientTransformation | None, on) -> optax.GradientTransformation | None:
    """The transformation where `on`, which may be traced."""
    if part is None or on is True:
        return part

    def update(updates, state, params=None):
        changed, state = part.update(updates, state, params)
        return jax.tree.map(lambda new, old: jnp.where(on, new, old), changed, updates), state

    return optax.GradientTransformation(part.init, update)


def numbers(settings: Particles, opt_state, params) -> dict[str, jax.Array]:
    """What the last update saw of the particles, for the metrics: means over groups, of SVGD and SPOS with more than one head.

    `head_distance` and `head_cosine` are means over pairs, `head_bandwidth` is h, and `head_repulsion` the share of repulsion
    (`particles.svgd.Numbers`).
    """
    if settings.method not in ("svgd", "spos") or not groups.find(params, **_selected(settings)):
        return {}
    return {f"head_{name}": value for name, value in zip(Numbers._fields, opt_state[0].numbers, strict=True)}


def begin(settings: Particles, params, key: jax.Array):
    """The parameters that a run begins with: where `collapsed` says so, the heads of a group are copies of its first plus noise."""
    if not settings.collapsed:
        return params
    leaves, found = groups.by_path(params), {}
    for n, group in enumerate(groups.find(params, **_selected(settings))):
        keys = jax.random.split(jax.random.fold_in(key, n), len(group.leaves))
        noise = lambda own, x: COLLAPSED * jax.random.normal(own, x.shape, x.dtype)
        found |= group.arrays(x[:, :, :1] + noise(own, x) for own, x in zip(keys, group.views(leaves), strict=True))
    return groups.replaced(params, found)


def check(settings: Settings, params) -> None:
    """Raises InputError for a setting that the method does not read, for heads that there are not, for a batch in parts."""
    own = settings.particles
    for section, of in (("particles", own), ("hypers", settings.hypers)):
        for field in dataclasses.fields(of):
            readers = [name for name, read in READS.items() if field.name in read]
            if readers and own.method not in readers and (value := getattr(of, field.name)) != field.default:
                raise InputError(
                    f"{section}.{field.name} is {value!r}, which particles.method={own.method} does not read; "
                    f"{' or '.join(readers)} does"
                )
    if own.method == "none" and not own.collapsed:
        return
    for attention in listed(own.attention) if own.attention != Particles.attention else [own.attention]:
        for layer in listed(own.layers) if own.layers else [""]:
            for projection in listed(own.projections):
                one = dataclasses.replace(own, attention=attention, layers=layer, projections=projection)
                groups.find(params, **_selected(one))
    if own.method == "outputs":
        for section, key, whole in (("optimizer", "accumulate", 1), ("parallel", "backend", "jit")):
            if (value := getattr(getattr(settings, section), key)) != whole:
                raise InputError(
                    f"particles.method is 'outputs', which looks at a batch as a whole, and {section}.{key} is {value!r}; "
                    f"expected {whole!r}"
                )


def blocks(settings: Particles) -> str:
    """The paths of the attention layers whose heads are particles, as a regular expression."""
    layers = "|".join(listed(settings.layers)) if settings.layers else r"\d+"
    return "|".join(BLOCKS[kind].format(layers=layers) for kind in listed(settings.attention))


def _selected(settings: Particles) -> dict:
    projections = "|".join(listed(settings.projections))
    return dict(select=f"({blocks(settings)})/({projections})/kernel", joint=settings.joint)


def _of_heads(settings: Particles) -> dict:
    return dict(drive=settings.drive, rescale=settings.rescale, **_selected(settings))
