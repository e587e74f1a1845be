"""What do runs cost as lanes of one program, against the same runs one after the other?

Seeds of the `tiny` Transformer (2 + 2 layers, width 64) on dates, dropout 0.1. Whole runs: from the config to DONE, in one process,
with compilation, evaluation, checkpoints and figures; programs are kept for later runs, as is the default, in a folder that is new
each time; their validation losses are checked equal first. Steps: of the compiled program alone, a batch of 2,048 tokens a side for
each lane.
"""

import contextlib
import functools
import pathlib
import tempfile

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from attention_variants import tasks
from attention_variants.train import cli, devices, optimizers
from attention_variants.train import settings as settings_lib
from attention_variants.train import step as step_lib
from attention_variants.train.loop import train, train_together
from attention_variants.train.settings import Parallel
from configs import translation
from experiments.timing import Contender, Table, alternate, assert_same


def measure(quick: bool) -> list[Table]:
    lanes = 2 if quick else 8
    close = lambda a, b: assert_same(a, b, tolerance=1e-3)
    whole = [Contender(f"{lanes} lanes", lambda: together(lanes, quick)), Contender("in turn", lambda: in_turn(lanes, quick))]
    tables = [
        Table(f"{lanes} whole runs of {_config(0, quick).run.duration}", alternate(whole, rounds=1 if quick else 2, same=close))
    ]
    for many in (2,) if quick else (8, 16):
        beside, tokens = steps(many, quick)
        alone, _ = steps(1, quick)
        one_by_one = Contender(f"{many} solo steps", functools.partial(times, many, alone))
        contenders = [Contender(f"a step of {many} lanes", beside), one_by_one]
        tables.append(Table(f"steps of {many} runs", alternate(contenders, rounds=3 if quick else 15, same=None), tokens))
    return tables


def times(number: int, run) -> None:
    for _ in range(number):
        run()


def _config(seed: int, quick: bool):
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
        configs = [_config(seed, quick) for seed in range(seeds)]
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


def steps(lanes: int, quick: bool):
    """(a function that takes one step of all lanes, the tokens in it)."""
    settings = [settings_lib.parse(_config(seed, quick)) for seed in range(lanes)]
    backend = devices.connect(Parallel(devices=1, cache=""), lanes=lanes)
    task = tasks.load("translation").Task.new(settings[0])
    batches = [task.batches("train", seed=own.run.seed, multiple=8)[0] for own in settings]
    shape = optimizers.schedule(settings[0].optimizer, total=1000, per_epoch=100, width=task.width)
    state = backend.join([backend.replicate(step_lib.init(task, own, own.run.seed)) for own in settings])
    placed, hypers = backend.place(backend.join(batches)), backend.join(step_lib.hypers_of(*settings))
    program = backend.compile(step_lib.make(task, settings[0], shape), state, placed, hypers)

    def run():
        nonlocal state
        state, metrics = program.run(state, placed, hypers)
        return np.asarray(metrics["loss"])

    return run, sum(map(task.tokens, batches))
