"""Which leaves of a tree of parameters hold particles, and where in them heads lie.

A leaf is found by its path, "encoder_0/self_attention/query/kernel" say, by a regular expression that ends with it. Kernels of
queries, keys and values are (…, D, H, K), and of an output projection `out` (…, H, K, D), as flax.linen has them; what stands for …
are layers that were stacked by `nn.scan`.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import jax

from attention_variants.errors import InputError

PROJECTIONS = r"(query|key|value)/kernel"


class Leaf(NamedTuple):
    """One array of parameters: its path, its shape, and which of its last three axes is that of the heads."""

    path: str
    shape: tuple[int, ...]
    axis: int

    @property
    def heads(self) -> int:
        """H, how many particles."""
        return self.shape[self.axis]

    @property
    def view(self) -> tuple[int, int, int, int]:
        """(L, A, H, D): the same numbers in the same order; L layers that nn.scan has stacked, and A × D numbers of a particle."""
        return math.prod(self.shape[:-3]), math.prod(self.shape[-3 : self.axis]), self.heads, math.prod(self.shape[self.axis :][1:])


class Group(NamedTuple):
    """The leaves whose heads, put together, are one set of particles; one leaf, unless groups are joint."""

    name: str
    leaves: tuple[Leaf, ...]

    @property
    def heads(self) -> int:
        """H, how many particles."""
        return self.leaves[0].heads

    def views(self, leaves: dict[str, jax.Array]) -> list[jax.Array]:
        """Of leaves by path those of the group, each (L, A, H, D): nothing moves in memory."""
        return [leaves[leaf.path].reshape(leaf.view) for leaf in self.leaves]

    def arrays(self, views: Iterable[jax.Array]) -> dict[str, jax.Array]:
        """The leaves, by path, that these are views of."""
        return {leaf.path: view.reshape(leaf.shape) for leaf, view in zip(self.leaves, views, strict=True)}


def by_path(tree) -> dict[str, jax.Array]:
    """The leaves of a tree by their paths, "a/b/c"."""
    return {_words(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def replaced(tree, leaves: dict[str, jax.Array]):
    """The tree with leaves replaced, by path, in the types that they had."""
    put = lambda path, old: leaves[_words(path)].astype(old.dtype) if _words(path) in leaves else old
    return jax.tree_util.tree_map_with_path(put, tree)


def find(params, select: str = PROJECTIONS, joint: bool = False) -> list[Group]:
    """The groups of particles of a tree of arrays, or of their shapes; those with a single head are left out, as nothing repels it.

    Args:
      select: what a path ends with, a regular expression.
      joint: the selected leaves of one attention layer are one group, whose particles are whole heads.

    Raises:
      InputError: nothing is selected, or something without an axis of heads, or joint leaves of several numbers of heads.
    """
    leaves, chosen = by_path(params), []
    try:
        pattern = re.compile(rf"(.*/)?({select})")
    except re.error as error:
        raise InputError(f"select is {select!r}, no regular expression ({error}); expected one such as {PROJECTIONS!r}") from None
    for path, array in leaves.items():
        if not pattern.fullmatch(path):
            continue
        if len(array.shape) < 3 or path.endswith("bias"):  # which nn.scan may have given a third axis
            kernels = [f"{name} {tuple(other.shape)}" for name, other in leaves.items() if len(other.shape) >= 3]
            raise InputError(
                f"{path} is selected and has shape {tuple(array.shape)}, without an axis of heads; "
                f"expected (D, heads, size)" + "".join(f", as {kernel}" for kernel in kernels[:1])
            )
        chosen.append(Leaf(path, tuple(array.shape), -3 if path.split("/")[-2:][0] == "out" else -2))
    if not chosen:
        kernels = [path for path, array in leaves.items() if len(array.shape) >= 3]
        raise InputError(f"select is {select!r}, which no leaf ends with; found {_some(kernels or leaves)}")
    together = {}
    for leaf in chosen:
        together.setdefault(leaf.path.rpartition("/")[0].rpartition("/")[0] if joint else leaf.path, []).append(leaf)
    found = [Group(name, tuple(of)) for name, of in together.items()]
    for group in found:
        if len({(leaf.heads, leaf.shape[:-3]) for leaf in group.leaves}) > 1:
            shapes = ", ".join(f"{leaf.path} {leaf.shape}" for leaf in group.leaves)
            raise InputError(f"{group.name} has leaves of several numbers of heads ({shapes}); expected joint=False")
    return [group for group in found if group.heads > 1]


def refuse_split(found: Iterable[Group], params) -> None:
    """Raises InputError where an array is divided over devices along another axis than that of heads: particles are split."""
    arrays = by_path(params)
    for path, shape, axis in (leaf for group in found for leaf in group.leaves):
        sharding = getattr(arrays[path], "sharding", None)
        for i, name in enumerate(getattr(sharding, "spec", None) or ()):
            parts = math.prod(sharding.mesh.shape[part] for part in _listed(name))
            if parts > 1 and i >= len(shape) - 3 and i != len(shape) + axis:
                raise InputError(
                    f"{path} {shape} is divided over devices along axis {i}, which splits its particles; "
                    f"expected along axis {len(shape) + axis}, of heads, or along none"
                )


def _listed(name) -> tuple:
    return () if name is None else name if isinstance(name, tuple) else (name,)


def _some(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


def _words(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")  # of a box with names of axes
