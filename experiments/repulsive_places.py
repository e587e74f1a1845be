"""Where should heads repel each other: in the encoder, the decoder, between them, in the first layer or the last? On Multi30k.

Repulsive attention (An et al. 2020 have all layers for translation, the first alone for ELECTRA) at a reduced size, and the
projections one by one.

    python -m experiments.launch --experiment=experiments/repulsive_places.py --workdir=runs/repulsive_places --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.repelled import ALSO, CONTROLS, REDUCED, TINY, look
from experiments.sweep import axis, chain, product

PLACES = chain(
    [{}],
    axis("particles.attention", "encoder", "decoder", "cross"),
    axis("particles.layers", "0", "1"),
    axis("particles.projections", "query", "key", "value", "out"),
)
ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=chain([{}, *CONTROLS], product([{"particles": "svgd"}], PLACES)),
    metric="test.bleu",
    also=ALSO,
    look=look,
    settings=REDUCED,
    tiny=TINY,
)
