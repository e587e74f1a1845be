"""A name finds a module: a new file in a folder is a new choice, and there is no table to edit."""

import importlib
import pkgutil
from types import ModuleType

from attention_variants import errors


def names(package: str, contract: tuple[str, ...]) -> list[str]:
    """The modules of `package` that offer everything in `contract`."""
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    modules = [importlib.import_module(f"{package}.{m.name}") for m in found if not m.ispkg]
    return sorted(m.__name__.rpartition(".")[2] for m in modules if all(hasattr(m, part) for part in contract))


def load(package: str, name: str, contract: tuple[str, ...]) -> ModuleType:
    """The module `package.name`.

    Raises:
      InputError: there is no such module, or it does not offer everything in `contract`.
    """
    kind = package.rpartition(".")[2].removesuffix("s")
    if not str(name).isidentifier() or importlib.util.find_spec(f"{package}.{name}") is None:
        raise errors.unknown(kind, name, names(package, contract))
    module = importlib.import_module(f"{package}.{name}")
    if not all(hasattr(module, part) for part in contract):
        raise errors.unknown(kind, name, names(package, contract))
    return module
