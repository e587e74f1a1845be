"""Attention variants, one file each.

A variant file holds the formula and its source on top, and two names:

- `Config`: a frozen dataclass, the only place where the variant's defaults are written;
- `Layer(config)`: a linen module, `layer(q_BQHK, k_BSHK, mask) -> Score`. In a decoder that reads from a cache q and k are None.

To add one, write the file: it is at once selectable from every config and covered by `tests/test_every_variant.py`.
"""

from attention_variants import modules

CONTRACT = ("Config", "Layer")


def load(name: str):
    """The module of the variant `name`; InputError (with the nearest name) where there is none."""
    return modules.load(__name__, name, CONTRACT)


def names() -> list[str]:
    """All variants there are."""
    return modules.names(__name__, CONTRACT)


def layer(variant, **kwargs):
    """The variant's linen layer; `variant` is a Config of some variant file, or a name for its defaults."""
    if isinstance(variant, str):
        variant = load(variant).Config()
    return load(type(variant).__module__.rpartition(".")[2]).Layer(variant, **kwargs)
