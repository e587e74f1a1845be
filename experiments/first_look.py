"""Do labels want smoothing and sublayers dropout, where pairs are clean and plenty? Dates, by a Transformer too small for them.

A first look at how this project compares things: three cells, five seeds each, a few minutes on two CPU cores. The Transformer
paper (Vaswani et al. 2017, section 5.4) uses both, at 0.1, on WMT; what they cost or give on dates nobody has reported.

    python -m experiments.launch --experiment=experiments/first_look.py --workdir=runs/first_look --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.sweep import axis, chain

ABLATION = Ablation(
    config="configs/translation.py:data=dates",
    cells=chain([{}], axis("hypers.dropout", 0.1), axis("hypers.label_smoothing", 0.1)),
    metric="test.exact_match",
    settings={
        "model.layers": 1,
        "model.width": 32,
        "model.feed_forward": 64,
        "run.duration": "2 epochs",
        "run.evaluate": "25 percent",
    },
    tiny={"run.duration": "20 steps", "run.evaluate": "10 steps"},
    curves=("train.loss", "validation.loss", "validation.exact_match"),
    pictures=("decoder_0_cross_attention.png",),
)
