"""Which kernel tells opinions from facts best? Dot product, RBF, and implicit kernels in a Transformer encoder, on SUBJ.

Two classes, a fold of 1,000 test sentences for each seed, no pre-trained vectors (Song et al. 2021 have text classification, too;
their numbers were not at hand). The table has the accuracies of classifiers that hardly read beside, see `data/baselines.py`.
Sentences have up to 120 tokens and 24 on average, so each run has batches of several shapes, and a process of its own.

    python -m experiments.launch --experiment=experiments/kernels_subj.py --workdir=runs/kernels_subj --jobs=2
"""

from experiments.ablation import Ablation
from experiments.kernels import KERNELS

ABLATION = Ablation(
    config="configs/classification.py:data=sentences,set=subj",
    cells=KERNELS,
    metric="test.accuracy",
    test_share=1000 / 8100,
    also=("test.macro_f1", "test.floor_bag_of_tokens"),
    tiny={"run.duration": "4 steps", "run.evaluate": "2 steps"},
    curves=("train.loss", "validation.accuracy"),
    pictures=("confusion.png",),
)
