"""How many floating-point operations a program's matrix products are, counted where it is still mathematics."""

import math

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from attention_variants.ops.products import SUMMED


def count(program) -> int:
    """FLOPs of the matrix products of a jaxpr over all devices, a multiplication and an addition each; loops by their lengths.

    XLA's own count takes the body of a loop once, however often it runs. A `while`, whose length nobody knows, counts once here
    too, and of a `cond` the branch that costs most: what a causal mask hides counts, by every route.
    """
    total = 0
    for equation in getattr(program, "jaxpr", program).eqns:
        name, given = equation.primitive.name, equation.params
        if name in ("dot_general", *SUMMED):
            contracted = (SUMMED[name],) if name in SUMMED else given["dimension_numbers"][0][0]
            if contracted:  # otherwise it multiplies number by number
                summed = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
                total += 2 * summed * math.prod(equation.outvars[0].aval.shape)
        inside = [count(x) for x in jax.tree.leaves(given, is_leaf=_is_program) if _is_program(x)]
        times = {"scan": given.get("length"), "shard_map": getattr(given.get("mesh"), "size", None)}.get(name) or 1
        total += times * (max(inside, default=0) if name == "cond" else sum(inside))
    return total


def _is_program(x) -> bool:
    return isinstance(x, ClosedJaxpr | Jaxpr)
