"""When should repulsion begin, and does it part heads that have collapsed? From 0 to 75 % of training, and from equal heads.

Repulsive attention (An et al. 2020) on Multi30k at a reduced size; collapsed runs begin with heads that are equal but for noise of
a thousandth, with and without repulsion, and with each control.

    python -m experiments.launch --experiment=experiments/repulsive_begin.py --workdir=runs/repulsive_begin --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.repelled import ALSO, CONTROLS, REDUCED, TINY, look
from experiments.sweep import axis, chain, product

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=chain(
        [{}],
        product([{"particles": "svgd"}], axis("particles.begin", "0", "25 percent", "50 percent", "75 percent")),
        product([{"particles.collapsed": True}], [{}, {"particles": "svgd"}, *CONTROLS]),
    ),
    metric="test.bleu",
    also=ALSO,
    look=look,
    settings=REDUCED,
    tiny=TINY,
)
