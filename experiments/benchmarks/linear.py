"""From which length on is attention faster by features of the kernel than by all pairs, forward and backward?

One sequence, 4 heads of size 64, float32, no mask; a spectral kernel of 16 frequencies for each head, not stationary, squared, with
the magnitude of keys: 545 features, exact. Gradients go into the frequencies too. Results of both routes are
checked equal first.
"""

import functools

import jax
import numpy as np

from experiments.benchmarks.implicit_kernel import arrays, gradients, spectral
from experiments.timing import Table, alternate, assert_same, compiled


def measure(quick: bool) -> list[Table]:
    lengths = (256,) if quick else (1024, 4096, 16384) if jax.default_backend() == "cpu" else (4096, 16384, 65536)
    return [table(length, rounds=3 if quick or length > 8192 else 7) for length in lengths]


def table(length: int, rounds: int) -> Table:
    random = np.random.default_rng(0)
    given, score = arrays(random, length), spectral(random, points=16)
    contenders = [compiled(route, functools.partial(gradients, route=route), *given, score) for route in ("linear", "blockwise")]
    same = functools.partial(assert_same, tolerance=1e-3)
    return Table(f"length {length:,}", alternate(contenders, rounds=rounds, same=same))
