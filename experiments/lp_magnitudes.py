"""What does p do? Magnitudes exp(‖k‖_p² / 2√d), the sparsity of the weights they make, and what they are worth.

"p controls the scale of the individual importance and the sparsity of the attention weights" (Song et al. 2021, abstract), on
concrete with the field's standard splits. `effective_keys` of results.json is 1 / Σ_j w_ij², mean over queries and heads: how many
keys a query really reads. p fixed at five values and learned, and no magnitude at all.

    python -m experiments.launch --experiment=experiments/lp_magnitudes.py --workdir=runs/lp --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.peers import gaussian_process
from experiments.sweep import axis, chain

ABLATION = Ablation(
    config="configs/regression.py:data=uci,set=concrete,variant=rbf",
    cells=chain(
        [{}],
        axis("variant.p", 1.0, 1.5, 3.0, 4.0),
        axis("variant.learn_p", True),
        axis("variant.magnitude", "none"),
        axis("variant.magnitude_dropout", 0.1),
    ),
    metric="test.rmse",
    also=("test.effective_keys",),
    settings={"variant.magnitude": "squared"},
    tiny={"run.duration": "6 steps", "run.evaluate": "3 steps"},
    test_share=103 / 834,
    peers={"Gaussian process, RBF": gaussian_process.rbf},
    curves=("train.loss", "validation.rmse"),
)
