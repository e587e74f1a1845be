"""Do norms say better than weights which words matter, and who mixes whom? Erasure, gradients and mixing ratios, on TREC.

Kobayashi et al. 2020 and 2021, "Attention is not only a weight" and with residual connections and layer normalisation; here a
post-norm encoder of questions, its dot product and an implicit kernel, heads that repel each other, and, for control, a model that
has learned nothing. `erasure_…` and `gradient_…` are Spearman's correlations, mean over sentences, of what a layer gives to words
with what the answer loses without them, and with gradients (`analysis.erasure`), by kind of map and layer; `mixing_…` are mixing
ratios by kind of token and layer.

    python -m experiments.launch --experiment=experiments/norms_trec.py --workdir=runs/norms_trec --jobs=2
"""

import pathlib

from attention_variants.analysis import erasure, heads, norms, token_kinds
from attention_variants.train import runs
from experiments.ablation import Ablation

SHORT = {"weights": "weights", "norms": "norms", "with residual": "residual", "after layer normalisation": "after_norm"}


def look(workdir: pathlib.Path) -> dict[str, float]:
    """Agreement and mixing ratios of every layer."""
    loaded = runs.Loaded(workdir, print)
    given = loaded.task, loaded.params, loaded.model_state, loaded.place
    numbers = {}
    for layer, kinds in enumerate(erasure.numbers(erasure.agreement(*given)).values()):
        for kind, truths in kinds.items():
            numbers |= {f"{truth}_{SHORT[kind]}_{layer}": mean for truth, (mean, _) in truths.items()}
    for number, layer in enumerate(norms.read(loaded.params, heads.layers(*given), loaded.task.model.config)):
        for kind, shares in token_kinds.mixing(layer.norms, layer.real_BQ, layer.kind_BQ).items():
            numbers |= {f"mixing_{name}_{kind}_{number}": share for name, share in shares.items()}
    return numbers


ABLATION = Ablation(
    config="configs/classification.py:data=sentences,set=trec",
    settings={"model.norm": "post"},
    cells=[{}, {"variant": "implicit_kernel"}, {"particles": "svgd"}, {"run.duration": "1 steps"}],
    metric="test.accuracy",
    also=(
        *(f"looks.{truth}_{kind}_{layer}" for truth in ("erasure", "gradient") for layer in (0, 1) for kind in SHORT.values()),
        *(f"looks.mixing_{name}_all_{layer}" for layer in (0, 1) for name in ("Attn-W", "Attn-N", "AttnRes-N", "AttnResLn-N")),
    ),
    look=look,
    tiny={"model.layers": 2, "run.duration": "4 steps", "run.evaluate": "2 steps"},
    curves=("train.loss", "validation.accuracy"),
)
