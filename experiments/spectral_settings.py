"""Which of an implicit kernel's settings matter on CO2? Stationarity, positivity, magnitude, p, frequencies, and the copula.

A Transformer over rows (Song et al. 2021, "Implicit kernel attention", regression), by the clean protocol, one thing changed at a
time from frequencies as parameters. At the end, without a magnitude so that nothing else differs, heads that are not coupled, that
are coupled by a copula, and that are as it was published: noise that is not coupled and cut at ± 2, another cost, padding pooled
(`variants/implicit_kernel_authors.py`).

    python -m experiments.launch --experiment=experiments/spectral_settings.py --workdir=runs/spectral_settings \\
        --seeds=10 --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.peers import gaussian_process
from experiments.sweep import axis, chain, product

ABLATION = Ablation(
    config="configs/regression.py:data=bbq,set=co2,variant=implicit_kernel",
    cells=chain(
        [{}],
        axis("variant.stationary", True),
        axis("variant.positive", "shifted"),
        axis("variant.magnitude", "none"),
        axis("variant.p", 1.0, 1.5, 3.0),
        axis("variant.points", 8, 16, 256),
        axis("variant.mode", "sampled", "copula"),
        product([{"variant.magnitude": "none"}], axis("variant.mode", "sampled", "copula")),
        [{"variant": "implicit_kernel_authors", "variant.magnitude": "none", "variant.mode": "copula"}],
    ),
    metric="test.rmse",
    also=("test.effective_keys",),
    settings={"model.heads": 8},
    tiny={"run.duration": "6 steps", "run.evaluate": "3 steps"},
    test_share=53 / 427,
    peers={"Gaussian process, RBF": gaussian_process.rbf},
    curves=("train.loss", "validation.rmse"),
)
