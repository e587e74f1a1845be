"""How long is a step of many runs as lanes of one program, against a step of each?

Seeds of the `tiny` Transformer (2 + 2 layers, width 64) on dates, dropout 0.1: the compiled program alone, a batch of 2,048 tokens
a side for each lane.
"""

import numpy as np

from attention_variants import tasks
from attention_variants.train import devices, optimizers
from attention_variants.train import settings as settings_lib
from attention_variants.train import step as step_lib
from attention_variants.train.settings import Parallel
from experiments.benchmarks.lanes import config_of
from experiments.timing import Contender, Table, alternate


def measure(quick: bool) -> list[Table]:
    return [table(many, quick) for many in ((2,) if quick else (8, 16))]


def table(many: int, quick: bool) -> Table:
    beside, tokens = steps(many, quick)
    alone, _ = steps(1, quick)
    contenders = [
        Contender(f"a step of {many} lanes", beside),
        Contender(f"{many} solo steps", lambda: [alone() for _ in range(many)]),
    ]
    return Table(f"steps of {many} runs", alternate(contenders, rounds=3 if quick else 15, same=None), tokens)


def steps(lanes: int, quick: bool):
    """(a function that takes one step of all lanes, the tokens in it)."""
    settings = [settings_lib.parse(config_of(seed, quick)) for seed in range(lanes)]
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
