"""How many heads are enough, and does repulsion make more of them worth having? 1 to 32 heads, with and without, on Multi30k.

Repulsive attention (An et al. 2020) at a reduced size, the width the same for all; one head has nobody to repel, so that its two
runs are the same. Under Adam the control that only scales is nearly the run without.

    python -m experiments.launch --experiment=experiments/repulsive_heads.py --workdir=runs/repulsive_heads
"""

from experiments.ablation import Ablation
from experiments.repelled import CONTROLS, REDUCED, TINY
from experiments.sweep import axis, product

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=product(axis("model.heads", 1, 2, 4, 8, 16, 32), [{}, {"particles": "svgd"}, *CONTROLS]),
    metric="test.bleu",
    settings={key: value for key, value in REDUCED.items() if key != "model.heads"},
    tiny=TINY,
)
