"""Do implicit kernels translate? Dot product, RBF, and spectral kernels in every attention of a Transformer, on dates.

Encoder, decoder and cross-attention (Song et al. 2021 have translation, too; their numbers were not at hand), after so few epochs
that there are differences to see. A decoder's own attention may not look ahead, so its sampled kernels are conditioned on nothing
(`variants/spectral_sampler.py`); rows hold one pair each, since a sampler reads whole sequences.

    python -m experiments.launch --experiment=experiments/kernels_dates.py --workdir=runs/kernels_dates --launcher=lanes
"""

from experiments.ablation import Ablation
from experiments.kernels import KERNELS

ABLATION = Ablation(
    config="configs/translation.py:data=dates",
    cells=KERNELS,
    metric="test.exact_match",
    settings={"task.packed": False, "task.max_padding": 1.0, "run.duration": "2 epochs"},
    tiny={"run.duration": "4 steps", "run.evaluate": "2 steps"},
    curves=("train.loss", "validation.exact_match"),
    pictures=("decoder_0_cross_attention.png",),
)
