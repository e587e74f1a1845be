"""Is attention's dot product more than its parts? RBF similarity with and without a magnitude, other kernels, against dot product.

A Transformer over the rows of a table (Song et al. 2021, "Implicit kernel attention", regression), on concrete with the field's
standard splits, one for each seed. An RBF similarity times the squared 2-norm is the dot product; what each part is worth is asked
here. The body of that paper was not at hand, so no number of it stands beside.

    python -m experiments.launch --experiment=experiments/similarity_and_magnitude.py --workdir=runs/parts --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.peers import gaussian_process
from experiments.sweep import axis, chain, product

RBF = [{"variant": "rbf"}]
ABLATION = Ablation(
    config="configs/regression.py:data=uci,set=concrete",
    cells=chain(
        [{"variant": "standard"}],
        product(RBF, axis("variant.magnitude", "none", "squared")),
        product(RBF, [{"variant.learn_width": True, "variant.per_head": True}]),
        product(RBF, [{"variant.magnitude": "squared", "variant.magnitude_dropout": 0.1}]),
        product(RBF, axis("variant.kernel", "laplace", "epanechnikov"), [{"variant.width": 2.0, "variant.learn_width": True}]),
    ),
    metric="test.rmse",
    tiny={"run.duration": "6 steps", "run.evaluate": "3 steps"},
    test_share=103 / 834,
    peers={"Gaussian process, RBF": gaussian_process.rbf},
    curves=("train.loss", "validation.rmse"),
)
