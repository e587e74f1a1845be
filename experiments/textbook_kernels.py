"""Which kernel, and how wide? Nadaraya-Watson regression of the textbook's curve: y = 2 sin(x) + x + noise.

Attention as it began ("Dive into Deep Learning", Zhang et al. 2021, section 10.2, where widths are fixed and nothing is measured):
every kernel with a width learned by the leave-one-out error; the Gaussian one with widths fixed too narrow and too wide, set by
Silverman's rule, and adapted to each row. Every seed is another split of the same rows.

    python -m experiments.launch --experiment=experiments/textbook_kernels.py --workdir=runs/textbook_kernels --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.peers import gaussian_process
from experiments.sweep import axis, chain, product

FIXED = [{"variant.learn_width": False}]
ABLATION = Ablation(
    config="configs/regression.py:data=textbook,variant=kernel_pooling",
    cells=chain(
        [{}],
        axis("variant.kernel", "laplace", "epanechnikov", "triangular", "cosine"),
        product(FIXED, axis("variant.kernel", "boxcar", "constant")),
        product(FIXED, axis("variant.width", 0.03, 1.0)),
        product(FIXED, axis("variant.rule", "silverman", "abramson", "nearest"), [{"variant.width": 1.0}]),
        product(axis("variant.rule", "abramson", "nearest"), [{"variant.width": 1.0}]),
    ),
    metric="test.rmse",
    tiny={"run.duration": "20 steps", "run.evaluate": "10 steps"},
    test_share=20 / 162,
    peers={"Gaussian process, RBF": gaussian_process.rbf},
    curves=("train.loss", "validation.rmse"),
    pictures=("fit.png", "smoother.png"),
)
