"""Settings as frozen dataclasses: the only place where the defaults of training are written.

A config (a ConfigDict, or any nested mapping) has one section per dataclass. The sections task, data, model and variant have a
`name` that finds a file, whose Config the rest of the section must fit.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal

from attention_variants import data, models, tasks, variants
from attention_variants.errors import InputError, unknown

PROJECTIONS, ATTENTION = ("query", "key", "value", "out"), ("encoder", "decoder", "cross")
NAMED = {"task": tasks, "data": data, "model": models, "variant": variants}


@dataclasses.dataclass(frozen=True)
class Run:
    """How long, how often and from what seed. Durations: "20 epochs", "4000 steps", "5 percent"; "0" is never."""

    duration: str = "20 epochs"
    evaluate: str = "10 percent"
    checkpoint: str = "10 percent"
    keep: int = 2
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.seed < 2**32:
            raise InputError(f"run.seed is {self.seed}; expected a whole number from 0 to {2**32 - 1}")
        if self.keep < 2:
            raise InputError(f"run.keep is {self.keep}; expected at least 2 latest checkpoints, one to fall back to")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Adam with a warm-up (section 5.3 of the Transformer paper) and clipping by global norm.

    `schedule`: "transformer" is the paper's, learning_rate · width^−½ · min(step^−½, step · warmup^−3/2); the others rise linearly
    to learning_rate and then fall as step^−½ ("inverse_sqrt"), to zero by a cosine ("cosine"), or not at all ("constant").
    `clip`: 0 is no clipping. `accumulate`: a batch is worked off in that many parts, to save memory; the numbers stay the same.
    """

    schedule: Literal["transformer", "inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    warmup: str = "5 percent"
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-9
    weight_decay: float = 0.0
    clip: float = 1.0
    accumulate: int = 1

    def __post_init__(self):
        if self.accumulate < 1:
            raise InputError(f"optimizer.accumulate is {self.accumulate}; expected at least 1")
        for name, below in (("b1", 1.0), ("b2", 1.0), ("eps", None), ("clip", None), ("weight_decay", None)):
            value = getattr(self, name)
            if not value >= 0 or (below is not None and value >= below):
                raise InputError(f"optimizer.{name} is {value}; expected at least 0" + (f" and below {below:g}" if below else ""))


@dataclasses.dataclass(frozen=True)
class Particles:
    """Heads that repel each other (`train.repulsion`); `hypers.alpha` is how strong, `hypers.temperature` is SPOS's.

    `method`: "svgd" and "spos" replace the gradients of heads (An et al. 2020), "energy" adds that of their kernel to the loss,
    "outputs" is SVGD on what heads put out. `drive`: gradients mixed by the kernel, or as they are ("gradient"), so that alpha = 0
    is the control that only scales. `stepsize`, `rescale` (times the number of heads): of the new gradient. `projections`,
    `attention`, `layers`: which heads, by commas, of query, key, value, out; of encoder, decoder, cross; and of which numbers, ""
    is all. `joint`: a particle is a whole head, not one of its projections. `noise`: SPOS's, before the optimiser ("published") or
    after it, of the exact size. `begin`: when it starts. `collapsed`: a run begins with heads that are equal but for noise.
    """

    method: Literal["none", "svgd", "spos", "energy", "outputs"] = "none"
    drive: Literal["kernel", "gradient"] = "kernel"
    stepsize: float = 1.0
    rescale: bool = False
    projections: str = "query,key,value"
    attention: str = "encoder,decoder,cross"
    layers: str = ""
    joint: bool = False
    noise: Literal["published", "exact"] = "published"
    begin: str = "0"
    collapsed: bool = False

    def __post_init__(self):
        if not 0 < self.stepsize < 1e38:
            raise InputError(f"particles.stepsize is {self.stepsize}; expected a number above 0")
        for name, known in (("projections", PROJECTIONS), ("attention", ATTENTION)):
            for found in listed(getattr(self, name)):
                if found not in known:
                    raise unknown(f"part of particles.{name}:", found, known)
        if self.layers and not all(found.isdecimal() for found in listed(self.layers)):
            raise InputError(
                f"particles.layers is {self.layers!r}; expected numbers of layers from 0, such as '0,2', or '' for all"
            )


def listed(text: str) -> list[str]:
    """What a setting names by commas."""
    return [part.strip() for part in text.split(",")]


@dataclasses.dataclass(frozen=True)
class Parallel:
    """What a run is computed on; a run may be resumed with other values.

    `backend`: jit over a mesh, or pmap on one host; the numbers are the same. `devices`: how many; 0, and many hosts, are all.
    `steps_per_dispatch`: that many steps are one program, which small models on fast devices gain from; batches of one shape only.
    `cache`: folder of compiled programs, which the next start finds; "" keeps none. `keep_memory`: what a step frees is kept by the
    process for the next one, which saves a fifth of a step's time on a CPU.
    """

    backend: Literal["jit", "pmap"] = "jit"
    devices: int = 0
    steps_per_dispatch: int = 1
    cache: str = "~/.cache/attention-variants/xla"
    keep_memory: bool = True

    def __post_init__(self):
        if self.devices < 0:
            raise InputError(f"parallel.devices is {self.devices}; expected 0 for all, or how many")
        if self.steps_per_dispatch < 1:
            raise InputError(f"parallel.steps_per_dispatch is {self.steps_per_dispatch}; expected at least 1")


@dataclasses.dataclass(frozen=True)
class Log:
    """`every`: between rows of metrics. `profile`: that many steps are traced by jax.profiler, from the tenth on; 0 is none."""

    every: str = "1 percent"
    tensorboard: bool = True
    profile: int = 0

    def __post_init__(self):
        if self.profile < 0:
            raise InputError(f"log.profile is {self.profile}; expected a number of steps, or 0 for none")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything a run depends on, as frozen dataclasses."""

    task: Any
    data: Any
    model: Any
    variant: Any
    hypers: Any
    run: Run = Run()
    optimizer: Optimizer = Optimizer()
    particles: Particles = Particles()
    parallel: Parallel = Parallel()
    log: Log = Log()

    def name(self, section: str) -> str:
        """The name of the file that the section "task", "data", "model" or "variant" was found by."""
        return type(getattr(self, section)).__module__.rpartition(".")[2]

    def as_dict(self) -> dict:
        """The nested dictionary that `parse` reads back into the same settings."""
        tree = dataclasses.asdict(self)
        return {k: {"name": self.name(k)} | v if k in NAMED else v for k, v in tree.items()}


def parse(config: Mapping) -> Settings:
    """The settings of a config.

    Raises:
      InputError: an unknown section, key or name (with the nearest known one), or a value of the wrong type or range.
    """
    config = {key: config[key] for key in config}
    known = [f.name for f in dataclasses.fields(Settings)]
    for key in config:
        if key not in known:
            raise unknown("config section", key, known)
    parts = {}
    for field in dataclasses.fields(Settings):
        section = dict(config.get(field.name, {}))
        if field.name in NAMED:
            if "name" not in section:
                raise InputError(f"config section {field.name} has no name; expected one of the files of its folder")
            cls = NAMED[field.name].load(section.pop("name")).Config
        elif field.name == "hypers":
            cls = tasks.load(dict(config["task"])["name"]).Hypers
        else:
            cls = field.type
        parts[field.name] = build(cls, section, field.name)
    return Settings(**parts)


def build(cls: type, values: Mapping, path: str):
    """The dataclass `cls` from a section's values; raises InputError as `parse`."""
    types = typing.get_type_hints(cls)
    fields = {f.name: (types[f.name], f.default) for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise unknown(f"key in config.{path}", key, fields or ["(none)"])
    return cls(**{key: _checked(value, *fields[key], f"{path}.{key}") for key, value in values.items()})


def _checked(value, expected, default, path):
    if typing.get_origin(expected) is Literal:
        if value not in typing.get_args(expected):
            raise unknown(f"value of config.{path}", value, typing.get_args(expected))
        return value
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        raise InputError(f"config.{path} is {value!r}; expected {expected.__name__}, such as {default!r}")
    return value


def differences(ours: Mapping, theirs: Mapping, most: int = 8) -> list[str]:
    """One line per setting in which two `as_dict` trees differ, of at most so many."""
    flat = [{f"{s}.{k}": v for s, section in tree.items() for k, v in section.items()} for tree in (ours, theirs)]
    changed = [key for key in sorted(flat[0] | flat[1]) if flat[0].get(key) != flat[1].get(key)]
    if len(changed) > most:  # they are of other tasks or models altogether, whose names say most
        changed.sort(key=lambda key: not key.endswith(".name"))
    lines = [f"{key}: {flat[1].get(key)!r} there, {flat[0].get(key)!r} here" for key in changed[:most]]
    return lines + [f"and {len(changed) - most} more"] * (len(changed) > most)
