"""Is repulsion a regulariser beside dropout, or in its place? Dropout from 0 to 0.5, with and without, on Multi30k.

Repulsive attention (An et al. 2020) at a reduced size.

    python -m experiments.launch --experiment=experiments/repulsive_dropout.py --workdir=runs/repulsive_dropout --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.repelled import CONTROLS, REDUCED, TINY
from experiments.sweep import axis, product

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=product(axis("hypers.dropout", 0.2, 0.0, 0.1, 0.3, 0.5), [{}, {"particles": "svgd"}, *CONTROLS]),
    metric="test.bleu",
    settings=REDUCED,
    tiny=TINY,
)
