"""Pre-trained models from a folder as Hugging Face saves them, on our own modules: `config.json` and safetensors, never a pickle.

A file of this folder with `pretrained(found) -> (model, names)` adds the architecture that is its name. `names` has, by the path of
a module of ours, what the file of tensors calls it, or several names of which one is there; prefixes are found here.
"""

import contextlib
import dataclasses
import difflib
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import safetensors
from flax import traverse_util

from attention_variants import modules
from attention_variants.errors import InputError, unknown

PACKAGE, CONTRACT = "attention_variants.models", ("pretrained",)
TENSORS, INDEX = "model.safetensors", "model.safetensors.index.json"
LEAVES = {  # what a module's parameters are called in files; those of norms were gamma and beta in the first ones
    "kernel": ("weight",),
    "embedding": ("weight",),
    "scale": ("weight", "gamma"),
    "bias": ("bias", "beta"),
}


class Found(dict):
    """What a `config.json` holds; what is looked up and not there is an InputError."""

    def __missing__(self, key: str):
        raise InputError(f"no {key!r}; expected it, as the model is made of it{_nearest(key, self)}")

    def expect(self, **values: Any) -> None:
        """Raises InputError where one of these is there with another value: the model would be another one."""
        for name, value in values.items():
            if self.get(name, value) != value:
                raise InputError(f"{name} is {self[name]!r}; expected {value!r}, as nothing else is supported")


class Pretrained(NamedTuple):
    """A model of ours, its parameters, and which architecture it is, "bert" say."""

    model: nn.Module
    params: dict
    kind: str


def load(folder: str | pathlib.Path, **changes: Any) -> Pretrained:
    """The model of a folder.

    Args:
      changes: of the model's Config, `dtype="bfloat16"` or `route="dense"` say.

    Raises:
      InputError: no such folder, a file that is missing or broken, an architecture that is not supported, or tensors that are
        missing or have another shape than `config.json` says.
    """
    folder = pathlib.Path(folder).expanduser()
    if not folder.is_dir():
        around = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
        near = _nearest(folder.name, around)
        raise InputError(f"no such folder: {folder}; expected one with config.json and {TENSORS}{near}")
    found = Found({key: value for key, value in _read_json(folder / "config.json").items() if value is not None})
    try:
        kind, kinds = found["model_type"], modules.names(PACKAGE, CONTRACT)
        if kind not in kinds:
            raise unknown("model_type", kind, kinds)
        model, names = modules.load(PACKAGE, kind, CONTRACT).pretrained(found)
        model = model.clone(config=dataclasses.replace(model.config, **changes))
        shapes = jax.eval_shape(model.init, jax.random.key(0), *[jnp.zeros((1, 1), jnp.int32)] * model.inputs)["params"]
    except (InputError, TypeError, AttributeError) as error:
        of_type = "" if isinstance(error, InputError) else "a value is of another type than it should be: "
        raise InputError(f"{folder / 'config.json'}: {of_type}{error}") from None
    with contextlib.ExitStack() as stack:
        return Pretrained(model, _params(shapes, names, kind, _open(folder, found, stack), folder), kind)


def _read_json(path: pathlib.Path) -> dict:
    """The object in a file. Raises InputError where there is no such file, or something else in it."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"no {path.name} in {path.parent}; expected a folder as Hugging Face's save_pretrained writes it"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}; expected a JSON object")
    return value


def _nearest(name: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=1)
    return f"; the nearest is {near[0]!r}" if near else ""


def _open(folder: pathlib.Path, found: Found, stack: contextlib.ExitStack) -> dict[str, Any]:
    """By the name of a tensor, the open file that holds it."""
    files = [TENSORS]
    if (folder / INDEX).exists() and not (folder / TENSORS).exists():
        files = sorted(set(_read_json(folder / INDEX).get("weight_map", {}).values()))
    held = {}
    for path in (folder / file for file in files):
        if not path.exists():
            raise InputError(f"no {path.name} in {folder}; expected it{_conversion(folder, found)}")
        try:
            opened = stack.enter_context(safetensors.safe_open(path, framework="flax"))
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"cannot read {path}: {error}") from None
        held |= dict.fromkeys(opened.keys(), opened)
    return held


def _conversion(folder: pathlib.Path, found: Found) -> str:
    """What to do where there is a pickle instead."""
    pickles = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if not pickles:
        return ""
    name = str((found.get("architectures") or [""])[0])
    name = name if name.isidentifier() else "AutoModel"  # it comes from a file, and is to be run
    line = f"{name}.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r}, safe_serialization=True)"
    return f' in place of {pickles[0]}, which python -c "from transformers import {name}; {line}" converts'


def _params(shapes: dict, names: dict, kind: str, held: dict[str, Any], folder: pathlib.Path) -> dict:
    """The tree of the model's parameters, which has these shapes, from open files."""
    params = {}
    for path, wanted in traverse_util.flatten_dict(shapes, sep="/").items():
        candidates = [prefix + name for name in _names(path, names) for prefix in ("", f"{kind}.", "model.")]
        name = next((name for name in candidates if name in held), None)
        if name is None:
            near = _nearest(candidates[0], held)
            raise InputError(
                f"{folder} has no tensor {candidates[0]!r}; expected it, as config.json describes a {kind} with it{near}"
            )
        tensor, shape = held[name].get_tensor(name), _shape(path, wanted.shape)
        if tensor.shape != shape:
            raise InputError(f"{folder} has the tensor {name!r} with shape {tensor.shape}; expected {shape}, as config.json says")
        turned = tensor.T if path.endswith("/kernel") else tensor
        params[path] = jnp.asarray(turned, wanted.dtype).reshape(wanted.shape)
    return traverse_util.unflatten_dict(params, sep="/")


def _names(path: str, names: dict) -> list[str]:
    """What a parameter may be called, without a prefix."""
    module, _, leaf = path.rpartition("/")
    if not module:
        return [leaf]
    theirs = names[module]
    return [f"{name}.{ending}" for name in ([theirs] if isinstance(theirs, str) else theirs) for ending in LEAVES[leaf]]


def _shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a parameter in files: all heads are in one axis, and kernels are (outputs, inputs)."""
    if path.endswith("/bias"):
        return (math.prod(shape),)
    if not path.endswith("/kernel"):
        return shape
    inputs = shape[:-1] if path.endswith("/out/kernel") else shape[:1]
    return math.prod(shape) // math.prod(inputs), math.prod(inputs)
