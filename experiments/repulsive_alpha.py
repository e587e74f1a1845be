"""How strongly should heads repel each other? alpha of SVGD from nothing to a hundred times what was published, on Multi30k.

Repulsive attention (An et al. 2020), reduced size; beside each, repulsion alone (the gradient as it is), at the same alpha.

    python -m experiments.launch --experiment=experiments/repulsive_alpha.py --workdir=runs/repulsive_alpha --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.repelled import ALSO, REDUCED, TINY, look
from experiments.sweep import axis, chain, product

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=chain(
        [{}],
        product(
            [{"particles": "svgd"}],
            axis("particles.drive", "kernel", "gradient"),
            axis("hypers.alpha", 0.0, 1e-3, 1e-2, 1e-1, 1.0),
        ),
    ),
    metric="test.bleu",
    also=ALSO,
    look=look,
    settings=REDUCED,
    tiny=TINY,
    curves=("train.loss", "validation.loss", "train.head_cosine", "train.head_repulsion"),
)
