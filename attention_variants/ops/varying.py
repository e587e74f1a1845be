"""Inside `jax.shard_map`, arrays have in their type the mesh axes over which they vary from device to device."""

import jax
from jax import lax


def alike(*trees) -> tuple:
    """The trees with every array varying wherever one of them does, as jax's own operations have their operands.

    A derivative rule and the first carry of a scan have to do this themselves. The gradient of what did not vary is summed over
    devices. Outside `jax.shard_map` nothing changes.
    """
    of = lambda x: jax.typeof(x).manual_axis_type.varying
    axes = frozenset().union(*(of(x) for x in jax.tree.leaves(trees)))

    def vary(x):
        missing = tuple(sorted(axes - of(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(vary, trees)
