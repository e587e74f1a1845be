"""Is a learned kernel worth anything on concrete where nothing is chosen on test rows? Dot product, RBF, and implicit kernels.

A Transformer over rows (Song et al. 2021, "Implicit kernel attention", regression), on their file, by the clean protocol:
validation rows choose the epoch, test rows are touched once, ten splits that all cells share. Frequencies are parameters (direct),
sampled, or sampled with heads coupled by a copula. What the authors' own protocol says is in `authors_concrete`.

    python -m experiments.launch --experiment=experiments/kernels_concrete.py --workdir=runs/kernels_concrete \\
        --seeds=10 --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.kernels import KERNELS
from experiments.peers import gaussian_process

ABLATION = Ablation(
    config="configs/regression.py:data=bbq,set=concrete,variant=standard",
    cells=KERNELS,
    metric="test.rmse",
    settings={"model.heads": 4},
    tiny={"run.duration": "6 steps", "run.evaluate": "3 steps"},
    test_share=103 / 834,
    peers={"Gaussian process, RBF": gaussian_process.rbf},
    curves=("train.loss", "validation.rmse"),
)
