"""How much noise do repelled heads want? SPOS at several temperatures, its noise before the optimiser and exact after it.

Repulsive attention (An et al. 2020) on Multi30k at a reduced size. Before Adam, noise is as large as gradients at temperature 1,
whatever the learning rate is; after it, √(2 τ ε) is of the size of an update at about τ = ε.

    python -m experiments.launch --experiment=experiments/repulsive_temperature.py --workdir=runs/repulsive_temperature \\
        --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.repelled import ALSO, CONTROLS, REDUCED, TINY, look
from experiments.sweep import axis, chain, product

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=chain(
        [{}, {"particles": "svgd"}, *CONTROLS],
        product([{"particles": "spos"}], axis("hypers.temperature", 1e-4, 1e-2, 1.0)),
        product([{"particles": "spos", "particles.noise": "exact"}], axis("hypers.temperature", 1e-8, 1e-6, 1e-4)),
    ),
    metric="test.bleu",
    also=ALSO,
    look=look,
    settings=REDUCED,
    tiny=TINY,
)
