"""Do heads that repel each other classify questions better? Every method and every control, on TREC.

Repulsive attention (An et al. 2020 classify sentences with thirty attention hops over an LSTM; this is a Transformer encoder of
four heads, alpha 0.01 and stepsize 1 as theirs for the set Age). The columns `looks` say how alike heads are at the end.

    python -m experiments.launch --experiment=experiments/repulsive_trec.py --workdir=runs/repulsive_trec --jobs=2
"""

from experiments.ablation import Ablation
from experiments.repelled import ALSO, CONTROLS, ENERGY, OUTPUTS, look
from experiments.sweep import axis, chain

ABLATION = Ablation(
    config="configs/classification.py:data=sentences,set=trec",
    cells=chain([{}], axis("particles", "svgd", "spos"), [ENERGY], OUTPUTS, CONTROLS),
    metric="test.accuracy",
    also=ALSO,
    look=look,
    tiny={"run.duration": "4 steps", "run.evaluate": "2 steps"},
    curves=("train.loss", "validation.accuracy", "train.head_cosine"),
)
