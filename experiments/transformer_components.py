"""What do the scale 1/√d_k, the number of heads, d_k and depth do for a Transformer? The rows of the Transformer paper's table 3.

"Attention is all you need" (Vaswani et al. 2017), section 6.2: its base model on WMT14 En-De, varied one thing at a time, one run
each, BLEU on newstest2013. Here the `small` model on Multi30k De-En, five seeds each, BLEU on test_2016_flickr: other numbers,
whose differences are what can be compared. Rows (A) change the number of heads at equal width, (B) d_k alone, (C) depth and widths,
(D) dropout and label smoothing; and the paper's section 3.2.1 says why there is a scale, but has no run without.

    python -m experiments.launch --experiment=experiments/transformer_components.py --workdir=runs/components
"""

from experiments.ablation import Ablation
from experiments.sweep import axis, chain

ABLATION = Ablation(
    config="configs/translation.py:data=multi30k",
    cells=chain(
        [{}],
        axis("variant", "unscaled"),
        axis("model.heads", 1, 2, 8, 16),
        axis("model.key_size", 12, 24),
        axis("model.layers", 2, 6),
        axis("model.feed_forward", 256, 1024),
        axis("hypers.dropout", 0.0, 0.1),
        axis("hypers.label_smoothing", 0.0, 0.2),
    ),
    metric="test.bleu",
    settings={"model.heads": 4},  # of 48 numbers each, as 192 is not divided by more of 64
    tiny={"run.duration": "20 steps", "run.evaluate": "10 steps"},
    paper={
        "as configured": 25.8,
        "heads=1": 24.9,
        "heads=16": 25.8,
        "layers=2": 23.7,
        "dropout=0.0": 24.6,
        "label_smoothing=0.0": 25.3,
        "label_smoothing=0.2": 25.7,
    },
    source="Vaswani et al. 2017, table 3: BLEU on newstest2013 of their base model with that one setting, where they have it",
    curves=("train.loss", "validation.loss", "validation.bleu"),
)
