"""When should repulsion begin, and does it part heads that have collapsed? From 0 to 75 % of training, and from equal heads.

Repulsive attention (An et al. 2020) on Multi30k at a reduced size; collapsed runs begin with heads that are equal but for noise of
a thousandth, with and without repulsion; each with both controls.

    python -m experiments.launch --experiment=experiments/repulsive_begin.py --workdir=runs/repulsive_begin --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.repelled import ALONE, ALSO, REDUCED, SHARED, TINY, look
from experiments.sweep import axis, chain, product

# Of the gradient's own size: Adam, which remembers larger ones, would else stand still where repulsion begins. The control that
# only scales is then no repulsion at all.
OWN_SIZE = {"particles.stepsize": 1.0, "particles.rescale": True}
REPELLED = [way | OWN_SIZE for way in ({"particles": "svgd"}, ALONE, SHARED)]

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=chain(
        [{}],
        product(REPELLED, axis("particles.begin", "0", "25 percent", "50 percent", "75 percent")),
        product([{"particles.collapsed": True}], [{}, *REPELLED]),
    ),
    metric="test.bleu",
    also=ALSO,
    look=look,
    settings=REDUCED,
    tiny=TINY,
)
