"""What the ablations `alignment_…` share: error rates of a run's alignments, layer by layer, by input and by output."""

import pathlib
from collections.abc import Iterable

from attention_variants.analysis import alignment, translators
from attention_variants.analysis.word_maps import STEPS
from attention_variants.train import runs

SHORT = {"weights": "weights", "norms": "norms", "norms after layer normalisation": "after_norm"}


def look(workdir: pathlib.Path) -> dict[str, float]:
    """Error rates in percent by kind of map, setting and layer; of the layer with the largest mean norm; and what norms gain."""
    loaded = runs.Loaded(workdir, print)
    gold, characters = alignment.known(loaded, None, None, 1, False)
    asked = translators.of_run(loaded, characters=characters)
    found = alignment.align(asked, gold, "" if characters else " ")
    rates = {}
    for kind in found.best:
        for setting in STEPS:
            of_layers = 100 * alignment.error_rates(found.counts(kind, setting))[:, 0]
            rates |= {f"{SHORT[kind]}_{setting}_{layer}": float(rate) for layer, rate in enumerate(of_layers)}
            if kind in found.sizes:
                rates[f"{SHORT[kind]}_{setting}_chosen"] = float(of_layers[found.chosen(kind)])
    pairs = [name.partition("_")[2] for name in rates if name.startswith("weights_")]
    return rates | {f"gain_{of}": rates[f"weights_{of}"] - rates[f"norms_{of}"] for of in pairs}


def columns(layers: Iterable[int]) -> tuple[str, ...]:
    """The columns of such a table: weights, norms and what they gain, of every layer; and norms of the layer that is chosen."""
    kinds = ("weights", "norms", "gain")
    rates = [f"looks.{kind}_{setting}_{layer}" for setting in ("AWI", "AWO") for layer in layers for kind in kinds]
    return (*rates, "looks.norms_AWI_chosen", "looks.norms_AWO_chosen")
