"""Contenders timed fairly: the same work, results checked equal first, turn by turn, medians and spreads."""

import multiprocessing
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Contender(NamedTuple):
    """One way of doing some work.

    Attributes:
      name: what a table calls it.
      run: does the work once and returns when it is done; what it returns is compared with the others' results.
      memory: temporary bytes by the compiler's own analysis, None where there is none.
    """

    name: str
    run: Callable[[], Any]
    memory: int | None = None


class Timing(NamedTuple):
    """Seconds of a contender, and how many times the first contender's time that is; each as (median, 25 %, 75 %), or None."""

    name: str
    seconds: list[float] | None
    ratio: list[float] | None
    memory: int | None


class Table(NamedTuple):
    """What contenders took, under a caption; `work` is how many of `unit` a run worked on, where that is a question."""

    caption: str
    timings: list[Timing]
    work: int | None = None
    unit: str = "tokens"


def compiled(name: str, function: Callable, *arguments) -> Contender:
    """A contender that is a jax function, compiled for these arguments."""
    program = jax.jit(function).lower(*arguments).compile()
    return Contender(name, lambda: jax.block_until_ready(program(*arguments)), temporary_bytes(program))


def apart(name: str, make: Callable[..., Contender], *arguments) -> Contender:
    """The contender `make(*arguments)` in a process of its own, with threads and memory as its users have them.

    `make` is a function of a module; what a run of its contender returns is sent back.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs, make, arguments), daemon=True).start()
    theirs.close()
    memory = ours.recv()

    def run():
        ours.send(None)
        return ours.recv()

    return Contender(name, run, memory)


def _serve(pipe, make, arguments) -> None:
    contender = make(*arguments)
    pipe.send(contender.memory)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send(contender.run())


def assert_same(ours, theirs, *, tolerance: float) -> None:
    """Raises AssertionError where arrays differ by more than `tolerance` times the largest number of theirs."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        b = np.asarray(b, np.float32)
        np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=0, atol=tolerance * np.abs(b).max())


def temporary_bytes(program) -> int:
    """What a compiled program needs beside arguments and results, by XLA's own analysis."""
    return int(program.memory_analysis().temp_size_in_bytes)


def alternate(
    contenders: list[Contender], *, rounds: int, same: Callable[[Any, Any], None] | None, least: float = 0.0
) -> list[Timing]:
    """Each contender in turn, `rounds` times.

    The ratio of a round compares runs that followed each other, so that a machine that slows down for a while slows both.

    Args:
      same: raises if the first contender's result and another's are not the same; None where results cannot be compared.
      least: seconds of work per turn; a contender is run several times where once is shorter.

    Returns:
      The timings, in the order of the contenders.
    """
    results = [contender.run() for contender in contenders]
    for result in results[1:]:
        if same is not None:
            same(results[0], result)
    del results
    repeats = [1] * len(contenders)
    for i, contender in enumerate(contenders) if least else ():
        start = time.perf_counter()
        contender.run()
        repeats[i] = max(1, int(least / (time.perf_counter() - start)))
    seconds = np.zeros((rounds, len(contenders)))
    for row in seconds:
        for i, contender in enumerate(contenders):
            start = time.perf_counter()
            for _ in range(repeats[i]):
                contender.run()
            row[i] = (time.perf_counter() - start) / repeats[i]
    ratios = seconds / seconds[:, :1]
    middle = lambda x: np.percentile(x, [50, 25, 75]).tolist()
    columns = zip(contenders, seconds.T, ratios.T, strict=True)
    return [Timing(c.name, middle(s), middle(r), c.memory) for c, s, r in columns]
