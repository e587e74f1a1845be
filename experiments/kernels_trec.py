"""Which kernel classifies questions best? Dot product, RBF, and implicit kernels in a Transformer encoder, on TREC.

Six classes, 500 test questions, no pre-trained vectors (Song et al. 2021 have text classification, too; their numbers were not at
hand). The table has the accuracies of classifiers that hardly read beside, see `data/baselines.py`. Each run has batches of several
shapes, and a process of its own: as lanes of one program they would have batches of one shape, three quarters of it padding.

    python -m experiments.launch --experiment=experiments/kernels_trec.py --workdir=runs/kernels_trec --jobs=2
"""

from experiments.ablation import Ablation
from experiments.kernels import KERNELS

ABLATION = Ablation(
    config="configs/classification.py:data=sentences,set=trec",
    cells=KERNELS,
    metric="test.accuracy",
    also=("test.macro_f1", "test.floor_bag_of_tokens"),
    tiny={"run.duration": "4 steps", "run.evaluate": "2 steps"},
    curves=("train.loss", "validation.accuracy"),
    pictures=("confusion.png",),
)
