"""What does repulsion do at the full size of Multi30k, to the model that the README trains? SVGD, SPOS and every control.

Repulsive attention (An et al. 2020) on Multi30k De-En with 4 + 4 layers of width 192, 12 epochs; `repulsive_methods` has the
reduced size, with seeds enough for a test.

    python -m experiments.launch --experiment=experiments/repulsive_full.py --workdir=runs/repulsive_full --seeds=1
"""

from experiments.ablation import Ablation
from experiments.repelled import ALSO, CONTROLS, TINY, look
from experiments.sweep import axis, chain

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=chain([{}], axis("particles", "svgd", "spos"), CONTROLS),
    metric="test.bleu",
    also=ALSO,
    look=look,
    tiny={"model.layers": 1, "model.width": 24} | TINY,
    curves=("train.loss", "validation.loss", "train.head_cosine", "train.head_repulsion"),
)
