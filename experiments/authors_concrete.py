"""What are dot product, RBF, magnitude and learned kernels worth on concrete, as the authors of the latter measure it?

Their protocol (Song et al. 2021, released code): all rows are one sequence, 90 % of them at random for training, ten repeats, and
the epoch that is best on the test rows, which flatters. Beside dot-product attention: an RBF similarity without and with their
magnitude, and their own code's kernels, with its faults: frequencies as parameters (IKAN-direct) and sampled (MIKAN), with twice
the heads of the others, as they have them.

    python -m experiments.launch --experiment=experiments/authors_concrete.py --workdir=runs/authors_concrete \\
        --seeds=10 --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.peers import gaussian_process
from experiments.sweep import axis, chain, product

ABLATION = Ablation(
    config="configs/regression.py:data=bbq,set=concrete,protocol=authors,variant=standard",
    cells=chain(
        [{}],
        product([{"variant": "rbf"}], axis("variant.magnitude", "none", "squared"), [{"variant.p": 3.0}]),
        [{"variant": "implicit_kernel_authors", "variant.mode": "direct", "variant.p": 2.0, "model.heads": 8}],
        [{"variant": "implicit_kernel_authors", "variant.mode": "copula", "variant.p": 1.8, "model.heads": 8}],
    ),
    metric="test.rmse_best",
    settings={"model.heads": 4},
    tiny={"run.duration": "6 steps"},
    paper={
        "as configured": 0.118,
        "variant=implicit_kernel_authors, mode=direct, p=2.0, heads=8": 0.1012,
        "variant=implicit_kernel_authors, mode=copula, p=1.8, heads=8": 0.1052,
    },
    source="not the paper's: its authors' code, run on the same files (2 repeats), lowest test error over epochs",
    test_share=1 / 9,
    peers={"Gaussian process, RBF; nothing chosen on test rows": gaussian_process.rbf},
    curves=("train.loss",),
)
