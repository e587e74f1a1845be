"""What all config files share: the defaults of every section as a locked ConfigDict, and the parser of the config string."""

import dataclasses
from types import SimpleNamespace

from ml_collections import config_dict

from attention_variants import tasks
from attention_variants.errors import InputError, unknown
from attention_variants.train.settings import NAMED, Settings


def split_arg(text: str | None, **defaults) -> SimpleNamespace:
    """The pieces of a config string such as "variant=standard,tiny", over their defaults; a piece without a value is a switch.

    Raises:
      InputError: a piece that is not among the defaults (with the nearest one that is).
    """
    given = dict(defaults)
    for piece in (text or "").split(","):
        name, _, value = piece.partition("=")
        if not piece:
            continue
        if name not in defaults:
            raise unknown("piece of the config string", name, defaults)
        switch = isinstance(defaults[name], bool)
        if switch and value not in ("", "0", "1", "true", "false"):
            raise InputError(f"the piece {name!r} of the config string is {value!r}; expected it alone, or true or false")
        if not switch and not value:
            raise InputError(f"the piece {name!r} of the config string has no value; expected {name}=…")
        given[name] = value not in ("0", "false") if switch else type(defaults[name])(value)
    return SimpleNamespace(**given)


def defaults(*, task: str, data: str, model: str, variant: str, particles: str = "") -> config_dict.ConfigDict:
    """Every setting with its default, from the dataclasses that define them; `particles` is a `particles.method`, "" none.

    variant=repulsive is a preset, standard attention with particles=svgd (An et al. 2020), as repulsion changes no forward pass.
    """
    if variant == "repulsive":
        variant, particles = "standard", particles or "svgd"
    named = {"task": task, "data": data, "model": model, "variant": variant}
    sections = {name: {"name": file} | _values(NAMED[name].load(file).Config) for name, file in named.items()}
    sections["hypers"] = _values(tasks.load(task).Hypers)
    for field in dataclasses.fields(Settings):
        if field.name not in sections:
            sections[field.name] = _values(field.type)
    sections["particles"]["method"] = particles or "none"
    config = config_dict.ConfigDict(sections)
    config.lock()
    return config


def _values(cls: type) -> dict:
    return dataclasses.asdict(cls())
