"""Do norms align better than weights, where the right links are known? Dates, layer by layer, by input and by output.

Kobayashi et al. 2020, "Attention is not only a weight", on German-English: norms 5 to 6 points of error below weights in the best
layer, and the layer chosen by its mean norm. Here characters of dates, whose links are known; the error at random is 90.4 %, on
the diagonal 85.6 %. AWI aligns the step that is fed with a character, AWO the one that predicts it. Error rates in percent; of
post-norm and pre-norm models, an implicit kernel, heads that repel each other, and, for control, a model that has learned nothing.

    python -m experiments.launch --experiment=experiments/alignment_dates.py --workdir=runs/alignment_dates
"""

import pathlib

from attention_variants.analysis import alignment
from attention_variants.train import runs
from experiments.ablation import Ablation

SHORT = {"weights": "weights", "norms": "norms", "norms after layer normalisation": "after_norm"}


def look(workdir: pathlib.Path) -> dict[str, float]:
    """Error rates by kind of map, setting and layer; and of the layer that has the largest mean norm."""
    loaded = runs.Loaded(workdir, print)
    gold, characters = alignment.known(loaded, None, None, 1, False)
    found = alignment.align(loaded.task, loaded.params, gold, loaded.place, characters=characters)
    rates = {}
    for kind in found.best:
        for setting in alignment.STEPS:
            of_layers = 100 * found.rates(kind, setting)[:, 0]
            rates |= {f"{SHORT[kind]}_{setting}_{layer}": float(rate) for layer, rate in enumerate(of_layers)}
            if kind in found.sizes:
                rates[f"{SHORT[kind]}_{setting}_chosen"] = float(of_layers[found.chosen(kind)])
    return rates


ABLATION = Ablation(
    config="configs/translation.py:data=dates",
    cells=[{}, {"model.norm": "pre"}, {"variant": "implicit_kernel"}, {"particles": "svgd"}, {"run.duration": "1 steps"}],
    metric="test.exact_match",
    also=(
        *(f"looks.{kind}_{setting}_{layer}" for kind in ("weights", "norms") for setting in ("AWI", "AWO") for layer in (0, 1)),
        "looks.norms_AWI_chosen",
        "looks.norms_AWO_chosen",
    ),
    look=look,
    tiny={"model.layers": 2, "run.duration": "4 steps", "run.evaluate": "2 steps"},
)
