"""What the ablations `repulsive_…` share: a reduced size of Multi30k, the controls of repulsion, and a look at the heads."""

import pathlib

import numpy as np

from attention_variants.analysis import heads
from attention_variants.train import runs
from experiments.sweep import Cell, Sweep

# 2 + 2 layers of width 128, 4 heads, 4 epochs of all pairs: minutes a run on two cores, and BLEU that is not yet saturated.
REDUCED: Cell = {
    "model.layers": 2,
    "model.width": 128,
    "model.heads": 4,
    "model.feed_forward": 256,
    "run.duration": "4 epochs",
}
TINY: Cell = {"run.duration": "4 steps", "run.evaluate": "2 steps"}
ALSO = ("looks.outputs", "looks.divergence", "looks.effective", "looks.value")

ALONE = {"particles": "svgd", "particles.drive": "gradient"}  # repulsion only
SHARED = {"particles": "svgd", "hypers.alpha": 0.0}  # sharing of gradients only
SCALED = {"particles": "svgd", "particles.drive": "gradient", "hypers.alpha": 0.0}  # stepsize and 1/H only: K = I, nothing repels
CONTROLS: Sweep = [ALONE, SHARED, SCALED]
# In function space, scaled back, as scale there is of the attention branch alone; beside it, sharing only.
OUTPUTS: Sweep = [{"particles": "outputs", "particles.rescale": True} | alpha for alpha in ({}, {"hypers.alpha": 0.0})]
# As strong beside the gradient as SVGD's with four heads, whose gradients are divided by them.
ENERGY: Cell = {"particles": "energy", "hypers.alpha": 0.04}


def look(workdir: pathlib.Path) -> dict[str, float]:
    """The numbers of `analysis.heads`, mean over attention layers."""
    loaded = runs.Loaded(workdir, print)
    layers = heads.layers(loaded.task, loaded.params, loaded.model_state, loaded.place)
    found = [of.numbers() for of in heads.alike(loaded.params, layers).values()]
    return {name: float(np.mean([numbers[name] for numbers in found])) for name in found[0]}
