"""What do runs cost as lanes of one program, against the same runs one after the other?

Seeds of the `tiny` Transformer (2 + 2 layers, width 64) on dates, dropout 0.1. Whole runs: from the config to DONE, in one process,
with compilation, evaluation, checkpoints and figures; programs are kept for later runs, as is the default, in a folder that is new
each time; their validation losses are checked equal first.
"""

import contextlib
import pathlib
import tempfile

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from attention_variants.train import cli
from attention_variants.train.loop import train, train_together
from configs import translation
from experiments.timing import Contender, Table, alternate, assert_same


def measure(quick: bool) -> list[Table]:
    lanes = 2 if quick else 8
    close = lambda a, b: assert_same(a, b, tolerance=1e-3)
    whole = [Contender(f"{lanes} lanes", lambda: together(lanes, quick)), Contender("in turn", lambda: in_turn(lanes, quick))]
    return [
        Table(f"{lanes} whole runs of {config_of(0, quick).run.duration}", alternate(whole, rounds=1 if quick else 2, same=close))
    ]


def config_of(seed: int, quick: bool):
    config = translation.get_config("tiny" if quick else "")
    config.run.update(duration="4 steps" if quick else "50 steps", evaluate="50 percent", seed=seed)
    config.hypers.dropout = 0.1
    config.log.tensorboard = False
    return config


@contextlib.contextmanager
def _configs(seeds: int, quick: bool):
    """(configs, workdirs) of runs that nothing is known of yet, no compiled program either; gone when they are done."""
    cli.prepare()
    jax.clear_caches()
    compilation_cache.reset_cache()  # which else stays where it was first put
    with tempfile.TemporaryDirectory() as folder:
        configs = [config_of(seed, quick) for seed in range(seeds)]
        for config in configs:
            config.parallel.cache = f"{folder}/programs"
        try:
            yield configs, [pathlib.Path(folder) / str(seed) for seed in range(seeds)]
        finally:
            jax.config.update("jax_compilation_cache_dir", None)
            compilation_cache.reset_cache()


def together(seeds: int, quick: bool) -> np.ndarray:
    """Validation losses of runs that train as lanes."""
    with _configs(seeds, quick) as (configs, workdirs):
        found = train_together(configs, workdirs, quiet=True)
        return np.array([result.results["validation"]["loss"] for result in found])


def in_turn(seeds: int, quick: bool) -> np.ndarray:
    """Validation losses of runs that train one after the other."""
    with _configs(seeds, quick) as (configs, workdirs):
        found = [train(config, workdir, quiet=True) for config, workdir in zip(configs, workdirs, strict=True)]
        return np.array([result.results["validation"]["loss"] for result in found])
