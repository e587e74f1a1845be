"""Does repulsion keep a model from over-fitting? 10 to 100 % of Multi30k's training pairs, as many steps for all.

Repulsive attention (An et al. 2020) at a reduced size; steps are those of four epochs of all pairs.

    python -m experiments.launch --experiment=experiments/repulsive_data.py --workdir=runs/repulsive_data
"""

from experiments.ablation import Ablation
from experiments.repelled import CONTROLS, REDUCED, TINY
from experiments.sweep import axis, product

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=product(axis("data.share", 1.0, 0.1, 0.3), [{}, {"particles": "svgd"}, *CONTROLS]),
    metric="test.bleu",
    also=("validation.loss",),
    settings=REDUCED | {"run.duration": "1600 steps"},
    tiny=TINY,
)
