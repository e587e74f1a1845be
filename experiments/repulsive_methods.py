"""Do heads that repel each other translate better? No repulsion, SVGD, SPOS, a term of the loss, function space, and every control.

Repulsive attention (An et al. 2020; the scores of their paper were not at hand) on Multi30k De-En at a reduced size. Controls: the
plain gradient with repulsion, gradients that are only shared, gradients that are only scaled; under Adam scale means little. The
columns `looks` say how alike heads are at the end: cosine of outputs, divergence of maps in bits, effective number of heads, cosine
of value weights.

    python -m experiments.launch --experiment=experiments/repulsive_methods.py --workdir=runs/repulsive_methods --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.repelled import ALSO, CONTROLS, ENERGY, OUTPUTS, REDUCED, TINY, look
from experiments.sweep import axis, chain, product

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=chain(
        [{}],
        axis("particles", "svgd", "spos"),
        CONTROLS,
        [ENERGY],
        OUTPUTS,
        product([{"particles": "spos"}], [{"particles.noise": "exact", "hypers.temperature": 1e-6}]),
        product([{"particles": "svgd"}], [{"particles.joint": True}, {"particles.projections": "query,key,value,out"}]),
    ),
    metric="test.bleu",
    also=ALSO,
    look=look,
    settings=REDUCED,
    tiny=TINY,
    curves=("train.loss", "validation.loss", "train.head_cosine", "train.head_repulsion"),
)
