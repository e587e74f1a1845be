"""Attention variants, one file each.

A variant file holds the formula and its source on top, and two names:

- `Config`: a frozen dataclass, the only place where the variant's defaults are written;
- `Layer(config, heads, size)`: a linen module, `layer(q_BQHK, k_BSHK, mask, row_B=None) -> Score`. `heads` and `size` are H and K:
  what is not known yet, or may not be looked at, is None: q where queries are of another sequence than keys, which is still to be
  written in a decoder; k, too, where keys come one by one. `row_B` are the ids of the examples in training, for what is random
  there. What is to be added to the loss of an example, `layer` sows into the collection `losses`, (B,).

A file without them is a part that variants share.

A Config with `project = False` has the inputs themselves as queries and keys, the whole of them in every head.

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


def config(variant):
    """The Config itself, or the defaults of a variant that is given by its name."""
    return load(variant).Config() if isinstance(variant, str) else variant


def layer(variant, *, heads: int, size: int, **kwargs):
    """The variant's linen layer; `variant` is a Config of some variant file, or a name for its defaults."""
    variant = config(variant)
    return load(type(variant).__module__.rpartition(".")[2]).Layer(variant, heads=heads, size=size, **kwargs)
